"""The relay publishes committed entries, once in each lease, and survives outages of Redis and PostgreSQL."""

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
from app.redis_client import create_client
from app.relay import RelayHeartbeat, run_relay, set_prune_tasks
from tests.worker_process import enqueue_entry, list_entries, run_process

pytestmark = pytest.mark.faults


@pytest.fixture
def queue(servers: dict[str, str]) -> Iterator[redis.Redis]:
    """Yield the Redis of the suite, in which published entries stay because no worker is running."""
    with create_client(servers["REDIS_URL"], timeout=2) as client:
        yield client


@contextmanager
def run_relay_thread(app: Flask, lease_seconds: float = 60) -> Iterator[None]:
    """Run a relay in a thread of this process."""
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


def has_heartbeat(app: Flask, seconds: float = 3) -> bool:
    """Return whether a relay wrote a heartbeat in the last seconds."""
    fresh = select(RelayHeartbeat.id).where(RelayHeartbeat.beat_at > func.now() - timedelta(seconds=seconds))
    with app.app_context():
        return db.session.scalar(fresh) is not None


def test_a_committed_entry_is_published(app: Flask, queue: redis.Redis, wait_until: Callable[..., Any]) -> None:
    with run_relay_thread(app):
        wait_until(lambda: has_heartbeat(app))

        enqueue_entry(app, "tests.record")

        wait_until(lambda: queue.llen(EVENTS_QUEUE) == 1, 0.9, "published by the notification, before the poll")


def test_backlog_is_published_when_relay_starts(app: Flask, queue: redis.Redis, wait_until: Callable[..., Any]) -> None:
    for number in range(relay.BATCH_SIZE + 1):
        enqueue_entry(app, "tests.record", actor=number)

    with run_relay_thread(app):
        wait_until(lambda: queue.llen(EVENTS_QUEUE) == relay.BATCH_SIZE + 1)


def test_two_relays_publish_each_entry_once(app: Flask, queue: redis.Redis, wait_until: Callable[..., Any]) -> None:
    with run_relay_thread(app), run_relay_thread(app):
        for number in range(300):
            enqueue_entry(app, "tests.record", actor=number)
        wait_until(lambda: queue.llen(EVENTS_QUEUE) >= 300)

    assert queue.llen(EVENTS_QUEUE) == 300


