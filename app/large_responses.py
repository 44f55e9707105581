"""Large answers, sent in parts: each holds a slot until the client has it, so that slow clients cannot fill the memory.

Without that the server would keep whole answers for clients that do not read. `app/connections.py` ends connections on
which large answers are read too slowly.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from flask import Flask, Response, g, request

from app import memory
from app.errors import ApiError, error_response
from app.proxies import find_peer
from app.slots import Slot, SlotPool, caller_holders, take_slot

LARGE_RESPONSE_BYTES = 2**18
"""An answer with more bytes than this needs a slot; files have slots of their own (`app/storage.py`)."""

MAX_LARGE_RESPONSES = 64
"""Large answers that this process sends at once; `app/web.py` has more threads than that."""

MAX_LARGE_RESPONSES_PER_ADDRESS = 16
"""Of these, how many one client address may have at once."""

MAX_WAITING = 48
MAX_WAITING_PER_ADDRESS = 16
"""Large answers that are kept in memory until a slot is free; others are refused at once."""

SLOT_TIMEOUT_SECONDS = 5.0
"""How long an answer to a GET waits for a slot."""

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
    """A large answer that is being sent."""

    slot: Slot
    peer: str
    """The address at the other end of the connection: the client or a proxy."""


open_responses: set[OpenResponse] = set()


def init_app(app: Flask) -> None:
    """Send large answers in parts, each with a slot."""
    app.after_request(_send_in_chunks)


def reserve_slot() -> None:
    """Take the slot of the large answer to a request that writes, before it commits; raise 429 or 503."""
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
    open_answer = OpenResponse(slot, find_peer())
    open_responses.add(open_answer)
    response.response = _iter_chunks(response.get_data(), open_answer)
    response.call_on_close(
        lambda: _finish_response(open_answer, length)
    )  # also of a client that left before the first part
    return response


def _take_slot(timeout_seconds: float) -> Slot:
    return take_slot(
        response_slots,
        caller_holders(request.remote_addr),
        full="Too many large answers are being sent at this moment. Try again.",
        share=(
            f"Your address is loading {MAX_LARGE_RESPONSES_PER_ADDRESS} answers of more than "
            f"{LARGE_RESPONSE_BYTES // 1024} KiB already. Wait until one of them is there, or ask for less at once."
        ),
        timeout_seconds=timeout_seconds,
    )


def _iter_chunks(body: bytes, open_answer: OpenResponse) -> Iterator[bytes]:
    length = len(body)
    try:
        for start in range(0, length, CHUNK_BYTES):
            yield body[start : start + CHUNK_BYTES]
    finally:
        del body  # before memory is returned
        _finish_response(open_answer, length)


def _finish_response(open_answer: OpenResponse, length: int) -> None:
    """Return the slot and the memory of an answer; a second time does nothing."""
    if open_answer not in open_responses:
        return
    open_responses.discard(open_answer)
    response_slots.release(open_answer.slot)
    if length > memory.LARGE_BLOCK_BYTES:
        memory.release_memory()
