"""Workers show that they live: each beats into one sorted set of Redis, by the clock of Redis."""

import os
import socket
import threading
from typing import Any

import structlog
from celery.bootsteps import StartStopStep
from redis import Redis, RedisError

from app.redis_client import connect

BEATS = "open-event:workers"
BEAT_SECONDS = 2.0
FRESH_SECONDS = 6
FORGET_SECONDS = 60

log = structlog.get_logger(__name__)


class Heartbeat(StartStopStep):  # type: ignore[misc]  # Celery carries no types
    """A thread of the worker's main process: it beats while all of the pool is busy, and a hung Redis hangs only it."""

    def __init__(self, worker: Any, **_: Any) -> None:
        self.name = f"{socket.gethostname()}/{os.getpid()}"
        self.stopped = threading.Event()
        super().__init__(worker)

    def start(self, worker: Any) -> None:
        """Begin to beat."""
        url = worker.app.conf["broker_url"]
        threading.Thread(target=self._run, args=(connect(url, timeout=2),), name="heartbeat", daemon=True).start()

    def stop(self, _worker: Any) -> None:
        """End; the beat goes stale by itself."""
        self.stopped.set()

    terminate = stop

    def _run(self, redis: Redis) -> None:
        while not self.stopped.is_set():
            try:
                beat(redis, self.name)
            except RedisError as error:
                log.warning("heartbeat cannot reach Redis", error=type(error).__name__)
            self.stopped.wait(BEAT_SECONDS)


def beat(redis: Redis, name: str) -> None:
    """Say that the worker of this name lives now."""
    now = _now(redis)
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.zadd(BEATS, {name: now})
        pipeline.zremrangebyscore(BEATS, "-inf", now - FORGET_SECONDS)
        pipeline.expire(BEATS, FORGET_SECONDS)
        pipeline.execute()


def count_fresh(redis: Redis) -> int:
    """How many workers have beaten in the last seconds."""
    return int(redis.zcount(BEATS, _now(redis) - FRESH_SECONDS, "+inf"))


def _now(redis: Redis) -> float:
    seconds, microseconds = redis.time()
    return float(seconds + microseconds / 1e6)
