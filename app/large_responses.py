"""Large responses, sent in chunks: each holds a slot until it is sent, so that slow clients cannot fill the memory.

`app/connections.py` ends connections whose clients read large responses too slowly.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from flask import Flask, Response, g, request

from app import memory
from app.errors import ApiError, error_response
from app.proxies import find_peer
from app.slots import Slot, SlotPool, caller_holders, take_slot

LARGE_RESPONSE_BYTES = 2**18
"""Size above which a response needs a slot; files have slots of their own (`app/storage.py`)."""

MAX_LARGE_RESPONSES = 64
"""Large responses that this process sends at the same time; `app/web.py` has more threads than that."""

MAX_LARGE_RESPONSES_PER_ADDRESS = 16
"""Large responses that are sent to one client address at the same time."""

MAX_WAITING = 48
MAX_WAITING_PER_ADDRESS = 16
"""Large responses that wait in memory for a slot; others are refused at once."""

SLOT_TIMEOUT_SECONDS = 5.0
"""Time the response to a GET request waits for a slot."""

CHUNK_BYTES = 2**16

STATUSES_WITHOUT_BODY = frozenset({204, 304})

response_slots = SlotPool(
    MAX_LARGE_RESPONSES,
    MAX_LARGE_RESPONSES_PER_ADDRESS,
    max_waiting=MAX_WAITING,
    max_waiting_per_holder=MAX_WAITING_PER_ADDRESS,
)


@dataclass(eq=False)
class OpenResponse:
    """A large response that is being sent."""

    slot: Slot
    peer: str
    """Address at the other end of the connection: the client or a proxy."""


open_responses: set[OpenResponse] = set()


def init_app(app: Flask) -> None:
    """Send large responses in chunks, each response with a slot."""
    app.after_request(_send_in_chunks)


def reserve_slot() -> None:
    """Take a slot for the large response of a writing request before it commits; raise 429 or 503 if none is free."""
    if "large_answer_slot" not in g:
        g.large_answer_slot = _take_slot(0.0)


def _send_in_chunks(response: Response) -> Response:
    slot: Slot | None = g.pop("large_answer_slot", None)
    length = response.content_length or 0
    has_body = (
        request.method != "HEAD" and response.status_code not in STATUSES_WITHOUT_BODY and not response.is_streamed
    )
    if length <= LARGE_RESPONSE_BYTES or not has_body:
        if slot is not None:
            response_slots.release(slot)
        return response
    if slot is None:
        try:
            slot = _take_slot(SLOT_TIMEOUT_SECONDS)
        except ApiError as error:
            return error_response([error])
    open_response = OpenResponse(slot, find_peer())
    open_responses.add(open_response)
    response.response = _iter_chunks(response.get_data(), open_response)
    # For a client that disconnected before the first chunk: the generator never started.
    response.call_on_close(lambda: _finish_response(open_response, length))
    return response


def _take_slot(timeout_seconds: float) -> Slot:
    return take_slot(
        response_slots,
        caller_holders(request.remote_addr),
        full="Too many large responses are being sent. Try again.",
        share=(
            f"Your address is already receiving {MAX_LARGE_RESPONSES_PER_ADDRESS} responses of more than "
            f"{LARGE_RESPONSE_BYTES // 1024} KiB, the maximum. Wait until one of them is complete, or request less."
        ),
        timeout_seconds=timeout_seconds,
    )


def _iter_chunks(body: bytes, open_response: OpenResponse) -> Iterator[bytes]:
    length = len(body)
    try:
        for start in range(0, length, CHUNK_BYTES):
            yield body[start : start + CHUNK_BYTES]
    finally:
        del body  # before memory is released
        _finish_response(open_response, length)


def _finish_response(open_response: OpenResponse, length: int) -> None:
    """Release the slot and the memory of a response; a second call does nothing."""
    if open_response not in open_responses:
        return
    open_responses.discard(open_response)
    response_slots.release(open_response.slot)
    if length > memory.LARGE_BLOCK_BYTES:
        memory.release_memory()
