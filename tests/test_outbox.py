"""Outbox entries are committed with their change, handled at least once, and closed once."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import func, select, update

from app import outbox
from app.events.team import MAIL_OWNERSHIP_OFFER
from app.extensions import db
from app.faqs.models import FaqType
from app.outbox import CONSUMERS, Consumer, OutboxEntry
from app.processes.worker_nodes import MAILS_QUEUE, list_node_queues
from app.treatments.notifications import MAIL_CONSUMER
from app.users.accounts import (
    MAIL_ACCOUNT_DELETED,
    MAIL_EMAIL_CHANGED,
    MAIL_PASSWORD_CHANGED,
    MAIL_RESET,
    MAIL_VERIFICATION,
)
from tests.dataset import Dataset
from tests.worker_process import are_all_closed, enqueue_entry, list_entries, read_lines


@pytest.fixture
def consumers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that declares a consumer of these topics for one test."""

    def declare(name: str, *topics: str) -> None:
        monkeypatch.setitem(CONSUMERS, name, Consumer(name, "events", topics, lambda _entry: None))

    return declare


def test_a_signal_becomes_one_entry_for_each_consumer(
    app: Flask, dataset: Dataset, consumers: Callable[..., None]
) -> None:
    consumers("one", "faq-type.updated")
    consumers("two", "faq-type.updated:name", "faq-type.created")
    consumers("three", "faq-type.updated:event_id", "faq.updated")

    dataset.owner.update(f"/v1/faq-types/{dataset.types['published']}", "faq-type", {"name": "Renamed"})

    entries = [entry for entry in list_entries(app) if entry.consumer in ("one", "two", "three")]
    assert sorted(entry.consumer for entry in entries) == ["one", "two"]
    assert {entry.topic for entry in entries} == {"faq-type.updated"}
    assert entries[0].payload == {
        "id": dataset.types["published"],
        "event_id": dataset.events["published"],
        "changed": ["name"],
    }


def test_a_second_app_in_one_process_does_not_double_entries(app: Flask, consumers: Callable[..., None]) -> None:
    consumers("one", "faq-type.updated")

    outbox.connect_signals()

    with app.app_context(), db.session.begin():
        FaqType.__signal__.send(app, verb="updated", id=1, event_id=1, changed=frozenset({"name"}))
    assert len(list_entries(app)) == 1


def test_rollback_discards_entry(app: Flask) -> None:
    with app.app_context():
        outbox.enqueue_entry("tests.record", "tests", {})
        db.session.rollback()

    assert list_entries(app) == []


def test_savepoint_rollback_discards_only_its_entries(app: Flask) -> None:
    with app.app_context(), db.session.begin():
        outbox.enqueue_entry("tests.record", "outer", {})
        inner = db.session.begin_nested()
        outbox.enqueue_entry("tests.record", "inner", {})
        inner.rollback()

    assert [entry.topic for entry in list_entries(app)] == ["outer"]


def test_a_duplicate_does_nothing(app: Flask, tmp_path: Path) -> None:
    entry_id = enqueue_entry(app, "tests.record", file=str(tmp_path / "acts"))

    with app.app_context():
        outbox.consume_entry(entry_id)
        outbox.consume_entry(entry_id)

    assert len(read_lines(tmp_path / "acts")) == 1
    assert list_entries(app)[0].tries == 1


def test_locked_entry_is_skipped(app: Flask, tmp_path: Path) -> None:
    entry_id = enqueue_entry(app, "tests.record", file=str(tmp_path / "acts"))

    with app.app_context(), db.engine.begin() as other:
        other.execute(update(OutboxEntry).where(OutboxEntry.id == entry_id).values(topic="locked"))
        outbox.consume_entry(entry_id)

    assert read_lines(tmp_path / "acts") == []
    assert not are_all_closed(app)


