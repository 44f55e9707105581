"""Tasks run in a session of their own, and no crash of a worker, a pool process or Redis loses one."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil
import pytest
from flask import Flask
from sqlalchemy import func, select

from app import embedded
from app.extensions import db
from app.health.checks import HealthChecks
from app.health.heartbeat import HEARTBEAT_INTERVAL_SECONDS, HEARTBEATS_KEY, RESTART_AFTER_SECONDS, read_nodes
from app.health.probes import Unhealthy
from app.outbox import OutboxEntry
from app.processes.worker_nodes import EVENTS_QUEUE, QUEUES, RESTART_EXIT_STATUS
from app.redis_client import broker_url, client_url, create_client, limits_url
from app.users.models import User
from app.worker import build_worker_arguments
from tests.worker_process import ROOT, are_all_closed, enqueue_entry, list_entries, read_lines, run_process

pytestmark = [pytest.mark.faults, pytest.mark.long]


class BackgroundProcesses:
    """A Redis, a relay with a lease of 2 s, and a worker with one slot; tests may kill all of them."""

    def __init__(self, app: Flask, environment: dict[str, str], directory: Path, stack: ExitStack) -> None:
        self.app = app
        self.stack = stack
        self.server = embedded.Redis(directory)
        self.environment = {**environment, "REDIS_URL": self.server.url, "WORKER_CONCURRENCY": "1"}
        self.log = directory / "output"
        self.acts = directory / "acts"  # file to which consumers write
        self.go_on = directory / "go-on"  # file for which `tests.linger` waits
        self.log_offset = 0
        self.redis = self.start_redis()
        self.start("relay", "2")
        self.worker = self.start("worker")

    def restore_processes(self) -> None:
        """Start processes that an earlier test has ended, and delete its files."""
        if self.redis.poll() is not None:
            self.redis = self.start_redis()
        if self.worker.poll() is not None:
            self.worker = self.start("worker")
        self.acts.unlink(missing_ok=True)
        self.go_on.unlink(missing_ok=True)
        self.log_offset = self.log.stat().st_size

    def start_redis(self) -> subprocess.Popen[bytes]:
        """Start an empty Redis."""
        return self.stack.enter_context(embedded.run_server(self.server))

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a process of manage.py."""
        return self.stack.enter_context(run_process(self.environment, self.log, *arguments))

    def enqueue_entry(self, name: str = "tests.record") -> None:
        """Commit an outbox entry."""
        enqueue_entry(self.app, name, file=str(self.acts), until=str(self.go_on))

    def has_logged(self, words: bytes) -> bool:
        """Return whether the relay or a worker has logged this in the current test."""
        return words in self.log.read_bytes()[self.log_offset :]

    def get_pool_process(self) -> psutil.Process:
        """Return the pool process that handled the last entry."""
        return psutil.Process(int(read_lines(self.acts)[-1].split()[1]))


@pytest.fixture(scope="module")
def processes_of_module(
    app: Flask, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BackgroundProcesses]:
    """Start real processes with a Redis of their own."""
    with ExitStack() as stack:
        yield BackgroundProcesses(app, environment, tmp_path_factory.mktemp("background"), stack)


@pytest.fixture
def background(processes_of_module: BackgroundProcesses, wait_until: Callable[..., Any]) -> BackgroundProcesses:
    """Return the processes, all running."""
    processes_of_module.restore_processes()
    with create_client(processes_of_module.server.url, timeout=2) as client:
        wait_until(lambda: read_nodes(client)[0], 60, "the worker beats")
    return processes_of_module


def test_entry_is_handled_once(background: BackgroundProcesses, wait_until: Callable[..., Any]) -> None:
    background.enqueue_entry()

    wait_until(lambda: are_all_closed(background.app))

    assert len(read_lines(background.acts)) == 1


