"""What is posted to a page: from a form of ours, by whom the form was made for, and where to go afterwards."""

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
    """Keeps files where the body is already: Flask would write them down, and leave those of a broken form open."""

    def __init__(self, stream_factory: Any = None, **limits: Any) -> None:
        super().__init__(lambda *_, **__: BytesIO(), **limits)


def parse_files_in_memory() -> None:
    """Take the files of this form; before anything is asked of it."""
    request.form_data_parser_class = _InMemoryFormParser


def is_csrf_valid(cookie: str) -> bool:
    """Whether this POST was sent from a page of ours, with the token made for this cookie."""
    sent = request.form.get(TOKEN_FIELD, "").encode()
    return bool(cookie) and _is_same_origin() and hmac.compare_digest(sent, derive_csrf_token(cookie).encode())


def require_csrf(cookie: str) -> None:
    """403 unless it is."""
    if not is_csrf_valid(cookie):
        raise Forbidden("This form is too old, or it came from elsewhere. Go back, reload the page and try again.")


def get_text(name: str) -> str:
    """A field of the form, "" where it was not sent; 400 for what can be no text."""
    value = request.form.get(name, "")
    if INVALID_TEXT_RE.search(value):
        raise BadRequest(f"{name} has a character that no text has.")
    return value


def list_errors(refused: ApiError | ApiErrorGroup) -> Sequence[ApiError]:
    """What was refused, one error or several."""
    return refused.errors if isinstance(refused, ApiErrorGroup) else (refused,)


def get_next_path(asked: str | None) -> str:
    """Where to go: the page of ours that is asked for, else the list."""
    return asked if asked and _PAGE.fullmatch(asked) else JOBS_URL


def redirect_to(path: str) -> Response:
    """A redirect that is followed by a GET."""
    response: Response = redirect(path, 303, Response=Response)  # type: ignore[assignment]  # Flask's type says more than a Response
    return response


def _is_same_origin() -> bool:
    """What the browser says of where the form was; old ones say nothing."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("Origin")
    return origin is None or origin in (_get_origin(current_app.config["PUBLIC_URL"]), _get_origin(request.host_url))


def _get_origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
