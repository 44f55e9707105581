"""Operations of treatments besides those of every resource type: the relaunch, and requests of processors."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from app import errors
from app.openapi.json_schema import TEXT, Json, const_schema, object_schema
from app.openapi.responses import (
    BINARY_CONTENT,
    NOT_MODIFIED_DESCRIPTION,
    empty_response,
    error_responses,
    header_refs,
    media_type_content,
    success_response,
)
from app.processors.callback_schema import CALLBACK_SCHEMA
from app.processors.callbacks import TOKEN_PARAMETER
from app.processors.document_view import SIGNATURE_PARAMETER as SIGNED
from app.treatments.resources import RelaunchTreatment
from app.webhook_signatures import ID, SIGNATURE, TIMESTAMP

OPERATION_NAMES: Mapping[type, Mapping[str, tuple[str, str]]] = {
    RelaunchTreatment: {"POST": ("Start {a_type} again", "relaunch{Type}")}
}

CALLBACK_ERRORS = (
    errors.BadRequest,
    errors.Unauthenticated,
    errors.NotFound,
    errors.Conflict,
    errors.ContentTooLarge,
    errors.Unprocessable,
    errors.TooManyRequests,
    errors.Unavailable,
)


def build_callback_operation(_view: Any) -> Json:
    """Return the operation of a callback of a processor about its run."""
    members: dict[str, Json] = {"success": const_schema(value=True), "message": TEXT}
    response = object_schema(members, members)
    return {
        "operationId": "reportRun",
        "summary": "Report the progress or the end of a run, as its processor",
        "tags": ["processors"],
        "parameters": [
            {
                "name": TOKEN_PARAMETER,
                "in": "query",
                "required": True,
                "schema": TEXT,
                "description": "From `notify_url`.",
            },
            *(_signature_parameter(name) for name in (ID, TIMESTAMP, SIGNATURE)),
        ],
        "requestBody": {"required": True, "content": media_type_content(CALLBACK_SCHEMA, "application/json")},
        "responses": {
            **success_response(
                HTTPStatus.OK, "The callback is stored, or was before.", response, media_type="application/json"
            ),
            **error_responses(CALLBACK_ERRORS),
        },
    }


def build_document_operation(_view: Any) -> Json:
    """Return the operation that downloads a document for a processor."""
    whole: Json = {
        "description": "The content of the document.",
        "content": BINARY_CONTENT,
        "headers": header_refs("ETag"),
    }
    return {
        "operationId": "downloadDocument",
        "summary": "Download a document of a run, as its processor",
        "tags": ["processors"],
        "parameters": [{"name": SIGNED, "in": "query", "required": True, "schema": TEXT, "description": "From `src`."}],
        "responses": {
            "200": whole,
            "206": {**whole, "description": "The part of an image that `Range` requests."},
            **empty_response(HTTPStatus.NOT_MODIFIED, NOT_MODIFIED_DESCRIPTION),
            **error_responses((errors.NotFound, errors.PreconditionFailed, errors.Unavailable)),
        },
    }


def _signature_parameter(header: str) -> Json:
    return {
        "name": header,
        "in": "header",
        "schema": TEXT,
        "description": "Required where callbacks are signed (Standard Webhooks).",
    }
