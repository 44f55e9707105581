"""The operations of hooks that are not those of every resource: the rotation of a token, and the call."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from app import errors
from app.hooks.resources import RotateHook
from app.hooks.trigger_view import FORM_TYPE, PAYLOAD_FIELD
from app.jsonapi.base_view import View
from app.openapi.json_schema import LINK, TEXT, Json, component_ref, object_schema
from app.openapi.responses import error_responses, media_type_content, success_response
from app.webhook_signatures import ID, SIGNATURE, TIMESTAMP

OPERATION_NAMES: Mapping[type, Mapping[str, tuple[str, str]]] = {
    RotateHook: {"POST": ("Replace the URL of {a_type}", "rotate{Type}")}
}

JOB_RESPONSE_HEADERS = ("Location", "Content-Location", "Retry-After", "Idempotent-Replayed")
CALL_ERRORS = (
    errors.BadRequest,
    errors.Unauthenticated,
    errors.NotFound,
    errors.Conflict,
    errors.ContentTooLarge,
    errors.UnsupportedMediaType,
    errors.Unprocessable,
    errors.Unavailable,
)


def find_success_responses(view: type[View]) -> Json | None:
    """Return the answer of a view of hooks that succeeds; None for what every resource does."""
    if not issubclass(view, RotateHook):
        return None
    shown = component_ref("HookDocument")
    return success_response(
        HTTPStatus.OK, "The hook has a new URL.", shown, "ETag", "Vary", "Idempotent-Replayed", "Location"
    )


def build_call_operation(_view: Any) -> Json:
    """Return the call of a hook: a body with parameters of its kind, and the job that it starts."""
    return {
        "operationId": "callHook",
        "summary": "Call a hook by the token in its URL",
        "description": f"A form ({FORM_TYPE}) with the parameters as JSON in `{PAYLOAD_FIELD}` is accepted too.",
        "tags": ["hooks"],
        "parameters": [
            component_ref("IdempotencyKey", "parameters"),
            *(_signature_parameter(name) for name in (ID, TIMESTAMP, SIGNATURE)),
        ],
        "requestBody": {"required": False, "content": media_type_content({"type": "object"}, "application/json")},
        "responses": {
            **_job_response(HTTPStatus.ACCEPTED, "A job was started, or the same one is active."),
            **_job_response(HTTPStatus.OK, "A job with the same parameters has succeeded before."),
            **error_responses(CALL_ERRORS),
        },
    }


def build_call_schemas() -> dict[str, Json]:
    """Return the schemas of the answer to a call."""
    job: dict[str, Json] = {"id": TEXT, "state": component_ref("JobState"), "url": LINK}
    return {
        "HookCall": object_schema({"job": component_ref("HookCallJob")}, ["job"]),
        "HookCallJob": object_schema(job, job),
    }


def _job_response(status: HTTPStatus, words: str) -> Json:
    return success_response(
        status, words, component_ref("HookCall"), *JOB_RESPONSE_HEADERS, media_type="application/json"
    )


def _signature_parameter(header: str) -> Json:
    return {
        "name": header,
        "in": "header",
        "schema": TEXT,
        "description": "Required where the hook is signed (Standard Webhooks).",
    }
