"""The operations of treatments that are not those of every resource: the relaunch, and requests of processors."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from app import errors
from app.openapi.json_schema import TEXT, Json, constant, object_of
from app.openapi.responses import BYTES, UNCHANGED, answered, content, empty, headers_of, refusals
from app.processors.callbacks import TOKEN
from app.processors.serving import SIGNATURE as SIGNED
from app.processors.words import CALLBACK
from app.signatures import ID, SIGNATURE, TIMESTAMP
from app.treatments.resources import RelaunchTreatment

WORDS: Mapping[type, Mapping[str, tuple[str, str]]] = {
    RelaunchTreatment: {"POST": ("Start {a_type} again", "relaunch{Type}")}
}

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
    """Return the callback of a processor about its run."""
    said: dict[str, Json] = {"success": constant(value=True), "message": TEXT}
    answer = object_of(said, said)
    return {
        "operationId": "reportRun",
        "summary": "Report the progress or the end of a run, as its processor",
        "tags": ["processors"],
        "parameters": [
            {
                "name": TOKEN,
                "in": "query",
                "required": True,
                "schema": TEXT,
                "description": "From `notify_url`.",
            },
            *(_signed(name) for name in (ID, TIMESTAMP, SIGNATURE)),
        ],
        "requestBody": {"required": True, "content": content(CALLBACK, "application/json")},
        "responses": {
            **answered(HTTPStatus.OK, "The callback is stored, or was before.", answer, media_type="application/json"),
            **refusals(REFUSED),
        },
    }


def described_document(_view: Any) -> Json:
    """Return the download of a document by a processor."""
    whole: Json = {"description": "The content of the document.", "content": BYTES, "headers": headers_of("ETag")}
    return {
        "operationId": "downloadDocument",
        "summary": "Download a document of a run, as its processor",
        "tags": ["processors"],
        "parameters": [{"name": SIGNED, "in": "query", "required": True, "schema": TEXT, "description": "From `src`."}],
        "responses": {
            "200": whole,
            "206": {**whole, "description": "The part of an image that `Range` asked for."},
            **empty(HTTPStatus.NOT_MODIFIED, UNCHANGED),
            **refusals((errors.NotFound, errors.PreconditionFailed, errors.Unavailable)),
        },
    }


def _signed(header: str) -> Json:
    return {
        "name": header,
        "in": "header",
        "schema": TEXT,
        "description": "Required where callbacks are signed (Standard Webhooks).",
    }
