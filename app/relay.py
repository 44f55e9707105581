"""The relay: publishes open outbox entries as Celery messages.

It may be killed at any time, and several may run at once: the relay claims an entry by setting its `next_at` to the end
of a lease, commits, and then publishes it. Entries that no worker has closed when the lease expires are published
again.
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
"""Entries of one consumer and actor that may be published and not done; fewer if the queue is long."""

QUEUE_LENGTH_DIVISOR = 4
"""Messages in a queue that reduce that limit by one; one entry of each actor is always published."""

MAX_TURNS = 1000
"""Pairs of consumer and actor that one batch considers."""

MAX_QUEUE_LENGTH = 1000
"""Messages in a queue above which no more are published: entries with expired leases must not pile up in Redis while
no worker runs."""

POLL_INTERVAL_SECONDS = 1.0
MIN_POLL_INTERVAL_SECONDS = 0.025
"""Seconds until the relay first looks again at entries that the limits have held back."""

HEARTBEAT_INTERVAL_SECONDS = 2.0
PRUNE_INTERVAL_SECONDS = 600.0
MAINTENANCE_INTERVAL_SECONDS = 10.0
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.1, 5.0
STALL_TIMEOUT_SECONDS = 30.0
"""Seconds without a turn of the publishing loop after which the relay stops its heartbeat."""

DATABASE_ERRORS = (SQLAlchemyError, DriverError)
REDIS_ERRORS = (BrokerError, RedisError, OSError)

MaintenanceTask = Callable[[], None]

PruneTask = Callable[[timedelta], int]
"""Delete a batch of rows that ended longer ago than the given time; return their number."""

log = structlog.get_logger(__name__)


class RelayHeartbeat(Model):
    """Single row with the time of the last heartbeat of a relay."""

    __tablename__ = "relay_beats"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    beat_at: Mapped[datetime] = mapped_column(server_default=func.now())


def run_relay(app: Flask, stop: threading.Event, *, lease: timedelta = LEASE_DURATION) -> None:
    """Publish entries until `stop` is set; wait while PostgreSQL or Redis does not answer."""
    Relay(app, stop, lease).run()


def set_prune_tasks(app: Flask, *tasks: PruneTask) -> None:
    """Let the relay call these every PRUNE_INTERVAL_SECONDS to delete rows older than RETENTION_DAYS."""
    app.extensions["prunes"] = tasks


def set_maintenance_tasks(app: Flask, *tasks: MaintenanceTask) -> None:
    """Let the relay call these every MAINTENANCE_INTERVAL_SECONDS."""
    app.extensions["sweeps"] = tasks


class Relay:
    """A running relay: the calling thread publishes; other threads do heartbeat, maintenance and pruning."""

    def __init__(self, app: Flask, stop: threading.Event, lease: timedelta) -> None:
        self.app = app
        self.stop = stop
        self.lease = lease
        self.turned_at = time.monotonic()
        self.last_turn: tuple[str, int] | None = None
        """Consumer and actor after which the next batch begins; None for the first pair."""
        # At least once in each job lease, which tests make short.
        self.maintenance_seconds = min(MAINTENANCE_INTERVAL_SECONDS, app.config["JOB_LEASE_SECONDS"])
        self.celery: Celery = app.extensions["celery"]
        self.redis = create_client(app.config["REDIS_URL"], timeout=2)
        self.engine = create_listen_engine(app.config["DATABASE_URL"], "open-event-relay")

    def run(self) -> None:
        """Publish entries until `stop` is set."""
        threads = [
            threading.Thread(target=self._run_with_backoff, args=(work,), daemon=True)
            for work in (self._run_heartbeat, self._run_maintenance, self._run_pruning)
        ]
        for thread in threads:
            thread.start()
        log.info("relay ready")
        self._run_with_backoff(self._run_publisher)
        for thread in threads:
            thread.join(2)  # a daemon thread may hang in a statement: do not wait longer

    def _run_with_backoff(self, work: Callable[[], None]) -> None:
        """Call `work` until `stop` is set; after a database error wait before the next call."""
        pause = MIN_BACKOFF_SECONDS
        while not self.stop.is_set():
            started = time.monotonic()
            try:
                work()
            except DATABASE_ERRORS as error:
                lasted = time.monotonic() - started > MAX_BACKOFF_SECONDS
                pause = MIN_BACKOFF_SECONDS if lasted else min(pause * 2, MAX_BACKOFF_SECONDS)
                log.warning("relay database connection lost", error=type(error).__name__, pause=pause)
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
                        # All due entries are held back by the limit of their actor or by a full queue.
                        poll_notifications(connection, pause)
                        pause = min(2 * pause, POLL_INTERVAL_SECONDS)
                except REDIS_ERRORS as error:
                    log.warning("relay publish failed", error=type(error).__name__)
                    self.stop.wait(POLL_INTERVAL_SECONDS)

    def _publish_batch(self, connection: Connection) -> int:
        """Claim and publish one batch; return its number of entries."""
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
        """Return for each consumer how many entries of one actor may be published and not done.

        Omit consumers with a full queue. Entries of consumers that this version does not have are left to a newer
        relay.
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
                # A separate thread: while Redis hangs, the relay must not look dead.
                if time.monotonic() - self.turned_at < STALL_TIMEOUT_SECONDS:
                    connection.execute(beat)
                self.stop.wait(HEARTBEAT_INTERVAL_SECONDS)

    def _run_maintenance(self) -> None:
        while not self.stop.wait(self.maintenance_seconds):
            for task in self.app.extensions["sweeps"]:
                with self.app.app_context(), self._log_and_continue("maintenance"):
                    task()

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
        """Log any error of the block except database errors: the other tasks must still run."""
        try:
            yield
        except DATABASE_ERRORS:
            raise
        except Exception:  # no error may end the thread
            log.exception("maintenance task failed", what=what)


