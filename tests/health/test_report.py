"""Health reports: probes run at once, with a deadline and a grace period."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy import Column, Integer, MetaData, Table, func, text, update
from sqlalchemy.dialects.postgresql import insert

from app import outbox, request_bodies
from app.extensions import db
from app.health.checks import HealthChecks
from app.health.heartbeat import HEARTBEATS_KEY, write_heartbeat
from app.health.probes import Probe, Unhealthy
from app.health.report import HealthReport
from app.health.schema_check import SchemaCheck
from app.outbox import OutboxEntry
from app.processes.worker_nodes import JOBS_QUEUE, QUEUES, list_node_queues
from app.processors.runs import POLL
from app.redis_client import create_client
from app.relay import RelayHeartbeat
from app.slots import SlotPool
from tests.worker_process import enqueue_entry


def passing_probe() -> str:
    return "fine"


def failing_probe() -> str:
    raise Unhealthy("not fine")


@pytest.fixture
def hang_release() -> Iterator[threading.Event]:
    """Yield an event that ends hanging checks when it is set."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def report(app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that requests /health-check with these probes."""

    def ask(*probes: Probe) -> Any:
        monkeypatch.setitem(app.extensions, "health", HealthReport(probes))
        return client.get("/health-check")

    return ask


def test_the_answer_has_the_shape_monitors_know(report: Callable[..., Any]) -> None:
    response = report(Probe("health_check_db", passing_probe))

    document = response.get_json()
    assert response.status_code == 200
    assert response.content_type == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert set(document) == {"hostname", "status", "timestamp", "results", "response_time"}
    assert document["hostname"] == "open-event"
    assert document["status"] == "success"
    (result,) = document["results"]
    assert set(result) == {"checker", "output", "passed", "timestamp", "expires", "response_time"}
    assert (result["checker"], result["output"], result["passed"]) == ("health_check_db", "fine", True)
    assert result["expires"] > result["timestamp"]


def test_a_failed_check_is_a_503_that_names_it(report: Callable[..., Any]) -> None:
    response = report(Probe("health_check_db", failing_probe), Probe("health_check_redis", passing_probe))

    assert response.status_code == 503
    assert response.get_json()["status"] == "failure"
    assert [(each["checker"], each["passed"]) for each in response.get_json()["results"]] == [
        ("health_check_db", False),
        ("health_check_redis", True),
    ]


def test_a_check_in_its_grace_fails_inside_a_200(report: Callable[..., Any]) -> None:
    probe = Probe("health_check_redis", failing_probe, grace_seconds=30)

    within = report(probe)
    probe.failing_since = monotonic() - 31
    after = report(probe)

    assert (within.status_code, within.get_json()["results"][0]["passed"]) == (200, False)
    assert after.status_code == 503


def test_grace_starts_anew_when_a_check_has_passed(report: Callable[..., Any]) -> None:
    probe = Probe("health_check_redis", failing_probe, grace_seconds=30)
    report(probe)
    probe.failing_since = monotonic() - 31
    probe.check = passing_probe
    report(probe)
    probe.check = failing_probe

    assert report(probe).status_code == 200


def test_exception_fails_its_check_and_its_text_is_not_public(report: Callable[..., Any]) -> None:
    def breaks() -> str:
        raise OSError("could not connect as admin with hunter2")

    response = report(Probe("health_check_db", breaks))

    assert response.status_code == 503
    assert "hunter2" not in response.text


def test_all_hung_checks_together_cost_less_than_a_second(
    report: Callable[..., Any], hang_release: threading.Event
) -> None:
    def hangs() -> str:
        hang_release.wait(60)
        return "late"

    started = monotonic()
    response = report(*[Probe(f"health_check_{number}", hangs) for number in range(5)])

    assert monotonic() - started < 1
    assert not any(each["passed"] for each in response.get_json()["results"])


def test_a_check_that_still_hangs_is_not_started_again(
    hang_release: threading.Event, wait_until: Callable[..., Any]
) -> None:
    started: list[int] = []

    def hangs() -> str:
        started.append(1)
        hang_release.wait(60)
        return "late"

    probe = Probe("health_check_db", hangs)
    for _ in range(3):
        probe.start_check()
        assert probe() == (False, "no answer in time")
    assert len(started) == 1

    hang_release.set()
    probe.start_check()
    wait_until(lambda: probe()[0])
    assert probe.failing_since is None


def test_concurrent_requests_run_each_probe_once(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    everybody = threading.Barrier(8)

    def counts() -> str:
        asked.append(1)
        return "fine"

    monkeypatch.setitem(app.extensions, "health", HealthReport([Probe("health_check_db", counts)]))

    def ask(_number: int) -> int:
        everybody.wait(10)
        return app.test_client().get("/health-check").status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(ask, range(8)))

    assert statuses == [200] * 8
    assert len(asked) == 1


