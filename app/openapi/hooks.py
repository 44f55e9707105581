"""The operations of hooks that are not those of every resource: the rotation of a token, and the call."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from app import errors
from app.hooks.receiving import FORM, PAYLOAD
from app.hooks.resources import RotateHook
from app.jobs.models import STATES
from app.jsonapi.negotiation import JSON_TYPES
from app.jsonapi.view import View
from app.openapi.json_schema import LINK, TEXT, Json, object_of, reference
from app.openapi.responses import answered, content, refusals
from app.signatures import ID, SIGNATURE, TIMESTAMP

SUMMARIES: Mapping[type, Mapping[str, str]] = {RotateHook: {"POST": "Give one {type} another URL"}}

STARTED = ("Location", "Content-Location", "Retry-After", "Idempotent-Replayed")
REFUSED = (
    errors.BadRequest,
    errors.Unauthenticated,
    errors.NotFound,
    errors.Conflict,
    errors.ContentTooLarge,
    errors.UnsupportedMediaType,
    errors.Unprocessable,
    errors.Unavailable,
)


def success(view: type[View]) -> Json | None:
    """The answer of a view of hooks that succeeds; None for what every resource does."""
    if not issubclass(view, RotateHook):
        return None
    shown = reference("HookDocument")
    return answered(HTTPStatus.OK, "It has a new URL.", shown, "ETag", "Vary", "Idempotent-Replayed", "Location")


def described_call(_view: Any) -> Json:
    """A call: anything that the kind takes, and the job that follows."""
    job: dict[str, Json] = {"id": TEXT, "state": {"enum": list(STATES)}, "url": LINK}
    answer = object_of({"job": object_of(job, job)}, ["job"])
    return {
        "summary": "Call one hook by the token in its URL",
        "tags": ["hooks"],
        "parameters": [
            reference("IdempotencyKey", "parameters"),
            *(_signed(name) for name in (ID, TIMESTAMP, SIGNATURE)),
        ],
        "requestBody": {"required": False, "content": _body()},
        "responses": {
            **answered(HTTPStatus.ACCEPTED, "A job does it.", answer, *STARTED, media_type="application/json"),
            **answered(HTTPStatus.OK, "It was done before.", answer, *STARTED, media_type="application/json"),
            **refusals(REFUSED),
        },
    }


def _body() -> Json:
    """The parameters, as JSON or as the field of a form."""
    form = object_of({PAYLOAD: {**TEXT, "description": "The parameters as JSON."}}, [PAYLOAD])
    return {**content({"type": "object"}, *JSON_TYPES), **content(form, FORM)}


def _signed(header: str) -> Json:
    return {"name": header, "in": "header", "schema": TEXT, "description": "Of a signed hook: Standard Webhooks."}
