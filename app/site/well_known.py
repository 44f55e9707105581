"""Files that browsers, crawlers and security researchers look for: /favicon.ico, /robots.txt, security.txt."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from flask import Blueprint, Response, current_app

from app.errors import NotFound
from app.preconditions import apply_preconditions

FAVICON_PATH = Path(__file__).resolve().parent / "static" / "favicon.ico"
MAX_AGE_SECONDS = 24 * 60 * 60
TEXT_MEDIA_TYPE = "text/plain; charset=utf-8"

SECURITY_TXT_PATH = "/.well-known/security.txt"
SECURITY_TXT_LIFETIME = timedelta(days=180)
"""RFC 9116, 2.5.5, recommends less than a year."""

# /files is allowed: programs that fetch calendars and link previews obey robots.txt.
ROBOTS_TXT = """\
User-agent: *
Disallow: /api/
Disallow: /auth/
Disallow: /jobs
Disallow: /overview/
Disallow: /v1
"""

well_known = Blueprint("well_known", __name__)


@well_known.get("/favicon.ico")
def show_favicon() -> Response:
    """Serve the icon to programs that do not read the link to the SVG."""
    return _build_file_response(FAVICON_PATH.read_bytes(), "image/vnd.microsoft.icon")


@well_known.get("/robots.txt")
def show_robots() -> Response:
    """Serve the rules for crawlers (RFC 9309): pages and files may be indexed, the API may not."""
    return _build_file_response(ROBOTS_TXT.encode(), TEXT_MEDIA_TYPE)


@well_known.get(SECURITY_TXT_PATH)
def show_security_txt() -> Response:
    """Serve the contact for reports of vulnerabilities (RFC 9116); raise NotFound without SECURITY_CONTACT."""
    contact = current_app.config["SECURITY_CONTACT"]
    if not contact:
        raise NotFound("SECURITY_CONTACT is not set on this server.")
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    fields = {
        "Contact": contact,
        "Expires": (today + SECURITY_TXT_LIFETIME).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "Canonical": current_app.config["PUBLIC_URL"] + SECURITY_TXT_PATH,
    }
    return _build_file_response(
        "".join(f"{name}: {value}\n" for name, value in fields.items()).encode(), TEXT_MEDIA_TYPE
    )


for _view in (show_favicon, show_robots, show_security_txt):
    _view.permission = "anyone"  # type: ignore[attr-defined]  # read by `manage.py routes`


def _build_file_response(content: bytes, content_type: str) -> Response:
    response = Response(content, content_type=content_type)
    response.headers["Cache-Control"] = f"public, max-age={MAX_AGE_SECONDS}"
    response.add_etag()
    apply_preconditions(response)
    return response
