"""Following a job from a terminal: what it says and where it waits, told by PostgreSQL itself, as long as it lives."""

from collections.abc import Iterator
from functools import cache
from time import monotonic, sleep
from typing import NamedTuple
from uuid import UUID

import psycopg
from flask import current_app
from sqlalchemy import Connection, Uuid, bindparam, select
from sqlalchemy.exc import DBAPIError

from app.database import (
    PreparedStatement,
    create_listen_engine,
    listen_to_channel,
    open_transaction,
    poll_notifications,
)
from app.errors import NotFound
from app.jobs.lifecycle import NOTIFY_CHANNEL
from app.jobs.models import TERMINAL_STATES, Job
from app.jobs.progress_stream import ProgressEvent, list_events_after
from app.jsonapi.resource_type import TYPES

POLL_INTERVAL_SECONDS = 1.0
"""How long a notification may be missing, and how old the place in the queue may be."""

DATABASE_TIMEOUT_SECONDS = 60.0
"""Seconds that the database may be away."""

RETRY_DELAY_SECONDS = 0.5

_ID = bindparam("job_id", type_=Uuid)


class JobUpdate(NamedTuple):
    """What a job has said last, and how many are before it while it waits."""

    element: ProgressEvent
    ahead: int | None


def stream_updates(job_id: UUID) -> Iterator[JobUpdate | None]:
    """The present state of a job, then what it says, until it has ended; None while the database is away.

    What is known is told again every POLL_SECONDS. Raises what the driver does once the database has been away for
    PATIENCE seconds, or was when this began.
    """
    following = _JobWatcher(job_id)
    heard_at: float | None = None
    while following.is_active:
        try:
            for news in following.iter_updates():
                heard_at = monotonic()
                yield news
        except (DBAPIError, psycopg.Error):
            if heard_at is None or monotonic() - heard_at > DATABASE_TIMEOUT_SECONDS:
                raise
            yield None
            sleep(RETRY_DELAY_SECONDS)


class _JobWatcher:
    """One job, and what is known of it."""

    def __init__(self, job_id: UUID) -> None:
        self.job_id = job_id
        self.known: ProgressEvent | None = None
        self.engine = create_listen_engine(current_app.config["DATABASE_URL"], "open-event-follow")

    @property
    def is_active(self) -> bool:
        """Whether the job may say more."""
        return self.known is None or self.known.state not in TERMINAL_STATES

    def iter_updates(self) -> Iterator[JobUpdate]:
        """News, on a connection of their own."""
        with self.engine.connect() as connection:
            listen_to_channel(connection, NOTIFY_CHANNEL)
            while self.is_active:
                yield from self._read_updates()
                if self.is_active:
                    self._wait_for_change(connection)

    def _read_updates(self) -> list[JobUpdate]:
        with open_transaction(is_read=True):
            found = _build_state_query().fetch_rows({"job_id": self.job_id})
            if not found:
                raise NotFound("The job has just gone away.")
            ((state, last_seq, ahead),) = found
            seq = max(last_seq - 1, 0) if self.known is None else self.known.seq
            elements = list_events_after(self.job_id, seq)
        said = elements or [self.known or ProgressEvent(0, None, None, state)]
        self.known = said[-1]
        return [JobUpdate(element, ahead) for element in said]

    def _wait_for_change(self, connection: Connection) -> None:
        """Until there is news of this job; of others there may be a lot."""
        deadline = monotonic() + POLL_INTERVAL_SECONDS
        while (left := deadline - monotonic()) > 0:
            if any(payload.startswith(str(self.job_id)) for payload in poll_notifications(connection, left)):
                return


@cache
def _build_state_query() -> PreparedStatement:
    """Where a job is: prepared once all types are known."""
    jobs = Job.__table__
    ahead = TYPES["job"].attributes["queue_position"].expression(jobs)
    return PreparedStatement(select(jobs.c.state, jobs.c.last_seq, ahead).where(jobs.c.id == _ID))
