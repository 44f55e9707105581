"""Reads that may keep PostgreSQL busy for long: each has a short time, and few run at once.

Callers without a token have slots of their own, so that they cannot keep out those who are signed in.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from app.database import connection, release_connection
from app.errors import Unavailable

STATEMENT_TIMEOUT_SECONDS = 1
"""Of each statement; all others have three seconds (app/database.py)."""

SET_LIMITS = (
    f"SELECT set_config('statement_timeout', '{STATEMENT_TIMEOUT_SECONDS}s', false), "
    "set_config('max_parallel_workers_per_gather', '0', false)"
)

MAX_AT_ONCE = 2
"""Slots of each kind of caller in a web process: the rest of the pool and of the processors is for other requests."""

MAX_WAITING = 8
WAIT_TIMEOUT_SECONDS = 1.0
"""How long a read waits for a slot; MAX_WAITING may wait, and others are refused at once."""


class ReadSlots:
    """The costly reads of one kind of caller that run, and those that wait."""

    def __init__(self) -> None:
        self._running = threading.BoundedSemaphore(MAX_AT_ONCE)
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)

    def acquire(self) -> None:
        """Wait for a slot; raise 503 when that takes too long, or too many wait already."""
        if self._running.acquire(blocking=False):
            return
        if self._waiting.acquire(blocking=False):
            try:
                if self._running.acquire(timeout=WAIT_TIMEOUT_SECONDS):
                    return
            finally:
                self._waiting.release()
        detail = "Too many costly searches run at this moment. Try again, or use fewer filters and sort keys."
        raise Unavailable(detail, headers={"Retry-After": "2"})

    def release(self) -> None:
        """Free the slot."""
        self._running.release()


_anonymous, _signed_in = ReadSlots(), ReadSlots()


@contextmanager
def costly_read(*, is_anonymous: bool) -> Iterator[None]:
    """Wait for a slot, then run statements, each for STATEMENT_TIMEOUT at most and on one processor of the database."""
    slots = _anonymous if is_anonymous else _signed_in
    release_connection()  # the pool has few: none is held while waiting
    slots.acquire()
    try:
        used = connection()
        used.exec_driver_sql(SET_LIMITS)
        try:
            yield
        finally:
            if not used.invalidated:
                used.exec_driver_sql("RESET ALL")  # to the options with which the connection was made
    finally:
        slots.release()
