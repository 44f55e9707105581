"""Consumers for tests, and processes that know them: `python -m tests.worker_process worker`, `... relay 2`."""

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
    """Add a line to the file that the payload names: the entry and the process."""
    with Path(entry.payload["file"]).open("a") as file:
        file.write(f"{entry.id} {os.getpid()}\n")


@consumer_task("tests.linger")
def record_and_wait(entry: OutboxEntry) -> None:
    """The same, and go on until a second file is there."""
    record_entry(entry)
    while not Path(entry.payload["until"]).exists():
        sleep(0.02)


@consumer_task("tests.fail")
def fail(_entry: OutboxEntry) -> None:
    """Never succeed."""
    raise RuntimeError("as always")


def enqueue_entry(app: Flask, name: str, *, actor: int = SYSTEM_ACTOR, **payload: object) -> UUID:
    """Commit one entry for a consumer, caused by an actor; its id."""
    with app.app_context(), db.session.begin():
        set_actor(actor)
        outbox.enqueue_entry(name, "tests", payload)
        return db.session.scalars(select(OutboxEntry.id).order_by(OutboxEntry.id.desc()).limit(1)).one()


def list_entries(app: Flask) -> list[OutboxEntry]:
    """All entries as they are now, oldest first."""
    with app.app_context():
        return list(db.session.scalars(select(OutboxEntry).order_by(OutboxEntry.id)))


def are_all_closed(app: Flask) -> bool:
    """Whether every entry is closed."""
    return all(entry.done_at for entry in list_entries(app))


def run_state_hooks(app: Flask) -> None:
    """Do what was ordered to follow from the ends of jobs, as a worker does."""
    with app.app_context():
        for entry in list_entries(app):
            if entry.consumer in (RERUN_CONSUMER, WAKE_NEXT_CONSUMER, DELETE_CONSUMER) and entry.done_at is None:
                outbox.consume_entry(entry.id)


def read_lines(path: Path) -> list[str]:
    """What the recording consumers have written."""
    return path.read_text().splitlines() if path.exists() else []


@contextmanager
def run_process(environment: Mapping[str, str], log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A web process, worker or relay that knows these consumers; killed at the end of the block."""
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
    """Let acknowledgements that fail keep their slots, as kombu does: at last the worker consumes nothing."""
    for name in ("ack", "reject"):
        setattr(QoS, name, getattr(redis.QoS, name))


def hang_main_thread() -> None:
    """Let the main thread of the worker hang some seconds after its start."""

    @signals.worker_ready.connect(weak=False)
    def hang(sender: Any, **_: Any) -> None:
        sender.hub.call_later(3, sleep, 600)


WORKERS: dict[str, Callable[[], object]] = {
    "worker": lambda: None,
    "leaking-worker": leak_slots,
    "hanging-worker": hang_main_thread,
}


def main(kind: str, *lease_seconds: str) -> None:
    """Be a web process, a worker, or a relay with this lease."""
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