class _ClaimedEntry(NamedTuple):
    """Columns of an entry that the relay has leased and must publish."""

    id: UUID
    consumer: str
    resource_id: str | None
    subject: str | None
    tries: int


def _group_by_subject(entries: Iterable[_ClaimedEntry]) -> Iterator[tuple[_ClaimedEntry, list[UUID]]]:
    """Yield the entries to publish, each with the ids of the entries that its first try merges."""
    groups: dict[tuple[str, str], list[_ClaimedEntry]] = {}
    for entry in entries:
        if entry.subject is None or entry.tries:
            yield entry, []
        else:
            groups.setdefault((entry.consumer, entry.subject), []).append(entry)
    for first, *others in groups.values():
        yield first, [each.id for each in others]


def _compute_limit(queue_length: int) -> int:
    """Return how many entries of one consumer and actor may be published and not done at this queue length."""
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
    """Lease up to BATCH_SIZE due entries, so that no other relay publishes them before the lease expires.

    Consider the pairs of consumer and actor after the pair `after`; the oldest entries of a pair come first. Return the
    entries, and the pair after which the next batch begins, or None for the first pair.
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
    """Build the UPDATE that leases a batch of due entries of these pairs of consumer and actor."""
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
        # Skips entries that a worker is handling.
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
    """End the lease of entries that could not be published, so that they are claimed again soon."""
    soon = func.now() + timedelta(seconds=POLL_INTERVAL_SECONDS)
    connection.execute(update(OutboxEntry).where(OutboxEntry.id.in_(entry_ids)).values(next_at=soon, published_at=None))


def _close_entries(connection: Connection, entry_ids: Sequence[UUID]) -> None:
    """Close wake-up entries, which are done when they are published."""
    connection.execute(update(OutboxEntry).where(OutboxEntry.id.in_(entry_ids)).values(done_at=func.now()))
