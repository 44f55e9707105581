"""Consumers for tests, and processes with them: `python -m tests.worker_process worker`, `... relay 2`."""

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
from app.actors import SYSTEM_ACTOR, set_actor
from app.broker import QoS
from app.extensions import db
from app.factory import create_app
from app.jobs.state_hooks import RERUN_CONSUMER, WAKE_NEXT_CONSUMER
from app.outbox import OutboxEntry, consumer_task
from app.processes.process_tree import kill_group, set_pdeathsig
from app.processes.worker_nodes import QUEUES
from app.relay import run_relay
from app.stored_files import DELETE_CONSUMER
from app.web import serve_app
from app.worker import run_worker
from tests.jobs import kinds  # noqa: F401  # declares them

ROOT = Path(__file__).resolve().parent.parent


@consumer_task("tests.record")
def record_entry(entry: OutboxEntry) -> None:
    """Append the entry and the process id to the file named in the payload."""
    with Path(entry.payload["file"]).open("a") as file:
        file.write(f"{entry.id} {os.getpid()}\n")


@consumer_task("tests.linger")
def record_and_wait(entry: OutboxEntry) -> None:
    """Record the entry, and wait until a second file exists."""
    record_entry(entry)
    while not Path(entry.payload["until"]).exists():
        sleep(0.02)


@consumer_task("tests.fail")
def fail(_entry: OutboxEntry) -> None:
    """Raise an error at each attempt."""
    raise RuntimeError("as always")


def enqueue_entry(app: Flask, name: str, *, actor: int = SYSTEM_ACTOR, **payload: object) -> UUID:
    """Commit one entry of an actor for a consumer; return its id."""
    with app.app_context(), db.session.begin():
        set_actor(actor)
        outbox.enqueue_entry(name, "tests", payload)
        return db.session.scalars(select(OutboxEntry.id).order_by(OutboxEntry.id.desc()).limit(1)).one()


def list_entries(app: Flask) -> list[OutboxEntry]:
    """Return all entries, oldest first."""
    with app.app_context():
        return list(db.session.scalars(select(OutboxEntry).order_by(OutboxEntry.id)))


def are_all_closed(app: Flask) -> bool:
    """Return whether every entry is closed."""
    return all(entry.done_at for entry in list_entries(app))


def run_state_hooks(app: Flask) -> None:
    """Handle the outbox entries of ended jobs, like a worker."""
    with app.app_context():
        for entry in list_entries(app):
            if entry.consumer in (RERUN_CONSUMER, WAKE_NEXT_CONSUMER, DELETE_CONSUMER) and entry.done_at is None:
                outbox.consume_entry(entry.id)


def read_lines(path: Path) -> list[str]:
    """Return the lines that the recording consumers have written."""
    return path.read_text().splitlines() if path.exists() else []


@contextmanager
def run_process(environment: Mapping[str, str], log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a web process, worker or relay with these consumers; kill it when the block ends."""
    with log.open("ab") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.worker_process", *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=set_pdeathsig(),
        )
    try:
        yield child
    finally:
        child.kill()
        child.wait(10)
        kill_group(child.pid)


def leak_slots() -> None:
    """Make acknowledgements fail and keep their slots, as in kombu, until the worker consumes nothing."""
    for name in ("ack", "reject"):
        setattr(QoS, name, getattr(redis.QoS, name))


def hang_main_thread() -> None:
    """Block the main thread of the worker some seconds after its start."""

    @signals.worker_ready.connect(weak=False)
    def hang(sender: Any, **_: Any) -> None:
        sender.hub.call_later(3, sleep, 600)


WORKERS: dict[str, Callable[[], object]] = {
    "worker": lambda: None,
    "leaking-worker": leak_slots,
    "hanging-worker": hang_main_thread,
}


def main(kind: str, *lease_seconds: str) -> None:
    """Run a web process, a worker, or a relay with this lease."""
    settings = config.read_config(os.environ)
    if kind == "web":
        serve_app(settings, lambda: create_app(settings))
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
