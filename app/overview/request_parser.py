"""Parser of the requests to /overview: a server, a document set on it, and an API token for it."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from werkzeug.datastructures import Headers

from app.errors import BadRequest
from app.programs import allowed_servers

MAX_VALUE_LENGTH = 500
"""Maximum characters of the server and of the document set id."""

_SCHEME = re.compile(r"Basic +([A-Za-z0-9+/=]+) *", re.ASCII | re.IGNORECASE)
_CREDENTIALS = re.compile(r"([A-Za-z0-9_-]{1,200}):x-api-token", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,200}", re.ASCII)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class InvalidOverviewRequest(BadRequest):
    """The form or the Authorization header is invalid."""

    def __init__(self, problem: str, *, parameter: str | None = None, header: str | None = None) -> None:
        super().__init__(
            f"Expected form data ?server=...&documentSetId=... and Authorization header. Problem: {problem}",
            parameter=parameter,
            header=header,
        )


class OverviewRequest(NamedTuple):
    """Parameters of the program."""

    server: str
    document_set_id: str
    api_token: str


def parse_request(values: Mapping[str, str], headers: Headers, *, may_name_token: bool) -> OverviewRequest:
    """Return the parameters in a query string, or, with `may_name_token`, in a form; raise InvalidOverviewRequest.

    A token may be in the Authorization header or in a form, never in a query string.
    """
    is_query = not may_name_token
    server = _get_text(values, is_query, "server").rstrip("/")  # with or without a slash, it is the same job
    if problem := _find_server_problem(server):
        raise InvalidOverviewRequest(problem, parameter="server" if is_query else None)
    document_set_id = _get_text(values, is_query, "documentSetId", "document_set_id")
    return OverviewRequest(server, document_set_id, _get_token(values if may_name_token else {}, headers))


def _get_text(values: Mapping[str, str], is_query: bool, *names: str) -> str:
    name = next((name for name in names if name in values), names[0])
    value = values.get(name)
    parameter = name if is_query else None
    if not value:
        raise InvalidOverviewRequest(f"{names[0]!r} is missing", parameter=parameter)
    if len(value) > MAX_VALUE_LENGTH or _UNPRINTABLE.search(value):
        problem = f"{names[0]!r} is longer than {MAX_VALUE_LENGTH} characters or contains a control character"
        raise InvalidOverviewRequest(problem, parameter=parameter)
    return value


def _find_server_problem(server: str) -> str | None:
    try:
        parts = urlsplit(server)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return "'server' is not an http or https URL"
    return None if allowed_servers.is_server_allowed(server) else "'server' is not one that this plugin works for"


def _get_token(values: Mapping[str, str], headers: Headers) -> str:
    token = next((values[name] for name in ("apiToken", "api_token") if name in values), None)
    if token is not None:
        if not _TOKEN.fullmatch(token):
            raise InvalidOverviewRequest("'apiToken' must be 1 to 200 characters of A-Z, a-z, 0-9, '-' and '_'")
        return token
    header = headers.get("Authorization")
    if header is None:
        raise InvalidOverviewRequest("the Authorization header is missing", header="Authorization")
    encoded = _SCHEME.fullmatch(header)
    if encoded is None:
        problem = 'Authorization header must look like "Basic [base64-encoded data]"'
        raise InvalidOverviewRequest(problem, header="Authorization")
    try:
        credentials = _CREDENTIALS.fullmatch(base64.b64decode(encoded[1], validate=True).decode("latin1"))
    except binascii.Error:
        credentials = None
    if credentials is None:
        problem = 'base64-encoded Basic HTTP Auth value must look like "[api_token]:x-api-token"'
        raise InvalidOverviewRequest(problem, header="Authorization")
    return credentials[1]
