"""API errors (JSON:API 1.1, "Errors"): each class has a status, title, code, and its docstring as default detail."""

import re
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from itertools import islice
from typing import Any, ClassVar
from uuid import uuid4

import orjson
import structlog
from flask import Flask, Response, request
from flask_rest_jsonapi_next.exceptions import JsonApiException
from sqlalchemy.exc import DataError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

MEDIA_TYPE = "application/vnd.api+json"
FIELD_POINTER_RE = re.compile(r"/data/(?:attributes|relationships)/([^/]+)")

MAX_ERRORS = 100
"""Errors collected for one request: a body of half a megabyte can contain a quarter of a million."""

READ_ONLY, IDLE_TOO_LONG = "25006", "25P03"
FAILOVER_SQLSTATES = frozenset({READ_ONLY, IDLE_TOO_LONG})
"""SQLSTATEs after a failover: the server is now a standby, or has closed an idle transaction."""

QUERY_CANCELED, DEADLOCK_DETECTED, LOCK_NOT_AVAILABLE, SERIALIZATION_FAILURE = "57014", "40P01", "55P03", "40001"

EXPENSIVE_PARAMETERS = ("filter", "sort", "include", "page")
"""Families of query parameters that can make a query expensive, the likeliest cause first."""

PROGRAM_LIMIT_SQLSTATE_CLASS = "54"
"""SQLSTATE class of values that are too large or too complex, for example for an index (PostgreSQL, "Error Codes")."""

log = structlog.get_logger(__name__)


