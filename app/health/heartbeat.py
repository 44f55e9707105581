"""Heartbeats of worker nodes: each node writes to Redis, by the clock of Redis, that it is alive and consumes.

The consumer loop of the node records the time of its last poll (`app/broker.py`). The thread here reports it, and ends
the node if that loop has stopped.
"""

import os
import signal
import socket
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import monotonic, sleep
from typing import Any

import orjson
import structlog
from celery.bootsteps import StartStopStep
from redis import Redis, RedisError

from app.broker import consumer_state
from app.processes.worker_nodes import RESTART_EXIT_STATUS
from app.redis_client import create_client

HEARTBEATS_KEY = "open-event:workers"
HEARTBEAT_INTERVAL_SECONDS = 2.0
MAX_HEARTBEAT_AGE_SECONDS = 6
HEARTBEAT_TTL_SECONDS = 60
REDIS_TIMEOUT_SECONDS = 2.0

START_TIMEOUT_SECONDS = 30.0
"""Seconds from the start of a node to its first poll, before it counts as a node that does not consume."""

MAX_UNPOLLED_SECONDS = 6.0
"""Seconds without a poll after which /health-check reports a node with free slots; up to 4 are normal."""

RESTART_AFTER_SECONDS = 8.0
"""Seconds without a poll after which a node with free slots and messages in its queues ends itself."""

END_TIMEOUT_SECONDS = 3.0
"""Seconds for the main thread to begin its shutdown after SIGTERM, and after the soft shutdown if tasks run."""

STOP_TIMEOUT_SECONDS = 10.0
"""Seconds for the rest of the shutdown."""

log = structlog.get_logger(__name__)

restart_requested = threading.Event()
"""Set when this node ends because it did not consume."""


@dataclass(frozen=True)
class Node:
    """A node as described by its heartbeat: its queues, and when it last polled them or had no free slot.

    `consumed_at` is a Unix time of the clock of Redis.
    """

    queues: tuple[str, ...]
    consumed_at: float

    @property
    def role(self) -> str:
        """Return the names of its queues, joined by hyphens."""
        return "-".join(self.queues)


class Heartbeat(StartStopStep):  # type: ignore[misc]  # Celery carries no types
    """Celery step that writes heartbeats from a thread of the main process of the node.

    The thread also runs while the whole pool is busy, and a hung Redis blocks only this thread.
    """

    def __init__(self, worker: Any, **_: Any) -> None:
        self.name = f"{socket.gethostname()}/{os.getpid()}"
        self.stopped = threading.Event()
        super().__init__(worker)

    def start(self, worker: Any) -> None:
        """Start the heartbeat thread."""
        url = worker.app.conf["broker_url"]
        threading.Thread(
            target=self._run_loop,
            args=(worker, create_client(url, timeout=REDIS_TIMEOUT_SECONDS)),
            name="heartbeat",
            daemon=True,
        ).start()

    def stop(self, _worker: Any) -> None:
        """Stop the heartbeat thread; the last heartbeat expires by itself."""
        self.stopped.set()

    terminate = stop

    def _run_loop(self, worker: Any, redis: Redis) -> None:
        # Imported here because only workers need it and the import is slow.
        from celery.worker import state  # noqa: PLC0415

        queues = tuple(worker.app.amqp.queues.consume_from)
        watch = PollWatchdog(monotonic())
        is_failing = False
        while not self.stopped.is_set():
            watch.update_state(monotonic(), has_free_slot=len(state.reserved_requests) < worker.concurrency)
            has_work = False
            try:
                write_heartbeat(redis, self.name, queues, unpolled_seconds=monotonic() - watch.consumed_at)
                has_work = has_messages(redis, queues)
                is_failing = False
            except RedisError as error:
                if not is_failing:
                    log.warning("heartbeat write failed", error=type(error).__name__)
                is_failing = True
            if watch.is_stalled(monotonic(), has_work=has_work):
                self._restart_node(worker, queues, watch, has_tasks=bool(state.active_requests))
            self.stopped.wait(HEARTBEAT_INTERVAL_SECONDS)

    def _restart_node(self, worker: Any, queues: Sequence[str], watch: "PollWatchdog", *, has_tasks: bool) -> None:
        """Send SIGTERM to this process, and exit if its main thread hangs; the supervisor starts the node again."""
        seconds = round(monotonic() - watch.consumed_at)
        log.error("node restarts: queues were not polled", queues=list(queues), seconds=seconds)
        restart_requested.set()
        os.kill(os.getpid(), signal.SIGTERM)
        soft_seconds = worker.app.conf.worker_soft_shutdown_timeout if has_tasks else 0
        if self.stopped.wait(soft_seconds + END_TIMEOUT_SECONDS):
            sleep(STOP_TIMEOUT_SECONDS)  # normally the process ends during this sleep
        log.error("node exits: main thread hangs", queues=list(queues))
        os._exit(RESTART_EXIT_STATUS)


