"""Cross-origin requests from the origins in CORS_ORIGINS (CORS protocol, Fetch standard).

Tokens are sent in a header, so no response allows credentials. Pages with cookies, health probes and inbound hooks
allow no origin.
"""

import re
from datetime import timedelta

from flask import Flask, Response, request

from app.extensions import cors
from app.logs import REQUEST_ID_HEADER

CORS_PATHS = re.compile(r"/(v1|auth|api|files)(/|\Z)|/openapi\.json\Z")

CORS_METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS")

EXPOSED_HEADERS = (
    "Accept",
    "Accept-Ranges",
    "Allow",
    "Content-Disposition",
    "Content-Location",
    "Content-Range",
    "ETag",
    "Idempotent-Replayed",
    "Location",
    "Retry-After",
    "WWW-Authenticate",
    REQUEST_ID_HEADER,
    # For a proxy in front that limits rates; the server's own limits send Retry-After.
    "RateLimit",
    "RateLimit-Policy",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
)
"""Response headers that scripts may read in addition to those that the Fetch standard always allows."""

PREFLIGHT_MAX_AGE = timedelta(hours=2)
"""Time a browser may cache a preflight response; the maximum of Chromium."""


def init_app(app: Flask) -> None:
    """Add CORS headers to all responses of the API, including errors, if CORS_ORIGINS is set."""
    origins: tuple[str, ...] = app.config["CORS_ORIGINS"]
    if not origins:
        return
    cors.init_app(
        app,
        resources={CORS_PATHS: {"origins": [_compile_origin(origin) for origin in origins]}},
        methods=CORS_METHODS,
        expose_headers=EXPOSED_HEADERS,
        max_age=PREFLIGHT_MAX_AGE,
        send_wildcard=True,
        always_send=False,  # it would send all origins to requests without an Origin
        vary_header=False,  # it would be missing on some responses, see _add_vary_origin
    )
    app.after_request(_add_vary_origin)


def _compile_origin(origin: str) -> str | re.Pattern[str]:
    """Return a pattern for exactly this origin: Flask-CORS takes text such as `http://[::1]:3000` for a pattern."""
    return origin if origin == "*" else re.compile(rf"{re.escape(origin)}\Z", re.IGNORECASE)


def _add_vary_origin(response: Response) -> Response:
    """Add `Vary: Origin`: a cache must not send a response without CORS headers to a page of an allowed origin."""
    if CORS_PATHS.match(request.path):
        response.vary.add("Origin")
    return response
