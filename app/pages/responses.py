"""Headers and errors of all responses below /jobs: an error is a page, also where the client asks for no HTML."""

from http import HTTPStatus
from urllib.parse import urlencode

from flask import Response, request

from app.errors import MEDIA_TYPE
from app.pages.form_requests import JOBS_URL, get_next_path, redirect_to
from app.site.responses import add_page_headers, render_error

LOGIN_URL = f"{JOBS_URL}/sign-in"
CHALLENGE_HEADERS = {"WWW-Authenticate": 'Cookie realm="open-event"'}
"""A 401 needs one (RFC 9110, 15.5.2); no browser asks for a password of its own because of it."""


def add_headers(response: Response) -> Response:
    """Add the headers of a page to a response below /jobs, and make a page of an error; others stay as they are."""
    if request.path != JOBS_URL and not request.path.startswith(f"{JOBS_URL}/"):
        return response
    if response.mimetype == MEDIA_TYPE:
        response = _replace_error(response)
    add_page_headers(response)  # an artifact has stricter ones from the storage
    return response


def _replace_error(response: Response) -> Response:
    """Render an error; without a sign-in redirect to the form, unless the request is for a stream."""
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        if not request.path.endswith("/stream"):
            return redirect_to(_build_login_url())
        response.headers.update(CHALLENGE_HEADERS)
    render_error(response)
    return response


def _build_login_url() -> str:
    """Where to sign in, and come back from to what was asked for; not to what was to be done."""
    if request.method not in ("GET", "HEAD"):
        return LOGIN_URL
    query = request.query_string.decode("ascii", "replace")
    asked = get_next_path(f"{request.path}?{query}" if query else request.path)
    return LOGIN_URL if asked == JOBS_URL else f"{LOGIN_URL}?{urlencode({'next': asked})}"