def test_a_worker_killed_in_the_middle_loses_nothing(
    background: BackgroundProcesses, wait_until: Callable[..., Any]
) -> None:
    background.enqueue_entry("tests.linger")
    wait_until(lambda: read_lines(background.acts))
    child = background.get_pool_process()

    background.worker.kill()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 5, "the pool dies with it")
    background.worker = background.start("worker")
    background.go_on.touch()

    wait_until(lambda: are_all_closed(background.app), 20)
    (entry,) = list_entries(background.app)
    assert entry.tries == 2


def test_a_killed_child_of_the_pool_loses_nothing(
    background: BackgroundProcesses, wait_until: Callable[..., Any]
) -> None:
    background.enqueue_entry("tests.linger")
    wait_until(lambda: read_lines(background.acts))

    background.get_pool_process().kill()
    background.go_on.touch()

    wait_until(lambda: are_all_closed(background.app), 20)
    assert len(read_lines(background.acts)) == 2


def test_redis_that_forgets_everything_loses_nothing(
    background: BackgroundProcesses, wait_until: Callable[..., Any]
) -> None:
    background.enqueue_entry("tests.linger")  # keeps the only slot
    wait_until(lambda: read_lines(background.acts))
    for _ in range(5):
        background.enqueue_entry()
    with create_client(background.server.url, timeout=2) as client:
        wait_until(lambda: client.llen(EVENTS_QUEUE) or client.hlen("unacked") > 1)
        client.flushall()
    background.go_on.touch()

    wait_until(lambda: are_all_closed(background.app), 20)

    assert len(set(read_lines(background.acts))) == 6


def test_redis_killed_and_started_again_loses_nothing(
    background: BackgroundProcesses, wait_until: Callable[..., Any]
) -> None:
    background.enqueue_entry()
    wait_until(lambda: are_all_closed(background.app))

    background.redis.kill()
    for _ in range(5):
        background.enqueue_entry()
    background.redis = background.start_redis()

    wait_until(lambda: are_all_closed(background.app), 30)


def test_entries_are_handled_after_redis_hung(background: BackgroundProcesses, wait_until: Callable[..., Any]) -> None:
    background.enqueue_entry()
    wait_until(lambda: are_all_closed(background.app))

    background.redis.send_signal(signal.SIGSTOP)
    for _ in range(5):
        background.enqueue_entry()
    # Longer than the timeout of the client: the relay has noticed, and continues.
    wait_until(lambda: background.has_logged(b"relay publish failed"), 20)
    background.redis.send_signal(signal.SIGCONT)

    wait_until(lambda: are_all_closed(background.app), 30)


def test_worker_consumes_again_after_an_acknowledgement_failed(
    background: BackgroundProcesses, wait_until: Callable[..., Any]
) -> None:
    background.enqueue_entry("tests.linger")  # takes the only slot
    wait_until(lambda: read_lines(background.acts))

    background.redis.send_signal(signal.SIGSTOP)
    background.go_on.touch()  # the task ends while Redis is stopped: Celery cannot acknowledge its message
    wait_until(lambda: background.has_logged(b"Couldn't ack"), 30)
    background.redis.send_signal(signal.SIGCONT)
    for _ in range(3):
        background.enqueue_entry()

    wait_until(lambda: are_all_closed(background.app), 20)


def test_task_that_ends_after_its_connection_was_lost_does_not_end_the_worker(
    background: BackgroundProcesses, wait_until: Callable[..., Any]
) -> None:
    background.enqueue_entry("tests.linger")  # takes the only slot
    wait_until(lambda: read_lines(background.acts))
    background.log_offset = background.log.stat().st_size
    background.redis.kill()
    wait_until(lambda: background.has_logged(b"Connection to broker lost"))
    background.redis = background.start_redis()
    wait_until(lambda: background.has_logged(b"Connected to"), 30)

    background.go_on.touch()  # the message came by a connection that is closed
    for _ in range(3):
        background.enqueue_entry()

    wait_until(lambda: are_all_closed(background.app), 20)
    assert background.worker.poll() is None


