"""The operations that are not JSON:API: accounts, images, health and the description itself."""

from collections.abc import Mapping
from http import HTTPStatus
from inspect import cleandoc
from typing import Any

from app import errors
from app.errors import MEDIA_TYPE
from app.openapi.json_schema import TEXT, Json, array_of, choice, object_of, reference
from app.openapi.responses import UNCHANGED, answered, content, empty, refusals

JSON = "application/json"
TYPES: Mapping[type, Json] = {str: TEXT, int: {"type": "integer"}, bool: {"type": "boolean"}}
REFUSED = (
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
"""The operationIds of plain routes by their endpoints."""

ALIASES = {"/auth/session": "createSession"}
"""The operationIds of paths that answer as another one does."""


def plain_answers() -> dict[str, Json]:
    """Return the schemas of the answers of /health-check, /readyz and /livez."""
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
        "status": choice(["success", "failure"]),
        "timestamp": seconds,
        "results": array_of(reference("HealthResult")),
        "response_time": seconds,
    }
    return {
        "HealthReport": object_of(report, report),
        "HealthResult": object_of(result, result),
        "Alive": object_of({"status": choice(["success", "failure"]), "output": TEXT}, ["status"]),
    }


def described_account(view: Any) -> Json:
    """Return a route of accounts: its form, its answer."""
    takes: Mapping[str, Json] | None = view.takes
    gives: Mapping[str, type] = view.gives
    answer = object_of({name: TYPES[kind] for name, kind in gives.items()}, gives)
    refused = (*(REFUSED if takes else ()), errors.Unauthenticated, errors.Unavailable)
    described = {
        **_words(view),
        "tags": ["auth"],
        "responses": {
            **answered(HTTPStatus.OK, "Success.", answer, media_type=JSON),
            **refusals(refused),
        },
    }
    return {**described, "requestBody": _form(takes, view.optional)} if takes else described


def described_image(view: Any) -> Json:
    """Return a route that takes an image, or answers with its state; 202 where it is made in the background."""
    takes: Mapping[str, Json] | None = view.takes
    status: HTTPStatus = view.status
    headers = ("Location", "Retry-After") if status is HTTPStatus.ACCEPTED else ()
    refused = REFUSED if takes else (errors.NotFound,)
    full = (errors.InsufficientStorage,) if takes else ()
    keyed = {"parameters": [reference("IdempotencyKey", "parameters")]} if hasattr(view, "keyed_methods") else {}
    described = {
        **_words(view),
        "tags": ["images"],
        **keyed,
        "responses": {
            **answered(status, "Success.", view.gives, *headers, media_type=JSON),
            **refusals((*refused, *full, errors.Unauthenticated, errors.Unavailable)),
        },
    }
    # Without the JSON:API type, which means the same here: of two JSON bodies generators make two methods or models.
    bodies = {
        media_type: {"schema": schema} for media_type, schema in (takes or {}).items() if media_type != MEDIA_TYPE
    }
    return {**described, "requestBody": {"required": True, "content": bodies}} if takes else described


def described_health(view: Any, schema: str) -> Json:
    """Return a probe: 200 or 503, with the same body."""
    responses = answered(HTTPStatus.OK, "Every check passed.", reference(schema), media_type=JSON)
    failed = answered(HTTPStatus.SERVICE_UNAVAILABLE, "A check failed.", reference(schema), media_type=JSON)
    responses |= failed
    return {**_words(view), "tags": ["health"], "responses": responses}


def described_entry(view: Any) -> Json:
    """Describe /v1: links to every collection, and the version of the server."""
    texts: Json = {"type": "object", "additionalProperties": TEXT}
    members: Json = {"jsonapi": reference("JsonApi"), "meta": texts, "links": texts}
    return {
        **_words(view),
        "tags": ["description"],
        "parameters": [reference("IfNoneMatch", "parameters")],
        "responses": {
            **answered(HTTPStatus.OK, "The entry document.", object_of(members, members), "ETag"),
            **empty(HTTPStatus.NOT_MODIFIED, "It is as it was."),
            **refusals((errors.BadRequest, errors.NotAcceptable)),
        },
    }


def described_description(view: Any) -> Json:
    """Return the route of the description itself."""
    schema = object_of({"openapi": TEXT}, ["openapi"])
    return {
        **_words(view),
        "tags": ["description"],
        "parameters": [reference("IfNoneMatch", "parameters")],
        "responses": {
            **answered(HTTPStatus.OK, "The OpenAPI document.", schema, "ETag", media_type=JSON),
            **empty(HTTPStatus.NOT_MODIFIED, UNCHANGED),
        },
    }


def _form(takes: Mapping[str, Json], optional: Mapping[str, Json]) -> Json:
    """Return the body with the members of a form, on their own or inside `data`."""
    form = object_of({**takes, **optional}, takes)
    wrapped = object_of({"data": form}, ["data"])
    return {"required": True, "content": content({"oneOf": [form, wrapped]}, JSON)}


def _words(view: Any) -> Json:
    summary, _, more = cleandoc(view.__doc__ or "").partition("\n")
    return {"summary": summary.rstrip("."), **({"description": more.strip()} if more else {})}
