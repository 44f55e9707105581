"""Storage of files by name, in a directory or an S3 bucket, and the route that serves public files."""

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

from app.database import release_connection
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
"""Media types of public files, by suffix; files with other suffixes are not served."""

CACHE_NO_CACHE = "no-cache"
"""Caches store the file and revalidate it for each request: a deleted file is gone at once."""
CACHE_IMMUTABLE = "public, max-age=31536000, immutable"
CACHE_PRIVATE = "private, no-cache"

REFRESH_AGE = timedelta(hours=12)
"""Age from which `put_content_addressed` writes an existing file again."""

CHUNK_BYTES = 1024 * 1024
"""Bytes of a file that a stream reads and holds in memory at a time."""

MAX_FILE_STREAMS = 96
"""Files larger than a chunk that a process sends at once; each holds a thread until the client has read it."""

MAX_FILE_STREAMS_PER_ADDRESS = 16

# Only one dot, before the suffix: this excludes `..`, hidden files and temporary files.
_NAME = re.compile(r"(?:[A-Za-z0-9_-]{1,100}/){0,4}[A-Za-z0-9_-]{1,100}\.[a-z0-9]{1,8}", re.ASCII)
# Files in an inbox were put there by others, under names that this server did not choose.
_INBOX_NAME = re.compile(r"inbox(?:/(?!\.\.?(?:/|\Z))[^/\x00-\x1f\x7f]{1,255}){1,8}")
_FOLDER = re.compile(r"[A-Za-z0-9_-]{1,100}(?:/[A-Za-z0-9_-]{1,100}){0,4}", re.ASCII)
# Files directly in one of these folders are public: access needs only the name.
_PUBLIC_NAME = re.compile(r"(?:calendars|images|uploads)/([A-Za-z0-9_-]{1,100})\.([a-z0-9]{1,8})", re.ASCII)
_NOT_IN_FILENAMES = re.compile(r"[\x00-\x1f\x7f/\\\ud800-\udfff]")
_UNLISTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# Files that the store is still writing.
_STAGED_NAME = re.compile(r"#[0-9]+\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}")

StorageError = BaseError
"""Base class of the errors that storage methods raise when the storage does not respond."""

files = Blueprint("files", __name__)

_file_streams = SlotPool(MAX_FILE_STREAMS, MAX_FILE_STREAMS_PER_ADDRESS)

log = structlog.get_logger(__name__)


class RangeNotSatisfiable(BadRequest):
    """The requested range is outside the file."""

    http_status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    title = "Range not satisfiable"
    default_code = "range-not-satisfiable"


@dataclass(frozen=True)
class FileInfo:
    """Metadata of a file at the time of `stat`; `etag` changes with the content."""

    name: str
    size: int
    etag: str


class FileChanged(FileNotFoundError):
    """The file was replaced after its `FileInfo` was read."""


