"""Answers: documents with their headers, and the errors of app.errors by their status."""

from collections.abc import Iterable
from http import HTTPStatus

from app import errors
from app.errors import MEDIA_TYPE, ApiError
from app.jsonapi.operations import EXTENSION
from app.logs import REQUEST_ID
from app.openapi.json_schema import Json, reference

EXTENDED = f'{MEDIA_TYPE}; ext="{EXTENSION}"'

HEADERS = {
    "ETag": "A hash of this answer, which depends on the URL and the caller.",
    "Vary": "The request headers that the answer depends on.",
    "Location": "The URL of the new resource.",
    "Content-Location": "The URL of the resource that the answer shows.",
    "Idempotent-Replayed": "`true` where this is the answer to an earlier request with the same Idempotency-Key.",
    "Retry-After": "Seconds to wait before the next request.",
    "WWW-Authenticate": "The accepted schemes of authentication.",
    REQUEST_ID: "The id of the request, which is in the log too.",
}

UNCHANGED = "Not modified: the client has this state."

BYTES: Json = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}, "*/*": {}}
"""Content of any media type; generators need one that they know."""

OF_ERRORS = {errors.Unauthenticated: ("WWW-Authenticate",), errors.Unavailable: ("Retry-After",)}
"""Headers of the answers to errors; 429 may come without Retry-After."""

ALWAYS = (
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

WRITING = (*ALWAYS, errors.Conflict, errors.ContentTooLarge, errors.Unprocessable)
CREATING = (*WRITING, errors.TooManyRequests)


def shared_headers() -> dict[str, Json]:
    """Return the headers of answers."""
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in HEADERS.items()}


def shared_responses() -> dict[str, Json]:
    """Return one answer for each kind of error, described by the docstring of the error."""
    kinds: dict[str, type[ApiError]] = {each.__name__: each for each in ApiError.__subclasses__()}
    return {
        name: {
            "description": str(kind.__doc__),
            "headers": headers_of(*OF_ERRORS.get(kind, ())),
            "content": content(reference("ErrorDocument")),
        }
        for name, kind in kinds.items()
    }


def refusals(kinds: Iterable[type[ApiError]]) -> dict[str, Json]:
    """Return the answers of an operation that can fail in these ways."""
    return {str(kind.http_status.value): reference(kind.__name__, "responses") for kind in kinds}


def answered(status: HTTPStatus, description: str, schema: Json, *headers: str, media_type: str = MEDIA_TYPE) -> Json:
    """Return the answer of an operation that succeeds, by its status."""
    body = {"content": content(schema, media_type), "headers": headers_of(*headers)}
    return {str(status.value): {"description": description, **body}}


def empty(status: HTTPStatus, description: str) -> Json:
    """Return an answer without a body."""
    return {str(status.value): {"description": description, "headers": headers_of()}}


def content(schema: Json, *media_types: str) -> Json:
    """Return a body in one of these media types."""
    return {media_type: {"schema": schema} for media_type in media_types or (MEDIA_TYPE,)}


def headers_of(*names: str) -> Json:
    """Return references to headers; every answer has the id of its request."""
    return {name: reference(name, "headers") for name in (*names, REQUEST_ID)}
