"""The script, the stylesheet and the icon of the pages, under URLs that change with their content."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from flask import Response

from app.errors import NotFound
from app.jsonapi.permissions import anyone
from app.pages.routing import route
from app.storage import FOREVER

DIRECTORY = Path(__file__).resolve().parent / "static"
MEDIA_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Asset:
    """A file as it is served."""

    content: bytes
    media_type: str
    served_as: str


def _read(path: Path) -> Asset:
    content = path.read_bytes()
    return Asset(content, MEDIA_TYPES[path.suffix], f"{path.stem}-{sha256(content).hexdigest()[:16]}{path.suffix}")


ASSETS = {path.name: _read(path) for path in DIRECTORY.iterdir() if path.suffix in MEDIA_TYPES}
_SERVED = {asset.served_as: asset for asset in ASSETS.values()}


def asset_url(name: str) -> str:
    """Where a page finds a file of `static/`."""
    return f"/jobs/static/{ASSETS[name].served_as}"


@route("GET", "/static/<name>", may=anyone)
def asset(name: str) -> Response:
    """A file as it was when this version of the server was made."""
    found = _SERVED.get(name)
    if found is None:
        raise NotFound
    response = Response(found.content, content_type=found.media_type)
    response.headers["Cache-Control"] = FOREVER
    return response
