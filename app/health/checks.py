"""Checks of /health-check and /readyz: each returns a short text or raises."""

import weakref
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from flask import Flask
from redis import OutOfMemoryError, ReadOnlyError, ResponseError
from sqlalchemy import NullPool, and_, create_engine, exists, func, select, true
from sqlalchemy.exc import OperationalError

from app import request_bodies
from app.health.heartbeat import MAX_UNPOLLED_SECONDS, read_nodes
from app.health.probes import Probe, Unhealthy
from app.health.schema_check import SchemaCheck
from app.outbox import CONSUMERS, OutboxEntry, is_open, select_open_turns
from app.processes.worker_nodes import QUEUES, REMOTE_QUEUE
from app.redis_client import create_client
from app.relay import LEASE_DURATION, RelayHeartbeat

MAX_HEARTBEAT_AGE = timedelta(seconds=10)
MAX_WAIT = timedelta(seconds=60)
MAX_REMOTE_WAIT = timedelta(minutes=10)
"""Longest wait of requests to other servers, which may occupy all slots of their node for a while."""
WRITE_CHECK_KEY = "open-event:health"
"""Redis key that is written to check that Redis accepts writes."""

QUERY_TIMEOUT_SECONDS = 0.7
"""Seconds for one SQL statement or Redis command; less than the time limit of a probe."""

POOL_SIZE = 1
"""Connections that stay open: the checks of what is in the database take turns, so that none opens another one."""


class HealthChecks:
    """The checks of one app, on separate connections, so that an exhausted pool does not look like a dead database.

    The check of the database opens a connection each time, since a server that accepts none is hung. The others share
    one that stays open, so that they also work while other clients use all connections of PostgreSQL.
    """

    def __init__(self, app: Flask) -> None:
        connect_args = {
            "connect_timeout": 2,
            "tcp_user_timeout": 2000,
            "options": f"-c statement_timeout={int(QUERY_TIMEOUT_SECONDS * 1000)}",
            "application_name": "open-event-health",
        }
        url = app.config["DATABASE_URL"]
        self.new_connections = create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=connect_args)
        self.engine = create_engine(
            url,
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=QUERY_TIMEOUT_SECONDS,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args=connect_args,
        )
        # Close the connections with the app: a process that makes several apps would keep those of each.
        weakref.finalize(self, self.engine.dispose).atexit = False
        self.redis = create_client(app.config["REDIS_URL"], timeout=QUERY_TIMEOUT_SECONDS)
        self.schema = SchemaCheck(app)

    def check_database(self) -> str:
        """Check that the database accepts a connection and executes a statement, or answers that it has too many."""
        try:
            with self.new_connections.connect() as connection:
                connection.execute(select(1))
        except OperationalError as error:
            # libpq gives no SQLSTATE for an error of a connection attempt.
            if "too many clients" not in str(error.orig) and "remaining connection slots" not in str(error.orig):
                raise
            return "answers, but permits no further connection"
        return "answers"

    def check_migrations(self) -> str:
        """Check that the tables match the migrations and models of this version."""
        with self.engine.connect() as connection:
            return self.schema.check_schema(connection)

    def check_broker(self) -> str:
        """Check that Redis answers and accepts writes."""
        try:
            self.redis.set(WRITE_CHECK_KEY, 1, ex=60)
        except ResponseError as error:
            raise Unhealthy(f"refuses writes: {_get_error_name(error)}") from error
        return "answers"

    def check_workers(self) -> str:
        """Check that each queue has a live node, and that every node is busy or polls its queues."""
        nodes, now = read_nodes(self.redis)
        if not nodes:
            self.check_broker()  # nodes cannot write heartbeats if Redis refuses writes
            raise Unhealthy("no worker is running")
        served = {queue for node in nodes for queue in node.queues}
        if missing := [queue for queue in QUEUES if queue not in served]:
            raise Unhealthy(f"no worker is running for the queue {', '.join(missing)}")
        idle = min(nodes, key=lambda node: node.consumed_at)
        if now - idle.consumed_at > MAX_UNPOLLED_SECONDS:
            raise Unhealthy(f"node {idle.role} has not polled its queues for {now - idle.consumed_at:.0f} s")
        return f"{len(nodes)} running"

    def check_outbox(self) -> str:
        """Check that a relay is alive, and that each actor with old entries has had some of them handled recently."""
        remote = [consumer.name for consumer in CONSUMERS.values() if consumer.queue == REMOTE_QUEUE]
        with self.engine.connect() as connection:
            beat_at, now = connection.execute(
                select(select(RelayHeartbeat.beat_at).scalar_subquery(), func.now())
            ).one()
            is_stuck = connection.scalar(_is_stuck(MAX_WAIT, remote, is_of_these=False))
            is_remote_stuck = connection.scalar(_is_stuck(MAX_REMOTE_WAIT, remote, is_of_these=True))
        _require_live_relay(beat_at, now)
        if is_stuck:
            raise Unhealthy(f"work has been waiting for more than {MAX_WAIT.seconds} s")
        if is_remote_stuck:
            raise Unhealthy(f"requests to other servers have been waiting for more than {MAX_REMOTE_WAIT.seconds} s")
        return "moving"

    def check_body_readers(self) -> str:
        """Check that a thread is free to read the next request body."""
        if problem := request_bodies.describe_stuck_readers():
            raise Unhealthy(problem)
        return f"{len(request_bodies.reader_slots)} of {request_bodies.reader_slots.size} taken"


