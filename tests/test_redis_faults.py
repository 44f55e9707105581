"""Failures of Redis under load: requests do not wait, nothing is lost, and /health-check reports the cause."""

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import pytest
import redis
from flask import Flask
from sqlalchemy import func, select

from app import embedded, relay
from app.events.models import Event
from app.extensions import db
from app.jobs.models import TERMINAL_STATES, Job
from app.outbox import OutboxEntry
from tests.dataset import NEXT_MONTH, Dataset
from tests.tcp_proxy import Proxy
from tests.test_end_to_end import JSONAPI, build_document, read_mails
from tests.worker_process import run_process

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240), pytest.mark.long]

RECOVERY_SECONDS = 60
MIN_WRITES_BEFORE = 40
MAX_REQUEST_SECONDS = 1.0
"""Maximum of 90 % of the writes; more would mean that one kind of request waits for Redis."""


class RedisServer(embedded.Redis):
    """Redis with persistent data."""

    def __init__(self, var_dir: Path, *, keeps_data: bool = False) -> None:
        var_dir.mkdir(exist_ok=True)
        super().__init__(var_dir)
        self.keeps_data = keeps_data

    def build_command(self) -> tuple[list[str], dict[str, Any]]:
        """Return the command line of the embedded server."""
        command, more = super().build_command()
        if self.keeps_data:
            command[command.index("--appendonly") + 1] = "yes"
        return command, more

    def client(self) -> redis.Redis:
        """Return a client that does not use the proxy."""
        return redis.Redis(unix_socket_path=str(self.socket), decode_responses=True)


