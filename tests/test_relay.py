"""The relay publishes what is committed, once a lease, and outlives Redis and PostgreSQL."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask
from sqlalchemy import func, select, update

from app import embedded, outbox, relay
from app.extensions import db
from app.outbox import EVENTS_QUEUE, OutboxEntry
from app.redis_client import connect
from app.relay import RelayBeat, prune_with, run_relay
from tests.background import entries, order, process

pytestmark = pytest.mark.faults


@pytest.fixture
def queue(servers: dict[str, str]) -> Iterator[redis.Redis]:
    """The suite's Redis, where published entries wait: no worker is running."""
    with connect(servers["REDIS_URL"], timeout=2) as client:
        yield client


@contextmanager
def running(app: Flask, lease_seconds: float = 60) -> Iterator[None]:
    """A relay in a thread of this process."""
    stop = threading.Event()
    lease = timedelta(seconds=lease_seconds)
    thread = threading.Thread(target=run_relay, args=(app, stop), kwargs={"lease": lease})
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


def has_beaten(app: Flask, seconds: float = 3) -> bool:
    """Whether a relay showed that it lives within the last seconds."""
    fresh = select(RelayBeat.id).where(RelayBeat.beat_at > func.now() - timedelta(seconds=seconds))
    with app.app_context():
        return db.session.scalar(fresh) is not None


def test_a_committed_entry_is_published(app: Flask, queue: redis.Redis, wait_until: Callable[..., Any]) -> None:
    with running(app):
        wait_until(lambda: has_beaten(app))

        order(app, "tests.record")

        wait_until(lambda: queue.llen(EVENTS_QUEUE) == 1, 0.9, "published by the notification, before the poll")


def test_what_was_committed_without_a_relay_is_published(
    app: Flask, queue: redis.Redis, wait_until: Callable[..., Any]
) -> None:
    for number in range(relay.BATCH + 1):
        order(app, "tests.record", actor=number)

    with running(app):
        wait_until(lambda: queue.llen(EVENTS_QUEUE) == relay.BATCH + 1)


def test_two_relays_publish_each_entry_once(app: Flask, queue: redis.Redis, wait_until: Callable[..., Any]) -> None:
    with running(app), running(app):
        for number in range(300):
            order(app, "tests.record", actor=number)
        wait_until(lambda: queue.llen(EVENTS_QUEUE) >= 300)

    assert queue.llen(EVENTS_QUEUE) == 300


