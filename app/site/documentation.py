"""/docs, the API Blueprint rendered by `make docs`, and /docs/openapi, a viewer of /openapi.json."""

import base64
import re
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from flask import Blueprint, Response, render_template

from app.errors import NotFound
from app.preconditions import apply_preconditions
from app.site.responses import CONTENT_SECURITY_POLICY, HTML_MEDIA_TYPE, add_page_headers

PAGE_PATH = Path(__file__).resolve().parents[2] / "docs" / "api-blueprint" / "open-event-api.html"

VIEWER_DIRECTORY = Path(str(files("flask_swagger_ui"))) / "dist"
VIEWER_ASSETS = ("swagger-ui-bundle.js", "swagger-ui.css")
"""The files of Swagger UI that the viewer needs; nothing else of the package is used."""

# Swagger UI places its elements by style attributes, and its stylesheet holds its icons.
VIEWER_POLICY = CONTENT_SECURITY_POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'").replace(
    "img-src 'self'", "img-src 'self' data:"
)

documentation = Blueprint("documentation", __name__, template_folder="templates")


@documentation.get("/docs")
def show_docs() -> Response:
    """Show the rendered API Blueprint."""
    try:
        page, policy = _load_page(PAGE_PATH, PAGE_PATH.stat().st_mtime_ns)
    except FileNotFoundError:
        raise NotFound("The rendered documentation is missing; `make docs` renders it.") from None
    return _build_page_response(page, policy)


@documentation.get("/docs/openapi")
def show_viewer() -> Response:
    """Show /openapi.json in Swagger UI."""
    return _build_page_response(render_template("openapi.html").encode(), VIEWER_POLICY)


for _view in (show_docs, show_viewer):
    _view.permission = "anyone"  # type: ignore[attr-defined]  # read by `manage.py routes`


def _build_page_response(page: bytes, policy: str) -> Response:
    response = Response(page, content_type=HTML_MEDIA_TYPE)
    response.headers["Content-Security-Policy"] = policy
    response.headers["Cache-Control"] = "no-cache"  # stored, but revalidated each time
    add_page_headers(response)
    response.add_etag()
    apply_preconditions(response)
    return response


@lru_cache(maxsize=1)
def _load_page(path: Path, _mtime_ns: int) -> tuple[bytes, str]:
    """Return the rendered page and its Content-Security-Policy; the cache key changes with the file."""
    page = path.read_bytes()
    return page, build_policy(page)


def build_policy(page: bytes) -> str:
    """Return a Content-Security-Policy that allows the inline styles and scripts of the page and nothing else."""
    scripts = re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(sha256(script).digest()).decode()}'" for script in scripts]
    allowed = " ".join(hashes) or "'none'"
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
