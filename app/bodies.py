"""Request bodies, read whole before anything else happens: a slow client holds no connection to the database.

Nor may slow clients hold every thread: in production a proxy in front collects bodies, without one this limit keeps
probes and reads alive. A view that takes more than `LARGEST_BODY` has an attribute `largest_body`: a function that
says how much whoever calls may send, or refuses him, before a byte of it is kept.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flask import Flask, current_app, g, request

from app.errors import ApiError, BadRequest, ContentTooLarge, Unavailable

LARGEST_BODY = 2**20
MOST_READERS = 192
"""Bodies that are read at once; `app/web.py` has more threads than that."""

MOST_LARGE = 4
"""Bodies beyond `LARGEST_BODY` that this process holds at once, each until its request has ended."""
LONGEST_WAIT = 5.0
"""Seconds that one of those waits for another to end."""

MOST_DRAINED = 64 * 2**20
"""Bytes of a refused body that are read and thrown away: most clients listen only when they have sent all."""
PART = 2**16

M_MMAP_THRESHOLD = -3
"""Of mallopt(3)."""

_readers = threading.BoundedSemaphore(MOST_READERS)
_room = threading.BoundedSemaphore(MOST_LARGE)


def install(app: Flask) -> None:
    """Read the body of every request, and discard it where no route takes it."""
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    app.before_request(_read)
    app.teardown_request(_leave_room)
    _give_memory_back()


def _give_memory_back() -> None:
    """What is large goes back to the system when it is freed: glibc would keep some for each thread, 600 MB in all."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_BODY)


def _read() -> None:
    is_chunked = "Transfer-Encoding" in request.headers
    if not (request.content_length or is_chunked):
        return
    if is_chunked:
        # Granian ends the input where the body ends, but does not say so; Werkzeug would read nothing.
        request.environ["wsgi.input_terminated"] = True
    with _reading():
        if request.endpoint is None:  # 404 or 405: the client could not send its next request behind an unread body
            _drain()
            return
        try:
            body = _body()
        except ApiError:
            _drain()
            raise
    if request.content_length is not None and len(body) < request.content_length:
        raise BadRequest("The body ends before its Content-Length.", code="incomplete-body")


@contextmanager
def _reading() -> Iterator[None]:
    if not _readers.acquire(blocking=False):
        raise Unavailable("Too many bodies are being sent at this moment.", headers={"Retry-After": "5"})
    try:
        yield
    finally:
        _readers.release()


def _body() -> bytes:
    request.max_content_length = limit = _limit()
    length = request.content_length  # None for one in chunks
    if length is not None and length > limit:
        raise ContentTooLarge(f"The body may have at most {limit} bytes.")
    if (length or limit) > LARGEST_BODY:
        _take_room()
    body = request.get_data()
    if length is None and len(body) >= limit:
        raise ContentTooLarge(f"The body must have less than {limit} bytes.")  # Werkzeug stops there and says nothing
    return body


def _limit() -> int:
    view = current_app.view_functions[str(request.endpoint)]
    largest_body: Callable[[], int] | None = getattr(view, "largest_body", None)
    return LARGEST_BODY if largest_body is None else largest_body()


def _take_room() -> None:
    if not _room.acquire(timeout=LONGEST_WAIT):
        raise Unavailable("Too many large bodies are being sent at this moment.", headers={"Retry-After": "5"})
    g.has_room = True


def _leave_room(_error: BaseException | None) -> None:
    if g.pop("has_room", False):
        _room.release()


def _drain() -> None:
    left = min(request.content_length or MOST_DRAINED, MOST_DRAINED + 1)
    if left > MOST_DRAINED:
        return
    while left > 0 and (part := request.environ["wsgi.input"].read(min(PART, left))):
        left -= len(part)
