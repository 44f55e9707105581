"""Request bodies, read completely before the view runs, so that a slow client holds no database connection.

A body that is being read holds a thread. The number of these threads is limited, for the process and for each address,
so that probes and GET requests are still served. `app/connections.py` ends bodies that are sent too slowly.

A view that accepts more than `MAX_BODY_BYTES` has an attribute `largest_body`: a function that returns the maximum size
in bytes for the caller, or raises ApiError, before any of the body is stored.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flask import Flask, current_app, g, request

from app import write_limits
from app.errors import ApiError, BadRequest, ContentTooLarge, RequestTimeout
from app.proxies import find_peer
from app.slots import Slot, SlotPool, caller_holders, take_slot

MAX_BODY_BYTES = 2**20
MAX_READERS = 192
"""Bodies read at the same time; `app/web.py` has more threads than that."""

MAX_READERS_PER_ADDRESS = 24
"""Bodies read at the same time from one client address."""

BODY_TIMEOUT_SECONDS = 900
"""Time limit for one body; `app/connections.py` ends it then, or when it is slower than the minimum rate."""

MAX_FULL_SECONDS = 60
"""Time after which the health check fails because all readers are in use."""

MAX_LARGE_BODIES = 8
"""Bodies larger than `MAX_BODY_BYTES` in the memory of this process, each until its request ends."""
MAX_LARGE_BODIES_PER_HOLDER = 2
"""Large bodies of one client address, and of one user."""
LARGE_BODY_SLOT_TIMEOUT_SECONDS = 10.0
"""Time a large body waits for a slot."""

MAX_DISCARDED_BYTES = 64 * 2**20
"""Bytes of a refused body that are read and discarded: most clients read the response only after sending the body."""
CHUNK_BYTES = 2**16

reader_slots = SlotPool(MAX_READERS, MAX_READERS_PER_ADDRESS)
_large_body_slots = SlotPool(MAX_LARGE_BODIES, MAX_LARGE_BODIES_PER_HOLDER)


@dataclass(eq=False)
class OpenBody:
    """A body that is being read."""

    slot: Slot
    peer: str
    """Address at the other end of the connection: the client or a proxy."""
    large_slot: Slot | None = None
    """Slot of a body larger than `MAX_BODY_BYTES`."""
    ended_at: float | None = None
    """Monotonic time at which its connection was closed for reading because the client was too slow."""


open_bodies: set[OpenBody] = set()


def init_app(app: Flask) -> None:
    """Read the body of every request; discard it if no route matches."""
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.before_request(_read_request_body)
    app.teardown_request(_release_large_body_slot)


def describe_stuck_readers() -> str | None:
    """Return a message for the health check if all readers have been in use for MAX_FULL_SECONDS."""
    seconds = reader_slots.get_full_seconds()
    if seconds <= MAX_FULL_SECONDS:
        return None
    return f"all {reader_slots.size} readers of request bodies have been in use for {seconds:.0f} s"


def list_crowding_bodies() -> list[OpenBody]:
    """Return the open bodies of clients with many of them if most readers are in use, else none."""
    return (
        [each for each in tuple(open_bodies) if reader_slots.is_crowding(each.slot)] if reader_slots.is_crowded else []
    )


def list_awaited_bodies() -> list[OpenBody]:
    """Return the large bodies that are being sent if other requests wait for their slots, else none."""
    return [each for each in tuple(open_bodies) if each.large_slot] if _large_body_slots.is_awaited else []


def _read_request_body() -> None:
    is_chunked = "Transfer-Encoding" in request.headers
    if not (request.content_length or is_chunked):
        return
    if is_chunked:
        # Granian's input ends with the body, but Granian does not declare it; Werkzeug would read nothing.
        request.environ["wsgi.input_terminated"] = True
    with _track_open_body() as open_body:
        if request.endpoint is None:  # 404 or 405: an unread body would block the next request of the connection
            _discard_body()
            return
        try:
            body = _receive_body(open_body)
        except ApiError:
            _discard_body()
            raise
    is_short = request.content_length is not None and len(body) < request.content_length
    if open_body.ended_at is not None and (is_short or is_chunked):
        raise RequestTimeout(f"The body was sent too slowly, or took more than {BODY_TIMEOUT_SECONDS} s.")
    if is_short:
        raise BadRequest("The body ends before its Content-Length.", code="incomplete-body")


@contextmanager
def _track_open_body() -> Iterator[OpenBody]:
    slot = take_slot(
        reader_slots,
        caller_holders(request.remote_addr),
        full="Too many request bodies are being sent. Try again.",
        share=f"Your address is already sending {MAX_READERS_PER_ADDRESS} request bodies, the maximum. "
        "Wait until one of them has been sent.",
    )
    open_body = OpenBody(slot, find_peer())
    open_bodies.add(open_body)
    try:
        yield open_body
    finally:
        open_bodies.discard(open_body)
        reader_slots.release(slot)


def _receive_body(open_body: OpenBody) -> bytes:
    request.max_content_length = limit = _get_body_limit()
    length = request.content_length  # None for a chunked body
    if length is not None and length > limit:
        raise ContentTooLarge(f"The body may have at most {limit} bytes.")
    if (length or limit) > MAX_BODY_BYTES:
        open_body.large_slot = _acquire_large_body_slot()
    body = request.get_data()
    if length is None and len(body) >= limit:
        raise ContentTooLarge(f"The body must have less than {limit} bytes.")  # Werkzeug truncates it without an error
    if limit <= MAX_BODY_BYTES:  # app/quotas.py counts images
        write_limits.set_body_bytes(len(body))
    return body


def _get_body_limit() -> int:
    view = current_app.view_functions[str(request.endpoint)]
    largest_body: Callable[[], int] | None = getattr(view, "largest_body", None)
    return MAX_BODY_BYTES if largest_body is None else largest_body()


def _acquire_large_body_slot() -> Slot:
    slot = g.large_body_slot = take_slot(
        _large_body_slots,
        caller_holders(request.remote_addr, g.viewer.id if "viewer" in g else 0),
        full="Too many large request bodies are being sent. Try again.",
        share=f"You are already sending {MAX_LARGE_BODIES_PER_HOLDER} large request bodies, the maximum. "
        "Wait until one of them has been sent.",
        timeout_seconds=LARGE_BODY_SLOT_TIMEOUT_SECONDS,
    )
    return slot


def _release_large_body_slot(_error: BaseException | None) -> None:
    if slot := g.pop("large_body_slot", None):
        _large_body_slots.release(slot)


def _discard_body() -> None:
    left = min(request.content_length or MAX_DISCARDED_BYTES, MAX_DISCARDED_BYTES + 1)
    if left > MAX_DISCARDED_BYTES:
        return
    while left > 0 and (part := request.environ["wsgi.input"].read(min(CHUNK_BYTES, left))):
        left -= len(part)
