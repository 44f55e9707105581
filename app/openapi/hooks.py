"""Operations of hooks besides those of every resource type: the rotation of a token, and the call of a hook."""

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
    """Return the success responses of a view of hooks; None for a view of every resource type."""
    if not issubclass(view, RotateHook):
        return None
    document = component_ref("HookDocument")
    return success_response(
        HTTPStatus.OK, "The hook has a new URL.", document, "ETag", "Vary", "Idempotent-Replayed", "Location"
    )


def build_call_operation(_view: Any) -> Json:
    """Return the operation that calls a hook: its body has parameters of the kind, its response the job."""
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
    """Return the schemas of the response to a call."""
    job: dict[str, Json] = {"id": TEXT, "state": component_ref("JobState"), "url": LINK}
    return {
        "HookCall": object_schema({"job": component_ref("HookCallJob")}, ["job"]),
        "HookCallJob": object_schema(job, job),
    }


def _job_response(status: HTTPStatus, description: str) -> Json:
    return success_response(
        status, description, component_ref("HookCall"), *JOB_RESPONSE_HEADERS, media_type="application/json"
    )


def _signature_parameter(header: str) -> Json:
    return {
        "name": header,
        "in": "header",
        "schema": TEXT,
        "description": "Required where the hook is signed (Standard Webhooks).",
    }
