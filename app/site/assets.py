"""Stylesheets, scripts and icons, served under URLs that change with their content."""

import re
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from flask import Blueprint, Response

from app.errors import NotFound
from app.storage import CACHE_IMMUTABLE

MEDIA_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

_URL_NAME = re.compile(r"([a-z-]+)-[0-9a-f]{16}(\.[a-z]+)", re.ASCII)
_paths: dict[str, Path] = {}

assets = Blueprint("assets", __name__)


@dataclass(frozen=True)
class Asset:
    """A file in memory, with the name under which it is served."""

    content: bytes
    url_name: str


def register_assets(directory: Path, *names: str) -> None:
    """Serve these files of a directory; a name is unique among all assets."""
    for name in names:
        path = directory / name
        if _paths.setdefault(name, path) != path:
            raise ValueError(f"there are two assets named {name}")


def asset_url(name: str) -> str:
    """Return the URL of the asset with this file name."""
    return f"/static/{_load_asset(name).url_name}"


@cache
def _load_asset(name: str) -> Asset:
    path = _paths[name]
    content = path.read_bytes()
    return Asset(content, f"{path.stem}-{sha256(content).hexdigest()[:16]}{path.suffix}")


@assets.get("/static/<name>")
def show_asset(name: str) -> Response:
    """Serve an asset; raise NotFound for a URL from another version of the server."""
    match = _URL_NAME.fullmatch(name)
    file_name = match[1] + match[2] if match else ""
    if file_name not in _paths or _load_asset(file_name).url_name != name:
        raise NotFound
    response = Response(_load_asset(file_name).content, content_type=MEDIA_TYPES[_paths[file_name].suffix])
    response.headers["Cache-Control"] = CACHE_IMMUTABLE
    return response


show_asset.permission = "anyone"  # type: ignore[attr-defined]  # read by `manage.py routes`
