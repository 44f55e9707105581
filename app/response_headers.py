"""Headers of all responses: of the API, pages, files, errors and probes."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

NO_STORE = "no-store"
NO_CACHE = "no-cache"


def init_app(app: Flask) -> None:
    """Add the headers to all responses in a WSGI middleware: Flask's after_request takes ten times as long."""
    max_age = app.config["HSTS_SECONDS"]
    is_https = app.config["PUBLIC_URL"].startswith("https://")
    always = [("X-Content-Type-Options", "nosniff")]
    if is_https:
        always.append(("Strict-Transport-Security", f"max-age={max_age}"))
    answer = app.wsgi_app

    def answer_with_headers(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            names = {name.lower() for name, _ in headers}
            if "cache-control" not in names:
                headers.append(("Cache-Control", _choose_cache_control(environ, status, has_tag="etag" in names)))
            return start_response(status, headers + always, *error)

        return answer(environ, start)

    app.wsgi_app = answer_with_headers  # type: ignore[method-assign]  # Flask's documented way


def _choose_cache_control(environ: "WSGIEnvironment", status: str, *, has_tag: bool) -> str:
    """Return `no-cache` for an anonymous GET response with an ETag, which a cache revalidates; otherwise `no-store`."""
    is_public = environ["REQUEST_METHOD"] in ("GET", "HEAD") and "HTTP_AUTHORIZATION" not in environ
    return NO_CACHE if is_public and has_tag and status < "4" else NO_STORE
