"""Actors of outbox entries: they take turns, so that one with much work does not delay the others."""

import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Connection, event, func, select, text, update

from app import outbox, relay
from app.actors import SYSTEM_ACTOR, set_actor
from app.extensions import db
from app.outbox import CONSUMERS, EVENTS_QUEUE, Consumer, OutboxEntry
from app.redis_client import create_client
from app.relay import BATCH_SIZE, MAX_PUBLISHED_ENTRIES, MAX_TURNS, run_relay
from app.users.models import User
from tests.dataset import Dataset
from tests.worker_process import enqueue_entry, list_entries

BACKLOG = 100_000


def enqueue_entries(app: Flask, actor: int, count: int = 1, consumer: str = "tests.record") -> None:
    """Commit entries of an actor."""
    with app.app_context(), db.session.begin():
        set_actor(actor)
        outbox.enqueue_entries(consumer, "tests", [{"id": number} for number in range(count)])


def set_users_verified(app: Flask, *, is_verified: bool) -> None:
    """Verify the addresses of all users, or none."""
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(update(User).values(is_verified=is_verified))


def claim_batch(
    app: Flask, after: tuple[str, int] | None = None, **limits: int
) -> tuple[list[int], tuple[str, int] | None]:
    """Claim one batch as the relay does; return the actors of its entries and the last pair."""
    most = {name.replace("_", "."): number for name, number in limits.items()} or {
        "tests.record": MAX_PUBLISHED_ENTRIES
    }
    with app.app_context(), app.extensions["autocommit"].connect() as connection:
        claimed, last = relay._claim_batch(connection, most, relay.LEASE_DURATION, after)
    actors = {entry.id: entry.actor for entry in list_entries(app)}
    return sorted(actors[entry.id] for entry in claimed), last


def close_entries(app: Flask, count: int, actor: int) -> None:
    """Close entries of an actor that are published, as a worker does."""
    published = select(OutboxEntry.id).where(OutboxEntry.actor == actor, OutboxEntry.published_at.is_not(None))
    some = published.where(OutboxEntry.done_at.is_(None)).limit(count)
    with app.app_context(), db.session.begin():
        db.session.execute(update(OutboxEntry).where(OutboxEntry.id.in_(some)).values(done_at=func.now()))


def test_entry_of_a_verified_user_names_the_user(dataset: Dataset) -> None:
    set_users_verified(dataset.app, is_verified=True)

    dataset.owner.update(f"/v1/events/{dataset.events['published']}", "event", {"name": "Another"})

    assert list_entries(dataset.app)[-1].actor == dataset.owner.id


def test_entries_of_accounts_that_are_not_verified_name_their_address(dataset: Dataset, client: FlaskClient) -> None:
    set_users_verified(dataset.app, is_verified=False)

    for number, address in enumerate(("10.1.1.1", "10.1.1.1", "10.2.2.2", "2001:db8:1:1::1", "2001:db8:1:2::1")):
        attributes = {"email": f"new{number}@example.com", "password": "x" * 8}
        answer = client.post(
            "/v1/users",
            json={"data": {"type": "user", "attributes": attributes}},
            content_type="application/vnd.api+json",
            environ_base={"REMOTE_ADDR": address},
        )
        assert answer.status_code == 201, answer.text
    dataset.owner.update(f"/v1/events/{dataset.events['published']}", "event", {"name": "Another"})

    entries = [entry for entry in list_entries(dataset.app) if entry.actor != SYSTEM_ACTOR]
    *signed_up, changed = [entry.actor for entry in entries]
    assert all(actor < -1 for actor in (*signed_up, changed))
    assert signed_up[0] == signed_up[1]
    assert signed_up[3] == signed_up[4], "of one /48"
    assert len({*signed_up, changed}) == 4


def test_entry_without_a_request_names_the_system(app: Flask) -> None:
    enqueue_entry(app, "tests.record")

    assert [entry.actor for entry in list_entries(app)] == [SYSTEM_ACTOR]


