"""The operations of hooks that are not those of every resource: the rotation of a token, and the call."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from app import errors
from app.hooks.receiving import FORM, PAYLOAD
from app.hooks.resources import RotateHook
from app.jsonapi.view import View
from app.openapi.json_schema import LINK, TEXT, Json, object_of, reference
from app.openapi.responses import answered, content, refusals
from app.signatures import ID, SIGNATURE, TIMESTAMP

WORDS: Mapping[type, Mapping[str, tuple[str, str]]] = {
    RotateHook: {"POST": ("Replace the URL of {a_type}", "rotate{Type}")}
}

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
    """Return the answer of a view of hooks that succeeds; None for what every resource does."""
    if not issubclass(view, RotateHook):
        return None
    shown = reference("HookDocument")
    return answered(HTTPStatus.OK, "The hook has a new URL.", shown, "ETag", "Vary", "Idempotent-Replayed", "Location")


def described_call(_view: Any) -> Json:
    """Return the call of a hook: a body with parameters of its kind, and the job that it starts."""
    return {
        "operationId": "callHook",
        "summary": "Call a hook by the token in its URL",
        "description": f"A form ({FORM}) with the parameters as JSON in its field `{PAYLOAD}` is accepted too.",
        "tags": ["hooks"],
        "parameters": [
            reference("IdempotencyKey", "parameters"),
            *(_signed(name) for name in (ID, TIMESTAMP, SIGNATURE)),
        ],
        "requestBody": {"required": False, "content": content({"type": "object"}, "application/json")},
        "responses": {
            **_started(HTTPStatus.ACCEPTED, "A job was started, or the same one is active."),
            **_started(HTTPStatus.OK, "A job with the same parameters has succeeded before."),
            **refusals(REFUSED),
        },
    }


def hook_answers() -> dict[str, Json]:
    """Return the schemas of the answer to a call."""
    job: dict[str, Json] = {"id": TEXT, "state": reference("JobState"), "url": LINK}
    return {"HookCall": object_of({"job": reference("HookCallJob")}, ["job"]), "HookCallJob": object_of(job, job)}


def _started(status: HTTPStatus, words: str) -> Json:
    return answered(status, words, reference("HookCall"), *STARTED, media_type="application/json")


def _signed(header: str) -> Json:
    return {
        "name": header,
        "in": "header",
        "schema": TEXT,
        "description": "Required where the hook is signed (Standard Webhooks).",
    }
