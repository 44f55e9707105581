"""Responses with their headers, and error responses by status from app/errors.py."""

from collections.abc import Iterable
from http import HTTPStatus

from app import errors
from app.errors import MEDIA_TYPE, ApiError
from app.jsonapi.atomic_operations import EXTENSION
from app.logs import REQUEST_ID_HEADER
from app.openapi.json_schema import Json, component_ref

ATOMIC_MEDIA_TYPE = f'{MEDIA_TYPE}; ext="{EXTENSION}"'

HEADER_DESCRIPTIONS = {
    "ETag": "A hash of this response, which depends on the URL and the user.",
    "Vary": "The request headers that the response depends on.",
    "Location": "The URL of the new resource.",
    "Content-Location": "The URL of the resource in the response.",
    "Idempotent-Replayed": "`true` where this is the response to an earlier request with the same Idempotency-Key.",
    "Retry-After": "Seconds to wait before the next request.",
    "WWW-Authenticate": "The accepted schemes of authentication.",
    REQUEST_ID_HEADER: "The id of the request, which is in the log too.",
}

NOT_MODIFIED_DESCRIPTION = "Not modified: the client has the current version."

BINARY_CONTENT: Json = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}, "*/*": {}}
"""Content of any media type; client generators need a named one too."""

ERROR_HEADERS = {errors.Unauthenticated: ("WWW-Authenticate",), errors.Unavailable: ("Retry-After",)}
"""Headers of error responses; 429 may be without Retry-After."""

READ_ERRORS = (
    errors.BadRequest,
    errors.Unauthenticated,
    errors.Forbidden,
    errors.NotFound,
    errors.NotAcceptable,
    errors.PreconditionFailed,
    errors.UnsupportedMediaType,
    errors.Unavailable,
)
"""Errors of every request to a JSON:API view."""

WRITE_ERRORS = (*READ_ERRORS, errors.Conflict, errors.ContentTooLarge, errors.Unprocessable)
CREATE_ERRORS = (*WRITE_ERRORS, errors.TooManyRequests)


def build_headers() -> dict[str, Json]:
    """Return the components of response headers."""
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in HEADER_DESCRIPTIONS.items()}


def build_error_responses() -> dict[str, Json]:
    """Return the response of each error class, described by its docstring."""
    kinds: dict[str, type[ApiError]] = {each.__name__: each for each in ApiError.__subclasses__()}
    return {
        name: {
            "description": str(kind.__doc__),
            "headers": header_refs(*ERROR_HEADERS.get(kind, ())),
            "content": media_type_content(component_ref("ErrorDocument")),
        }
        for name, kind in kinds.items()
    }


def error_responses(kinds: Iterable[type[ApiError]]) -> dict[str, Json]:
    """Return references to the responses of these errors, by status."""
    return {str(kind.http_status.value): component_ref(kind.__name__, "responses") for kind in kinds}


def success_response(
    status: HTTPStatus, description: str, schema: Json, *headers: str, media_type: str = MEDIA_TYPE
) -> Json:
    """Return the success response of an operation, by its status."""
    body = {"content": media_type_content(schema, media_type), "headers": header_refs(*headers)}
    return {str(status.value): {"description": description, **body}}


def empty_response(status: HTTPStatus, description: str) -> Json:
    """Return a response without a body, by its status."""
    return {str(status.value): {"description": description, "headers": header_refs()}}


def media_type_content(schema: Json, *media_types: str) -> Json:
    """Return the content of a body in these media types; the default is JSON:API."""
    return {media_type: {"schema": schema} for media_type in media_types or (MEDIA_TYPE,)}


def header_refs(*names: str) -> Json:
    """Return references to headers; every response has the id of its request."""
    return {name: component_ref(name, "headers") for name in (*names, REQUEST_ID_HEADER)}
