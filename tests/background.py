"""Consumers for tests, and processes that know them: `python -m tests.background worker`, `... relay 2`."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from time import sleep
from typing import Any
from uuid import UUID

from celery import signals
from flask import Flask
from kombu.transport import redis
from sqlalchemy import select

import config
from app import outbox
from app.actors import SYSTEM, set_actor
from app.broker import QoS
from app.extensions import db
from app.factory import create_app
from app.jobs.consequences import AGAIN, NEXT
from app.outbox import OutboxEntry, consumer
from app.processes.nodes import QUEUES
from app.processes.orphans import dying_with_parent, kill_group
from app.relay import run_relay
from app.stored_files import DELETE
from app.web import serve
from app.worker import run_worker
from tests.jobs import kinds  # noqa: F401  # declares them

ROOT = Path(__file__).resolve().parent.parent


@consumer("tests.record")
def record(entry: OutboxEntry) -> None:
    """Add a line to the file that the payload names: the entry and the process."""
    with Path(entry.payload["file"]).open("a") as file:
        file.write(f"{entry.id} {os.getpid()}\n")


@consumer("tests.linger")
def linger(entry: OutboxEntry) -> None:
    """The same, and go on until a second file is there."""
    record(entry)
    while not Path(entry.payload["until"]).exists():
        sleep(0.02)


@consumer("tests.fail")
def fail(_entry: OutboxEntry) -> None:
    """Never succeed."""
    raise RuntimeError("as always")


def order(app: Flask, name: str, *, actor: int = SYSTEM, **payload: object) -> UUID:
    """Commit one entry for a consumer, caused by an actor; its id."""
    with app.app_context(), db.session.begin():
        set_actor(actor)
        outbox.order(name, "tests", payload)
        return db.session.scalars(select(OutboxEntry.id).order_by(OutboxEntry.id.desc()).limit(1)).one()


def entries(app: Flask) -> list[OutboxEntry]:
    """All entries as they are now, oldest first."""
    with app.app_context():
        return list(db.session.scalars(select(OutboxEntry).order_by(OutboxEntry.id)))


def are_done(app: Flask) -> bool:
    """Whether every entry is closed."""
    return all(entry.done_at for entry in entries(app))


def follow(app: Flask) -> None:
    """Do what was ordered to follow from the ends of jobs, as a worker does."""
    with app.app_context():
        for entry in entries(app):
            if entry.consumer in (AGAIN, NEXT, DELETE) and entry.done_at is None:
                outbox.consume(entry.id)


def lines(path: Path) -> list[str]:
    """What the recording consumers have written."""
    return path.read_text().splitlines() if path.exists() else []


@contextmanager
def process(environment: Mapping[str, str], log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A web process, worker or relay that knows these consumers; killed at the end of the block."""
    with log.open("ab") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.background", *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=dying_with_parent(),
        )
    try:
        yield child
    finally:
        child.kill()
        child.wait(10)
        kill_group(child.pid)


def leak_slots() -> None:
    """Let acknowledgements that fail keep their slots, as kombu does: at last the worker consumes nothing."""
    for name in ("ack", "reject"):
        setattr(QoS, name, getattr(redis.QoS, name))


def hang_soon() -> None:
    """Let the main thread of the worker hang some seconds after its start."""

    @signals.worker_ready.connect(weak=False)
    def hang(sender: Any, **_: Any) -> None:
        sender.hub.call_later(3, sleep, 600)


WORKERS: dict[str, Callable[[], object]] = {
    "worker": lambda: None,
    "leaking-worker": leak_slots,
    "hanging-worker": hang_soon,
}


def main(kind: str, *lease_seconds: str) -> None:
    """Be a web process, a worker, or a relay with this lease."""
    settings = config.read(os.environ)
    if kind == "web":
        serve(settings, lambda: create_app(settings))
        return
    app = create_app(settings)
    if kind in WORKERS:
        WORKERS[kind]()
        run_worker(app, *QUEUES)
        return
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    run_relay(app, stop, lease=timedelta(seconds=float(lease_seconds[0])))


if __name__ == "__main__":
    main(*sys.argv[1:])