@pytest.fixture
def checks(background: BackgroundProcesses, monkeypatch: pytest.MonkeyPatch) -> HealthChecks:
    """Return the checks of /health-check with the Redis of these processes."""
    monkeypatch.setitem(background.app.config, "REDIS_URL", background.server.url)
    return HealthChecks(background.app)


def replace_worker(background: BackgroundProcesses, wait_until: Callable[..., Any], kind: str) -> None:
    """Replace the running worker with one that has this defect."""
    background.worker.kill()
    background.worker.wait(10)
    offset = background.log.stat().st_size
    with create_client(background.server.url, timeout=2) as client:
        client.delete(HEARTBEATS_KEY)
    background.worker = background.start(kind)
    wait_until(lambda: b"ready." in background.log.read_bytes()[offset:], 60)


def get_worker_error(checks: HealthChecks) -> str:
    """Return the error of the worker check, or an empty text."""
    try:
        checks.check_workers()
    except Unhealthy as error:
        return str(error)
    return ""


def test_node_that_does_not_consume_is_named_and_restarts(
    background: BackgroundProcesses, checks: HealthChecks, wait_until: Callable[..., Any]
) -> None:
    replace_worker(background, wait_until, "leaking-worker")
    background.enqueue_entry("tests.linger")  # takes the only slot
    wait_until(lambda: read_lines(background.acts))
    background.redis.send_signal(signal.SIGSTOP)
    background.go_on.touch()
    wait_until(lambda: background.has_logged(b"Couldn't ack"), 30)
    background.redis.send_signal(signal.SIGCONT)
    consumed_at = monotonic()
    for _ in range(3):
        background.enqueue_entry()

    error = wait_until(lambda: get_worker_error(checks), 15)
    assert re.fullmatch(r"node events-mails-jobs-remote has not polled its queues for \d+ s", error)
    wait_until(
        lambda: background.has_logged(b"node restarts: queues were not polled"), 15 - (monotonic() - consumed_at)
    )
    assert background.worker.wait(20) == RESTART_EXIT_STATUS

    background.worker = background.start("worker")
    wait_until(lambda: are_all_closed(background.app), 20)
    wait_until(lambda: not get_worker_error(checks))


def test_node_whose_main_thread_hangs_restarts(background: BackgroundProcesses, wait_until: Callable[..., Any]) -> None:
    replace_worker(background, wait_until, "hanging-worker")
    background.enqueue_entry()
    wait_until(lambda: are_all_closed(background.app))
    hung_at = monotonic() + 3

    ordered_at = monotonic()

    def has_ended() -> bool:
        nonlocal ordered_at
        if monotonic() - ordered_at > 1:  # some come before it hangs
            ordered_at = monotonic()
            background.enqueue_entry()
        return background.worker.poll() is not None

    wait_until(has_ended, 45)
    assert background.worker.returncode == RESTART_EXIT_STATUS
    assert monotonic() - hung_at < 20 + 5  # on a busy machine
    background.worker = background.start("worker")
    wait_until(lambda: are_all_closed(background.app), 30)


def test_busy_node_is_neither_named_nor_restarted(
    background: BackgroundProcesses, checks: HealthChecks, wait_until: Callable[..., Any]
) -> None:
    background.enqueue_entry("tests.linger")  # takes the only slot
    wait_until(lambda: read_lines(background.acts))
    for _ in range(3):
        background.enqueue_entry()
    with create_client(background.server.url, timeout=2) as client:
        wait_until(lambda: client.llen(EVENTS_QUEUE))
    wait_until(lambda: not get_worker_error(checks))

    busy_until = monotonic() + RESTART_AFTER_SECONDS + 3 * HEARTBEAT_INTERVAL_SECONDS
    while monotonic() < busy_until:
        assert get_worker_error(checks) == ""
        assert background.worker.poll() is None
        sleep(0.2)

    background.go_on.touch()
    while not are_all_closed(background.app):
        assert get_worker_error(checks) == ""
    assert background.worker.poll() is None


