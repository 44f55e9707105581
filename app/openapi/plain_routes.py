"""Operations that are not JSON:API: accounts, images, health and the OpenAPI document."""

from collections.abc import Mapping
from http import HTTPStatus
from inspect import cleandoc
from typing import Any

from app import errors
from app.errors import MEDIA_TYPE
from app.openapi.json_schema import TEXT, Json, array_schema, component_ref, enum_schema, object_schema
from app.openapi.responses import (
    NOT_MODIFIED_DESCRIPTION,
    empty_response,
    error_responses,
    media_type_content,
    success_response,
)

JSON_MEDIA_TYPE = "application/json"
TYPE_SCHEMAS: Mapping[type, Json] = {str: TEXT, int: {"type": "integer"}, bool: {"type": "boolean"}}
FORM_ERRORS = (
    errors.BadRequest,
    errors.Conflict,
    errors.ContentTooLarge,
    errors.UnsupportedMediaType,
    errors.Unprocessable,
    errors.TooManyRequests,
)
"""Errors of a request with a form."""

OPERATION_IDS = {
    "accounts.log_in": "logIn",
    "accounts.refresh": "refreshTokens",
    "accounts.log_out": "logOut",
    "accounts.change_password": "changePassword",
    "accounts.verify_email": "verifyEmail",
    "accounts.resend_verification_email": "resendVerificationEmail",
    "accounts.order_reset": "requestPasswordReset",
    "accounts.reset_password": "resetPassword",
    "accounts.check_email": "checkEmail",
    "accounts.get_user_id": "getUserId",
    "health.live": "getLiveness",
    "health.ready": "getReadiness",
    "health.check": "getHealth",
    "openapi.show": "getOpenapi",
    "resize.resize": "resizeImage",
    "resize.show": "getResizedImage",
    "uploads.upload": "uploadImage",
}
"""OperationIds of plain routes by endpoint."""

OPERATION_IDS_BY_PATH = {"/auth/session": "createSession"}
"""OperationIds of paths that are aliases of another one."""


def build_health_schemas() -> dict[str, Json]:
    """Return the schemas of the responses of /health-check, /readyz and /livez."""
    seconds: Json = {"type": "number"}
    result: dict[str, Json] = {
        "checker": TEXT,
        "output": TEXT,
        "passed": {"type": "boolean"},
        "timestamp": seconds,
        "expires": seconds,
        "response_time": seconds,
    }
    report: dict[str, Json] = {
        "hostname": TEXT,
        "status": enum_schema(["success", "failure"]),
        "timestamp": seconds,
        "results": array_schema(component_ref("HealthResult")),
        "response_time": seconds,
    }
    return {
        "HealthReport": object_schema(report, report),
        "HealthResult": object_schema(result, result),
        "Alive": object_schema({"status": enum_schema(["success", "failure"]), "output": TEXT}, ["status"]),
    }


def build_account_operation(view: Any) -> Json:
    """Return the operation of a route of accounts, with its form and response."""
    takes: Mapping[str, Json] | None = view.takes
    gives: Mapping[str, type] = view.gives
    response = object_schema({name: TYPE_SCHEMAS[kind] for name, kind in gives.items()}, gives)
    error_classes = (*(FORM_ERRORS if takes else ()), errors.Unauthenticated, errors.Unavailable)
    described = {
        **_summarize_view(view),
        "tags": ["auth"],
        "responses": {
            **success_response(HTTPStatus.OK, "Success.", response, media_type=JSON_MEDIA_TYPE),
            **error_responses(error_classes),
        },
    }
    return {**described, "requestBody": _form_body(takes, view.optional)} if takes else described


def build_image_operation(view: Any) -> Json:
    """Return the operation of a route that accepts an image, or returns its state; 202 if a job makes it."""
    takes: Mapping[str, Json] | None = view.takes
    status: HTTPStatus = view.status
    headers = ("Location", "Retry-After") if status is HTTPStatus.ACCEPTED else ()
    error_classes = FORM_ERRORS if takes else (errors.NotFound,)
    storage_errors = (errors.InsufficientStorage,) if takes else ()
    keyed = {"parameters": [component_ref("IdempotencyKey", "parameters")]} if hasattr(view, "keyed_methods") else {}
    described = {
        **_summarize_view(view),
        "tags": ["images"],
        **keyed,
        "responses": {
            **success_response(status, "Success.", view.gives, *headers, media_type=JSON_MEDIA_TYPE),
            **error_responses((*error_classes, *storage_errors, errors.Unauthenticated, errors.Unavailable)),
        },
    }
    # Without the JSON:API type, which is equivalent: client generators turn two JSON bodies into two methods or models.
    bodies = {
        media_type: {"schema": schema} for media_type, schema in (takes or {}).items() if media_type != MEDIA_TYPE
    }
    return {**described, "requestBody": {"required": True, "content": bodies}} if takes else described


def build_health_operation(view: Any, schema: str) -> Json:
    """Return the operation of a probe: 200 or 503, with the same body."""
    responses = success_response(
        HTTPStatus.OK, "Every check passed.", component_ref(schema), media_type=JSON_MEDIA_TYPE
    )
    failed = success_response(
        HTTPStatus.SERVICE_UNAVAILABLE, "A check failed.", component_ref(schema), media_type=JSON_MEDIA_TYPE
    )
    responses |= failed
    return {**_summarize_view(view), "tags": ["health"], "responses": responses}


def build_entry_operation(view: Any) -> Json:
    """Return the operation of /v1: links to all collections, and the version of the server."""
    texts: Json = {"type": "object", "additionalProperties": TEXT}
    members: Json = {"jsonapi": component_ref("JsonApi"), "meta": texts, "links": texts}
    return {
        **_summarize_view(view),
        "tags": ["description"],
        "parameters": [component_ref("IfNoneMatch", "parameters")],
        "responses": {
            **success_response(HTTPStatus.OK, "The entry document.", object_schema(members, members), "ETag"),
            **empty_response(HTTPStatus.NOT_MODIFIED, NOT_MODIFIED_DESCRIPTION),
            **error_responses((errors.BadRequest, errors.NotAcceptable)),
        },
    }


def build_openapi_operation(view: Any) -> Json:
    """Return the operation of the OpenAPI document."""
    schema = object_schema({"openapi": TEXT}, ["openapi"])
    return {
        **_summarize_view(view),
        "tags": ["description"],
        "parameters": [component_ref("IfNoneMatch", "parameters")],
        "responses": {
            **success_response(HTTPStatus.OK, "The OpenAPI document.", schema, "ETag", media_type=JSON_MEDIA_TYPE),
            **empty_response(HTTPStatus.NOT_MODIFIED, NOT_MODIFIED_DESCRIPTION),
        },
    }


def _form_body(takes: Mapping[str, Json], optional: Mapping[str, Json]) -> Json:
    """Return the body with the members of a form, at the top level or inside `data`."""
    form = object_schema({**takes, **optional}, takes)
    wrapped = object_schema({"data": form}, ["data"])
    return {"required": True, "content": media_type_content({"oneOf": [form, wrapped]}, JSON_MEDIA_TYPE)}


def _summarize_view(view: Any) -> Json:
    summary, _, more = cleandoc(view.__doc__ or "").partition("\n")
    return {"summary": summary.rstrip("."), **({"description": more.strip()} if more else {})}
