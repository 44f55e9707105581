"""Orders to act, committed together with the change they follow from.

A signal becomes one row per consumer in the transaction that sent it. The relay (`app/relay.py`) publishes the row's
id to Celery; the consumer's task does the work and closes the row. Redis is only the wake-up: an entry that was
published and lost is published again when its lease runs out.
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
"""The NOTIFY channel the relay listens on."""

MAX_TRIES = 40
"""A consumer that fails this often (a day and a half with the back-off below) leaves a dead entry for a person."""

MAX_BACKOFF = timedelta(hours=1)

WAKEUP_TASK_TIMEOUT_SECONDS = 7 * 24 * 3600
"""Seconds for what keeps a clock of its own."""

RECORD_FAILURE_TIMEOUT_SECONDS = 15.0
"""Seconds a task waits for the database, to write down that it failed."""

log = structlog.get_logger(__name__)


_OPEN_CONDITION = text("done_at IS NULL AND dead_at IS NULL")


class OutboxEntry(Model):
    """One order to one consumer; open until `done_at` or `dead_at` is set."""

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
    """Entries of a consumer with the same subject are merged; NULL where the consumer needs each of them."""
    actor: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """Who has caused it (`app.actors`): the actors of a consumer take turns."""
    published_at: Mapped[datetime | None]
    """When the relay last published it; NULL again when a try has failed."""


@dataclass(frozen=True)
class Consumer:
    """A plain function that acts on entries, and the topics (`event.updated:name,state`) it waits for."""

    name: str
    queue: str
    topics: tuple[str, ...]
    handler: Callable[[OutboxEntry], None] | None
    """None for a wake-up, which is done when it is published."""

    merge_by: str | None = None
    """The key of the payload that names what is brought up to date: entries of one topic and value are merged."""

    def get_subject(self, topic: str, payload: Mapping[str, Any]) -> str | None:
        """Return the subject of an entry with this topic and payload; None where entries are not merged."""
        return None if self.merge_by is None else f"{topic} {payload[self.merge_by]}"


CONSUMERS: dict[str, Consumer] = {}


def consumer_task(
    name: str, *, on: tuple[str, ...] = (), queue: str = EVENTS_QUEUE, merge_by: str | None = None
) -> Callable[[Callable[[OutboxEntry], None]], Callable[[OutboxEntry], None]]:
    """Make a function the consumer and the Celery task `name`.

    It runs at least once for each entry, in the app's context, inside the transaction that closes the entry, so what
    it does outside the database must bear a repeat: name files and mails after the entry.

    `merge_by` is for a consumer that brings something up to date with the database, and needs to do so once however
    often it has changed: the first try of an entry closes all others with the same topic and the same value of this
    key, and the entry then has the fields `changed` of all of them and the time of the last.
    """

    def register(act: Callable[[OutboxEntry], None]) -> Callable[[OutboxEntry], None]:
        CONSUMERS[name] = Consumer(name, queue, on, act, merge_by)

        @shared_task(name=name)  # type: ignore[untyped-decorator]  # Celery carries no types
        def task(entry_id: str) -> None:
            consume_entry(UUID(entry_id))

        return act

    return register


def wakeup_task(name: str, *, queue: str) -> Callable[[Callable[[str], None]], Callable[[str], None]]:
    """Make a function the Celery task `name`, called with the `id` in the payload of an entry.

    The row of that id is the order, and the entry is closed once it is published: whoever keeps such rows orders again
    what nobody has taken up.
    """

    def register(act: Callable[[str], None]) -> Callable[[str], None]:
        CONSUMERS[name] = Consumer(name, queue, (), None)
        shared_task(name=name, acks_late=False, time_limit=WAKEUP_TASK_TIMEOUT_SECONDS, soft_time_limit=None)(act)
        return act

    return register


def enqueue_entry(
    consumer_name: str, topic: str, payload: Mapping[str, Any], *, delay: timedelta = timedelta(0)
) -> None:
    """Write one entry into the current transaction, for work that no change of a resource orders."""
    _write_entries([(consumer_name, payload)], topic, delay)


def enqueue_entries(consumer_name: str, topic: str, payloads: Sequence[Mapping[str, Any]]) -> None:
    """The same for any number of payloads, in one statement."""
    _write_entries([(consumer_name, payload) for payload in payloads], topic)


def _write_entries(
    orders: Sequence[tuple[str, Mapping[str, Any]]], topic: str, delay: timedelta = timedelta(0)
) -> None:
    """One entry for each consumer that is named, with what it is told."""
    values = {
        "ids": [uuid7() for _ in orders],
        "consumers": [CONSUMERS[name].name for name, _ in orders],
        "payloads": [orjson.dumps(payload).decode() for _, payload in orders],
        "subjects": [CONSUMERS[name].get_subject(topic, payload) for name, payload in orders],
    }
    _insert_entries.run({**values, "topic": topic, "delay": delay, "actor": current_actor()})


def _build_insert() -> PreparedStatement:
    """All entries, and the relay woken at the commit: in one statement."""
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
    written = insert(OutboxEntry).from_select(names, values).cte("written")
    return PreparedStatement(select(func.pg_notify(NOTIFY_CHANNEL, "")).add_cte(written))


_insert_entries = _build_insert()


@cache  # a second app in one process connects the same functions, which Blinker does not call twice
def _make_receiver(noun: str) -> Callable[..., None]:
    def write_entries(_app: object, **change: Any) -> None:
        topic = f"{noun}.{change['verb']}"
        wanted = [
            consumer.name
            for consumer in CONSUMERS.values()
            if matches_change(consumer.topics, topic, change["changed"])
        ]
        if wanted:
            payload = {"id": change["id"], "event_id": change["event_id"], "changed": sorted(change["changed"])}
            _write_entries([(name, payload) for name in wanted], topic)

    return write_entries


def connect_signals() -> None:
    """Turn every signal into entries for the consumers that want it; once, however many apps a process makes."""
    for noun, signal in SIGNALS_BY_TOPIC.items():
        signal.connect(_make_receiver(noun))


def consume_entry(entry_id: UUID) -> None:
    """Act on an open entry and close it; on failure note it and try again later, at last leave it dead."""
    try:
        if _increment_attempts(entry_id):
            _handle_entry(entry_id)
    except Exception as error:
        # What failed may have been the database: without this note the entry waits for its whole lease.
        deadline = monotonic() + RECORD_FAILURE_TIMEOUT_SECONDS
        while not _record_failure(entry_id, error) and monotonic() < deadline:
            sleep(0.5)
        raise


def _handle_entry(entry_id: UUID) -> None:
    with db.session.begin():
        # Locked while it is acted on: a second delivery of the same id finds nothing and goes away.
        entry = db.session.scalar(_select_open_entry(entry_id).with_for_update(skip_locked=True))
        if entry is None:
            return
        act = CONSUMERS[entry.consumer].handler
        if act is None:
            raise TypeError(f"{entry.consumer} is woken up, not called with an entry")
        set_actor(entry.actor)  # what follows from it is caused by the same one
        act(entry)
        entry.done_at = func.now()
        entry.last_error = None


def _select_open_entry(entry_id: UUID) -> Any:
    return select(OutboxEntry).where(
        OutboxEntry.id == entry_id, OutboxEntry.done_at.is_(None), OutboxEntry.dead_at.is_(None)
    )


def _increment_attempts(entry_id: UUID) -> bool:
    """Count in a transaction of its own: work that kills its worker must not be tried for ever."""
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
    """Close all untried entries of the same subject, and add to this one what they say.

    At the first try only, so that each further try makes the same bytes. Their changes are committed, so the consumer,
    which reads later, sees them. Entries that are locked are being taken or published at this moment: they are left.
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
    """Write down that it failed and when to try again; False while the database is away."""
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
    """Select the pairs of consumer and actor that have open entries, in their order, behind this pair.

    Each is one probe of an index, however many entries it has. `number` counts them from 1.
    """
    first = _select_next_pair(after).subquery()
    turns = select(first.c.consumer, first.c.actor, literal(1).label("number")).cte("turns", recursive=True)
    following = _select_next_pair((turns.c.consumer, turns.c.actor)).lateral()
    step = select(following.c.consumer, following.c.actor, turns.c.number + 1)
    step = step.select_from(turns.join(following, true()))
    return turns.union_all(step if limit is None else step.where(turns.c.number < limit))


def _select_next_pair(after: tuple[Any, Any] | None) -> Select[Any]:
    """Select the first consumer and actor with open entries behind a pair, or of all."""
    entries = OutboxEntry.__table__.alias()
    pair = select(entries.c.consumer, entries.c.actor).where(is_open(entries))
    if after is not None:
        pair = pair.where(tuple_(entries.c.consumer, entries.c.actor) > tuple_(*after))
    return pair.order_by(entries.c.consumer, entries.c.actor).limit(1)


def is_open(entries: FromClause) -> ColumnElement[bool]:
    """Return the criterion for entries that are to be acted on."""
    return and_(entries.c.done_at.is_(None), entries.c.dead_at.is_(None))


def prune_entries(older_than: timedelta) -> int:
    """Delete a batch of entries closed longer ago than this; the number deleted."""
    old = (
        select(OutboxEntry.id)
        .where(OutboxEntry.done_at < func.now() - older_than)
        .limit(1000)
        .with_for_update(skip_locked=True)
    )
    with db.session.begin():
        gone = delete(OutboxEntry).where(OutboxEntry.id.in_(old)).returning(OutboxEntry.id)
        return len(db.session.execute(gone, execution_options={"synchronize_session": False}).all())
