"""Transactional outbox: background work is ordered in the transaction of the change that causes it.

Each change signal inserts one entry per consumer. The relay (`app/relay.py`) publishes the id of the entry to Celery;
the task of the consumer does the work and closes the entry. A message that Redis loses is published again when the
lease of the entry expires.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from time import monotonic, sleep
from typing import Any
from uuid import UUID

import orjson
import structlog
from celery import shared_task
from sqlalchemy import (
    ARRAY,
    CTE,
    BigInteger,
    ColumnElement,
    FromClause,
    Index,
    Interval,
    Select,
    Text,
    Uuid,
    and_,
    bindparam,
    cast,
    column,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from app.actors import current_actor, set_actor
from app.database import PreparedStatement
from app.extensions import Model, db
from app.processes.worker_nodes import EVENTS_QUEUE
from app.signals import SIGNALS_BY_TOPIC, matches_change

NOTIFY_CHANNEL = "outbox"
"""NOTIFY channel on which the relay listens."""

MAX_TRIES = 40
"""Tries (about a day and a half with the back-off below) after which an entry is dead: an operator must look at it."""

MAX_BACKOFF = timedelta(hours=1)

WAKEUP_TASK_TIMEOUT_SECONDS = 7 * 24 * 3600
"""Celery time limit of wake-up tasks: jobs enforce their own, shorter limit."""

RECORD_FAILURE_TIMEOUT_SECONDS = 15.0
"""Seconds for which a failed task tries to record its failure in the database."""

log = structlog.get_logger(__name__)


_OPEN_CONDITION = text("done_at IS NULL AND dead_at IS NULL")


class OutboxEntry(Model):
    """One unit of work for one consumer; open until `done_at` or `dead_at` is set."""

    __tablename__ = "outbox_entries"
    __table_args__ = (
        Index("ix_outbox_entries_open", "next_at", postgresql_where=_OPEN_CONDITION),
        Index("ix_outbox_entries_turns", "consumer", "actor", "next_at", postgresql_where=_OPEN_CONDITION),
        Index(
            "ix_outbox_entries_published",
            "consumer",
            "actor",
            postgresql_where=text("published_at IS NOT NULL AND done_at IS NULL AND dead_at IS NULL"),
        ),
        Index("ix_outbox_entries_done_at", "done_at", postgresql_where=text("done_at IS NOT NULL")),
        Index(
            "ix_outbox_entries_subject",
            "consumer",
            "subject",
            postgresql_where=text("subject IS NOT NULL AND done_at IS NULL AND dead_at IS NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    consumer: Mapped[str]
    topic: Mapped[str]
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    tries: Mapped[int] = mapped_column(server_default=text("0"))
    done_at: Mapped[datetime | None]
    dead_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
    subject: Mapped[str | None]
    """Key by which entries of one consumer are merged; NULL if the consumer needs each entry."""
    actor: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """Actor that caused the entry (`app.actors`): the actors of a consumer take turns."""
    published_at: Mapped[datetime | None]
    """Time of the last publication by the relay; reset to NULL when a try fails."""


@dataclass(frozen=True)
class Consumer:
    """A function that handles entries, and the topics (`event.updated:name,state`) for which entries are written."""

    name: str
    queue: str
    topics: tuple[str, ...]
    handler: Callable[[OutboxEntry], None] | None
    """Function called with each entry; None for a wake-up, whose entry is closed when it is published."""

    merge_by: str | None = None
    """Payload key with the id of the row to update: entries of one topic and value are merged."""

    def get_subject(self, topic: str, payload: Mapping[str, Any]) -> str | None:
        """Return the subject of an entry with this topic and payload; None if entries are not merged."""
        return None if self.merge_by is None else f"{topic} {payload[self.merge_by]}"


CONSUMERS: dict[str, Consumer] = {}


def consumer_task(
    name: str, *, on: tuple[str, ...] = (), queue: str = EVENTS_QUEUE, merge_by: str | None = None
) -> Callable[[Callable[[OutboxEntry], None]], Callable[[OutboxEntry], None]]:
    """Register the decorated function as the consumer and the Celery task `name`.

    It runs at least once for each entry, in the app context, inside the transaction that closes the entry. Its effects
    outside the database must therefore be idempotent: derive the names of files and mails from the id of the entry.

    Set `merge_by` if the consumer must run only once for many changes of one row: the first try of an entry closes all
    other entries with the same topic and the same value of this payload key. The entry then has the union of their
    `changed` fields and the latest `created_at`.
    """

    def register(handler: Callable[[OutboxEntry], None]) -> Callable[[OutboxEntry], None]:
        CONSUMERS[name] = Consumer(name, queue, on, handler, merge_by)

        @shared_task(name=name)  # type: ignore[untyped-decorator]  # Celery carries no types
        def task(entry_id: str) -> None:
            consume_entry(UUID(entry_id))

        return handler

    return register


def wakeup_task(name: str, *, queue: str) -> Callable[[Callable[[str], None]], Callable[[str], None]]:
    """Register the decorated function as the Celery task `name`, called with the `id` in the payload of an entry.

    The entry is closed when it is published, so a lost message is not repeated: the package that uses this must find
    rows that were not processed and enqueue them again.
    """

    def register(run: Callable[[str], None]) -> Callable[[str], None]:
        CONSUMERS[name] = Consumer(name, queue, (), None)
        shared_task(name=name, acks_late=False, time_limit=WAKEUP_TASK_TIMEOUT_SECONDS, soft_time_limit=None)(run)
        return run

    return register


def enqueue_entry(
    consumer_name: str, topic: str, payload: Mapping[str, Any], *, delay: timedelta = timedelta(0)
) -> None:
    """Insert one entry in the current transaction, for work that no change signal causes."""
    _write_entries([(consumer_name, payload)], topic, delay)


def enqueue_entries(consumer_name: str, topic: str, payloads: Sequence[Mapping[str, Any]]) -> None:
    """Insert one entry for each payload in the current transaction, with one statement."""
    _write_entries([(consumer_name, payload) for payload in payloads], topic)


def _write_entries(
    orders: Sequence[tuple[str, Mapping[str, Any]]], topic: str, delay: timedelta = timedelta(0)
) -> None:
    """Insert one entry for each pair of consumer name and payload."""
    values = {
        "ids": [uuid7() for _ in orders],
        "consumers": [CONSUMERS[name].name for name, _ in orders],
        "payloads": [orjson.dumps(payload).decode() for _, payload in orders],
        "subjects": [CONSUMERS[name].get_subject(topic, payload) for name, payload in orders],
    }
    _insert_entries.run({**values, "topic": topic, "delay": delay, "actor": current_actor()})


def _build_insert() -> PreparedStatement:
    """Build the statement that inserts entries and notifies the relay at commit."""
    arrays = {"ids": Uuid, "consumers": Text, "payloads": Text, "subjects": Text}
    each = func.unnest(*(bindparam(name, type_=ARRAY(type_)) for name, type_ in arrays.items()))
    columns = (column("id", Uuid), column("consumer", Text), column("payload", Text), column("subject", Text))
    entry = each.table_valued(*columns, name="entry").render_derived()
    due_at = func.now() + bindparam("delay", type_=Interval)
    topic = bindparam("topic", type_=Text)
    actor = bindparam("actor", type_=BigInteger)
    names = ["id", "consumer", "topic", "payload", "subject", "actor", "due_at", "next_at"]
    payload = cast(entry.c.payload, JSONB)
    values = select(entry.c.id, entry.c.consumer, topic, payload, entry.c.subject, actor, due_at, due_at)
    entries = insert(OutboxEntry).from_select(names, values).cte("entries")
    return PreparedStatement(select(func.pg_notify(NOTIFY_CHANNEL, "")).add_cte(entries))


_insert_entries = _build_insert()


@cache  # a second app in the process connects the same function again, and Blinker calls it only once
def _make_receiver(noun: str) -> Callable[..., None]:
    def write_entries(_app: object, **change: Any) -> None:
        topic = f"{noun}.{change['verb']}"
        names = [
            consumer.name
            for consumer in CONSUMERS.values()
            if matches_change(consumer.topics, topic, change["changed"])
        ]
        if names:
            payload = {"id": change["id"], "event_id": change["event_id"], "changed": sorted(change["changed"])}
            _write_entries([(name, payload) for name in names], topic)

    return write_entries


def connect_signals() -> None:
    """Write outbox entries for every change signal; repeated calls have no further effect."""
    for noun, signal in SIGNALS_BY_TOPIC.items():
        signal.connect(_make_receiver(noun))


def consume_entry(entry_id: UUID) -> None:
    """Handle an open entry and close it; on failure schedule the next try, or mark the entry as dead after the last.

    Re-raise the exception of the consumer.
    """
    try:
        if _increment_attempts(entry_id):
            _handle_entry(entry_id)
    except Exception as error:
        # The database itself may have failed. An unrecorded failure delays the next try until the lease expires.
        deadline = monotonic() + RECORD_FAILURE_TIMEOUT_SECONDS
        while not _record_failure(entry_id, error) and monotonic() < deadline:
            sleep(0.5)
        raise


def _handle_entry(entry_id: UUID) -> None:
    with db.session.begin():
        # The entry stays locked while it is handled: a second delivery of the same id finds no row and returns.
        entry = db.session.scalar(_select_open_entry(entry_id).with_for_update(skip_locked=True))
        if entry is None:
            return
        handler = CONSUMERS[entry.consumer].handler
        if handler is None:
            raise TypeError(f"{entry.consumer} is a wake-up and has no handler for entries")
        set_actor(entry.actor)  # entries and jobs that the handler creates count for the same actor
        handler(entry)
        entry.done_at = func.now()
        entry.last_error = None


def _select_open_entry(entry_id: UUID) -> Any:
    return select(OutboxEntry).where(
        OutboxEntry.id == entry_id, OutboxEntry.done_at.is_(None), OutboxEntry.dead_at.is_(None)
    )


def _increment_attempts(entry_id: UUID) -> bool:
    """Count a try and merge entries of the same subject; return whether the entry must be handled.

    Commit at once: an entry that kills its worker must not be tried for ever.
    """
    with db.session.begin():
        entry = db.session.scalar(_select_open_entry(entry_id).with_for_update(skip_locked=True))
        if entry is None:
            return False
        entry.tries += 1
        if entry.tries > MAX_TRIES:
            entry.dead_at = func.now()
            log.error("outbox entry is dead", entry_id=str(entry_id), consumer=entry.consumer, tries=entry.tries)
            return False
        if entry.tries == 1 and entry.subject is not None:
            _merge_entries(entry)
    return True


def _merge_entries(entry: OutboxEntry) -> None:
    """Close all untried entries of the same subject and merge their payloads into this entry.

    Only at the first try, so that every try has the same payload. Their changes are committed, so the consumer, which
    reads later, sees them. Skip locked entries: a worker or the relay is using them.
    """
    same = (
        select(OutboxEntry.id)
        .where(OutboxEntry.consumer == entry.consumer, OutboxEntry.subject == entry.subject)
        .where(OutboxEntry.done_at.is_(None), OutboxEntry.dead_at.is_(None), OutboxEntry.tries == 0)
        .where(OutboxEntry.id != entry.id, OutboxEntry.due_at <= func.now())
        .with_for_update(skip_locked=True)
        .cte("same")
    )
    merge = (
        update(OutboxEntry)
        .where(OutboxEntry.id == same.c.id)
        .values(done_at=func.now())
        .returning(OutboxEntry.payload, OutboxEntry.created_at)
    )
    merged = db.session.execute(merge, execution_options={"synchronize_session": False}).all()
    if not merged:
        return
    if "changed" in entry.payload:
        changed = {*entry.payload["changed"]}.union(*(payload["changed"] for payload, _ in merged))
        entry.payload = {**entry.payload, "changed": sorted(changed)}
    entry.created_at = max(entry.created_at, *(created_at for _, created_at in merged))


def _record_failure(entry_id: UUID, error: Exception) -> bool:
    """Store the error and the time of the next try; return False if the database does not answer."""
    try:
        with db.session.begin():
            entry = db.session.scalar(_select_open_entry(entry_id).with_for_update())
            if entry is not None:
                _schedule_retry(entry, error)
    except OperationalError:
        return False
    return True


def _schedule_retry(entry: OutboxEntry, error: Exception) -> None:
    pause = min(timedelta(seconds=2 ** min(entry.tries, 12)), MAX_BACKOFF)
    entry.next_at = func.now() + pause
    entry.published_at = None
    entry.last_error = type(error).__name__
    log.warning("consumer failed", entry_id=str(entry.id), consumer=entry.consumer, tries=entry.tries, pause=str(pause))


def select_open_turns(after: tuple[str, int] | None = None, *, limit: int | None = None) -> CTE:
    """Select the pairs of consumer and actor that have open entries, in order, after the pair `after`.

    Each pair costs one index probe, however many entries it has. `number` counts the pairs from 1.
    """
    first = _select_next_pair(after).subquery()
    turns = select(first.c.consumer, first.c.actor, literal(1).label("number")).cte("turns", recursive=True)
    following = _select_next_pair((turns.c.consumer, turns.c.actor)).lateral()
    step = select(following.c.consumer, following.c.actor, turns.c.number + 1)
    step = step.select_from(turns.join(following, true()))
    return turns.union_all(step if limit is None else step.where(turns.c.number < limit))


def _select_next_pair(after: tuple[Any, Any] | None) -> Select[Any]:
    """Select the first pair of consumer and actor with open entries, after the pair `after` if there is one."""
    entries = OutboxEntry.__table__.alias()
    pair = select(entries.c.consumer, entries.c.actor).where(is_open(entries))
    if after is not None:
        pair = pair.where(tuple_(entries.c.consumer, entries.c.actor) > tuple_(*after))
    return pair.order_by(entries.c.consumer, entries.c.actor).limit(1)


def is_open(entries: FromClause) -> ColumnElement[bool]:
    """Return the criterion for open entries: neither done nor dead."""
    return and_(entries.c.done_at.is_(None), entries.c.dead_at.is_(None))


def prune_entries(older_than: timedelta) -> int:
    """Delete a batch of entries that were closed longer ago than `older_than`; return their number."""
    old = (
        select(OutboxEntry.id)
        .where(OutboxEntry.done_at < func.now() - older_than)
        .limit(1000)
        .with_for_update(skip_locked=True)
    )
    with db.session.begin():
        gone = delete(OutboxEntry).where(OutboxEntry.id.in_(old)).returning(OutboxEntry.id)
        return len(db.session.execute(gone, execution_options={"synchronize_session": False}).all())