def test_entries_of_one_subject_are_published_once_in_a_batch(
    app: Flask, queue: redis.Redis, wait_until: Callable[..., Any]
) -> None:
    with app.app_context(), db.session.begin():
        changes = [
            {"id": id_, "event_id": id_, "changed": ["name"]}
            for id_ in (1, 2)
            for _ in range(relay.MAX_PUBLISHED_ENTRIES // 2)
        ]
        outbox.enqueue_entries("events.write_calendar", "event.updated", changes)

    with run_relay_thread(app):
        wait_until(lambda: all(entry.next_at > entry.created_at for entry in list_entries(app)), what="claimed")
        wait_until(lambda: queue.llen(EVENTS_QUEUE))
        enqueue_entry(app, "tests.record")
        wait_until(lambda: queue.llen(EVENTS_QUEUE) >= 3)

    assert queue.llen(EVENTS_QUEUE) == 3


def test_unclosed_entry_is_republished_after_lease(
    app: Flask, queue: redis.Redis, wait_until: Callable[..., Any]
) -> None:
    enqueue_entry(app, "tests.record")

    with run_relay_thread(app, lease_seconds=0.5):
        wait_until(lambda: queue.llen(EVENTS_QUEUE) == 1)
        queue.flushall()  # Redis loses its data

        wait_until(lambda: queue.llen(EVENTS_QUEUE) == 1)


@pytest.mark.parametrize("column", ["done_at", "dead_at"])
def test_closed_entry_is_not_published(
    app: Flask, queue: redis.Redis, wait_until: Callable[..., Any], column: str
) -> None:
    enqueue_entry(app, "tests.record")
    with app.app_context(), db.session.begin():
        db.session.execute(update(OutboxEntry).values({column: func.now()}))

    with run_relay_thread(app):
        enqueue_entry(app, "tests.record")
        wait_until(lambda: queue.llen(EVENTS_QUEUE))

    assert queue.llen(EVENTS_QUEUE) == 1


def test_a_full_queue_gets_no_more(app: Flask, queue: redis.Redis, wait_until: Callable[..., Any]) -> None:
    queue.rpush(EVENTS_QUEUE, *range(relay.MAX_QUEUE_LENGTH))
    enqueue_entry(app, "tests.record")

    with run_relay_thread(app):
        wait_until(lambda: has_heartbeat(app))
        (entry,) = list_entries(app)
        assert entry.next_at == entry.created_at, "it was not even claimed"

        queue.delete(EVENTS_QUEUE)
        wait_until(lambda: queue.llen(EVENTS_QUEUE) == 1)


def test_an_entry_for_a_consumer_of_newer_code_is_left_to_a_newer_relay(
    app: Flask, queue: redis.Redis, wait_until: Callable[..., Any]
) -> None:
    enqueue_entry(app, "tests.record")
    with app.app_context(), db.session.begin():
        db.session.execute(update(OutboxEntry).values(consumer="of.tomorrow"))

    with run_relay_thread(app):
        enqueue_entry(app, "tests.record")
        wait_until(lambda: queue.llen(EVENTS_QUEUE) == 1)

    assert list_entries(app)[0].next_at == list_entries(app)[0].created_at


def test_a_failed_publish_gives_the_batch_back(app: Flask, queue: redis.Redis, wait_until: Callable[..., Any]) -> None:
    for _ in range(5):
        enqueue_entry(app, "tests.record")
    # Full memory: reads answer, writes do not.
    queue.config_set("maxmemory", "1")

    with run_relay_thread(app, lease_seconds=60):
        wait_until(lambda: all(entry.next_at > entry.created_at for entry in list_entries(app)), what="claimed")
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
        redis_process = stack.enter_context(embedded.run_server(server))
        wait_until(server.is_ready)
        stack.enter_context(run_process({**environment, "REDIS_URL": server.url}, tmp_path / "relay.log", "relay", "2"))
        wait_until(lambda: has_heartbeat(app))

        redis_process.send_signal(signal.SIGKILL if outage == "killed" else signal.SIGSTOP)
        for _ in range(20):
            enqueue_entry(app, "tests.record")
        with app.app_context(), db.session.begin():
            db.session.query(RelayHeartbeat).delete()
        wait_until(lambda: has_heartbeat(app), 5, "the relay beats while Redis is away")
        if outage == "killed":
            stack.enter_context(embedded.run_server(server))
        else:
            redis_process.send_signal(signal.SIGCONT)

        wait_until(server.is_ready)
        client = stack.enter_context(create_client(server.url, timeout=2))
        wait_until(lambda: client.llen(EVENTS_QUEUE) >= 20)


def test_a_lost_database_connection_is_replaced(app: Flask, queue: redis.Redis, wait_until: Callable[..., Any]) -> None:
    with run_relay_thread(app):
        wait_until(lambda: has_heartbeat(app))
        with app.app_context(), db.engine.begin() as connection:
            ended = connection.exec_driver_sql(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name = 'open-event-relay'"
            ).scalar_one()

        enqueue_entry(app, "tests.record")

        assert ended >= 2
        wait_until(lambda: queue.llen(EVENTS_QUEUE) == 1)
        wait_until(lambda: has_heartbeat(app))


def test_prune_task_is_called_until_nothing_is_left(
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
    set_prune_tasks(app, prune)

    with run_relay_thread(app):
        assert done.wait(10)

    assert asked == [timedelta(days=app.config["RETENTION_DAYS"])] * 3
