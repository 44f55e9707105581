"""Files under names of ours: put bytes, get a URL; a directory or an S3 bucket."""

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from http import HTTPStatus
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

import obstore
import structlog
from flask import Blueprint, Flask, Response, current_app, request
from obstore.exceptions import BaseError, PreconditionError
from obstore.store import LocalStore, ObjectStore, from_url

from app.errors import BadRequest, NotFound, Unavailable, error_response
from app.preconditions import apply_preconditions
from app.slots import Slot, SlotPool, caller_holders, take_slot

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta

MEDIA_TYPES = {
    "ics": "text/calendar; charset=utf-8",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "json": "application/json",
    "png": "image/png",
    "webp": "image/webp",
    "zip": "application/zip",
}
"""What everybody may be served, and as what."""

CACHE_NO_CACHE = "no-cache"
"""Kept, but asked about each time: a removed file is gone at once."""
CACHE_IMMUTABLE = "public, max-age=31536000, immutable"
CACHE_PRIVATE = "private, no-cache"

REFRESH_AGE = timedelta(hours=12)
"""A file that is stored once more after this is written anew."""

CHUNK_BYTES = 1024 * 1024
"""Bytes of a file that one stream holds at a time."""

MAX_FILE_STREAMS = 96
"""Files of more than one chunk that a process sends at once: each holds a thread as long as the client reads."""

MAX_FILE_STREAMS_PER_ADDRESS = 16

# No dot but the last: no way up, no hidden or unfinished file.
_NAME = re.compile(r"(?:[A-Za-z0-9_-]{1,100}/){0,4}[A-Za-z0-9_-]{1,100}\.[a-z0-9]{1,8}", re.ASCII)
# What others leave there has names of theirs.
_INBOX_NAME = re.compile(r"inbox(?:/(?!\.\.?(?:/|\Z))[^/\x00-\x1f\x7f]{1,255}){1,8}")
_FOLDER = re.compile(r"[A-Za-z0-9_-]{1,100}(?:/[A-Za-z0-9_-]{1,100}){0,4}", re.ASCII)
# What lies directly in one of these, and nothing else, is for everybody who knows its name.
_PUBLIC_NAME = re.compile(r"(?:calendars|images|uploads)/([A-Za-z0-9_-]{1,100})\.([a-z0-9]{1,8})", re.ASCII)
_NOT_IN_FILENAMES = re.compile(r"[\x00-\x1f\x7f/\\\ud800-\udfff]")
_UNLISTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# What the store is still writing.
_STAGED_NAME = re.compile(r"#[0-9]+\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}")

StorageError = BaseError
"""What all of this raises when the storage does not answer."""

files = Blueprint("files", __name__)

_file_streams = SlotPool(MAX_FILE_STREAMS, MAX_FILE_STREAMS_PER_ADDRESS)

log = structlog.get_logger(__name__)


class RangeNotSatisfiable(BadRequest):
    """The range asked for is not within the file."""

    http_status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    title = "Range not satisfiable"
    default_code = "range-not-satisfiable"


@dataclass(frozen=True)
class FileInfo:
    """A file as it was when we looked; `etag` is another one as soon as the file is."""

    name: str
    size: int
    etag: str


class FileChanged(FileNotFoundError):
    """The file is another one than when we looked."""