def test_work_that_follows_from_an_entry_counts_for_its_actor(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(_entry: OutboxEntry) -> None:
        outbox.enqueue_entry("tests.record", "tests", {})

    monkeypatch.setitem(CONSUMERS, "tests.follow", Consumer("tests.follow", EVENTS_QUEUE, (), act))
    enqueue_entries(app, 7, consumer="tests.follow")

    with app.app_context():
        outbox.consume_entry(list_entries(app)[0].id)

    assert [entry.actor for entry in list_entries(app)] == [7, 7]


def test_claim_takes_few_entries_of_an_actor_and_one_of_each_other(app: Flask) -> None:
    enqueue_entries(app, 5, 300)
    enqueue_entries(app, 6)
    enqueue_entries(app, -9)

    actors, _ = claim_batch(app)

    assert Counter(actors) == {5: MAX_PUBLISHED_ENTRIES, 6: 1, -9: 1}
    assert claim_batch(app) == ([], None), "until some of them are done"
    close_entries(app, 3, actor=5)
    assert claim_batch(app) == ([5, 5, 5], None)


def test_claim_takes_entries_of_an_actor_again_when_their_lease_has_run_out(app: Flask) -> None:
    enqueue_entries(app, 5, MAX_PUBLISHED_ENTRIES + 1)
    claim_batch(app)

    with app.app_context(), db.session.begin():
        db.session.execute(update(OutboxEntry).values(next_at=func.now() - timedelta(seconds=1)))

    assert claim_batch(app)[0] == [5] * MAX_PUBLISHED_ENTRIES


def test_claim_passes_over_entries_that_have_failed(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    enqueue_entries(app, 5, 3, "tests.fail")
    assert claim_batch(app, tests_fail=1)[0] == [5]
    (failing,) = [entry.id for entry in list_entries(app) if entry.published_at]

    with app.app_context(), pytest.raises(RuntimeError):
        outbox.consume_entry(failing)

    assert claim_batch(app, tests_fail=1)[0] == [5], "what waits on purpose is not published"


def test_claim_goes_on_behind_the_actor_that_was_served_last(app: Flask) -> None:
    for actor in range(1, 4):
        enqueue_entries(app, actor, BATCH_SIZE // 2)

    first, last = claim_batch(app, tests_record=BATCH_SIZE // 2)
    second, end = claim_batch(app, after=last, tests_record=BATCH_SIZE // 2)

    assert (Counter(first), last) == ({1: BATCH_SIZE // 2, 2: BATCH_SIZE // 2}, ("tests.record", 2))
    assert (Counter(second), end) == ({3: BATCH_SIZE // 2}, None)


@pytest.mark.parametrize(
    ("length", "most"), [(0, MAX_PUBLISHED_ENTRIES), (16, MAX_PUBLISHED_ENTRIES - 4), (60, 1), (900, 1)]
)
def test_a_long_queue_gets_few_entries_of_each_actor(length: int, most: int) -> None:
    assert relay._compute_limit(length) == most


@pytest.mark.faults
def test_an_entry_waits_behind_few_of_another_actor(
    app: Flask, servers: dict[str, str], wait_until: Callable[..., Any]
) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=run_relay, args=(app, stop))
    with create_client(servers["REDIS_URL"], timeout=2) as client:
        enqueue_entries(app, 5, 300)
        thread.start()
        try:
            wait_until(lambda: client.llen(EVENTS_QUEUE) >= 10)
            enqueue_entries(app, 6)

            wait_until(lambda: any(entry.published_at for entry in list_entries(app) if entry.actor == 6), 2)
            assert client.llen(EVENTS_QUEUE) <= MAX_PUBLISHED_ENTRIES + 1
            close_entries(app, MAX_PUBLISHED_ENTRIES, actor=5)
            client.delete(EVENTS_QUEUE)
            wait_until(lambda: client.llen(EVENTS_QUEUE) >= 10, 2, "more are published when some are done")
        finally:
            stop.set()
            thread.join(10)


@pytest.fixture
def backlog(app: Flask) -> Callable[[bool, timedelta], None]:
    """Return a function that creates entries, of one actor or of one each, that are due after a delay."""

    def fill(is_one: bool, delay: timedelta) -> None:
        with app.app_context(), db.engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(
                text(
                    "INSERT INTO outbox_entries (id, consumer, topic, payload, actor, next_at)"
                    " SELECT gen_random_uuid(), 'tests.record', 'tests', '{}', CASE WHEN :is_one THEN 5 ELSE n END,"
                    " now() + :delay FROM generate_series(1, :backlog) n"
                ),
                {"is_one": is_one, "delay": delay, "backlog": BACKLOG},
            )
        with app.app_context(), app.extensions["autocommit"].connect() as connection:
            connection.execute(text("SET statement_timeout = 0"))
            connection.execute(text("VACUUM ANALYZE outbox_entries"))
            connection.execute(text("SET statement_timeout = '3s'"))

    return fill


def count_blocks(app: Flask, run: Callable[[Connection], object]) -> int:
    """Return the blocks that the statements of `run` touch, by EXPLAIN ANALYZE of each."""
    statements: list[tuple[str, Any]] = []
    touched = 0
    with app.app_context(), db.engine.connect() as connection:
        event.listen(connection, "before_cursor_execute", lambda *args: statements.append((args[2], args[3])))
        run(connection)
        connection.rollback()
        for statement, parameters in list(statements):
            explained = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters)
            plan = explained.scalar_one()[0]["Plan"]
            touched += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return touched


@pytest.mark.parametrize(
    ("is_one", "delay", "most"),
    [(True, timedelta(0), 1_000), (False, timedelta(0), 20_000), (False, timedelta(hours=1), 20_000)],
    ids=["one actor", "an actor each", "all have failed"],
)
def test_claim_reads_little_of_a_hundred_thousand_waiting_entries(
    app: Flask, backlog: Callable[[bool, timedelta], None], is_one: bool, delay: timedelta, most: int
) -> None:
    backlog(is_one, delay)

    limits = {"tests.record": MAX_PUBLISHED_ENTRIES}
    assert (
        count_blocks(app, lambda connection: relay._claim_batch(connection, limits, relay.LEASE_DURATION, None)) <= most
    )
    assert count_blocks(app, lambda connection: connection.scalar(relay._select_due)) < 10


def test_claim_comes_round_to_all_of_many_actors(app: Flask) -> None:
    for actor in (1, MAX_TURNS + 5):
        enqueue_entries(app, actor)
    with app.app_context(), db.session.begin():
        values = "SELECT gen_random_uuid(), 'tests.record', 'tests', '{}', n, now() + interval '1 h' FROM"
        insert = "INSERT INTO outbox_entries (id, consumer, topic, payload, actor, next_at)"
        db.session.execute(text(f"{insert} {values} generate_series(1, {MAX_TURNS + 5}) n"))

    first, last = claim_batch(app)
    second, end = claim_batch(app, after=last)

    assert (first, second, end) == ([1], [MAX_TURNS + 5], None)
