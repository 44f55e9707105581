"""/docs: the documentation of the API, once `make docs` has rendered it."""

import base64
import re
from hashlib import sha256
from pathlib import Path

from flask import Blueprint, Flask, Response

from app.preconditions import apply_preconditions

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api-blueprint" / "open-event-api.html"
NOT_RENDERED = "The documentation is not rendered yet: `make docs` does it.\n"

docs = Blueprint("docs", __name__)


def install(app: Flask) -> None:
    """Show the page."""
    app.register_blueprint(docs)


@docs.get("/docs", strict_slashes=False)
def show() -> Response:
    """The page, or how to make it."""
    try:
        page = PAGE.read_bytes()
    except FileNotFoundError:
        return Response(NOT_RENDERED, 404, content_type="text/plain; charset=utf-8")
    response = Response(page, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = policy(page)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-cache"  # kept, but asked about each time
    response.add_etag()
    apply_preconditions(response)
    return response


show.permission = "anyone"  # type: ignore[attr-defined]  # read by `manage.py routes`


def policy(page: bytes) -> str:
    """A Content-Security-Policy under which the page's own styles and scripts work and nothing else does."""
    scripts = re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(sha256(script).digest()).decode()}'" for script in scripts]
    allowed = " ".join(hashes) or "'none'"
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