class PollWatchdog:
    """Detect a stopped consumer loop, as opposed to a busy or ending node or a Redis that does not answer.

    All times are monotonic, in seconds.
    """

    def __init__(self, started_at: float) -> None:
        self.consumed_at = self._first_poll_by = started_at + START_TIMEOUT_SECONDS
        self._exempt_at = self._updated_at = started_at
        self._has_work_since: float | None = None

    def update_state(self, now: float, *, has_free_slot: bool) -> None:
        """Update the time at which the loop last polled or had no need to poll."""
        if consumer_state.is_ending:
            self._exempt_at = now
        elif not has_free_slot and consumer_state.turned_at is not None:
            self._exempt_at = consumer_state.turned_at
        if now - self._updated_at > 2 * HEARTBEAT_INTERVAL_SECONDS + REDIS_TIMEOUT_SECONDS:
            self._has_work_since = None  # this process was suspended, or Redis did not answer
        self._updated_at = now
        polled_at = consumer_state.polled_at
        self.consumed_at = max(self._exempt_at, self._first_poll_by if polled_at is None else polled_at)

    def is_stalled(self, now: float, *, has_work: bool) -> bool:
        """Return whether messages have been waiting for longer than a poll can take.

        Only call this with `has_work` if Redis has just accepted the heartbeat.
        """
        if not has_work:
            self._has_work_since = None
            return False
        if self._has_work_since is None:
            self._has_work_since = now
        return now - max(self._has_work_since, self.consumed_at) > RESTART_AFTER_SECONDS


def write_heartbeat(redis: Redis, name: str, queues: Sequence[str], *, unpolled_seconds: float = 0.0) -> None:
    """Write the heartbeat of a node, with its queues and the time of its last poll."""
    now = _read_redis_time(redis)
    node = Node(tuple(queues), now - max(unpolled_seconds, 0.0))
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.zadd(HEARTBEATS_KEY, {name: now})
        pipeline.zremrangebyscore(HEARTBEATS_KEY, "-inf", now - HEARTBEAT_TTL_SECONDS)
        pipeline.expire(HEARTBEATS_KEY, HEARTBEAT_TTL_SECONDS)
        pipeline.set(_get_node_key(name), orjson.dumps(asdict(node)), ex=HEARTBEAT_TTL_SECONDS)
        pipeline.execute()


def has_messages(redis: Redis, queues: Sequence[str]) -> bool:
    """Return whether one of these queues is not empty."""
    with redis.pipeline(transaction=False) as pipeline:
        for queue in queues:
            pipeline.llen(queue)
        return any(pipeline.execute())


def read_nodes(redis: Redis) -> tuple[list[Node], float]:
    """Return the nodes with a heartbeat in the last MAX_HEARTBEAT_AGE_SECONDS, and the Unix time of Redis."""
    now = _read_redis_time(redis)
    names = [str(name) for name in redis.zrangebyscore(HEARTBEATS_KEY, now - MAX_HEARTBEAT_AGE_SECONDS, "+inf")]
    texts = redis.mget([_get_node_key(name) for name in names]) if names else []
    # Nodes of an earlier version have no description; they do not serve all queues of this version.
    descriptions = [orjson.loads(text) for text in texts if text is not None]
    return [Node(tuple(each["queues"]), each["consumed_at"]) for each in descriptions], now


def _get_node_key(name: str) -> str:
    return f"{HEARTBEATS_KEY}:{name}"


def _read_redis_time(redis: Redis) -> float:
    seconds, microseconds = redis.time()
    return float(seconds + microseconds / 1e6)
