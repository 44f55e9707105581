"""Costly reads, which may keep PostgreSQL busy for long: each has a short time limit, and few run concurrently.

Anonymous users have separate slots, so that they cannot block signed-in users. One client address and one user each
hold at most one slot at a time; waiting requests of different holders take turns.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from flask import has_request_context, request

from app.database import get_connection, release_connection
from app.jsonapi.current_user import CurrentUser
from app.slots import Slot, SlotPool, caller_holders, take_slot

STATEMENT_TIMEOUT_SECONDS = 1
"""Seconds that each statement of a costly read may take; other statements have three (app/database.py)."""

SET_LIMITS = (
    f"SELECT set_config('statement_timeout', '{STATEMENT_TIMEOUT_SECONDS}s', false), "
    "set_config('max_parallel_workers_per_gather', '0', false)"
)

MAX_CONCURRENT_READS = 2
"""Slots for anonymous and for signed-in users each, in a web process: other requests need connections and CPUs too."""

MAX_CONCURRENT_READS_PER_HOLDER = 1
"""Slots that one client address or one user may hold at a time."""

MAX_WAITING = 16
MAX_WAITING_PER_HOLDER = 2
WAIT_TIMEOUT_SECONDS = 2.0
"""Seconds that a read waits for a slot; beyond MAX_WAITING reads, and per holder, others are rejected at once."""

RETRY_AFTER_SECONDS = 2


def make_read_slots() -> SlotPool:
    """Return the slots of anonymous or of signed-in users."""
    return SlotPool(
        MAX_CONCURRENT_READS,
        MAX_CONCURRENT_READS_PER_HOLDER,
        max_waiting=MAX_WAITING,
        max_waiting_per_holder=MAX_WAITING_PER_HOLDER,
    )


_anonymous_slots, _user_slots = make_read_slots(), make_read_slots()


@contextmanager
def costly_read(viewer: CurrentUser) -> Iterator[None]:
    """Wait for a slot, then limit each statement to STATEMENT_TIMEOUT_SECONDS and one CPU of the database server."""
    slots = _anonymous_slots if viewer.is_anonymous else _user_slots
    release_connection()  # the pool is small: hold no connection while waiting
    slot = _take_slot(slots, caller_holders(request.remote_addr, viewer.id) if has_request_context() else ())
    try:
        connection = get_connection()
        connection.exec_driver_sql(SET_LIMITS)
        try:
            yield
        finally:
            if not connection.invalidated:
                connection.exec_driver_sql("RESET ALL")  # to the options of the connection string
    finally:
        slots.release(slot)


def _take_slot(slots: SlotPool, holders: tuple[str, ...]) -> Slot:
    """Wait for a slot; raise TooManyRequests if the holder has its share, Unavailable if none is free in time."""
    return take_slot(
        slots,
        holders,
        full="Too many costly searches are running at the moment. Try again, or use fewer filters and sort keys.",
        share=(
            f"A costly search of {{holder}} is running: a user or address may have {MAX_CONCURRENT_READS_PER_HOLDER} "
            f"at a time, and {MAX_WAITING_PER_HOLDER} waiting. Send them one after the other."
        ),
        retry_after=RETRY_AFTER_SECONDS,
        timeout_seconds=WAIT_TIMEOUT_SECONDS,
    )