class Storage:
    """The files of one app."""

    def __init__(self, storage_url: str, public_url: str) -> None:
        self.storage_url = storage_url
        self.public_url = public_url

    @cached_property
    def _store_and_process_id(self) -> tuple[ObjectStore, int]:
        if self.storage_url.startswith("file:"):
            return from_url(self.storage_url, mkdir=True), os.getpid()
        store = from_url(
            self.storage_url,
            # Plain http only where the operator's AWS_ENDPOINT_URL says so: a MinIO next door.
            client_options={"connect_timeout": "3s", "timeout": "15s", "allow_http": True},
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=20)},
        )
        return store, os.getpid()

    @property
    def _store(self) -> ObjectStore:
        store, process = self._store_and_process_id
        if process != os.getpid():  # the call would wait for ever
            raise RuntimeError("The storage was used before this process was forked: obstore's threads are not here.")
        return store

    def put(self, name: str, content: bytes | IO[bytes] | Iterable[bytes], media_type: str) -> None:
        """Write the whole file or nothing of it; an open file or an iterator is never in memory as a whole.

        An iterator must not read from the storage itself.
        """
        # A directory has no place for a media type; what we serve goes by the suffix anyway.
        attributes = None if isinstance(self._store, LocalStore) else {"Content-Type": media_type}
        # Four parts of 5 MiB at once: twelve, as it would be by itself, are 60 MiB for each file.
        obstore.put(self._store, _validate_name(name), content, attributes=attributes, max_concurrency=4)

    def put_content_addressed(self, prefix: str, content: bytes | IO[bytes], suffix: str, media_type: str) -> str:
        """The name, `prefix/sha256.suffix`, under which this content lies now; it is written when it did not."""
        name = f"{prefix}/{_compute_sha256(content)}.{suffix}"
        # An old one is written anew: no row may name it any more, and a sweep may be about to delete it.
        if not self.exists(name) or self.is_older(name, REFRESH_AGE):
            self.put(name, content, media_type)
        return name

    def stat(self, name: str) -> FileInfo:
        """The file without its content; FileNotFoundError when there is none."""
        meta = obstore.head(self._store, _validate_name(name))
        return _build_file_info(meta)

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        try:
            self.stat(name)
        except FileNotFoundError:
            return False
        return True

    def is_older(self, name: str, age: timedelta) -> bool:
        """Return whether the file was written longer ago than this; False when there is none."""
        try:
            written_at: datetime = obstore.head(self._store, _validate_name(name))["last_modified"]
        except FileNotFoundError:
            return False
        return datetime.now(UTC) - written_at > age

    def list_old_names(self, prefix: str, age: timedelta) -> Iterator[Sequence[str]]:
        """Return the names of files below this folder that were written longer ago than this, in batches."""
        written_before = datetime.now(UTC) - age
        for chunk in obstore.list(self._store, prefix, chunk_size=500):
            old = (meta["path"] for meta in chunk if meta["last_modified"] < written_before)
            yield [name for name in old if _NAME.fullmatch(name)]

    def list_files(self, prefix: str) -> list[FileInfo]:
        """Return all files below this folder, by name, without symbolic links and what lies behind them.

        Raise ValueError when one of them has a name that cannot be.
        """
        if not _FOLDER.fullmatch(prefix):
            raise ValueError(f"{prefix!r} is no name of a folder")
        if isinstance(self._store, LocalStore):  # whose own listing follows links, and fails at one that is a loop
            root = Path(url2pathname(urlsplit(self.storage_url).path))
            return sorted(_walk_folder(root, prefix), key=lambda stored: stored.name)
        found = (meta for chunk in obstore.list(self._store, prefix) for meta in chunk)
        # A bucket may hold an empty object for the folder itself.
        return sorted(
            (_build_file_info(meta) for meta in found if meta["path"] != prefix), key=lambda stored: stored.name
        )

    def read_file(self, name: str) -> bytes:
        """The content; FileNotFoundError when there is none."""
        return bytes(obstore.get(self._store, _validate_name(name)).bytes())

    def stream_file(self, stored: FileInfo, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The content from `start` to before `stop`, part by part; raises Replaced, FileNotFoundError."""
        stop = stored.size if stop is None else stop
        # One question for each part: S3 does not wait long for whoever reads one answer slowly.
        for begin in range(start, stop, CHUNK_BYTES):
            yield self._read_part(stored, begin, min(begin + CHUNK_BYTES, stop))

    def _read_part(self, stored: FileInfo, start: int, stop: int) -> bytes:
        try:
            options: GetOptions = {"range": (start, stop), "if_match": stored.etag}
            return bytes(obstore.get(self._store, _validate_name(stored.name), options=options).bytes())
        except PreconditionError:
            raise FileChanged(stored.name) from None

    def delete_folder(self, prefix: str) -> None:
        """Remove all that lies below this folder."""
        for stored in self.list_files(prefix):
            self.delete(stored.name)

    def delete(self, name: str) -> None:
        """Remove the file; one that is already gone is fine."""
        with contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, _validate_name(name))

    def get_url(self, name: str) -> str:
        """Where everybody who knows the name can fetch it; ValueError for a file that is not public."""
        if not _PUBLIC_NAME.fullmatch(_validate_name(name)):
            raise ValueError(f"{name!r} is not for everybody")
        return f"{self.public_url}/files/{name}"

    def get_name_from_url(self, url: str) -> str:
        """The name in a URL made by `url`, whatever PUBLIC_URL was then."""
        return _validate_name(url.rpartition("/files/")[2])

    def get_public_name(self, url: str) -> str | None:
        """The name when anybody's URL leads to a public file of ours: to be read from here, not fetched."""
        base, separator, name = re.split("[?#]", url, maxsplit=1)[0].rpartition("/files/")
        return name if separator and base == self.public_url and _PUBLIC_NAME.fullmatch(name) else None


def _validate_name(name: str) -> str:
    if not _NAME.fullmatch(name) and not _INBOX_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a stored file")
    return name


def _build_file_info(meta: "ObjectMeta") -> FileInfo:
    return FileInfo(meta["path"], meta["size"], str(meta["e_tag"]))  # directories and S3 have one for every file


def _walk_folder(root: Path, prefix: str) -> Iterator[FileInfo]:
    """Return the regular files below a folder of a directory, in any order.

    The ETag is the one of the store: reading a file by it fails once a link has taken the place of the file.
    """
    if (root / prefix).is_symlink():
        return
    for folder, _, names in os.walk(root / prefix, onerror=_check_walk_error):
        for file_name in names:
            path = Path(folder, file_name)
            try:
                found = path.lstat()
            except FileNotFoundError:  # deleted meanwhile
                continue
            if not stat.S_ISREG(found.st_mode) or _STAGED_NAME.search(file_name):
                continue
            name = path.relative_to(root).as_posix()
            if _UNLISTABLE.search(name):
                raise ValueError(f"a file below {prefix} has a name that cannot be")
            etag = f'"{found.st_ino:x}-{found.st_mtime_ns // 1000:x}-{found.st_size:x}"'
            yield FileInfo(name, found.st_size, etag)


def _check_walk_error(error: OSError) -> None:
    """Raise StorageError for a folder that cannot be read, unless it does not exist or is closed to the server."""
    if isinstance(error, PermissionError):
        log.warning("folder not read", error=type(error).__name__)
    elif not isinstance(error, FileNotFoundError):
        raise StorageError(f"The folder cannot be read: {type(error).__name__}") from error


def _compute_sha256(content: bytes | IO[bytes]) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    digest = hashlib.sha256()
    content.seek(0)
    while part := content.read(CHUNK_BYTES):
        digest.update(part)
    content.seek(0)
    return digest.hexdigest()


def init_app(app: Flask) -> None:
    """Bind the storage and serve what is in it."""
    app.extensions["storage"] = Storage(app.config["STORAGE_URL"], app.config["PUBLIC_URL"])
    app.register_blueprint(files)
    app.register_error_handler(StorageError, _handle_storage_down)


def _handle_storage_down(error: Exception) -> Response:
    log.error("the storage does not answer", error=type(error).__name__)
    return error_response([Unavailable("The storage does not answer. Try again.", headers={"Retry-After": "2"})])


def current_storage() -> Storage:
    """The storage of the current app."""
    storage: Storage = current_app.extensions["storage"]
    return storage


@files.get("/files/<path:name>")
def serve_public_file(name: str) -> Response:
    """A public file for everybody who knows its name; there is no listing."""
    match = _PUBLIC_NAME.fullmatch(name)
    if not match or match[2] not in MEDIA_TYPES:
        raise NotFound
    return send_stored_file(name, cache=CACHE_IMMUTABLE if _SHA256.fullmatch(match[1]) else CACHE_NO_CACHE)


serve_public_file.permission = "anyone"  # type: ignore[attr-defined]  # read by `manage.py routes`


def send_stored_file(
    name: str, *, media_type: str | None = None, filename: str | None = None, cache: str = CACHE_PRIVATE
) -> Response:
    """The answer that streams this file, whoever asks: to be saved as `filename` where there is one."""
    try:
        response = (
            _redirect_to_proxy(name) if current_app.config["X_ACCEL_REDIRECT"] else _build_response_with_retry(name)
        )
    except FileNotFoundError:
        raise NotFound from None
    response.content_type = media_type or MEDIA_TYPES.get(name.rpartition(".")[2], "application/octet-stream")
    response.headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
    response.headers["Cache-Control"] = cache
    if filename is not None:
        plain = _NOT_IN_FILENAMES.sub("_", filename)
        names = {"filename": plain.encode("ascii", "replace").decode(), "filename*": f"UTF-8''{quote(plain, safe='')}"}
        response.headers.set("Content-Disposition", "attachment", **names)
    return response


def _redirect_to_proxy(name: str) -> Response:
    """Let nginx send the file: it answers conditions and ranges by itself."""
    current_storage().stat(name)
    response = Response()
    response.headers["X-Accel-Redirect"] = f"{current_app.config['X_ACCEL_REDIRECT']}/{quote(name)}"
    return response


def _build_response_with_retry(name: str) -> Response:
    storage = current_storage()
    try:
        return _build_response(storage.stat(name))
    except FileChanged:  # just between the two questions
        return _build_response(storage.stat(name))


def _build_response(stored: FileInfo) -> Response:
    """200, 206 or 304 (RFC 9110, 13 and 14), or the error that the conditions of the request make."""
    response = Response()
    response.headers["ETag"] = stored.etag
    response.headers["Accept-Ranges"] = "bytes"
    apply_preconditions(response)
    if response.status_code == HTTPStatus.NOT_MODIFIED:
        return response
    start, stop = 0, stored.size
    if part := _parse_range(stored):
        start, stop = part
        response.status_code = HTTPStatus.PARTIAL_CONTENT
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stored.size}"
    if request.method == "GET":
        parts = current_storage().stream_file(stored, start, stop)
        # One chunk is handed over at once; more of them hold a thread as long as the client reads.
        response.response = [next(parts, b"")] if stop - start <= CHUNK_BYTES else _hold_slot(response, parts)
    response.content_length = stop - start
    return response