class Storage:
    """The file storage of one app."""

    def __init__(self, storage_url: str, public_url: str) -> None:
        self.storage_url = storage_url
        self.public_url = public_url

    @cached_property
    def _store_and_process_id(self) -> tuple[ObjectStore, int]:
        if self.storage_url.startswith("file:"):
            return from_url(self.storage_url, mkdir=True), os.getpid()
        store = from_url(
            self.storage_url,
            # Plain http is used only for an http AWS_ENDPOINT_URL, such as a local MinIO.
            client_options={"connect_timeout": "3s", "timeout": "15s", "allow_http": True},
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=20)},
        )
        return store, os.getpid()

    @property
    def _store(self) -> ObjectStore:
        store, process_id = self._store_and_process_id
        if process_id != os.getpid():  # a call would block forever
            raise RuntimeError("The storage was used before this process was forked: obstore's threads are missing.")
        return store

    def put(self, name: str, content: bytes | IO[bytes] | Iterable[bytes], media_type: str) -> None:
        """Write a file atomically; an open file or an iterator is written in parts, not loaded into memory.

        An iterator must not read from the storage.
        """
        # A directory cannot store a media type; files are served with the type of their suffix anyway.
        attributes = None if isinstance(self._store, LocalStore) else {"Content-Type": media_type}
        # 4 parts of 5 MiB at once; the default of 12 would need 60 MiB of memory for each file.
        obstore.put(self._store, _validate_name(name), content, attributes=attributes, max_concurrency=4)

    def put_content_addressed(self, prefix: str, content: bytes | IO[bytes], suffix: str, media_type: str) -> str:
        """Write the content to `prefix/sha256.suffix` unless it is there already; return that name."""
        name = f"{prefix}/{_compute_sha256(content)}.{suffix}"
        # An old file is written again: it may be an orphan that the sweep is about to delete.
        if not self.exists(name) or self.is_older(name, REFRESH_AGE):
            self.put(name, content, media_type)
        return name

    def stat(self, name: str) -> FileInfo:
        """Return the metadata of a file; raise FileNotFoundError if it does not exist."""
        meta = obstore.head(self._store, _validate_name(name))
        return _build_file_info(meta)

    def exists(self, name: str) -> bool:
        """Return whether the file exists."""
        try:
            self.stat(name)
        except FileNotFoundError:
            return False
        return True

    def is_older(self, name: str, age: timedelta) -> bool:
        """Return whether the file was written longer ago than `age`; False if it does not exist."""
        try:
            written_at: datetime = obstore.head(self._store, _validate_name(name))["last_modified"]
        except FileNotFoundError:
            return False
        return datetime.now(UTC) - written_at > age

    def list_old_names(self, prefix: str, age: timedelta) -> Iterator[Sequence[str]]:
        """Yield the names of the files below a folder that were written longer ago than `age`, in batches of 500."""
        written_before = datetime.now(UTC) - age
        for chunk in obstore.list(self._store, prefix, chunk_size=500):
            old = (meta["path"] for meta in chunk if meta["last_modified"] < written_before)
            yield [name for name in old if _NAME.fullmatch(name)]

    def list_files(self, prefix: str) -> list[FileInfo]:
        """Return the files below a folder, sorted by name, without symbolic links.

        Raise ValueError if one of them has an invalid name.
        """
        if not _FOLDER.fullmatch(prefix):
            raise ValueError(f"{prefix!r} is not a valid folder name")
        if isinstance(self._store, LocalStore):  # its own listing follows links, and fails at a loop
            root = Path(url2pathname(urlsplit(self.storage_url).path))
            return sorted(_walk_folder(root, prefix), key=lambda file: file.name)
        found = (meta for chunk in obstore.list(self._store, prefix) for meta in chunk)
        # A bucket may hold an empty object for the folder itself.
        return sorted((_build_file_info(meta) for meta in found if meta["path"] != prefix), key=lambda file: file.name)

    def read_file(self, name: str) -> bytes:
        """Return the content of a file; raise FileNotFoundError if it does not exist."""
        return bytes(obstore.get(self._store, _validate_name(name)).bytes())

    def stream_file(self, file: FileInfo, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from `start` up to, but not, `stop` in chunks; raise FileChanged, FileNotFoundError."""
        stop = file.size if stop is None else stop
        # One request for each chunk: S3 closes a connection whose client reads slowly.
        for begin in range(start, stop, CHUNK_BYTES):
            yield self._read_part(file, begin, min(begin + CHUNK_BYTES, stop))

    def _read_part(self, file: FileInfo, start: int, stop: int) -> bytes:
        try:
            options: GetOptions = {"range": (start, stop), "if_match": file.etag}
            return bytes(obstore.get(self._store, _validate_name(file.name), options=options).bytes())
        except PreconditionError:
            raise FileChanged(file.name) from None

    def delete_folder(self, prefix: str) -> None:
        """Delete all files below a folder."""
        for file in self.list_files(prefix):
            self.delete(file.name)

    def delete(self, name: str) -> None:
        """Delete a file; do nothing if it does not exist."""
        with contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, _validate_name(name))

    def get_url(self, name: str) -> str:
        """Return the URL of a public file; raise ValueError for a file that is not public."""
        if not _PUBLIC_NAME.fullmatch(_validate_name(name)):
            raise ValueError(f"{name!r} is not a public file")
        return f"{self.public_url}/files/{name}"

    def get_name_from_url(self, url: str) -> str:
        """Return the name in a URL that `get_url` made, also under an earlier PUBLIC_URL."""
        return _validate_name(url.rpartition("/files/")[2])

    def get_public_name(self, url: str) -> str | None:
        """Return the name if the URL is that of a public file in this storage, else None."""
        base, separator, name = re.split("[?#]", url, maxsplit=1)[0].rpartition("/files/")
        return name if separator and base == self.public_url and _PUBLIC_NAME.fullmatch(name) else None


def _validate_name(name: str) -> str:
    if not _NAME.fullmatch(name) and not _INBOX_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a valid file name")
    return name


def _build_file_info(meta: "ObjectMeta") -> FileInfo:
    return FileInfo(meta["path"], meta["size"], str(meta["e_tag"]))  # LocalStore and S3 always have an ETag


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
                raise ValueError(f"a file below {prefix} has an invalid name")
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
    """Create the storage of the app and register the route of its public files."""
    app.extensions["storage"] = Storage(app.config["STORAGE_URL"], app.config["PUBLIC_URL"])
    app.register_blueprint(files)
    app.register_error_handler(StorageError, _handle_storage_down)


def _handle_storage_down(error: Exception) -> Response:
    log.error("storage request failed", error=type(error).__name__)
    return error_response([Unavailable("The file storage does not respond. Try again.", headers={"Retry-After": "2"})])


def current_storage() -> Storage:
    """Return the storage of the current app."""
    storage: Storage = current_app.extensions["storage"]
    return storage


@files.get("/files/<path:name>")
def serve_public_file(name: str) -> Response:
    """Serve a public file to anyone who has its name; there is no list of files."""
    match = _PUBLIC_NAME.fullmatch(name)
    if not match or match[2] not in MEDIA_TYPES:
        raise NotFound
    return send_stored_file(name, cache=CACHE_IMMUTABLE if _SHA256.fullmatch(match[1]) else CACHE_NO_CACHE)


serve_public_file.permission = "anyone"  # type: ignore[attr-defined]  # read by `manage.py routes`


def send_stored_file(
    name: str, *, media_type: str | None = None, filename: str | None = None, cache: str = CACHE_PRIVATE
) -> Response:
    """Return a response that streams a file, without a permission check; raise NotFound if it does not exist.

    With `filename` it is an attachment of that name.

    The connection of the request goes back to the pool first: a storage may take long.
    """
    release_connection()
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
    """Return a response that makes nginx send the file; nginx evaluates conditions and ranges."""
    current_storage().stat(name)
    response = Response()
    response.headers["X-Accel-Redirect"] = f"{current_app.config['X_ACCEL_REDIRECT']}/{quote(name)}"
    return response


def _build_response_with_retry(name: str) -> Response:
    storage = current_storage()
    try:
        return _build_response(storage.stat(name))
    except FileChanged:  # replaced between `stat` and the read
        return _build_response(storage.stat(name))


def _build_response(file: FileInfo) -> Response:
    """Return 200, 206 or 304 (RFC 9110, 13 and 14); raise 412 or 416 for conditions or a range that fail."""
    response = Response()
    response.headers["ETag"] = file.etag
    response.headers["Accept-Ranges"] = "bytes"
    apply_preconditions(response)
    if response.status_code == HTTPStatus.NOT_MODIFIED:
        return response
    start, stop = 0, file.size
    if part := _parse_range(file):
        start, stop = part
        response.status_code = HTTPStatus.PARTIAL_CONTENT
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size}"
    if request.method == "GET":
        parts = current_storage().stream_file(file, start, stop)
        # A single chunk is buffered by the server; several hold a thread until the client has read them.
        response.response = [next(parts, b"")] if stop - start <= CHUNK_BYTES else _hold_slot(response, parts)
    response.content_length = stop - start
    return response


def _hold_slot(response: Response, parts: Iterator[bytes]) -> Iterator[bytes]:
    """Return the chunks of a file; they hold a slot until they are sent or the client disconnects."""
    slot = take_slot(
        _file_streams,
        caller_holders(request.remote_addr),
        full="Too many files are being downloaded at the moment.",
        share=f"One address may download {MAX_FILE_STREAMS_PER_ADDRESS} large files at once. Wait until one ends.",
    )
    try:
        first = next(parts)  # before the response starts: an error of the storage still gets an error status
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


def _parse_range(file: FileInfo) -> tuple[int, int] | None:
    """Return the requested range as (start, stop); None, for the whole file, if there is no single valid range.

    None also if `If-Range` has another ETag; raise RangeNotSatisfiable if the range begins after the end.
    """
    requested = request.range
    if request.method != "GET" or requested is None or requested.units != "bytes" or len(requested.ranges) != 1:
        return None
    if request.headers.get("If-Range", file.etag) != file.etag:
        return None
    start, stop = requested.ranges[0]
    start = max(start + file.size, 0) if start < 0 else start
    if start >= file.size:
        raise RangeNotSatisfiable(header="Range", headers={"Content-Range": f"bytes */{file.size}"})
    return start, min(stop or file.size, file.size)
