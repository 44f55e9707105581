"""Files under names of ours: put bytes, get a URL; a directory or an S3 bucket."""

import contextlib
import re
from datetime import timedelta
from functools import cached_property

import obstore
from flask import Blueprint, Flask, Response, current_app, request
from obstore.store import LocalStore, ObjectStore, from_url

from app.errors import NotFound

MEDIA_TYPES = {"ics": "text/calendar; charset=utf-8"}
"""What is served, and as what: nothing else has an address."""

# No dot but the last: no way up, no hidden or unfinished file.
_NAME = re.compile(r"(?:[A-Za-z0-9_-]{1,100}/){0,4}[A-Za-z0-9_-]{1,100}\.([a-z0-9]{1,8})", re.ASCII)

files = Blueprint("files", __name__)


class Storage:
    """The files of one app."""

    def __init__(self, storage_url: str, public_url: str) -> None:
        self.storage_url = storage_url
        self.public_url = public_url

    @cached_property
    def _store(self) -> ObjectStore:
        if self.storage_url.startswith("file:"):
            return from_url(self.storage_url, mkdir=True)
        return from_url(
            self.storage_url,
            # Plain http only where the operator's AWS_ENDPOINT_URL says so: a MinIO next door.
            client_options={"connect_timeout": "3s", "timeout": "15s", "allow_http": True},
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=20)},
        )

    def put(self, name: str, content: bytes, media_type: str) -> None:
        """Write the whole file or nothing of it."""
        # A directory has no place for a media type; what we serve goes by the suffix anyway.
        attributes = None if isinstance(self._store, LocalStore) else {"Content-Type": media_type}
        obstore.put(self._store, _checked(name), content, attributes=attributes)

    def read(self, name: str) -> bytes:
        """The content; FileNotFoundError when there is none."""
        return bytes(obstore.get(self._store, _checked(name)).bytes())

    def delete(self, name: str) -> None:
        """Remove the file; one that is already gone is fine."""
        with contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, _checked(name))

    def url(self, name: str) -> str:
        """Where everybody who knows the name can fetch it."""
        return f"{self.public_url}/files/{_checked(name)}"

    def name(self, url: str) -> str:
        """The name in a URL made by `url`, whatever PUBLIC_URL was then."""
        return _checked(url.partition("/files/")[2])


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a stored file")
    return name


def install(app: Flask) -> None:
    """Bind the storage and serve what is in it."""
    app.extensions["storage"] = Storage(app.config["STORAGE_URL"], app.config["PUBLIC_URL"])
    app.register_blueprint(files)


def current_storage() -> Storage:
    """The storage of the current app."""
    storage: Storage = current_app.extensions["storage"]
    return storage


@files.get("/files/<path:name>")
def serve(name: str) -> Response:
    """A stored file for everybody who knows its name; there is no listing."""
    match = _NAME.fullmatch(name)
    media_type = match and MEDIA_TYPES.get(match[1])
    if not media_type:
        raise NotFound
    try:
        response = Response(current_storage().read(name), content_type=media_type)
    except FileNotFoundError:
        raise NotFound from None
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-cache"  # kept, but asked about each time: a removed file is gone at once
    response.add_etag()
    response.make_conditional(request)
    return response


serve.permission = "anyone"  # type: ignore[attr-defined]  # read by `manage.py routes`
