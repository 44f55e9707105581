"""Error pages for browsers, and the headers that protect every page."""

import orjson
from flask import Response, render_template, request
from werkzeug.datastructures import MIMEAccept

from app.errors import MEDIA_TYPE

CONTENT_SECURITY_POLICY = "; ".join(
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
HTML_MEDIA_TYPE = "text/html; charset=utf-8"


def prefers_html() -> bool:
    """Return whether the Accept header gives HTML a higher weight than JSON; browsers do, `*/*` does not."""
    accept = request.accept_mimetypes
    return _get_weight(accept, "text/html") > max(
        _get_weight(accept, MEDIA_TYPE), _get_weight(accept, "application/json")
    )


def _get_weight(accept: MIMEAccept, media_type: str) -> float:
    """Return the weight of the most specific range that matches, without parameters (RFC 9110, 12.5.1)."""
    weights: dict[str, float] = {}
    for media_range, weight in accept:
        weights.setdefault(media_range.partition(";")[0].strip().lower(), weight)
    ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
    return next((weights[media_range] for media_range in ranges if media_range in weights), 0)


def add_page_headers(response: Response) -> None:
    """Add the security headers of a page that the response does not have yet."""
    response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    # With `no-referrer`, browsers send `Origin: null` with forms, which the CSRF check rejects.
    response.headers.setdefault("Referrer-Policy", "same-origin")


def show_errors_as_pages(response: Response) -> Response:
    """Replace a JSON:API error by a page if the client prefers HTML."""
    if response.status_code >= 400 and response.mimetype == MEDIA_TYPE and prefers_html():
        render_error(response)
    return response


def render_error(response: Response) -> None:
    """Replace the body of a JSON:API error response by a page for the same error; keep the other headers."""
    (error, *_) = orjson.loads(response.get_data())["errors"]
    response.set_data(render_template("error.html", error=error))
    response.content_type = HTML_MEDIA_TYPE
    add_page_headers(response)