def _hold_slot(response: Response, parts: Iterator[bytes]) -> Iterator[bytes]:
    """Return the parts of a file, which hold a slot until they are sent, or until the client has gone away."""
    slot = take_slot(
        _file_streams,
        caller_holders(request.remote_addr),
        full="Too many files are being sent at this moment.",
        share=f"Your address is loading {MAX_FILE_STREAMS_PER_ADDRESS} files already. Wait until one of them is there.",
    )
    try:
        first = next(parts)  # now: what fails, fails as an error
    except BaseException:
        _file_streams.release(slot)
        raise
    response.call_on_close(lambda: _file_streams.release(slot))
    return _release_at_end(chain([first], parts), slot)


def _release_at_end(parts: Iterator[bytes], slot: Slot) -> Iterator[bytes]:
    try:
        yield from parts
    finally:
        _file_streams.release(slot)


def _parse_range(stored: FileInfo) -> tuple[int, int] | None:
    """The one part asked for; None, which is the whole, for several, for nonsense, and for a part of another file."""
    asked = request.range
    if request.method != "GET" or asked is None or asked.units != "bytes" or len(asked.ranges) != 1:
        return None
    if request.headers.get("If-Range", stored.etag) != stored.etag:
        return None
    start, stop = asked.ranges[0]
    start = max(start + stored.size, 0) if start < 0 else start
    if start >= stored.size:
        raise RangeNotSatisfiable(header="Range", headers={"Content-Range": f"bytes */{stored.size}"})
    return start, min(stop or stored.size, stored.size)
