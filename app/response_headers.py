"""Headers of every answer, whatever it is: the API, pages, files, errors and probes."""

from flask import Flask, Response, request

NO_STORE = "no-store"
REVALIDATE = "no-cache"


def install(app: Flask) -> None:
    """Add the headers to all answers; registered first, this runs after whatever else changes an answer."""
    max_age = app.config["HSTS_SECONDS"]
    is_https = app.config["PUBLIC_URL"].startswith("https://")
    strict_transport = f"max-age={max_age}" if is_https else None

    def add_headers(response: Response) -> Response:
        headers = response.headers
        headers["X-Content-Type-Options"] = "nosniff"
        if "Cache-Control" not in headers:
            headers["Cache-Control"] = _choose_cache_control(response)
        if strict_transport is not None:
            headers["Strict-Transport-Security"] = strict_transport
        return response

    app.after_request(add_headers)


def _choose_cache_control(response: Response) -> str:
    """Let caches keep what an anonymous GET returned, if it has a tag to revalidate it by; all else is not stored."""
    is_public = request.method in ("GET", "HEAD") and "HTTP_AUTHORIZATION" not in request.environ
    return REVALIDATE if is_public and response.status_code < 400 and "ETag" in response.headers else NO_STORE