def test_sigterm_lets_a_running_task_finish(background: BackgroundProcesses, wait_until: Callable[..., Any]) -> None:
    background.enqueue_entry("tests.linger")
    wait_until(lambda: read_lines(background.acts))

    background.worker.terminate()
    wait_until(lambda: background.has_logged(b"Initiating Soft Shutdown"))
    background.go_on.touch()

    assert background.worker.wait(10) == 0
    assert are_all_closed(background.app)
    assert len(read_lines(background.acts)) == 1


def test_sigterm_hands_back_a_task_that_takes_too_long(
    background: BackgroundProcesses, wait_until: Callable[..., Any]
) -> None:
    background.enqueue_entry("tests.linger")
    wait_until(lambda: read_lines(background.acts))

    background.worker.terminate()
    background.worker.wait(12)
    background.go_on.touch()
    background.worker = background.start("worker")

    wait_until(lambda: are_all_closed(background.app), 20)


def test_a_task_called_in_a_request_leaves_the_callers_session_alone(app: Flask, tmp_path: Path) -> None:
    entry_id = enqueue_entry(app, "tests.record", file=str(tmp_path / "acts"))
    task = app.extensions["celery"].tasks["tests.record"]

    with app.test_request_context():
        user = User(email="caller@example.com", password_hash="!")
        db.session.add(user)
        db.session.commit()
        mine = db.session()

        task(str(entry_id))
        task.apply(args=[str(entry_id)], throw=True)

        assert db.session() is mine
        # Expired by the commit: a detached row would raise DetachedInstanceError here.
        assert user.email == "caller@example.com"
    assert len(read_lines(tmp_path / "acts")) == 1


def test_a_task_leaves_no_transaction_and_no_connection_behind(app: Flask, tmp_path: Path) -> None:
    with app.app_context():
        pool = db.engine.pool
    before = pool.checkedout()  # type: ignore[attr-defined]  # QueuePool, the only one we use

    app.extensions["celery"].tasks["tests.record"](str(enqueue_entry(app, "tests.record", file=str(tmp_path / "acts"))))

    assert pool.checkedout() == before  # type: ignore[attr-defined]  # same


def test_a_worker_serves_every_queue(app: Flask) -> None:
    (served,) = [each for each in build_worker_arguments(app.config, QUEUES) if each.startswith("--queues=")]

    assert set(served.removeprefix("--queues=").split(",")) == set(QUEUES)


def test_every_entry_names_a_consumer_that_is_registered(app: Flask) -> None:
    with pytest.raises(KeyError):
        enqueue_entry(app, "no.such.consumer")

    with app.app_context():
        assert db.session.scalar(select(func.count()).select_from(OutboxEntry)) == 0


@pytest.mark.parametrize(
    ("given", "client", "broker", "limits"),
    [
        ("redis://:pw@host:6379/2", "redis://:pw@host:6379/2", "redis://:pw@host:6379/2", "redis://:pw@host:6379/2"),
        ("unix:///tmp/r.sock", "unix:///tmp/r.sock", "redis+socket:///tmp/r.sock", "redis+unix:///tmp/r.sock"),
        (
            "unix://:pw@/tmp/r.sock?db=3",
            "unix://:pw@/tmp/r.sock?db=3",
            "redis+socket://:pw@/tmp/r.sock?virtual_host=3",
            "redis+unix://:pw@/tmp/r.sock?db=3",
        ),
        (
            "redis+socket:///tmp/r.sock?virtual_host=3&x=1",
            "unix:///tmp/r.sock?db=3&x=1",
            "redis+socket:///tmp/r.sock?virtual_host=3&x=1",
            "redis+unix:///tmp/r.sock?db=3&x=1",
        ),
    ],
)
def test_redis_urls_are_spelled_for_each_library(given: str, client: str, broker: str, limits: str) -> None:
    assert (client_url(given), broker_url(given), limits_url(given)) == (client, broker, limits)


