"""Form requests: CSRF check, values of fields, and redirects afterwards."""

import hmac
import re
from collections.abc import Sequence
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from flask import Response, current_app, redirect, request
from werkzeug.formparser import FormDataParser

from app.errors import ApiError, ApiErrorGroup, BadRequest, Forbidden
from app.jsonapi.json_parsing import INVALID_TEXT_RE
from app.pages.cookies import derive_csrf_token

TOKEN_FIELD = "token"  # noqa: S105 - the name of a field

JOBS_URL = "/jobs"
_ID = "[0-9a-f-]{36}"
_PLACE = rf"{_ID}(?:/artifacts/{_ID})?|treatments/new|document-sets(?:/new)?"
_PAGE = re.compile(rf"/jobs(?:/(?:{_PLACE}))?(?:\?[\w=&%.~+:,/@!*()-]{{0,2000}})?", re.ASCII)


class _InMemoryFormParser(FormDataParser):
    """Parser that keeps files in memory: Flask would write them to disk and leave those of an invalid form open."""

    def __init__(self, stream_factory: Any = None, **limits: Any) -> None:
        super().__init__(lambda *_, **__: BytesIO(), **limits)


def parse_files_in_memory() -> None:
    """Make this request keep its files in memory; call it before the form is accessed."""
    request.form_data_parser_class = _InMemoryFormParser


def is_csrf_valid(cookie: str) -> bool:
    """Return whether this POST comes from a page of this server and has the token for this cookie."""
    sent = request.form.get(TOKEN_FIELD, "").encode()
    return bool(cookie) and _is_same_origin() and hmac.compare_digest(sent, derive_csrf_token(cookie).encode())


def require_csrf(cookie: str) -> None:
    """Raise Forbidden unless `is_csrf_valid`."""
    if not is_csrf_valid(cookie):
        raise Forbidden("This form has expired, or was sent from another site. Go back, reload the page and try again.")


def get_text(name: str) -> str:
    """Return a field of the form, "" if it was not sent; raise BadRequest for a NUL or surrogate character."""
    value = request.form.get(name, "")
    if INVALID_TEXT_RE.search(value):
        raise BadRequest(f"{name} contains a NUL or surrogate character.")
    return value


def list_errors(error: ApiError | ApiErrorGroup) -> Sequence[ApiError]:
    """Return the errors of a group, or the one error."""
    return error.errors if isinstance(error, ApiErrorGroup) else (error,)


def get_next_path(requested: str | None) -> str:
    """Return the requested path if it is one of the pages, else the list of jobs."""
    return requested if requested and _PAGE.fullmatch(requested) else JOBS_URL


def redirect_to(path: str) -> Response:
    """Return a redirect with status 303, which browsers follow with a GET."""
    response: Response = redirect(path, 303, Response=Response)  # type: ignore[assignment]  # Flask annotates a wider type
    return response


def _is_same_origin() -> bool:
    """Return whether Sec-Fetch-Site or Origin name this server; True without both, as old browsers send neither."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("Origin")
    return origin is None or origin in (_get_origin(current_app.config["PUBLIC_URL"]), _get_origin(request.host_url))


def _get_origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
