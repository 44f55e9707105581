"""Cross-origin requests: the web pages that CORS_ORIGINS names may call the API (CORS, in the Fetch standard).

Tokens are sent in a header, so no answer allows credentials. Pages with cookies, health probes and inbound hooks are
for other callers and allow no origin.
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
    # A proxy in front may limit rates and send these; the server's own limits say Retry-After.
    "RateLimit",
    "RateLimit-Policy",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
)
"""Headers that scripts may read besides those that the Fetch standard always allows."""

PREFLIGHT_MAX_AGE = timedelta(hours=2)
"""How long a browser may remember a preflight; Chromium remembers none for longer."""


def init_app(app: Flask) -> None:
    """Add CORS headers to all answers of the API, errors too, where CORS_ORIGINS names an origin."""
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
        always_send=False,  # it would name all origins to requests that have none
        vary_header=False,  # it would say so for some answers only
    )
    app.after_request(_add_vary_origin)


def _compile_origin(origin: str) -> str | re.Pattern[str]:
    """Match exactly this origin: as text it may be taken for a pattern, such as `http://[::1]:3000`."""
    return origin if origin == "*" else re.compile(rf"{re.escape(origin)}\Z", re.IGNORECASE)


def _add_vary_origin(response: Response) -> Response:
    """Say so on every answer: a cache must not give one that names no origin to a page of an allowed origin."""
    if CORS_PATHS.match(request.path):
        response.vary.add("Origin")
    return response
