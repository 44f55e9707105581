"""What is posted to a page: from a form of ours, by whom the form was made for, and where to go afterwards."""

import hmac
import re
from collections.abc import Sequence
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from flask import Response, current_app, redirect, request
from werkzeug.formparser import FormDataParser

from app.errors import ApiError, BadRequest, Errors, Forbidden
from app.jsonapi.body import UNSTORABLE
from app.pages.cookies import token_for

TOKEN = "token"  # noqa: S105 - the name of a field

HOME = "/jobs"
_ID = "[0-9a-f-]{36}"
_PLACE = rf"{_ID}(?:/artifacts/{_ID})?|treatments/new|document-sets(?:/new)?"
_PAGE = re.compile(rf"/jobs(?:/(?:{_PLACE}))?(?:\?[\w=&%.~+:,/@!*()-]{{0,2000}})?", re.ASCII)


class _InMemory(FormDataParser):
    """Keeps files where the body is already: Flask would write them down, and leave those of a broken form open."""

    def __init__(self, stream_factory: Any = None, **limits: Any) -> None:
        super().__init__(lambda *_, **__: BytesIO(), **limits)


def expect_files() -> None:
    """Take the files of this form; before anything is asked of it."""
    request.form_data_parser_class = _InMemory


def is_ours(cookie: str) -> bool:
    """Whether this POST was sent from a page of ours, with the token made for this cookie."""
    sent = request.form.get(TOKEN, "").encode()
    return bool(cookie) and _is_from_here() and hmac.compare_digest(sent, token_for(cookie).encode())


def require_ours(cookie: str) -> None:
    """403 unless it is."""
    if not is_ours(cookie):
        raise Forbidden("This form is too old, or it came from elsewhere. Go back, reload the page and try again.")


def text(name: str) -> str:
    """A field of the form, "" where it was not sent; 400 for what can be no text."""
    value = request.form.get(name, "")
    if UNSTORABLE.search(value):
        raise BadRequest(f"{name} has a character that no text has.")
    return value


def errors_in(refused: ApiError | Errors) -> Sequence[ApiError]:
    """What was refused, one error or several."""
    return refused.errors if isinstance(refused, Errors) else (refused,)


def next_page(asked: str | None) -> str:
    """Where to go: the page of ours that is asked for, else the list."""
    return asked if asked and _PAGE.fullmatch(asked) else HOME


def go_to(path: str) -> Response:
    """A redirect that is followed by a GET."""
    response: Response = redirect(path, 303, Response=Response)  # type: ignore[assignment]  # Flask's type says more than a Response
    return response


def _is_from_here() -> bool:
    """What the browser says of where the form was; old ones say nothing."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("Origin")
    return origin is None or origin in (_origin(current_app.config["PUBLIC_URL"]), _origin(request.host_url))


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
