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

from app.database import Prepared, listen, listener, notified, transaction
from app.errors import NotFound
from app.jobs.lifecycle import CHANNEL
from app.jobs.models import ENDED, Job
from app.jobs.progress import Element, elements_after
from app.jsonapi.resource_type import TYPES

POLL_SECONDS = 1.0
"""How long a notification may be missing, and how old the place in the queue may be."""

PATIENCE = 60.0
"""Seconds that the database may be away."""

PAUSE = 0.5

_ID = bindparam("job_id", type_=Uuid)


class News(NamedTuple):
    """What a job has said last, and how many are before it while it waits."""

    element: Element
    ahead: int | None


def follow(job_id: UUID) -> Iterator[News | None]:
    """The present state of a job, then what it says, until it has ended; None while the database is away.

    What is known is told again every POLL_SECONDS. Raises what the driver does once the database has been away for
    PATIENCE seconds, or was when this began.
    """
    following = _Following(job_id)
    heard_at: float | None = None
    while following.goes_on:
        try:
            for news in following.listen():
                heard_at = monotonic()
                yield news
        except (DBAPIError, psycopg.Error):
            if heard_at is None or monotonic() - heard_at > PATIENCE:
                raise
            yield None
            sleep(PAUSE)


class _Following:
    """One job, and what is known of it."""

    def __init__(self, job_id: UUID) -> None:
        self.job_id = job_id
        self.known: Element | None = None
        self.engine = listener(current_app.config["DATABASE_URL"], "open-event-follow")

    @property
    def goes_on(self) -> bool:
        """Whether the job may say more."""
        return self.known is None or self.known.state not in ENDED

    def listen(self) -> Iterator[News]:
        """News, on a connection of their own."""
        with self.engine.connect() as connection:
            listen(connection, CHANNEL)
            while self.goes_on:
                yield from self._read()
                if self.goes_on:
                    self._wait(connection)

    def _read(self) -> list[News]:
        with transaction(is_read=True):
            found = _place().rows({"job_id": self.job_id})
            if not found:
                raise NotFound("The job has just gone away.")
            ((state, last_seq, ahead),) = found
            seq = max(last_seq - 1, 0) if self.known is None else self.known.seq
            elements = elements_after(self.job_id, seq)
        said = elements or [self.known or Element(0, None, None, state)]
        self.known = said[-1]
        return [News(element, ahead) for element in said]

    def _wait(self, connection: Connection) -> None:
        """Until there is news of this job; of others there may be a lot."""
        deadline = monotonic() + POLL_SECONDS
        while (left := deadline - monotonic()) > 0:
            if str(self.job_id) in notified(connection, left):
                return


@cache
def _place() -> Prepared:
    """Where a job is: prepared once all types are known."""
    jobs = Job.__table__
    ahead = TYPES["job"].attributes["queue_position"].expression(jobs)
    return Prepared(select(jobs.c.state, jobs.c.last_seq, ahead).where(jobs.c.id == _ID))