def test_failure_is_recorded_and_retried_with_backoff(app: Flask) -> None:
    entry_id = enqueue_entry(app, "tests.fail")
    pauses = []

    for _ in range(3):
        with app.app_context(), pytest.raises(RuntimeError):
            outbox.consume_entry(entry_id)
        (entry,) = list_entries(app)
        pauses.append(round((entry.next_at - datetime.now(UTC)).total_seconds()))

    assert pauses == [2, 4, 8]
    assert (entry.tries, entry.last_error, entry.done_at, entry.dead_at) == (3, "RuntimeError", None, None)


def test_entry_is_dead_after_max_tries(app: Flask) -> None:
    entry_id = enqueue_entry(app, "tests.fail")
    with app.app_context(), db.session.begin():
        db.session.execute(update(OutboxEntry).values(tries=outbox.MAX_TRIES))

    with app.app_context():
        outbox.consume_entry(entry_id)

    (entry,) = list_entries(app)
    assert entry.dead_at
    assert not entry.done_at


def test_failing_consumer_rolls_back_its_changes(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(_entry: OutboxEntry) -> None:
        outbox.enqueue_entry("tests.record", "half", {})
        raise RuntimeError("in the middle")

    monkeypatch.setitem(CONSUMERS, "tests.fail", Consumer("tests.fail", "events", (), act))
    entry_id = enqueue_entry(app, "tests.fail")

    with app.app_context(), pytest.raises(RuntimeError):
        outbox.consume_entry(entry_id)

    assert [entry.topic for entry in list_entries(app)] == ["tests"]


def test_old_closed_entries_are_pruned_and_others_stay(app: Flask) -> None:
    old, fresh, _open = (enqueue_entry(app, "tests.record") for _ in range(3))
    with app.app_context(), db.session.begin():
        for entry_id, age in ((old, timedelta(days=31)), (fresh, timedelta(days=29))):
            db.session.execute(update(OutboxEntry).where(OutboxEntry.id == entry_id).values(done_at=func.now() - age))

    with app.app_context():
        gone = outbox.prune_entries(timedelta(days=30))

    assert gone == 1
    assert [entry.id for entry in list_entries(app)] == [fresh, _open]


def test_failure_is_recorded_after_database_outage(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    entry_id = enqueue_entry(app, "tests.fail")
    is_away = iter([True, True])
    note = outbox._record_failure
    monkeypatch.setattr(outbox, "_record_failure", lambda *what: not next(is_away, False) and note(*what))

    with app.app_context(), pytest.raises(RuntimeError):
        outbox.consume_entry(entry_id)

    (entry,) = list_entries(app)
    assert (entry.last_error, entry.tries, entry.done_at) == ("RuntimeError", 1, None)


@pytest.fixture
def merge_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str]]]:
    """Return the calls of `tests.merge`, a consumer that merges by `id`: the id and the changed fields."""
    acts: list[tuple[int, list[str]]] = []

    def act(entry: OutboxEntry) -> None:
        acts.append((entry.payload["id"], entry.payload["changed"]))

    monkeypatch.setitem(CONSUMERS, "tests.merge", Consumer("tests.merge", "events", (), act, "id"))
    return acts


def enqueue_change(
    app: Flask, id_: int, *changed: str, topic: str = "thing.updated", consumer: str = "tests.merge"
) -> UUID:
    """Commit an entry for changed fields of a row; return the id of the entry."""
    with app.app_context(), db.session.begin():
        outbox.enqueue_entry(consumer, topic, {"id": id_, "changed": sorted(changed)})
        return db.session.scalars(select(OutboxEntry.id).order_by(OutboxEntry.id.desc()).limit(1)).one()


def test_entries_of_one_subject_are_acted_on_once(app: Flask, merge_calls: list[tuple[int, list[str]]]) -> None:
    first = enqueue_change(app, 1, "name")
    enqueue_change(app, 1, "state")
    last = enqueue_change(app, 1, "name", "privacy")

    with app.app_context():
        outbox.consume_entry(first)
        outbox.consume_entry(last)

    assert merge_calls == [(1, ["name", "privacy", "state"])]
    assert are_all_closed(app)
    entries = {entry.id: entry for entry in list_entries(app)}
    assert entries[first].created_at == entries[last].created_at


