"""Reads that may keep PostgreSQL busy for long: each has a short time, and few run at once.

Callers without a token have slots of their own, so that they cannot keep out those who are signed in. One address, and
one user, has one at a time, and those that wait take turns.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from flask import has_request_context, request

from app.database import get_connection, release_connection
from app.jsonapi.current_user import CurrentUser
from app.slots import Slot, SlotPool, caller_holders, take_slot

STATEMENT_TIMEOUT_SECONDS = 1
"""Of each statement; all others have three seconds (app/database.py)."""

SET_LIMITS = (
    f"SELECT set_config('statement_timeout', '{STATEMENT_TIMEOUT_SECONDS}s', false), "
    "set_config('max_parallel_workers_per_gather', '0', false)"
)

MAX_CONCURRENT_READS = 2
"""Slots of each kind of caller in a web process: the rest of the pool and of the processors is for other requests."""

MAX_CONCURRENT_READS_PER_HOLDER = 1
"""Of these, how many one client address and one user may have."""

MAX_WAITING = 16
MAX_WAITING_PER_HOLDER = 2
WAIT_TIMEOUT_SECONDS = 2.0
"""How long a read waits for a slot; so many may wait, in all and of one holder, and others are refused at once."""

RETRY_AFTER_SECONDS = 2


def make_read_slots() -> SlotPool:
    """Return the slots of one kind of caller."""
    return SlotPool(
        MAX_CONCURRENT_READS,
        MAX_CONCURRENT_READS_PER_HOLDER,
        max_waiting=MAX_WAITING,
        max_waiting_per_holder=MAX_WAITING_PER_HOLDER,
    )


_anonymous_slots, _user_slots = make_read_slots(), make_read_slots()


@contextmanager
def costly_read(viewer: CurrentUser) -> Iterator[None]:
    """Wait for a slot, then run statements, each for STATEMENT_TIMEOUT at most and on one processor of the database."""
    slots = _anonymous_slots if viewer.is_anonymous else _user_slots
    release_connection()  # the pool has few: none is held while waiting
    slot = _take_slot(slots, caller_holders(request.remote_addr, viewer.id) if has_request_context() else ())
    try:
        used = get_connection()
        used.exec_driver_sql(SET_LIMITS)
        try:
            yield
        finally:
            if not used.invalidated:
                used.exec_driver_sql("RESET ALL")  # to the options with which the connection was made
    finally:
        slots.release(slot)


def _take_slot(slots: SlotPool, holders: tuple[str, ...]) -> Slot:
    """Wait for a slot; raise 429 where the caller has its share, 503 where the process has none left in time."""
    return take_slot(
        slots,
        holders,
        full="Too many costly searches run at this moment. Try again, or use fewer filters and sort keys.",
        share=(
            f"A costly search of {{holder}} runs already: a user and an address have {MAX_CONCURRENT_READS_PER_HOLDER} "
            f"at a time, and {MAX_WAITING_PER_HOLDER} that wait. Send them one after the other."
        ),
        retry_after=RETRY_AFTER_SECONDS,
        timeout_seconds=WAIT_TIMEOUT_SECONDS,
    )
