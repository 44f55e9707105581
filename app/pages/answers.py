"""Headers and errors of all responses below /jobs: an error is a page, also where the client asks for no HTML."""

from http import HTTPStatus
from urllib.parse import urlencode

from flask import Response, request

from app.errors import MEDIA_TYPE
from app.pages.forms import HOME, go_to, next_page
from app.site.responses import add_page_headers, render_error

SIGN_IN = f"{HOME}/sign-in"
CHALLENGE = {"WWW-Authenticate": 'Cookie realm="open-event"'}
"""A 401 needs one (RFC 9110, 15.5.2); no browser asks for a password of its own because of it."""


def finish(response: Response) -> Response:
    """Add the headers of a page to a response below /jobs, and make a page of an error; others stay as they are."""
    if request.path != HOME and not request.path.startswith(f"{HOME}/"):
        return response
    if response.mimetype == MEDIA_TYPE:
        response = _show_error(response)
    add_page_headers(response)  # an artifact has stricter ones from the storage
    return response


def _show_error(response: Response) -> Response:
    """Render an error; without a sign-in redirect to the form, unless the request is for a stream."""
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        if not request.path.endswith("/stream"):
            return go_to(_sign_in_url())
        response.headers.update(CHALLENGE)
    render_error(response)
    return response


def _sign_in_url() -> str:
    """Where to sign in, and come back from to what was asked for; not to what was to be done."""
    if request.method not in ("GET", "HEAD"):
        return SIGN_IN
    query = request.query_string.decode("ascii", "replace")
    asked = next_page(f"{request.path}?{query}" if query else request.path)
    return SIGN_IN if asked == HOME else f"{SIGN_IN}?{urlencode({'next': asked})}"
