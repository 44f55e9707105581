"""The relay: open outbox entries become Celery messages.

It may die at any moment and any number may run at once: an entry is claimed by moving its `next_at` past a lease, in a
transaction of its own, and published afterwards. Whatever is not closed by a worker when the lease runs out is
published again.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from celery import Celery
from flask import Flask
from kombu.exceptions import OperationalError as BrokerError
from psycopg import Error as DriverError
from redis import RedisError
from sqlalchemy import (
    ARRAY,
    CTE,
    BigInteger,
    CheckConstraint,
    Connection,
    SmallInteger,
    Text,
    and_,
    column,
    func,
    literal,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, mapped_column

from app.database import create_listen_engine, listen_to_channel, poll_notifications
from app.extensions import Model
from app.outbox import CONSUMERS, NOTIFY_CHANNEL, OutboxEntry, is_open, select_open_turns
from app.redis_client import create_client

LEASE_DURATION = timedelta(seconds=30)
BATCH_SIZE = 200
MAX_PUBLISHED_ENTRIES = 16
"""Entries of one consumer and actor that are published and not done yet; fewer where the queue is longer."""

QUEUE_LENGTH_DIVISOR = 4
"""So many waiting messages of a queue make that limit smaller by one; one entry of each actor is always published."""

MAX_TURNS = 1000
"""Pairs of consumer and actor that are looked at for one batch."""

MAX_QUEUE_LENGTH = 1000
"""A queue this long gets no more: while workers are away, entries whose lease ran out must not pile up in it."""

POLL_INTERVAL_SECONDS = 1.0
MIN_POLL_INTERVAL_SECONDS = 0.025
"""How soon the relay looks again for entries that it has held back."""

HEARTBEAT_INTERVAL_SECONDS = 2.0
PRUNE_INTERVAL_SECONDS = 600.0
MAINTENANCE_INTERVAL_SECONDS = 10.0
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.1, 5.0
STALL_TIMEOUT_SECONDS = 30.0
"""A relay that has not come round for this long is stuck and must not pass for alive."""

DATABASE_ERRORS = (SQLAlchemyError, DriverError)
REDIS_ERRORS = (BrokerError, RedisError, OSError)

MaintenanceTask = Callable[[], None]

PruneTask = Callable[[timedelta], int]
"""Deletes a batch of what ended longer ago than this and tells how many."""

log = structlog.get_logger(__name__)


class RelayHeartbeat(Model):
    """The one row in which a running relay shows that it lives."""

    __tablename__ = "relay_beats"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    beat_at: Mapped[datetime] = mapped_column(server_default=func.now())


def run_relay(app: Flask, stop: threading.Event, *, lease: timedelta = LEASE_DURATION) -> None:
    """Publish until `stop` is set; a database or a Redis that is away is waited for."""
    Relay(app, stop, lease).run()


def set_prune_tasks(app: Flask, *prunes: PruneTask) -> None:
    """Let the relay call these now and then, for what is older than RETENTION_DAYS."""
    app.extensions["prunes"] = prunes


def set_maintenance_tasks(app: Flask, *sweeps: MaintenanceTask) -> None:
    """Let the relay call these every MAINTENANCE_INTERVAL_SECONDS, for what somebody has left lying."""
    app.extensions["sweeps"] = sweeps


class Relay:
    """One running relay: the calling thread publishes, others beat, sweep and prune."""

    def __init__(self, app: Flask, stop: threading.Event, lease: timedelta) -> None:
        self.app = app
        self.stop = stop
        self.lease = lease
        self.turned_at = time.monotonic()
        self.last_turn: tuple[str, int] | None = None
        """The consumer and actor served last, behind which the next batch begins; None at the beginning."""
        # Often enough for the lease of a job, which tests make short.
        self.maintenance_seconds = min(MAINTENANCE_INTERVAL_SECONDS, app.config["JOB_LEASE_SECONDS"])
        self.celery: Celery = app.extensions["celery"]
        self.redis = create_client(app.config["REDIS_URL"], timeout=2)
        self.engine = create_listen_engine(app.config["DATABASE_URL"], "open-event-relay")

    def run(self) -> None:
        """Publish until told to stop."""
        threads = [
            threading.Thread(target=self._run_with_backoff, args=(work,), daemon=True)
            for work in (self._run_heartbeat, self._run_maintenance, self._run_pruning)
        ]
        for thread in threads:
            thread.start()
        log.info("relay ready")
        self._run_with_backoff(self._run_publisher)
        for thread in threads:
            thread.join(2)  # one that hangs in a hung database is left behind

    def _run_with_backoff(self, work: Callable[[], None]) -> None:
        """Do this work until told to stop; when the database goes away, wait for it."""
        pause = MIN_BACKOFF_SECONDS
        while not self.stop.is_set():
            started = time.monotonic()
            try:
                work()
            except DATABASE_ERRORS as error:
                lasted = time.monotonic() - started > MAX_BACKOFF_SECONDS
                pause = MIN_BACKOFF_SECONDS if lasted else min(pause * 2, MAX_BACKOFF_SECONDS)
                log.warning("relay lost the database", error=type(error).__name__, pause=pause)
                self.stop.wait(pause)

    def _run_publisher(self) -> None:
        with self.engine.connect() as connection:
            listen_to_channel(connection, NOTIFY_CHANNEL)
            pause = MIN_POLL_INTERVAL_SECONDS
            while not self.stop.is_set():
                self.turned_at = time.monotonic()
                try:
                    if not connection.scalar(_select_due):
                        poll_notifications(connection, POLL_INTERVAL_SECONDS)
                    elif self._publish_batch(connection):
                        pause = MIN_POLL_INTERVAL_SECONDS
                    elif self.last_turn is None:
                        # What is due now waits for others of its actor, or for room in its queue.
                        poll_notifications(connection, pause)
                        pause = min(2 * pause, POLL_INTERVAL_SECONDS)
                except REDIS_ERRORS as error:
                    log.warning("relay cannot publish", error=type(error).__name__)
                    self.stop.wait(POLL_INTERVAL_SECONDS)

    def _publish_batch(self, connection: Connection) -> int:
        """Claim and publish one batch; how many entries it had."""
        entries, self.last_turn = _claim_batch(connection, self._compute_limits(), self.lease, self.last_turn)
        waiting = {entry.id for entry in entries}
        done = []
        try:
            with self.celery.producer_or_acquire() as producer:
                for entry, merged in _group_by_subject(entries):
                    consumer = CONSUMERS[entry.consumer]
                    argument = str(entry.id) if consumer.handler else entry.resource_id
                    self.celery.send_task(
                        entry.consumer, args=[argument], queue=consumer.queue, retry=False, producer=producer
                    )
                    waiting -= {entry.id, *merged}
                    if consumer.handler is None:
                        done.append(entry.id)
        finally:
            if waiting:
                _release_entries(connection, waiting)
            if done:
                _close_entries(connection, done)
        return len(entries)

    def _compute_limits(self) -> dict[str, int]:
        """Return how many entries of each actor may be published and not done, by consumer; none of a full queue.

        Consumers that this code does not know are left to a newer relay.
        """
        queues = {consumer.queue for consumer in CONSUMERS.values()}
        lengths = {queue: int(self.redis.llen(queue)) for queue in queues}
        return {
            consumer.name: BATCH_SIZE if consumer.handler is None else _compute_limit(lengths[consumer.queue])
            for consumer in CONSUMERS.values()
            if lengths[consumer.queue] < MAX_QUEUE_LENGTH
        }

    def _run_heartbeat(self) -> None:
        now = {"beat_at": func.now()}
        beat = insert(RelayHeartbeat).values(id=1, **now).on_conflict_do_update(index_elements=["id"], set_=now)
        with self.engine.connect() as connection:
            while not self.stop.is_set():
                # In a thread of its own, so that a hung Redis does not look like a dead relay.
                if time.monotonic() - self.turned_at < STALL_TIMEOUT_SECONDS:
                    connection.execute(beat)
                self.stop.wait(HEARTBEAT_INTERVAL_SECONDS)

    def _run_maintenance(self) -> None:
        while not self.stop.wait(self.maintenance_seconds):
            for sweep in self.app.extensions["sweeps"]:
                with self.app.app_context(), self._log_and_continue("sweep"):
                    sweep()

    def _run_pruning(self) -> None:
        while not self.stop.is_set():
            for prune in self.app.extensions["prunes"]:
                self._prune_all(prune)
            self.stop.wait(PRUNE_INTERVAL_SECONDS)

    def _prune_all(self, prune: PruneTask) -> None:
        older_than = timedelta(days=self.app.config["RETENTION_DAYS"])
        while not self.stop.is_set():
            is_done = True
            with self.app.app_context(), self._log_and_continue("prune"):
                is_done = not prune(older_than)
            if is_done:
                return

    @contextmanager
    def _log_and_continue(self, what: str) -> Iterator[None]:
        """What fails is told and tried again next time, and keeps nothing else from being done."""
        try:
            yield
        except DATABASE_ERRORS:
            raise
        except Exception:  # whatever it is, it must not end the thread that does this work
            log.exception("relay cannot do its other work", what=what)


class _ClaimedEntry(NamedTuple):
    """An entry that is to be published."""

    id: UUID
    consumer: str
    resource_id: str | None
    subject: str | None
    tries: int


def _group_by_subject(entries: Iterable[_ClaimedEntry]) -> Iterator[tuple[_ClaimedEntry, list[UUID]]]:
    """Yield the entries to publish, each with the ids of those that its first try merges."""
    groups: dict[tuple[str, str], list[_ClaimedEntry]] = {}
    for entry in entries:
        if entry.subject is None or entry.tries:
            yield entry, []
        else:
            groups.setdefault((entry.consumer, entry.subject), []).append(entry)
    for first, *others in groups.values():
        yield first, [each.id for each in others]


def _compute_limit(queue_length: int) -> int:
    """Return how many entries of one consumer and actor may be published and not done, beside so many messages."""
    return max(1, MAX_PUBLISHED_ENTRIES - queue_length // QUEUE_LENGTH_DIVISOR)


_select_due = (
    select(literal(1))
    .where(is_open(OutboxEntry.__table__), OutboxEntry.next_at <= func.now())
    .order_by(OutboxEntry.next_at)
    .limit(1)
)


def _claim_batch(
    connection: Connection, max_published: Mapping[str, int], lease: timedelta, after: tuple[str, int] | None
) -> tuple[list[_ClaimedEntry], tuple[str, int] | None]:
    """Claim up to a batch of open entries that are due; no other relay gets them before the lease runs out.

    The actors of each consumer take turns, behind the pair `after`; the oldest entries of an actor are first. Return
    the entries, and the pair behind which to go on; None when there is none.
    """
    turns = select_open_turns(after, limit=MAX_TURNS)
    claimed = _build_claim(turns, max_published, lease).cte("claimed")
    last = select(turns).order_by(turns.c.number.desc()).limit(1).subquery()
    rows = connection.execute(select(last, claimed).select_from(last.outerjoin(claimed, true()))).all()
    entries = [_ClaimedEntry(*row[4:]) for row in rows if row.id is not None]
    if len(entries) == BATCH_SIZE:
        return entries, max((row.of_consumer, row.of_actor) for row in rows)
    return entries, next(((row.consumer, row.actor) for row in rows if row.number == MAX_TURNS), None)


def _build_claim(turns: CTE, max_published: Mapping[str, int], lease: timedelta) -> Any:
    """Lease a batch of due entries of these consumers and actors."""
    entries = OutboxEntry.__table__
    published = (
        select(entries.c.consumer, entries.c.actor, func.count().label("number"))
        .where(entries.c.published_at.is_not(None), is_open(entries), entries.c.next_at > func.now())
        .group_by(entries.c.consumer, entries.c.actor)
        .cte("published")
    )
    limits = func.unnest(
        literal(list(max_published), ARRAY(Text)), literal(list(max_published.values()), ARRAY(BigInteger))
    ).table_valued(column("consumer", Text), column("most", BigInteger), name="limits")
    limits = limits.render_derived()
    of_turn = entries.alias()
    due_of_turn = (
        select(of_turn.c.id)
        .where(of_turn.c.consumer == turns.c.consumer, of_turn.c.actor == turns.c.actor)
        .where(is_open(of_turn), of_turn.c.next_at <= func.now())
        .order_by(of_turn.c.next_at)
        .limit(func.greatest(limits.c.most - func.coalesce(published.c.number, 0), 0))
        # Also passes over what a worker is acting on just now.
        .with_for_update(skip_locked=True)
        .lateral()
    )
    is_same = and_(published.c.consumer == turns.c.consumer, published.c.actor == turns.c.actor)
    due = (
        select(due_of_turn.c.id)
        .select_from(
            turns.join(limits, limits.c.consumer == turns.c.consumer)
            .outerjoin(published, is_same)
            .join(due_of_turn, true())
        )
        .order_by(turns.c.number)
        .limit(BATCH_SIZE)
        .cte("due")
    )
    return (
        update(OutboxEntry)
        .where(OutboxEntry.id == due.c.id)
        .values(next_at=func.now() + lease, published_at=func.now())
        .returning(
            OutboxEntry.actor.label("of_actor"),
            OutboxEntry.id,
            OutboxEntry.consumer.label("of_consumer"),
            OutboxEntry.payload["id"].astext.label("resource_id"),
            OutboxEntry.subject,
            OutboxEntry.tries,
        )
    )


def _release_entries(connection: Connection, entry_ids: Collection[UUID]) -> None:
    """Let what could not be published be claimed again soon."""
    soon = func.now() + timedelta(seconds=POLL_INTERVAL_SECONDS)
    connection.execute(update(OutboxEntry).where(OutboxEntry.id.in_(entry_ids)).values(next_at=soon, published_at=None))


def _close_entries(connection: Connection, entry_ids: Sequence[UUID]) -> None:
    """What was a wake-up only is done."""
    connection.execute(update(OutboxEntry).where(OutboxEntry.id.in_(entry_ids)).values(done_at=func.now()))
