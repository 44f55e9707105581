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
    "ETag": "A hash of the bytes of this answer, which differ by URL and caller.",
    "Vary": "What of the request shaped the answer.",
    "Location": "The URL of the new resource.",
    "Content-Location": "The same, where the answer shows its present state.",
    "Idempotent-Replayed": "`true` where an earlier request with the key was answered.",
    "Retry-After": "Seconds to wait.",
    "WWW-Authenticate": "How to sign in.",
    REQUEST_ID: "The id of the request, in the log too.",
}

OF_ERRORS = {errors.Unauthenticated: ("WWW-Authenticate",), errors.Unavailable: ("Retry-After",)}
"""Headers that an error brings along; 429 may do without Retry-After."""

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
"""What any request to a JSON:API view may come to."""

WRITING = (*ALWAYS, errors.Conflict, errors.ContentTooLarge, errors.Unprocessable)
CREATING = (*WRITING, errors.TooManyRequests)


def shared_headers() -> dict[str, Json]:
    """Headers of answers."""
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in HEADERS.items()}


def shared_responses() -> dict[str, Json]:
    """One answer for each kind of error; its words are the docstring of the error."""
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
    """The answers of an operation that can fail in these ways."""
    return {str(kind.http_status.value): reference(kind.__name__, "responses") for kind in kinds}


def answered(status: HTTPStatus, description: str, schema: Json, *headers: str, media_type: str = MEDIA_TYPE) -> Json:
    """The answer of an operation that succeeds, by its status."""
    body = {"content": content(schema, media_type), "headers": headers_of(*headers)}
    return {str(status.value): {"description": description, **body}}


def empty(status: HTTPStatus, description: str) -> Json:
    """An answer without a body."""
    return {str(status.value): {"description": description, "headers": headers_of()}}


def content(schema: Json, *media_types: str) -> Json:
    """A body in one of these media types."""
    return {media_type: {"schema": schema} for media_type in media_types or (MEDIA_TYPE,)}


def headers_of(*names: str) -> Json:
    """References to headers; every answer has an id of the request."""
    return {name: reference(name, "headers") for name in (*names, REQUEST_ID)}