class Installation:
    """Web, worker and relay, which connect to Redis through a proxy, and clients that write."""

    def __init__(
        self, app: Flask, dataset: Dataset, environment: dict[str, str], directory: Path, stack: ExitStack
    ) -> None:
        self.app, self.dataset, self.directory, self.stack = app, dataset, directory, stack
        self.server = RedisServer(directory / "first", keeps_data=True)
        self.redis = self.serve(self.server)
        self.proxy = Proxy(self.server.socket)
        stack.callback(self.proxy.close)
        self.port = int(environment["PORT"])
        self.environment = {
            **environment,
            "REDIS_URL": f"redis://127.0.0.1:{self.proxy.port}/0",
            "HEALTH_GRACE_SECONDS": "0",
            "RATELIMIT_ENABLED": "1",
            "TRUSTED_PROXIES": "1",
            "WORKER_CONCURRENCY": "2",
        }
        self.log = directory / "output"
        self.start("web")
        self.start("relay", str(relay.LEASE_DURATION.total_seconds()))
        self.worker = self.start("worker")
        self.written: dict[str, set[str]] = {"events": set(), "users": set(), "jobs": set()}
        self.seconds: list[float] = []
        self.failed: list[str] = []

    def serve(self, server: RedisServer) -> subprocess.Popen[bytes]:
        """Start a Redis."""
        return self.stack.enter_context(embedded.run_server(server))

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a process of the server."""
        return self.stack.enter_context(run_process(self.environment, self.log, *arguments))

    def request(self, method: str, path: str, document: Any = None, token: str | None = None) -> tuple[int, Any]:
        """Send one request from a new address, so that sign-ups stay below their limit."""
        headers = {"X-Forwarded-For": f"2001:db8:{uuid4().hex[:4]}:{uuid4().hex[:4]}::1", "Content-Type": JSONAPI}
        if token is not None:
            headers["Authorization"] = f"JWT {token}"
        body = None if document is None else json.dumps(document)
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read()
        return response.status, json.loads(text) if text else None

    def write(self, path: str, type_: str, attributes: dict[str, Any], token: str | None = None) -> str | None:
        """Create a resource; return its id if the server has acknowledged it, else None."""
        began = monotonic()
        status, document = self.request("POST", path, build_document(type_, attributes), token)
        self.seconds.append(monotonic() - began)
        if status in (201, 202):
            return str(document["data"]["id"])
        self.failed.append(f"{path}: {status} {document}")
        return None

    def write_all(self) -> None:
        """Publish an event, sign up a user, and submit a job."""
        token = self.dataset.owner.token
        dates = {
            "starts-at": NEXT_MONTH.isoformat(),
            "ends-at": (NEXT_MONTH + timedelta(days=2)).isoformat(),
            "timezone": "UTC",
        }
        for _ in range(4):
            event = {"name": uuid4().hex, "state": "published", **dates}
            self.remember_write("events", self.write("/v1/events", "event", event, token))
        email = f"{uuid4().hex}@example.com"
        if self.write("/v1/users", "user", {"email": email, "password": "correct horse"}):
            self.remember_write("users", email)
        self.remember_write(
            "jobs", self.write("/v1/jobs", "job", {"kind": "sleep", "parameters": {"seconds": 0}}, token)
        )

    def remember_write(self, kind: str, name: str | None) -> None:
        """Write, and record the acknowledged writes."""
        if name is not None:
            self.written[kind].add(name)

    @contextmanager
    def run_writers(self) -> Iterator[None]:
        """Write from two clients."""
        stop = threading.Event()

        def go_on() -> None:
            while not stop.is_set():
                self.write_all()
                sleep(0.5)

        with ThreadPoolExecutor(2) as pool:
            writers = [pool.submit(go_on) for _ in range(2)]
            try:
                yield
            finally:
                stop.set()
            for writer in writers:
                writer.result()

    def list_failing_checks(self) -> dict[str, str]:
        """Return the failing checks with their messages."""
        try:
            status, document = self.request("GET", "/health-check")
        except (OSError, HTTPException):
            return {"web": "no answer"}
        found = {each["checker"]: each["output"] for each in document["results"] if not each["passed"]}
        assert status == (503 if found else 200), document
        return {name.removeprefix("health_check_"): output for name, output in found.items()}

    def count_missing(self) -> dict[str, int]:
        """Return how many acknowledged writes still lack their consequence, and how many entries are open."""
        with self.app.app_context():
            with_calendar = set(map(str, db.session.scalars(select(Event.id).where(Event.ical_url.is_not(None)))))
            ended = set(map(str, db.session.scalars(select(Job.id).where(Job.state.in_(TERMINAL_STATES)))))
            is_open = OutboxEntry.done_at.is_(None)
            entries = db.session.scalar(select(func.count()).select_from(OutboxEntry).where(is_open)) or 0
        addressed = {mail["To"] for mail in read_mails(self.environment)}
        missing = {
            "calendars": len(self.written["events"] - with_calendar),
            "mails": len(self.written["users"] - addressed),
            "jobs": len(self.written["jobs"] - ended),
            "entries": entries,
        }
        return {name: number for name, number in missing.items() if number}


@pytest.fixture
def installation(app: Flask, dataset: Dataset, environment: dict[str, str], tmp_path: Path) -> Iterator[Installation]:
    """Run all processes with their own Redis."""
    with ExitStack() as stack:
        yield Installation(app, dataset, environment, tmp_path, stack)


Fault = Callable[[Installation], Callable[[], None]]
"""Function that causes a failure, and returns a function that ends it."""


def freeze_redis(installation: Installation) -> Callable[[], None]:
    """SIGSTOP Redis."""
    installation.redis.send_signal(signal.SIGSTOP)
    return lambda: installation.redis.send_signal(signal.SIGCONT)


def cut_network(installation: Installation) -> Callable[[], None]:
    """Cut the network in both directions; afterwards it delivers all bytes that it held back."""
    installation.proxy.block()
    return installation.proxy.resume


def cut_and_close(installation: Installation) -> Callable[[], None]:
    """Cut the network in both directions; afterwards it closes the old connections."""
    installation.proxy.block()

    def mend() -> None:
        installation.proxy.close_connections()
        installation.proxy.resume()

    return mend


def cut_and_forget(installation: Installation) -> Callable[[], None]:
    """Cut the network in both directions; afterwards new connections work, and old ones stay silent."""
    installation.proxy.block()

    def mend() -> None:
        installation.proxy.silence_connections()
        installation.proxy.resume()

    return mend


def cut_replies(installation: Installation) -> Callable[[], None]:
    """Forward commands to Redis, but no replies; then close the connections."""
    installation.proxy.block(requests=False)

    def mend() -> None:
        installation.proxy.close_connections()
        installation.proxy.resume()

    return mend


def kill_redis(installation: Installation) -> Callable[[], None]:
    """Kill Redis; then start it with its data."""
    installation.redis.kill()
    installation.redis.wait(10)
    return lambda: setattr(installation, "redis", installation.serve(installation.server))


def kill_and_empty(installation: Installation) -> Callable[[], None]:
    """Kill Redis; then start it empty."""
    mend = kill_redis(installation)
    installation.server.keeps_data = False
    return mend


def fail_over(installation: Installation) -> Callable[[], None]:
    """Kill Redis; then forward its address to another, empty one."""
    other = RedisServer(installation.directory / "second")
    installation.redis.kill()
    installation.redis.wait(10)

    def mend() -> None:
        installation.redis = installation.serve(other)
        installation.proxy.upstream = other.socket

    return mend


def demote_redis(installation: Installation) -> Callable[[], None]:
    """Make Redis a replica while the connections stay open; then forward its address to another one."""
    other = RedisServer(installation.directory / "second")
    with installation.server.client() as client:
        client.replicaof("127.0.0.1", "1")  # which nothing serves

    def mend() -> None:
        installation.serve(other)
        installation.proxy.upstream = other.socket

    return mend


def fill_disk(installation: Installation) -> Callable[[], None]:
    """Make snapshots fail, so that Redis refuses writes; then make them succeed."""
    obstacle = installation.server.directory / "dump.rdb"
    obstacle.mkdir()

    def save(outcome: str) -> None:
        with installation.server.client() as client:
            client.config_set("save", "3600 1")
            client.bgsave()
            deadline = monotonic() + 10
            while client.info("persistence")["rdb_last_bgsave_status"] != outcome and monotonic() < deadline:
                sleep(0.02)

    def mend() -> None:
        obstacle.rmdir()
        save("ok")

    save("err")
    return mend


def fill_memory(installation: Installation) -> Callable[[], None]:
    """Limit the memory of Redis, so that it refuses writes; then raise the limit."""
    with installation.server.client() as client:
        client.config_set("maxmemory", "1")

    def mend() -> None:
        with installation.server.client() as client:
            client.config_set("maxmemory", "0")

    return mend


UNREACHABLE = {"redis", "celery"}


@pytest.mark.parametrize(
    ("fault", "seconds", "failing", "output"),
    [
        pytest.param(freeze_redis, 8, UNREACHABLE, "answer", id="frozen for 8 s"),
        pytest.param(freeze_redis, 30, UNREACHABLE, "answer", id="frozen for 30 s"),
        pytest.param(cut_network, 12, UNREACHABLE, "answer", id="network cut"),
        pytest.param(cut_and_close, 12, UNREACHABLE, "answer", id="network cut, connections closed"),
        pytest.param(cut_and_forget, 12, UNREACHABLE, "answer", id="network cut, connections forgotten"),
        pytest.param(cut_replies, 12, UNREACHABLE, "answer", id="replies cut"),
        pytest.param(kill_redis, 5, UNREACHABLE, "answer", id="restarted with its data"),
        pytest.param(kill_and_empty, 5, UNREACHABLE, "answer", id="restarted empty"),
        pytest.param(fail_over, 5, UNREACHABLE, "answer", id="failed over to an empty one"),
        pytest.param(demote_redis, 5, {"redis"}, "refuses writes: READONLY", id="demoted to a replica"),
        pytest.param(fill_disk, 12, UNREACHABLE, "refuses writes: MISCONF", id="full disk"),
        pytest.param(fill_memory, 12, UNREACHABLE, "refuses writes: OOM", id="full memory"),
    ],
)
def test_redis_fault_under_load_loses_nothing(
    installation: Installation,
    wait_until: Callable[..., Any],
    figure: Callable[[str], None],
    request: pytest.FixtureRequest,
    fault: Fault,
    seconds: float,
    failing: set[str],
    output: str,
) -> None:
    wait_until(lambda: not installation.list_failing_checks(), 60)
    seen: dict[str, set[str]] = {}
    with installation.run_writers():
        wait_until(lambda: len(installation.seconds) >= MIN_WRITES_BEFORE, 60)
        before = len(installation.seconds)
        mend = fault(installation)
        deadline = monotonic() + seconds
        while monotonic() < deadline:
            for name, said in installation.list_failing_checks().items():
                seen.setdefault(name, set()).add(said)
            sleep(0.3)
        mend()
        mended_at = monotonic()
        durations = sorted(installation.seconds[before:])
    assert installation.failed == []

    wait_until(
        lambda: not installation.count_missing(),
        RECOVERY_SECONDS - (monotonic() - mended_at),
        MissingReport(installation),
    )
    recovery_seconds = monotonic() - mended_at
    wait_until(lambda: not installation.list_failing_checks(), 30)

    median, most = durations[len(durations) // 2], durations[len(durations) * 9 // 10]
    figure(
        f"Redis {request.node.callspec.id}: {len(durations)} writes, p50 {median:.2f}, p90 {most:.2f} s,"
        f" all done {recovery_seconds:.1f} s after its end"
    )
    assert most < MAX_REQUEST_SECONDS
    assert failing <= seen.keys(), seen
    assert any(output in said for said in seen["redis"]), seen
    assert installation.worker.poll() is None, "the worker went on by itself"


class MissingReport:
    """Object whose text lists the missing consequences at the time of printing."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation

    def __str__(self) -> str:
        return f"missing: {self.installation.count_missing()}"
