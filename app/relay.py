"""The relay: open outbox entries become Celery messages.

It may die at any moment and any number may run at once: an entry is claimed by moving its `next_at` past a lease, in a
transaction of its own, and published afterwards. Whatever is not closed by a worker when the lease runs out is
published again.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import structlog
from celery import Celery
from flask import Flask
from kombu.exceptions import OperationalError as BrokerError
from psycopg import Error as DriverError
from redis import RedisError
from sqlalchemy import CheckConstraint, Connection, SmallInteger, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, mapped_column

from app.database import listen, listener, notified
from app.extensions import Model
from app.outbox import CHANNEL, CONSUMERS, OutboxEntry
from app.redis_client import connect

LEASE = timedelta(seconds=30)
BATCH = 200
FULL_QUEUE = 1000
"""A queue this long gets no more: while workers are away, entries whose lease ran out must not pile up in it."""

POLL_SECONDS = 1.0
BEAT_SECONDS = 2.0
PRUNE_SECONDS = 600.0
SWEEP_SECONDS = 10.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
STUCK_SECONDS = 30.0
"""A relay that has not come round for this long is stuck and must not pass for alive."""

DATABASE_ERRORS = (SQLAlchemyError, DriverError)
REDIS_ERRORS = (BrokerError, RedisError, OSError)

Sweep = Callable[[], None]

Prune = Callable[[timedelta], int]
"""Deletes a batch of what ended longer ago than this and tells how many."""

log = structlog.get_logger(__name__)


class RelayBeat(Model):
    """The one row in which a running relay shows that it lives."""

    __tablename__ = "relay_beats"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    beat_at: Mapped[datetime] = mapped_column(server_default=func.now())


def run_relay(app: Flask, stop: threading.Event, *, lease: timedelta = LEASE) -> None:
    """Publish until `stop` is set; a database or a Redis that is away is waited for."""
    Relay(app, stop, lease).run()


def prune_with(app: Flask, *prunes: Prune) -> None:
    """Let the relay call these now and then, for what is older than RETENTION_DAYS."""
    app.extensions["prunes"] = prunes


def sweep_with(app: Flask, *sweeps: Sweep) -> None:
    """Let the relay call these every SWEEP_SECONDS, for what somebody has left lying."""
    app.extensions["sweeps"] = sweeps


class Relay:
    """One running relay: the calling thread publishes, others beat, sweep and prune."""

    def __init__(self, app: Flask, stop: threading.Event, lease: timedelta) -> None:
        self.app = app
        self.stop = stop
        self.lease = lease
        self.turned_at = time.monotonic()
        # Often enough for the lease of a job, which tests make short.
        self.sweep_seconds = min(SWEEP_SECONDS, app.config["JOB_LEASE_SECONDS"])
        self.celery: Celery = app.extensions["celery"]
        self.redis = connect(app.config["REDIS_URL"], timeout=2)
        self.engine = listener(app.config["DATABASE_URL"], "open-event-relay")

    def run(self) -> None:
        """Publish until told to stop."""
        threads = [
            threading.Thread(target=self._keep, args=(work,), daemon=True)
            for work in (self._beat, self._sweep, self._prune)
        ]
        for thread in threads:
            thread.start()
        log.info("relay ready")
        self._keep(self._publish)
        for thread in threads:
            thread.join(2)  # one that hangs in a hung database is left behind

    def _keep(self, work: Callable[[], None]) -> None:
        """Do this work until told to stop; when the database goes away, wait for it."""
        pause = SHORTEST_PAUSE
        while not self.stop.is_set():
            started = time.monotonic()
            try:
                work()
            except DATABASE_ERRORS as error:
                lasted = time.monotonic() - started > LONGEST_PAUSE
                pause = SHORTEST_PAUSE if lasted else min(pause * 2, LONGEST_PAUSE)
                log.warning("relay lost the database", error=type(error).__name__, pause=pause)
                self.stop.wait(pause)

    def _publish(self) -> None:
        with self.engine.connect() as connection:
            listen(connection, CHANNEL)
            while not self.stop.is_set():
                self.turned_at = time.monotonic()
                try:
                    if self._publish_batch(connection) < BATCH:
                        notified(connection, POLL_SECONDS)
                except REDIS_ERRORS as error:
                    log.warning("relay cannot publish", error=type(error).__name__)
                    self.stop.wait(POLL_SECONDS)

    def _publish_batch(self, connection: Connection) -> int:
        """Claim and publish one batch; how many entries it had."""
        entries = _claim(connection, self._roomy_consumers(), self.lease)
        waiting = {entry.id for entry in entries}
        done = []
        try:
            with self.celery.producer_or_acquire() as producer:
                for entry, merged in _group(entries):
                    consumer = CONSUMERS[entry.consumer]
                    argument = str(entry.id) if consumer.act else entry.resource_id
                    self.celery.send_task(
                        entry.consumer, args=[argument], queue=consumer.queue, retry=False, producer=producer
                    )
                    waiting -= {entry.id, *merged}
                    if consumer.act is None:
                        done.append(entry.id)
        finally:
            if waiting:
                _give_back(connection, waiting)
            if done:
                _close(connection, done)
        return len(entries)

    def _roomy_consumers(self) -> list[str]:
        """The consumers whose queue is not full; those this code does not know are left to a newer relay."""
        queues = {consumer.queue for consumer in CONSUMERS.values()}
        roomy = {queue for queue in queues if int(self.redis.llen(queue)) < FULL_QUEUE}
        return [consumer.name for consumer in CONSUMERS.values() if consumer.queue in roomy]

    def _beat(self) -> None:
        now = {"beat_at": func.now()}
        beat = insert(RelayBeat).values(id=1, **now).on_conflict_do_update(index_elements=["id"], set_=now)
        with self.engine.connect() as connection:
            while not self.stop.is_set():
                # In a thread of its own, so that a hung Redis does not look like a dead relay.
                if time.monotonic() - self.turned_at < STUCK_SECONDS:
                    connection.execute(beat)
                self.stop.wait(BEAT_SECONDS)

    def _sweep(self) -> None:
        while not self.stop.wait(self.sweep_seconds):
            for sweep in self.app.extensions["sweeps"]:
                with self.app.app_context(), self._surviving("sweep"):
                    sweep()

    def _prune(self) -> None:
        while not self.stop.is_set():
            for prune in self.app.extensions["prunes"]:
                self._prune_all(prune)
            self.stop.wait(PRUNE_SECONDS)

    def _prune_all(self, prune: Prune) -> None:
        older_than = timedelta(days=self.app.config["RETENTION_DAYS"])
        while not self.stop.is_set():
            is_done = True
            with self.app.app_context(), self._surviving("prune"):
                is_done = not prune(older_than)
            if is_done:
                return

    @contextmanager
    def _surviving(self, what: str) -> Iterator[None]:
        """What fails is told and tried again next time, and keeps nothing else from being done."""
        try:
            yield
        except DATABASE_ERRORS:
            raise
        except Exception:  # whatever it is, it must not end the thread that does this work
            log.exception("relay cannot do its other work", what=what)


class _Claimed(NamedTuple):
    """An entry that is to be published."""

    id: UUID
    consumer: str
    resource_id: str | None
    subject: str | None
    tries: int


def _group(entries: Iterable[_Claimed]) -> Iterator[tuple[_Claimed, list[UUID]]]:
    """Yield the entries to publish, each with the ids of those that its first try merges."""
    groups: dict[tuple[str, str], list[_Claimed]] = {}
    for entry in entries:
        if entry.subject is None or entry.tries:
            yield entry, []
        else:
            groups.setdefault((entry.consumer, entry.subject), []).append(entry)
    for first, *others in groups.values():
        yield first, [each.id for each in others]


def _claim(connection: Connection, consumers: Sequence[str], lease: timedelta) -> list[_Claimed]:
    """Up to a batch of open entries that are due, oldest first; nobody else gets them before the lease runs out."""
    due = (
        select(OutboxEntry.id)
        .where(OutboxEntry.done_at.is_(None), OutboxEntry.dead_at.is_(None), OutboxEntry.next_at <= func.now())
        .where(OutboxEntry.consumer.in_(consumers))
        .order_by(OutboxEntry.next_at)
        .limit(BATCH)
        # Also passes over what a worker is acting on just now.
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    claim = (
        update(OutboxEntry)
        .where(OutboxEntry.id == due.c.id)
        .values(next_at=func.now() + lease)
        .returning(
            OutboxEntry.id,
            OutboxEntry.consumer,
            OutboxEntry.payload["id"].astext,
            OutboxEntry.subject,
            OutboxEntry.tries,
        )
    )
    return [_Claimed(*row) for row in connection.execute(claim)]


def _give_back(connection: Connection, entry_ids: Collection[UUID]) -> None:
    """Let what could not be published be claimed again soon."""
    soon = func.now() + timedelta(seconds=POLL_SECONDS)
    connection.execute(update(OutboxEntry).where(OutboxEntry.id.in_(entry_ids)).values(next_at=soon))


def _close(connection: Connection, entry_ids: Sequence[UUID]) -> None:
    """What was a wake-up only is done."""
    connection.execute(update(OutboxEntry).where(OutboxEntry.id.in_(entry_ids)).values(done_at=func.now()))
