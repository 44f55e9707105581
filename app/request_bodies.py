"""Request bodies, read whole before anything else happens: a slow client holds no connection to the database.

A body that is being read holds a thread. How many are read at once is limited, for the process and for each address, so
that probes and reads are answered meanwhile; `app/connections.py` ends bodies that are sent too slowly.

A view that takes more than `MAX_BODY_BYTES` has an attribute `largest_body`: a function that returns how many bytes the
caller may send, or refuses the caller, before any of the body is kept.
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
"""Bodies that are read at once; `app/web.py` has more threads than that."""

MAX_READERS_PER_ADDRESS = 24
"""Of these, how many one client address may have at once."""

BODY_TIMEOUT_SECONDS = 900
"""How long one body may take; `app/connections.py` ends it then, or when it is slower than the minimum rate."""

MAX_FULL_SECONDS = 60
"""After all readers have been taken for so long, the process counts as failed."""

MAX_LARGE_BODIES = 8
"""Bodies beyond `MAX_BODY_BYTES` that this process holds at once, each until its request has ended."""
MAX_LARGE_BODIES_PER_HOLDER = 2
"""Of these, how many one client address and one user may have at once."""
LARGE_BODY_SLOT_TIMEOUT_SECONDS = 10.0
"""Seconds that one of those waits for another to end."""

MAX_DISCARDED_BYTES = 64 * 2**20
"""Bytes of a refused body that are read and thrown away: most clients listen only when they have sent all."""
CHUNK_BYTES = 2**16

reader_slots = SlotPool(MAX_READERS, MAX_READERS_PER_ADDRESS)
_large_body_slots = SlotPool(MAX_LARGE_BODIES, MAX_LARGE_BODIES_PER_HOLDER)


@dataclass(eq=False)
class OpenBody:
    """A body that is being read."""

    slot: Slot
    peer: str
    """The address at the other end of the connection: the client or a proxy."""
    large_slot: Slot | None = None
    """The slot of a body beyond `MAX_BODY_BYTES`."""
    ended_at: float | None = None
    """When its connection was closed for reading, because the client was too slow."""


open_bodies: set[OpenBody] = set()


def init_app(app: Flask) -> None:
    """Read the body of every request, and discard it where no route takes it."""
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.before_request(_read_request_body)
    app.teardown_request(_release_large_body_slot)


def describe_stuck_readers() -> str | None:
    """Return what is wrong where all readers have been taken for MAX_FULL_SECONDS."""
    seconds = reader_slots.get_full_seconds()
    if seconds <= MAX_FULL_SECONDS:
        return None
    return f"all {reader_slots.size} readers of bodies have been taken for {seconds:.0f} s"


def list_crowding_bodies() -> list[OpenBody]:
    """Return the open bodies of clients that have many, where most readers are taken."""
    return (
        [each for each in tuple(open_bodies) if reader_slots.is_crowding(each.slot)] if reader_slots.is_crowded else []
    )


def list_awaited_bodies() -> list[OpenBody]:
    """Return the large bodies that are being sent while others wait for their slots."""
    return [each for each in tuple(open_bodies) if each.large_slot] if _large_body_slots.is_awaited else []


def _read_request_body() -> None:
    is_chunked = "Transfer-Encoding" in request.headers
    if not (request.content_length or is_chunked):
        return
    if is_chunked:
        # Granian ends the input where the body ends, but does not say so; Werkzeug would read nothing.
        request.environ["wsgi.input_terminated"] = True
    with _track_open_body() as open_body:
        if request.endpoint is None:  # 404 or 405: the client could not send its next request behind an unread body
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
        full="Too many bodies are being sent at this moment.",
        share=f"Your address is sending {MAX_READERS_PER_ADDRESS} bodies already. "
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
    length = request.content_length  # None for one in chunks
    if length is not None and length > limit:
        raise ContentTooLarge(f"The body may have at most {limit} bytes.")
    if (length or limit) > MAX_BODY_BYTES:
        open_body.large_slot = _acquire_large_body_slot()
    body = request.get_data()
    if length is None and len(body) >= limit:
        raise ContentTooLarge(f"The body must have less than {limit} bytes.")  # Werkzeug stops there and says nothing
    if limit <= MAX_BODY_BYTES:  # images are counted by app/quotas.py
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
        full="Too many large bodies are being sent at this moment.",
        share=f"You are sending {MAX_LARGE_BODIES_PER_HOLDER} large bodies already. Wait until one has been sent.",
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
