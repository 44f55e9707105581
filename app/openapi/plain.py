"""The operations that are not JSON:API: accounts, images, health and the description itself."""

from collections.abc import Mapping
from http import HTTPStatus
from inspect import cleandoc
from typing import Any

from app import errors
from app.jsonapi.negotiation import JSON_TYPES
from app.openapi.json_schema import TEXT, Json, object_of, reference
from app.openapi.responses import answered, content, empty, refusals

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
"""What may become of a form."""


def plain_answers() -> dict[str, Json]:
    """What /health-check says, and /readyz, in the words of py-healthcheck."""
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
        "status": {"enum": ["success", "failure"]},
        "timestamp": seconds,
        "results": {"type": "array", "items": object_of(result, result)},
        "response_time": seconds,
    }
    return {"HealthReport": object_of(report, report), "Alive": object_of({"status": {"const": "success"}}, ["status"])}


def described_account(view: Any) -> Json:
    """A route of accounts: its form, its answer."""
    takes: Mapping[str, Json] | None = view.takes
    gives: Mapping[str, type] = view.gives
    answer = object_of({name: TYPES[kind] for name, kind in gives.items()}, gives)
    refused = (*(REFUSED if takes else ()), errors.Unauthenticated, errors.Unavailable)
    described = {
        **_words(view),
        "tags": ["auth"],
        "responses": {
            **answered(HTTPStatus.OK, "The answer.", answer, media_type=JSON),
            **refusals(refused),
        },
    }
    return {**described, "requestBody": _form(takes)} if takes else described


def described_image(view: Any) -> Json:
    """A route that takes an image, or tells what became of one; 202 where that is made in the background."""
    takes: Mapping[str, Json] | None = view.takes
    status: HTTPStatus = view.status
    headers = ("Location", "Retry-After") if status is HTTPStatus.ACCEPTED else ()
    refused = REFUSED if takes else (errors.NotFound,)
    keyed = {"parameters": [reference("IdempotencyKey", "parameters")]} if hasattr(view, "keyed_methods") else {}
    described = {
        **_words(view),
        "tags": ["images"],
        **keyed,
        "responses": {
            **answered(status, "The answer.", view.gives, *headers, media_type=JSON),
            **refusals((*refused, errors.Unauthenticated, errors.Unavailable)),
        },
    }
    bodies = {media_type: {"schema": schema} for media_type, schema in (takes or {}).items()}
    return {**described, "requestBody": {"required": True, "content": bodies}} if takes else described


def described_health(view: Any, schema: str) -> Json:
    """A probe: 200 or 503, the same body."""
    responses = answered(HTTPStatus.OK, "All is well.", reference(schema), media_type=JSON)
    if schema == "HealthReport":
        unwell = reference(schema)
        responses |= answered(HTTPStatus.SERVICE_UNAVAILABLE, "Something is not.", unwell, media_type=JSON)
    return {**_words(view), "tags": ["health"], "responses": responses}


def described_description(view: Any) -> Json:
    """/openapi.json itself."""
    schema = object_of({"openapi": TEXT}, ["openapi"])
    return {
        **_words(view),
        "tags": ["description"],
        "parameters": [reference("IfNoneMatch", "parameters")],
        "responses": {
            **answered(HTTPStatus.OK, "The description.", schema, "ETag", media_type=JSON),
            **empty(HTTPStatus.NOT_MODIFIED, "It is as it was."),
        },
    }


def _form(takes: Mapping[str, Json]) -> Json:
    """The members of a form, on their own or inside `data`; dashes may be underscores."""
    form = object_of(takes, takes)
    wrapped = object_of({"data": form}, ["data"])
    return {"required": True, "content": content({"anyOf": [form, wrapped]}, *JSON_TYPES)}


def _words(view: Any) -> Json:
    summary, _, more = cleandoc(view.__doc__ or "").partition("\n")
    return {"summary": summary.rstrip("."), **({"description": more.strip()} if more else {})}