NODES_SCRIPT = """
import os, pathlib, signal, sys, time

from app.processes import worker_nodes

directory, worker_nodes.STOP_TIMEOUT_SECONDS = pathlib.Path(sys.argv[1]), float(sys.argv[2])

def serve(queues):
    (queue,) = queues
    received = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: received.append(signal.Signals(number).name))
    (directory / f"{queue}.new").write_text(str(os.getpid()))
    (directory / f"{queue}.new").rename(directory / f"{queue}-began")
    while not received or (queue == "slow" and not (directory / "go-on").exists()):
        time.sleep(0.01)
    (directory / f"{queue}-received").write_text(" ".join(received))

sys.exit(worker_nodes.run_nodes(serve, [("quick",), ("slow",)]))
"""


@contextmanager
def run_worker_nodes(
    directory: Path, wait_until: Callable[..., Any], seconds: float
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker with a quick and a slow node, and this time for them to end."""
    command = [sys.executable, "-c", NODES_SCRIPT, str(directory), str(seconds)]
    with subprocess.Popen(command, cwd=ROOT) as parent:
        try:
            wait_until(lambda: len(list(directory.glob("*-began"))) == 2)
            yield parent
        finally:
            parent.kill()  # and the nodes with it


def test_a_frozen_node_does_not_keep_the_others_from_starting_again(
    tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    with run_worker_nodes(tmp_path, wait_until, seconds=0.5) as parent:
        quick, slow = (psutil.Process(int((tmp_path / f"{name}-began").read_text())) for name in ("quick", "slow"))

        slow.suspend()
        quick.kill()

        assert parent.wait(10) == -signal.SIGKILL % 256
        assert not slow.is_running()


RESTART_SCRIPT = """
import os, pathlib, signal, sys, time

from app.processes import worker_nodes

directory = pathlib.Path(sys.argv[1])

def serve(queues):
    (queue,) = queues
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (directory / queue).open("a") as file:
        file.write(f"{os.getpid()}\\n")
    if queue == "stalled" and len((directory / queue).read_text().split()) == 1:
        sys.exit(worker_nodes.RESTART_EXIT_STATUS)
    while True:
        time.sleep(0.01)

sys.exit(worker_nodes.run_nodes(serve, [("stalled",), ("other",)]))
"""


def test_node_that_restarts_leaves_the_others_alone(tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    with subprocess.Popen([sys.executable, "-c", RESTART_SCRIPT, str(tmp_path)], cwd=ROOT) as parent:
        try:
            wait_until(lambda: len(read_lines(tmp_path / "stalled")) == 2)
            wait_until(lambda: len(read_lines(tmp_path / "other")) == 1)
            pids = {int(read_lines(tmp_path / name)[-1]) for name in ("stalled", "other")}
            assert {child.pid for child in psutil.Process(parent.pid).children()} == pids

            parent.terminate()

            assert parent.wait(10) == 0
            assert not any(psutil.pid_exists(pid) for pid in pids)
        finally:
            parent.kill()


def test_each_node_gets_one_termination_signal(tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    """Celery treats a second signal as a cold shutdown and requeues tasks that still had time."""
    with run_worker_nodes(tmp_path, wait_until, seconds=10) as parent:
        parent.terminate()
        wait_until((tmp_path / "quick-received").exists)
        parent.terminate()
        wait_until(lambda: len(psutil.Process(parent.pid).children()) == 1)
        (tmp_path / "go-on").touch()

        assert parent.wait(10) == 0
    assert [(tmp_path / f"{queue}-received").read_text() for queue in ("quick", "slow")] == ["SIGTERM", "SIGTERM"]
