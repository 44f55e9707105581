"""Updates of one job for `manage.py jobs watch`, read from PostgreSQL with LISTEN until the job ends."""

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
"""Seconds between two reads without a notification; the queue position is at most this old."""

DATABASE_TIMEOUT_SECONDS = 60.0
"""Seconds for which to retry while the database does not answer."""

RETRY_DELAY_SECONDS = 0.5

_ID = bindparam("job_id", type_=Uuid)


class JobUpdate(NamedTuple):
    """A progress event of a job, and its queue position while it is queued."""

    event: ProgressEvent
    ahead: int | None


def stream_updates(job_id: UUID) -> Iterator[JobUpdate | None]:
    """Yield the current state of a job, then its events until it ends; None while the database does not answer.

    The last event is repeated every POLL_INTERVAL_SECONDS. Raise the error of the driver if the database does not
    answer at the beginning, or for DATABASE_TIMEOUT_SECONDS.
    """
    watcher = _JobWatcher(job_id)
    updated_at: float | None = None
    while watcher.is_active:
        try:
            for update in watcher.iter_updates():
                updated_at = monotonic()
                yield update
        except (DBAPIError, psycopg.Error):
            if updated_at is None or monotonic() - updated_at > DATABASE_TIMEOUT_SECONDS:
                raise
            yield None
            sleep(RETRY_DELAY_SECONDS)


class _JobWatcher:
    """A job and its last event, read again after each loss of the connection."""

    def __init__(self, job_id: UUID) -> None:
        self.job_id = job_id
        self.last_event: ProgressEvent | None = None
        self.engine = create_listen_engine(current_app.config["DATABASE_URL"], "open-event-follow")

    @property
    def is_active(self) -> bool:
        """Return whether more events may follow."""
        return self.last_event is None or self.last_event.state not in TERMINAL_STATES

    def iter_updates(self) -> Iterator[JobUpdate]:
        """Yield updates until the job ends, with a separate connection that listens."""
        with self.engine.connect() as connection:
            listen_to_channel(connection, NOTIFY_CHANNEL)
            while self.is_active:
                yield from self._read_updates()
                if self.is_active:
                    self._wait_for_change(connection)

    def _read_updates(self) -> list[JobUpdate]:
        with open_transaction(is_read=True):
            rows = _build_state_query().fetch_rows({"job_id": self.job_id})
            if not rows:
                raise NotFound("The job has just been deleted.")
            ((state, last_seq, ahead),) = rows
            seq = max(last_seq - 1, 0) if self.last_event is None else self.last_event.seq
            events = list_events_after(self.job_id, seq) or [self.last_event or ProgressEvent(0, None, None, state)]
        self.last_event = events[-1]
        return [JobUpdate(event, ahead) for event in events]

    def _wait_for_change(self, connection: Connection) -> None:
        """Wait for a notification about this job, at most POLL_INTERVAL_SECONDS; ignore those about other jobs."""
        deadline = monotonic() + POLL_INTERVAL_SECONDS
        while (left := deadline - monotonic()) > 0:
            if any(payload.startswith(str(self.job_id)) for payload in poll_notifications(connection, left)):
                return


@cache
def _build_state_query() -> PreparedStatement:
    """Build the query for state, last event and queue position of a job, after all resource types are registered."""
    jobs = Job.__table__
    ahead = TYPES["job"].attributes["queue_position"].expression(jobs)
    return PreparedStatement(select(jobs.c.state, jobs.c.last_seq, ahead).where(jobs.c.id == _ID))
