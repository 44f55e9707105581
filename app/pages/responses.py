"""Headers and errors of all responses below /jobs; an error is always a page, independent of the Accept header."""

from http import HTTPStatus
from urllib.parse import urlencode

from flask import Response, request

from app.errors import MEDIA_TYPE
from app.pages.form_requests import JOBS_URL, get_next_path, redirect_to
from app.site.responses import add_page_headers, render_error

LOGIN_URL = f"{JOBS_URL}/sign-in"
CHALLENGE_HEADERS = {"WWW-Authenticate": 'Cookie realm="open-event"'}
"""A challenge that a 401 must have (RFC 9110, 15.5.2); browsers open no password dialog for this scheme."""


def add_headers(response: Response) -> Response:
    """Add security headers to responses below /jobs and render JSON:API errors as pages; keep other responses."""
    if request.path != JOBS_URL and not request.path.startswith(f"{JOBS_URL}/"):
        return response
    if response.mimetype == MEDIA_TYPE:
        response = _replace_error(response)
    add_page_headers(response)  # the storage has set stricter ones for an artifact
    return response


def _replace_error(response: Response) -> Response:
    """Render an error as a page; for a 401 redirect to the log-in form, except for a stream."""
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        if not request.path.endswith("/stream"):
            return redirect_to(_build_login_url())
        response.headers.update(CHALLENGE_HEADERS)
    render_error(response)
    return response


def _build_login_url() -> str:
    """Return the URL of the log-in form, which leads back to the requested page if the request is a GET or HEAD."""
    if request.method not in ("GET", "HEAD"):
        return LOGIN_URL
    query = request.query_string.decode("ascii", "replace")
    next_path = get_next_path(f"{request.path}?{query}" if query else request.path)
    return LOGIN_URL if next_path == JOBS_URL else f"{LOGIN_URL}?{urlencode({'next': next_path})}"
