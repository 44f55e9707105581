"""Workers show that they live and consume: each node writes a heartbeat to Redis, by the clock of Redis.

The time of the last poll is taken in the consumer loop of the node (`app/broker.py`); the thread here only reports it,
and ends the node when that loop has stopped.
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
"""What a node gets from its start to its first poll, before it counts as one that does not consume."""

MAX_UNPOLLED_SECONDS = 6.0
"""A node that has slots free and has not polled for longer is named by /health-check; normal are up to 4."""

RESTART_AFTER_SECONDS = 8.0
"""A node that has slots free ends itself when its queues were not empty and it has not polled them for this long."""

END_TIMEOUT_SECONDS = 3.0
"""For the main thread to begin to end after SIGTERM, and after the soft shutdown where tasks run."""

STOP_TIMEOUT_SECONDS = 10.0
"""For everything else to end then."""

log = structlog.get_logger(__name__)

restart_requested = threading.Event()
"""Set when this node ends because it did not consume."""


@dataclass(frozen=True)
class Node:
    """A node as its heartbeat describes it: what it serves, and when it last polled or had all slots taken."""

    queues: tuple[str, ...]
    consumed_at: float

    @property
    def role(self) -> str:
        """The queues that it serves, as a name."""
        return "-".join(self.queues)


class Heartbeat(StartStopStep):  # type: ignore[misc]  # Celery carries no types
    """A thread of the node's main process: it beats while all of the pool is busy, and a hung Redis hangs only it."""

    def __init__(self, worker: Any, **_: Any) -> None:
        self.name = f"{socket.gethostname()}/{os.getpid()}"
        self.stopped = threading.Event()
        super().__init__(worker)

    def start(self, worker: Any) -> None:
        """Begin to beat."""
        url = worker.app.conf["broker_url"]
        threading.Thread(
            target=self._run_loop,
            args=(worker, create_client(url, timeout=REDIS_TIMEOUT_SECONDS)),
            name="heartbeat",
            daemon=True,
        ).start()

    def stop(self, _worker: Any) -> None:
        """End; the beat goes stale by itself."""
        self.stopped.set()

    terminate = stop

    def _run_loop(self, worker: Any, redis: Redis) -> None:
        # Only a worker needs it, and it takes long to import.
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
                    log.warning("heartbeat cannot be written", error=type(error).__name__)
                is_failing = True
            if watch.is_stalled(monotonic(), has_work=has_work):
                self._restart_node(worker, queues, watch, has_tasks=bool(state.active_requests))
            self.stopped.wait(HEARTBEAT_INTERVAL_SECONDS)

    def _restart_node(self, worker: Any, queues: Sequence[str], watch: "PollWatchdog", *, has_tasks: bool) -> None:
        """End this process as SIGTERM does, or without its main thread where that hangs; its parent starts it again."""
        seconds = round(monotonic() - watch.consumed_at)
        log.error("node restarts: it has not polled its queues", queues=list(queues), seconds=seconds)
        restart_requested.set()
        os.kill(os.getpid(), signal.SIGTERM)
        soft_seconds = worker.app.conf.worker_soft_shutdown_timeout if has_tasks else 0
        if self.stopped.wait(soft_seconds + END_TIMEOUT_SECONDS):
            sleep(STOP_TIMEOUT_SECONDS)  # this thread goes with the process
        log.error("node ends at once: its main thread hangs", queues=list(queues))
        os._exit(RESTART_EXIT_STATUS)


class PollWatchdog:
    """Tell a consumer loop that has stopped from a node that is busy or ends, and from a Redis that does not serve.

    All times are of the monotonic clock.
    """

    def __init__(self, started_at: float) -> None:
        self.consumed_at = self._first_poll_by = started_at + START_TIMEOUT_SECONDS
        self._exempt_at = self._updated_at = started_at
        self._has_work_since: float | None = None

    def update_state(self, now: float, *, has_free_slot: bool) -> None:
        """Take in when the loop last polled, or need not poll."""
        if consumer_state.is_ending:
            self._exempt_at = now
        elif not has_free_slot and consumer_state.turned_at is not None:
            self._exempt_at = consumer_state.turned_at
        if now - self._updated_at > 2 * HEARTBEAT_INTERVAL_SECONDS + REDIS_TIMEOUT_SECONDS:
            self._has_work_since = None  # this process was stopped, or Redis did not answer
        self._updated_at = now
        polled_at = consumer_state.polled_at
        self.consumed_at = max(self._exempt_at, self._first_poll_by if polled_at is None else polled_at)

    def is_stalled(self, now: float, *, has_work: bool) -> bool:
        """Whether messages have been waiting, in a Redis that takes writes, for longer than a poll can take."""
        if not has_work:
            self._has_work_since = None
            return False
        if self._has_work_since is None:
            self._has_work_since = now
        return now - max(self._has_work_since, self.consumed_at) > RESTART_AFTER_SECONDS


def write_heartbeat(redis: Redis, name: str, queues: Sequence[str], *, unpolled_seconds: float = 0.0) -> None:
    """Say that the node of this name lives now, and when it last consumed."""
    now = _read_redis_time(redis)
    node = Node(tuple(queues), now - max(unpolled_seconds, 0.0))
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.zadd(HEARTBEATS_KEY, {name: now})
        pipeline.zremrangebyscore(HEARTBEATS_KEY, "-inf", now - HEARTBEAT_TTL_SECONDS)
        pipeline.expire(HEARTBEATS_KEY, HEARTBEAT_TTL_SECONDS)
        pipeline.set(_get_node_key(name), orjson.dumps(asdict(node)), ex=HEARTBEAT_TTL_SECONDS)
        pipeline.execute()


def has_messages(redis: Redis, queues: Sequence[str]) -> bool:
    """Whether one of these queues is not empty."""
    with redis.pipeline(transaction=False) as pipeline:
        for queue in queues:
            pipeline.llen(queue)
        return any(pipeline.execute())


def read_nodes(redis: Redis) -> tuple[list[Node], float]:
    """Return the nodes that have beaten in the last seconds, and the time by the clock of Redis."""
    now = _read_redis_time(redis)
    names = [str(name) for name in redis.zrangebyscore(HEARTBEATS_KEY, now - MAX_HEARTBEAT_AGE_SECONDS, "+inf")]
    texts = redis.mget([_get_node_key(name) for name in names]) if names else []
    # Nodes of an earlier version have no description; they do not serve all queues of this one.
    found = [orjson.loads(text) for text in texts if text is not None]
    return [Node(tuple(each["queues"]), each["consumed_at"]) for each in found], now


def _get_node_key(name: str) -> str:
    return f"{HEARTBEATS_KEY}:{name}"


def _read_redis_time(redis: Redis) -> float:
    seconds, microseconds = redis.time()
    return float(seconds + microseconds / 1e6)
