"""What every answer below /jobs has in common: its headers, and that errors are pages for people."""

from http import HTTPStatus
from urllib.parse import urlencode

import orjson
from flask import Response, render_template, request

from app.errors import MEDIA_TYPE
from app.pages.forms import HOME, go_to, next_page

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
SIGN_IN = f"{HOME}/sign-in"
CHALLENGE = {"WWW-Authenticate": 'Cookie realm="open-event"'}
"""A 401 needs one (RFC 9110, 15.5.2); no browser asks for a password of its own because of it."""
KEPT = ("Allow", "Retry-After")
"""Headers of an error that a page of it has too."""


def finish(response: Response) -> Response:
    """The answer to a request for a page, as it is sent; all others stay as they are."""
    if request.path != HOME and not request.path.startswith(f"{HOME}/"):
        return response
    if response.mimetype == MEDIA_TYPE:
        response = _said_to_people(response)
    # Of an artifact the storage has said more than this already. Not `no-referrer`: forms would hide their origin.
    response.headers.setdefault("Content-Security-Policy", POLICY)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    return response


def _said_to_people(response: Response) -> Response:
    """The page of an error; whoever is not signed in is led to where he can do that."""
    is_stream = request.path.endswith("/stream")
    if response.status_code == HTTPStatus.UNAUTHORIZED and not is_stream:
        return go_to(_sign_in_url())
    (error, *_) = orjson.loads(response.get_data())["errors"]
    page = Response(
        render_template("error.html", error=error), response.status_code, content_type="text/html; charset=utf-8"
    )
    page.headers.update(CHALLENGE if response.status_code == HTTPStatus.UNAUTHORIZED else {})
    page.headers.update({name: response.headers[name] for name in KEPT if name in response.headers})
    return page


def _sign_in_url() -> str:
    """Where to sign in, and come back from to what was asked for; not to what was to be done."""
    if request.method not in ("GET", "HEAD"):
        return SIGN_IN
    query = request.query_string.decode("ascii", "replace")
    asked = next_page(f"{request.path}?{query}" if query else request.path)
    return SIGN_IN if asked == HOME else f"{SIGN_IN}?{urlencode({'next': asked})}"