class ApiError(JsonApiException):  # type: ignore[misc]  # the library carries no types
    """The server failed to process this request. Quote this error's id when reporting it."""

    http_status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    title: ClassVar[str] = "Internal server error"
    default_code: ClassVar[str] = "internal-error"

    def __init__(
        self,
        detail: str = "",
        *,
        pointer: str | None = None,
        parameter: str | None = None,
        header: str | None = None,
        code: str | None = None,
        meta: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        named = {"pointer": pointer, "parameter": parameter, "header": header}
        source = {name: value for name, value in named.items() if value is not None}
        super().__init__(
            detail=detail or (type(self).__doc__ or "").partition("\n")[0],
            source=source or None,
            status=str(self.http_status.value),
            code=code or self.default_code,
            id_=uuid4().hex,
            meta=dict(meta) if meta else None,
        )
        self.headers = dict(headers or {})

    def __str__(self) -> str:
        return str(self.detail)


class BadRequest(ApiError):
    """The request is malformed."""

    http_status = HTTPStatus.BAD_REQUEST
    title = "Bad request"
    default_code = "bad-request"


class InvalidParameter(BadRequest):
    """A query parameter is unknown or has an invalid value."""

    title = "Invalid query parameter"
    default_code = "invalid-parameter"


class Unauthenticated(ApiError):
    """Authentication is required: send an access token in the Authorization header."""

    http_status = HTTPStatus.UNAUTHORIZED
    title = "Unauthorized"
    default_code = "unauthenticated"

    def __init__(self, detail: str = "", **more: Any) -> None:
        challenge = 'JWT realm="open-event", Bearer realm="open-event"'
        super().__init__(detail, headers={"WWW-Authenticate": challenge}, **more)


class Forbidden(ApiError):
    """You do not have permission to do this."""

    http_status = HTTPStatus.FORBIDDEN
    title = "Forbidden"
    default_code = "forbidden"


class NotFound(ApiError):
    """There is no resource or route at this URL."""

    http_status = HTTPStatus.NOT_FOUND
    title = "Not found"
    default_code = "not-found"


class MethodNotAllowed(ApiError):
    """This URL does not support the method of the request."""

    http_status = HTTPStatus.METHOD_NOT_ALLOWED
    title = "Method not allowed"
    default_code = "method-not-allowed"


class NotAcceptable(ApiError):
    """The response is not available in any media type that the Accept header allows."""

    http_status = HTTPStatus.NOT_ACCEPTABLE
    title = "Not acceptable"
    default_code = "not-acceptable"


class RequestTimeout(ApiError):
    """The request was not sent in time."""

    http_status = HTTPStatus.REQUEST_TIMEOUT
    title = "Request timeout"
    default_code = "request-timeout"


class Conflict(ApiError):
    """The request conflicts with the current state of the resource."""

    http_status = HTTPStatus.CONFLICT
    title = "Conflict"
    default_code = "conflict"


class PreconditionFailed(ApiError):
    """The resource does not meet a condition in the request headers."""

    http_status = HTTPStatus.PRECONDITION_FAILED
    title = "Precondition failed"
    default_code = "precondition-failed"


class ContentTooLarge(ApiError):
    """The request body is larger than the limit."""

    http_status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    title = "Content too large"
    default_code = "content-too-large"


class UnsupportedMediaType(ApiError):
    """The Content-Type of the request is not supported here."""

    http_status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    title = "Unsupported media type"
    default_code = "unsupported-media-type"


class Unprocessable(ApiError):
    """The request contains an invalid value."""

    http_status = HTTPStatus.UNPROCESSABLE_ENTITY
    title = "Unprocessable content"
    default_code = "invalid-value"

    def __init__(self, detail: str = "", *, pointer: str | None = None, **more: Any) -> None:
        # Clients show these in their forms; spraypaint cannot read errors of attributes and relationships without them.
        field = FIELD_POINTER_RE.match(pointer or "")
        meta = {"attribute": field[1], "message": detail} if field else None
        super().__init__(detail, pointer=pointer, **{"meta": meta, **more})


class TooManyRequests(ApiError):
    """The rate limit is exceeded. Try again later."""

    http_status = HTTPStatus.TOO_MANY_REQUESTS
    title = "Too many requests"
    default_code = "too-many-requests"


class Unavailable(ApiError):
    """The server cannot process requests at the moment. Try again later."""

    http_status = HTTPStatus.SERVICE_UNAVAILABLE
    title = "Service unavailable"
    default_code = "unavailable"


class InsufficientStorage(ApiError):
    """The server has no room for further files at the moment. Try again later."""

    http_status = HTTPStatus.INSUFFICIENT_STORAGE
    title = "Insufficient storage"
    default_code = "storage-full"


class ApiErrorGroup(Exception):
    """Several errors of one request, returned in one response."""

    def __init__(self, errors: Iterable[ApiError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(str(error) for error in self.errors))


def raise_errors(errors: Iterable[ApiError]) -> None:
    """Raise ApiErrorGroup with the first MAX_ERRORS errors, if there are any; consume no more of them."""
    collected = tuple(islice(errors, MAX_ERRORS))
    if collected:
        raise ApiErrorGroup(collected)


def error_response(errors: Iterable[ApiError]) -> Response:
    """Return the JSON:API error response; errors of several statuses become 400 (JSON:API 1.1, "Processing Errors")."""
    all_errors = tuple(errors)
    statuses = {error.http_status for error in all_errors}
    status = statuses.pop() if len(statuses) == 1 else HTTPStatus.BAD_REQUEST
    for error in all_errors:
        log.info("request refused", error_id=error.id, status=error.status, code=error.code, source=error.source)
    document = {"errors": [error.to_dict() for error in all_errors], "jsonapi": {"version": "1.1"}}
    response = Response(orjson.dumps(document), status=status, content_type=MEDIA_TYPE)
    response.headers["Vary"] = "Accept, Authorization"
    for error in all_errors:
        response.headers.update(error.headers)
    return response


def register_error_handlers(app: Flask) -> None:
    """Register handlers that return every failure as JSON:API errors, without internal details."""
    app.register_error_handler(ApiError, lambda error: error_response([error]))
    app.register_error_handler(ApiErrorGroup, lambda error: error_response(error.errors))
    app.register_error_handler(HTTPException, lambda error: error_response([_from_http_exception(error)]))
    app.register_error_handler(DBAPIError, _handle_database_error)
    app.register_error_handler(PoolTimeout, _handle_database_down)
    app.register_error_handler(Exception, _handle_unexpected_error)


def _from_http_exception(error: HTTPException) -> ApiError:
    """Convert an exception of Flask or Werkzeug, such as the one for an unknown URL, to an ApiError."""
    kind = next((each for each in _iter_error_classes(ApiError) if each.http_status == error.code), None)
    if kind is None:
        kind = BadRequest if 400 <= (error.code or 500) < 500 else ApiError
    headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
    detail = f"This URL supports {headers['Allow']}." if "Allow" in headers else ""
    return kind(detail, headers=headers)


def _iter_error_classes(base: type[ApiError]) -> Iterator[type[ApiError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _iter_error_classes(kind)


def _handle_database_error(error: DBAPIError) -> Response:
    """Return the error response for an SQLSTATE; others are handled as unexpected errors."""
    state = getattr(error.orig, "sqlstate", None)
    if state == QUERY_CANCELED:
        detail = "The query took too long. Request less data, or use fewer filters and sort keys."
        return error_response(
            [BadRequest(detail, parameter=find_parameter(*EXPENSIVE_PARAMETERS), code="query-timeout")]
        )
    if state in (DEADLOCK_DETECTED, LOCK_NOT_AVAILABLE, SERIALIZATION_FAILURE):
        return error_response([Conflict("Another request is changing this resource at the moment. Try again.")])
    if isinstance(error, DataError) or _is_program_limit(error):
        log.warning("database rejected value", sqlstate=state)
        detail = "A value is outside the range that can be stored or compared."
        return error_response([BadRequest(detail, parameter=find_parameter(*EXPENSIVE_PARAMETERS))])
    if isinstance(error, OperationalError) or error.connection_invalidated or state in FAILOVER_SQLSTATES:
        return _handle_database_down(error)
    return _handle_unexpected_error(error)


def find_parameter(*families: str) -> str | None:
    """Return the first query parameter of this GET or HEAD that belongs to one of these families, tried in order."""
    sent = [*request.args] if request.method in ("GET", "HEAD") else []
    return next((name for family in families for name in sent if name.partition("[")[0] == family), None)


def is_outage(error: Exception) -> bool:
    """Return whether the database was unavailable or busy, so that a retry may succeed."""
    return isinstance(error, OperationalError) and not _is_program_limit(error)


def _is_program_limit(error: DBAPIError) -> bool:
    """Return whether a value exceeds a limit of PostgreSQL, for which psycopg raises OperationalError too."""
    return str(getattr(error.orig, "sqlstate", "")).startswith(PROGRAM_LIMIT_SQLSTATE_CLASS)


def _handle_database_down(error: Exception) -> Response:
    log.error("database unavailable", error=type(error).__name__)
    return error_response(
        [Unavailable("The database is not available at the moment. Try again.", headers={"Retry-After": "2"})]
    )


def _handle_unexpected_error(error: Exception) -> Response:
    internal_error = ApiError()
    log.error("unexpected error", error_id=internal_error.id, exc_info=error)
    return error_response([internal_error])
