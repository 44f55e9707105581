"""The operations of treatments that are not those of every resource: the relaunch, and what processors call."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from app import errors
from app.openapi.json_schema import TEXT, Json, object_of
from app.openapi.responses import answered, content, empty, headers_of, refusals
from app.processors.callbacks import TOKEN
from app.processors.serving import SIGNATURE as SIGNED
from app.processors.words import CALLBACK
from app.signatures import ID, SIGNATURE, TIMESTAMP
from app.treatments.resources import RelaunchTreatment

SUMMARIES: Mapping[type, Mapping[str, str]] = {RelaunchTreatment: {"POST": "Start the same {type} once more"}}

REFUSED = (
    errors.BadRequest,
    errors.Unauthenticated,
    errors.NotFound,
    errors.Conflict,
    errors.ContentTooLarge,
    errors.Unprocessable,
    errors.TooManyRequests,
    errors.Unavailable,
)


def described_callback(_view: Any) -> Json:
    """What a processor calls while it is at work."""
    said: dict[str, Json] = {"success": {"const": True}, "message": TEXT}
    answer = object_of(said, said)
    return {
        "summary": "Say what has become of a run, as its processor",
        "tags": ["processors"],
        "parameters": [
            {"name": TOKEN, "in": "query", "required": True, "schema": TEXT, "description": "Stands in notify_url."},
            *(_signed(name) for name in (ID, TIMESTAMP, SIGNATURE)),
        ],
        "requestBody": {"required": True, "content": content(CALLBACK, "application/json")},
        "responses": {
            **answered(HTTPStatus.OK, "It is stored, or was.", answer, media_type="application/json"),
            **refusals(REFUSED),
        },
    }


def described_document(_view: Any) -> Json:
    """What a processor fetches to work on."""
    whole: Json = {"description": "What the document holds.", "content": {"*/*": {}}, "headers": headers_of("ETag")}
    return {
        "summary": "Fetch one document of a run, as its processor",
        "tags": ["processors"],
        "parameters": [
            {"name": SIGNED, "in": "query", "required": True, "schema": TEXT, "description": "Stands in src."}
        ],
        "responses": {
            "200": whole,
            "206": {**whole, "description": "The part of an image that Range asked for."},
            **empty(HTTPStatus.NOT_MODIFIED, "It is as it was."),
            **refusals((errors.NotFound, errors.PreconditionFailed, errors.Unavailable)),
        },
    }


def _signed(header: str) -> Json:
    return {"name": header, "in": "header", "schema": TEXT, "description": "Of a signed callback: Standard Webhooks."}