def test_entries_of_other_subjects_topics_and_consumers_are_left(
    app: Flask, merge_calls: list[tuple[int, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONSUMERS, "tests.each", Consumer("tests.each", "events", (), lambda _entry: None))
    first = enqueue_change(app, 1, "name")
    others = [
        enqueue_change(app, 2, "name"),
        enqueue_change(app, 1, "name", topic="thing.deleted"),
        enqueue_change(app, 1, "name", consumer="tests.each"),
    ]

    with app.app_context():
        outbox.consume_entry(first)

    assert merge_calls == [(1, ["name"])]
    assert {entry.id for entry in list_entries(app) if entry.done_at is None} == set(others)


def test_further_try_merges_nothing_so_that_it_makes_the_same_bytes(
    app: Flask, merge_calls: list[tuple[int, list[str]]]
) -> None:
    first = enqueue_change(app, 1, "name")
    with app.app_context(), db.session.begin():
        db.session.execute(update(OutboxEntry).values(tries=1))
    later = enqueue_change(app, 1, "state")

    with app.app_context():
        outbox.consume_entry(first)

    assert merge_calls == [(1, ["name"])]
    assert [entry.id for entry in list_entries(app) if entry.done_at is None] == [later]


def test_entry_that_failed_is_not_merged_into_another(app: Flask, merge_calls: list[tuple[int, list[str]]]) -> None:
    failed = enqueue_change(app, 1, "name")
    with app.app_context(), db.session.begin():
        db.session.execute(update(OutboxEntry).values(tries=1))
    later = enqueue_change(app, 1, "state")

    with app.app_context():
        outbox.consume_entry(later)

    assert merge_calls == [(1, ["state"])]
    assert [entry.id for entry in list_entries(app) if entry.done_at is None] == [failed]


def test_merged_entries_count_as_one_try_when_the_consumer_fails(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_entry: OutboxEntry) -> None:
        raise RuntimeError("storage is away")

    monkeypatch.setitem(CONSUMERS, "tests.merge", Consumer("tests.merge", "events", (), fail, "id"))
    first = enqueue_change(app, 1, "name")
    enqueue_change(app, 1, "state")

    with app.app_context(), pytest.raises(RuntimeError):
        outbox.consume_entry(first)

    open_ = [entry for entry in list_entries(app) if entry.done_at is None]
    assert [(entry.id, entry.tries, entry.payload["changed"]) for entry in open_] == [(first, 1, ["name", "state"])]


def test_entry_that_is_being_published_is_left(app: Flask, merge_calls: list[tuple[int, list[str]]]) -> None:
    first, second = enqueue_change(app, 1, "name"), enqueue_change(app, 1, "state")

    with app.app_context(), db.engine.begin() as relay:
        relay.execute(select(OutboxEntry.id).where(OutboxEntry.id == second).with_for_update())
        outbox.consume_entry(first)

    assert merge_calls == [(1, ["name"])]
    assert [entry.id for entry in list_entries(app) if entry.done_at is None] == [second]


@pytest.mark.usefixtures("app")
def test_consumers_that_bring_something_up_to_date_merge() -> None:
    """All other consumers need every entry (docs/architecture.md gives the reasons)."""
    merged = {name for name, consumer in CONSUMERS.items() if consumer.merge_by is not None}

    assert merged == {"events.write_calendar", MAIL_VERIFICATION}


@pytest.mark.usefixtures("app")
def test_mails_have_a_queue_of_their_own() -> None:
    queues = {name: consumer.queue for name, consumer in CONSUMERS.items()}

    assert {name for name, queue in queues.items() if queue == MAILS_QUEUE} == {
        MAIL_VERIFICATION,
        MAIL_RESET,
        MAIL_EMAIL_CHANGED,
        MAIL_PASSWORD_CHANGED,
        MAIL_ACCOUNT_DELETED,
        MAIL_OWNERSHIP_OFFER,
        MAIL_CONSUMER,
    }
    for has_processor in (False, True):
        assert (MAILS_QUEUE,) in list_node_queues(has_processor=has_processor)