def test_entries_of_one_subject_are_published_once_in_a_batch(
    app: Flask, queue: redis.Redis, wait_until: Callable[..., Any]
) -> None:
    with app.app_context(), db.session.begin():
        changes = [
            {"id": id_, "event_id": id_, "changed": ["name"]} for id_ in (1, 2) for _ in range(relay.MAX_PUBLISHED // 2)
        ]
        outbox.order_many("events.write_calendar", "event.updated", changes)

    with running(app):
        wait_until(lambda: all(entry.next_at > entry.created_at for entry in entries(app)), what="claimed")
        wait_until(lambda: queue.llen(EVENTS_QUEUE))
        order(app, "tests.record")
        wait_until(lambda: queue.llen(EVENTS_QUEUE) >= 3)

    assert queue.llen(EVENTS_QUEUE) == 3


def test_what_nobody_closed_is_published_again_after_its_lease(
    app: Flask, queue: redis.Redis, wait_until: Callable[..., Any]
) -> None:
    order(app, "tests.record")

    with running(app, lease_seconds=0.5):
        wait_until(lambda: queue.llen(EVENTS_QUEUE) == 1)
        queue.flushall()  # Redis lost its memory

        wait_until(lambda: queue.llen(EVENTS_QUEUE) == 1)


@pytest.mark.parametrize("column", ["done_at", "dead_at"])
def test_what_is_closed_is_not_published(
    app: Flask, queue: redis.Redis, wait_until: Callable[..., Any], column: str
) -> None:
    order(app, "tests.record")
    with app.app_context(), db.session.begin():
        db.session.execute(update(OutboxEntry).values({column: func.now()}))

    with running(app):
        order(app, "tests.record")
        wait_until(lambda: queue.llen(EVENTS_QUEUE))

    assert queue.llen(EVENTS_QUEUE) == 1


def test_a_full_queue_gets_no_more(app: Flask, queue: redis.Redis, wait_until: Callable[..., Any]) -> None:
    queue.rpush(EVENTS_QUEUE, *range(relay.FULL_QUEUE))
    order(app, "tests.record")

    with running(app):
        wait_until(lambda: has_beaten(app))
        (entry,) = entries(app)
        assert entry.next_at == entry.created_at, "it was not even claimed"

        queue.delete(EVENTS_QUEUE)
        wait_until(lambda: queue.llen(EVENTS_QUEUE) == 1)


def test_an_entry_for_a_consumer_of_newer_code_is_left_to_a_newer_relay(
    app: Flask, queue: redis.Redis, wait_until: Callable[..., Any]
) -> None:
    order(app, "tests.record")
    with app.app_context(), db.session.begin():
        db.session.execute(update(OutboxEntry).values(consumer="of.tomorrow"))

    with running(app):
        order(app, "tests.record")
        wait_until(lambda: queue.llen(EVENTS_QUEUE) == 1)

    assert entries(app)[0].next_at == entries(app)[0].created_at


def test_a_failed_publish_gives_the_batch_back(app: Flask, queue: redis.Redis, wait_until: Callable[..., Any]) -> None:
    for _ in range(5):
        order(app, "tests.record")
    # Full memory: reads answer, writes do not.
    queue.config_set("maxmemory", "1")

    with running(app, lease_seconds=60):
        wait_until(lambda: all(entry.next_at > entry.created_at for entry in entries(app)), what="claimed")
        queue.config_set("maxmemory", "0")

        wait_until(lambda: queue.llen(EVENTS_QUEUE) == 5, 10, "long before the lease runs out")


@pytest.mark.parametrize("outage", ["killed", "stopped"])
def test_redis_comes_back_and_all_is_published(
    app: Flask,
    environment: dict[str, str],
    tmp_path: Path,
    wait_until: Callable[..., Any],
    outage: str,
) -> None:
    with ExitStack() as stack:
        server = embedded.Redis(tmp_path)
        redis_process = stack.enter_context(embedded.run(server))
        wait_until(server.answers)
        stack.enter_context(process({**environment, "REDIS_URL": server.url}, tmp_path / "relay.log", "relay", "2"))
        wait_until(lambda: has_beaten(app))

        redis_process.send_signal(signal.SIGKILL if outage == "killed" else signal.SIGSTOP)
        for _ in range(20):
            order(app, "tests.record")
        with app.app_context(), db.session.begin():
            db.session.query(RelayBeat).delete()
        wait_until(lambda: has_beaten(app), 5, "the relay beats while Redis is away")
        if outage == "killed":
            stack.enter_context(embedded.run(server))
        else:
            redis_process.send_signal(signal.SIGCONT)

        wait_until(server.answers)
        client = stack.enter_context(connect(server.url, timeout=2))
        wait_until(lambda: client.llen(EVENTS_QUEUE) >= 20)


def test_a_lost_database_connection_is_replaced(app: Flask, queue: redis.Redis, wait_until: Callable[..., Any]) -> None:
    with running(app):
        wait_until(lambda: has_beaten(app))
        with app.app_context(), db.engine.begin() as connection:
            ended = connection.exec_driver_sql(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name = 'open-event-relay'"
            ).scalar_one()

        order(app, "tests.record")

        assert ended >= 2
        wait_until(lambda: queue.llen(EVENTS_QUEUE) == 1)
        wait_until(lambda: has_beaten(app))


def test_the_sweep_calls_what_prunes_until_nothing_is_left(
    app: Flask, wait_until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[timedelta] = []
    batches = [1000, 3, 0]
    done = threading.Event()

    def prune(older_than: timedelta) -> int:
        asked.append(older_than)
        if len(asked) == 3:
            done.set()
        return batches[len(asked) - 1]

    monkeypatch.setitem(app.extensions, "prunes", ())
    prune_with(app, prune)

    with running(app):
        assert done.wait(10)

    assert asked == [timedelta(days=app.config["RETENTION_DAYS"])] * 3