@pytest.mark.parametrize("path", ["/livez", "/livez/", "/readyz", "/readyz/", "/health-check", "/health-check/"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_probes_answer_with_and_without_a_slash(client: FlaskClient, path: str, method: str) -> None:
    assert client.open(path, method=method).status_code == 200


def test_the_schema_of_the_suite_is_whole(app: Flask) -> None:
    with app.app_context(), db.engine.connect() as connection:
        assert SchemaCheck(app).check_schema(connection).startswith("at ")


def test_a_model_without_a_migration_is_found(app: Flask) -> None:
    schema = SchemaCheck(app)
    schema.tables += (Table("faqs", MetaData(), Column("id", Integer), Column("of_tomorrow", Integer)),)

    with app.app_context(), db.engine.connect() as connection, pytest.raises(Unhealthy, match="table faqs"):
        schema.check_schema(connection)


def test_tables_are_compared_once_for_each_revision(app: Flask) -> None:
    schema = SchemaCheck(app)
    with app.app_context(), db.engine.connect() as connection:
        schema.check_schema(connection)
        schema.tables += (Table("of_tomorrow", MetaData(), Column("id", Integer)),)

        schema.check_schema(connection)
        connection.execute(text("UPDATE alembic_version SET version_num = 'of_tomorrow'"))
        with pytest.raises(Unhealthy, match="table of_tomorrow"):
            schema.check_schema(connection)


def test_a_database_ahead_of_the_code_is_fine(app: Flask) -> None:
    with app.app_context(), db.engine.connect() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'of_tomorrow'"))

        assert SchemaCheck(app).check_schema(connection) == "at of_tomorrow"


def test_a_database_without_a_revision_is_behind(app: Flask) -> None:
    with app.app_context(), db.engine.connect() as connection:
        connection.execute(text("DELETE FROM alembic_version"))

        with pytest.raises(Unhealthy, match="no revision"):
            SchemaCheck(app).check_schema(connection)


@pytest.fixture
def redis(servers: dict[str, str]) -> Iterator[Redis]:
    """Yield the Redis of the suite, without heartbeats of workers."""
    with create_client(servers["REDIS_URL"], timeout=2) as client:
        yield client


def test_worker_is_alive_while_its_heartbeat_is_recent(redis: Redis, app: Flask) -> None:
    write_heartbeat(redis, "here/1", QUEUES)
    write_heartbeat(redis, "there/2", QUEUES)
    redis.zincrby(HEARTBEATS_KEY, -7, "here/1")

    assert HealthChecks(app).check_workers() == "1 running"

    redis.flushall()
    with pytest.raises(Unhealthy, match=r"no worker is running$"):
        HealthChecks(app).check_workers()


def test_queue_without_a_node_is_named(redis: Redis, app: Flask) -> None:
    for node in list_node_queues(has_processor=True):
        if JOBS_QUEUE not in node:
            write_heartbeat(redis, "-".join(node), node)

    with pytest.raises(Unhealthy, match="no worker is running for the queue jobs"):
        HealthChecks(app).check_workers()


def test_node_that_has_not_polled_is_named_by_its_role(redis: Redis, app: Flask) -> None:
    for node in list_node_queues(has_processor=True):
        write_heartbeat(redis, "-".join(node), node, unpolled_seconds=23 if JOBS_QUEUE in node else 3)

    with pytest.raises(Unhealthy, match=r"^node jobs has not polled its queues for 23 s$"):
        HealthChecks(app).check_workers()


def test_redis_that_takes_no_writes_is_named(redis: Redis, app: Flask) -> None:
    redis.config_set("maxmemory", "1")
    try:
        for check in (HealthChecks(app).check_broker, HealthChecks(app).check_workers):
            with pytest.raises(Unhealthy, match=r"^refuses writes: OOM$"):
                check()
    finally:
        redis.config_set("maxmemory", "0")
    assert HealthChecks(app).check_broker() == "answers"


@pytest.mark.parametrize(("age", "is_alive"), [(2, True), (11, False)])
def test_relay_is_alive_while_its_heartbeat_is_recent(app: Flask, age: int, is_alive: bool) -> None:
    set_relay_heartbeat(app, age)

    if is_alive:
        assert HealthChecks(app).check_outbox() == "moving"
    else:
        with pytest.raises(Unhealthy, match="no relay"):
            HealthChecks(app).check_outbox()


def test_entries_that_are_not_handled_are_reported(app: Flask) -> None:
    set_relay_heartbeat(app, 0)
    enqueue_entry(app, "tests.record")
    waited = func.now() - timedelta(seconds=61)
    with app.app_context(), db.session.begin():
        db.session.execute(update(OutboxEntry).values(due_at=waited))

    with pytest.raises(Unhealthy, match="waiting"):
        HealthChecks(app).check_outbox()

    # Tried and failed: it waits on purpose.
    with app.app_context(), db.session.begin():
        db.session.execute(update(OutboxEntry).values(tries=1))
    assert HealthChecks(app).check_outbox() == "moving"


def test_a_backlog_of_one_actor_is_no_fault_while_its_work_is_done(app: Flask) -> None:
    set_relay_heartbeat(app, 0)
    ids = [enqueue_entry(app, "tests.record", actor=5) for _ in range(3)]
    other = enqueue_entry(app, "tests.record", actor=6)

    def change(entry_id: UUID, *, age: int, **values: Any) -> None:
        due_at = func.now() - timedelta(seconds=age)
        with app.app_context(), db.session.begin():
            statement = update(OutboxEntry).where(OutboxEntry.id == entry_id)
            db.session.execute(statement.values(due_at=due_at, next_at=due_at, **values))

    change(ids[0], age=120, done_at=func.now())
    change(ids[1], age=110)
    change(ids[2], age=100)
    assert HealthChecks(app).check_outbox() == "moving"

    change(other, age=61)
    with pytest.raises(Unhealthy, match="waiting"):  # of the other actor nothing is done
        HealthChecks(app).check_outbox()

    change(other, age=61, done_at=func.now())
    assert HealthChecks(app).check_outbox() == "moving"
    change(ids[0], age=90, done_at=func.now())
    with pytest.raises(Unhealthy, match="waiting"):  # an entry was passed over
        HealthChecks(app).check_outbox()

    change(ids[0], age=120, done_at=func.now() - timedelta(seconds=61))
    with pytest.raises(Unhealthy, match="waiting"):  # nothing was done for a minute
        HealthChecks(app).check_outbox()


def test_delayed_and_polling_entries_do_not_count_as_backlog(app: Flask) -> None:
    set_relay_heartbeat(app, 0)
    with app.app_context(), db.session.begin():
        outbox.enqueue_entry("tests.record", "tests", {}, delay=timedelta(seconds=30))
        outbox.enqueue_entry(POLL, "tests", {})
        long_ago = {"created_at": func.now() - timedelta(hours=1), "due_at": OutboxEntry.due_at - timedelta(seconds=80)}
        db.session.execute(update(OutboxEntry).values(long_ago))

    assert HealthChecks(app).check_outbox() == "moving"

    with app.app_context(), db.session.begin():
        of_node = update(OutboxEntry).where(OutboxEntry.consumer == POLL)
        db.session.execute(of_node.values(due_at=func.now() - timedelta(seconds=601)))
    with pytest.raises(Unhealthy, match="other servers"):
        HealthChecks(app).check_outbox()


def set_relay_heartbeat(app: Flask, age: int) -> None:
    """Store a heartbeat of a relay that is `age` seconds old."""
    then = func.now() - timedelta(seconds=age)
    with app.app_context(), db.session.begin():
        db.session.execute(
            insert(RelayHeartbeat)
            .values(id=1, beat_at=then)
            .on_conflict_do_update(index_elements=["id"], set_={"beat_at": then})
        )


def test_probes_are_json(client: FlaskClient) -> None:
    assert json.loads(client.get("/livez").data) == {"status": "success"}


def test_liveness_and_health_fail_while_all_readers_of_bodies_are_taken(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., Any]
) -> None:
    readers = SlotPool(2, 2)
    monkeypatch.setattr(request_bodies, "reader_slots", readers)
    monkeypatch.setattr(request_bodies, "MAX_FULL_SECONDS", 0.05)
    slots = [readers.acquire("192.0.2.1") for _ in range(2)]

    wait_until(lambda: client.get("/livez").status_code == 503)
    assert client.get("/livez").json["output"].startswith("all 2 readers of request bodies have been in use for")

    def output() -> tuple[bool, str]:
        results = {result["checker"]: result for result in client.get("/health-check").json["results"]}
        return results["health_check_readers"]["passed"], results["health_check_readers"]["output"]

    wait_until(lambda: not output()[0])
    assert output()[1].startswith("all 2 readers of request bodies have been in use for")

    for slot in slots:
        readers.release(slot)
    wait_until(lambda: client.get("/livez").status_code == 200)
    wait_until(lambda: output() == (True, "0 of 2 taken"))