def _get_error_name(error: ResponseError) -> str:
    """Return the code of a Redis error: MISCONF, OOM, READONLY."""
    if isinstance(error, OutOfMemoryError):
        return "OOM"
    if isinstance(error, ReadOnlyError):
        return "READONLY"
    return str(error).partition(" ")[0]


def _is_stuck(longest_wait: timedelta, names: Sequence[str], *, is_of_these: bool) -> Any:
    """Select whether a consumer, one of `names` or one of the others, has stopped handling entries of an actor.

    That is so if the oldest entry of the actor is older than `longest_wait`, and no entry that was due as early has
    been done in this time. A long backlog of one actor is no fault, because actors take turns.
    """
    entries = OutboxEntry.__table__
    long_ago = func.now() - longest_wait
    turns = select_open_turns()
    oldest = (
        # Entries that have failed wait for their next try on purpose.
        select(entries.c.due_at)
        .where(entries.c.consumer == turns.c.consumer, entries.c.actor == turns.c.actor, is_open(entries))
        .where(entries.c.tries == 0, entries.c.due_at < long_ago, entries.c.next_at < func.now() + LEASE_DURATION)
        .order_by(entries.c.next_at)
        .limit(1)
        .lateral()
    )
    done = (
        select(entries.c.consumer, entries.c.actor, func.min(entries.c.due_at).label("due_at"))
        .where(entries.c.done_at > long_ago)
        .group_by(entries.c.consumer, entries.c.actor)
        .subquery()
    )
    is_same = and_(done.c.consumer == turns.c.consumer, done.c.actor == turns.c.actor)
    waiting = turns.join(oldest, true()).outerjoin(done, and_(is_same, done.c.due_at <= oldest.c.due_at))
    of_these = turns.c.consumer.in_(names) if is_of_these else turns.c.consumer.not_in(names)
    return select(exists().select_from(waiting).where(done.c.consumer.is_(None), of_these))


def _require_live_relay(beat_at: datetime | None, now: datetime) -> None:
    if beat_at is None or now - beat_at > MAX_HEARTBEAT_AGE:
        raise Unhealthy("no relay is running")


def make_readiness_probes(checks: HealthChecks) -> list[Probe]:
    """Return the probes of what a web process needs to serve requests."""
    return [Probe("health_check_db", checks.check_database), Probe("health_check_migrations", checks.check_migrations)]


def make_health_probes(checks: HealthChecks, grace_seconds: int) -> list[Probe]:
    """Return all probes; those of background services may fail for `grace_seconds` before the report fails."""
    return [
        *make_readiness_probes(checks),
        Probe("health_check_redis", checks.check_broker, grace_seconds),
        Probe("health_check_celery", checks.check_workers, grace_seconds),
        Probe("health_check_outbox", checks.check_outbox, grace_seconds),
        Probe("health_check_readers", checks.check_body_readers),
    ]
