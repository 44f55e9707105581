"""Any part that is dead or hangs is reported by /health-check within a second, and /livez still succeeds."""

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest

from app import embedded
from app.processes.process_tree import kill_group, set_pdeathsig
from tests.conftest import find_free_port

pytestmark = pytest.mark.faults

MANAGE = Path(__file__).resolve().parents[2] / "manage.py"


class Sentry(ThreadingHTTPServer):
    """A Sentry server that stores reports."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), SentryReceiver)
        self.dsn = f"http://key@127.0.0.1:{self.server_port}/1"
        self.received: list[dict[str, Any]] = []


class SentryReceiver(BaseHTTPRequestHandler):
    """Handler that stores posted envelopes."""

    server: Sentry

    def do_POST(self) -> None:
        """Store one envelope."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        envelope = gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body
        # A line about the envelope, then two for each item: about it, and the item.
        self.server.received += [json.loads(line) for line in envelope.splitlines()[2::2]]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Installation:
    """A whole server with its own PostgreSQL and Redis, whose parts can be stopped and started."""

    def __init__(self, environment: Mapping[str, str], directory: Path, stack: ExitStack) -> None:
        self.stack = stack
        self.log = directory / "output"
        self.sentry = stack.enter_context(Sentry())
        threading.Thread(target=self.sentry.serve_forever, daemon=True).start()
        stack.callback(self.sentry.shutdown)
        self.postgres, self.redis = embedded.Postgres(directory), embedded.Redis(directory)
        self.port = find_free_port()
        self.environment = {
            **os.environ,
            **environment,
            **embedded.get_server_urls([self.postgres, self.redis]),
            "PORT": str(self.port),
            "HEALTH_GRACE_SECONDS": "0",
            "SENTRY_DSN": self.sentry.dsn,
        }
        self.slowest = 0.0
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        for server in (self.postgres, self.redis):
            self.serve(server)
        self.start("db", "upgrade").wait(30)
        for command in ("web", "worker", "relay"):
            self.start(command)

    def serve(self, server: embedded.EmbeddedServer) -> None:
        """Start PostgreSQL or Redis."""
        self.running[server.name] = self.stack.enter_context(embedded.run_server(server))

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command of manage.py."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(MANAGE), *command],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=set_pdeathsig(),
            )
        self.running[command[0]] = process
        self.stack.callback(self.kill_process, process)
        return process

    def kill_process(self, process: subprocess.Popen[bytes]) -> None:
        """End a process and all its children."""
        process.kill()
        process.wait(10)
        kill_group(process.pid)

    def send_signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process and all its children."""
        os.killpg(self.running[name].pid, number)
        if number == signal.SIGKILL:
            self.running[name].wait(10)

    def list_children(self, name: str) -> list[int]:
        """Return the pids of the children of a process."""
        pid = self.running[name].pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Return the status and the document of a response."""
        started = monotonic()
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            answer = response.status, json.loads(response.read())
        self.slowest = max(self.slowest, monotonic() - started)
        return answer

    def list_failing_checks(self) -> set[str]:
        """Return the names of the failing checks."""
        status, document = self.get("/health-check")
        failed = {result["checker"] for result in document["results"] if not result["passed"]}
        assert status == (503 if failed else 200)
        assert document["status"] == ("failure" if failed else "success")
        assert self.get("/livez")[0] == 200
        return {name.removeprefix("health_check_") for name in failed}

    def is_up(self) -> bool:
        """Return whether all checks pass."""
        try:
            return not self.list_failing_checks()
        except ConnectionError:
            return False

    def run_sql(self, statement: str) -> None:
        """Execute SQL in the database of the server."""
        with psycopg.connect(self.environment["DATABASE_URL"]) as connection:
            connection.execute(statement)


@pytest.fixture(scope="module")
def running_installation(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """Start one installation for all tests of the module."""
    with ExitStack() as stack:
        yield Installation(environment, tmp_path_factory.mktemp("installation"), stack)


@pytest.fixture
def installation(running_installation: Installation, wait_until: Callable[..., Any]) -> Installation:
    """Return the installation once all its checks pass."""
    wait_until(running_installation.is_up, 30)
    running_installation.slowest = 0
    return running_installation


@pytest.mark.parametrize(
    ("name", "expected"),
    [("postgres", {"db", "migrations", "outbox"}), ("redis", {"redis", "celery"})],
)
def test_a_hung_server_is_named_within_a_second(
    installation: Installation, wait_until: Callable[..., Any], name: str, expected: set[str]
) -> None:
    installation.send_signal(name, signal.SIGSTOP)
    backends = installation.list_children(name)  # of PostgreSQL, each in a process group of its own
    for pid in backends:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: installation.list_failing_checks() == expected, 15)
        assert installation.slowest < 1
    finally:
        for pid in backends:
            os.kill(pid, signal.SIGCONT)
        installation.send_signal(name, signal.SIGCONT)


def test_a_postgres_that_accepts_no_connection_is_named(
    installation: Installation, wait_until: Callable[..., Any]
) -> None:
    wait_until(lambda: installation.list_failing_checks() == set(), 30)
    installation.send_signal("postgres", signal.SIGSTOP)  # its backends go on
    try:
        wait_until(lambda: installation.list_failing_checks() == {"db"}, 15)
        assert installation.slowest < 1
    finally:
        installation.send_signal("postgres", signal.SIGCONT)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("postgres", {"db", "migrations", "outbox"}), ("redis", {"redis", "celery"})],
)
def test_a_dead_server_is_named_within_a_second(
    installation: Installation, wait_until: Callable[..., Any], name: str, expected: set[str]
) -> None:
    installation.send_signal(name, signal.SIGKILL)
    try:
        wait_until(lambda: installation.list_failing_checks() == expected, 15)
        assert installation.slowest < 1
    finally:
        installation.serve(getattr(installation, name))


def test_dead_processes_are_named_within_seconds(installation: Installation, wait_until: Callable[..., Any]) -> None:
    killed_at = monotonic()
    try:
        try:
            for name in ("worker", "relay"):
                installation.kill_process(installation.running[name])

            wait_until(lambda: "celery" in installation.list_failing_checks())
            assert monotonic() - killed_at < 10
        finally:
            installation.start("worker")
        wait_until(lambda: "outbox" in installation.list_failing_checks())
        assert monotonic() - killed_at < 14
        wait_until(lambda: installation.list_failing_checks() == {"outbox"}, 60)
    finally:
        installation.start("relay")
    assert installation.slowest < 1


def test_a_missing_migration_is_named(installation: Installation, wait_until: Callable[..., Any]) -> None:
    installation.run_sql("ALTER TABLE alembic_version RENAME TO elsewhere")
    installation.run_sql("CREATE TABLE alembic_version AS SELECT * FROM elsewhere LIMIT 0")
    try:
        wait_until(lambda: installation.list_failing_checks() == {"migrations"})
        assert installation.get("/readyz")[0] == 503
        assert installation.slowest < 1
    finally:
        installation.run_sql("DROP TABLE alembic_version")
        installation.run_sql("ALTER TABLE elsewhere RENAME TO alembic_version")


def test_an_answer_tells_no_secrets(installation: Installation, wait_until: Callable[..., Any]) -> None:
    installation.send_signal("postgres", signal.SIGKILL)
    try:
        wait_until(lambda: "db" in installation.list_failing_checks())

        text = json.dumps(installation.get("/health-check")[1])

        assert "postgresql:" not in text
        assert "Error" not in text
        assert "/tmp" not in text  # noqa: S108  # a path that must not show, not one that is used
    finally:
        installation.serve(installation.postgres)


def test_a_failed_check_is_reported_to_sentry_once(installation: Installation, wait_until: Callable[..., Any]) -> None:
    def reports() -> list[dict[str, Any]]:
        return [
            each for each in installation.sentry.received if each.get("extra", {}).get("check") == "health_check_redis"
        ]

    installation.sentry.received.clear()
    installation.send_signal("redis", signal.SIGSTOP)
    try:
        wait_until(lambda: "redis" in installation.list_failing_checks())
        wait_until(reports)
        first = installation.get("/health-check")[1]["timestamp"]
        wait_until(lambda: installation.get("/health-check")[1]["timestamp"] > first, 5, "asked again")
    finally:
        installation.send_signal("redis", signal.SIGCONT)
    wait_until(installation.is_up, 30)

    (report,) = reports()
    assert report["logentry"]["message"] == "health check failed"
    assert {"user", "query_string", "cookies"}.isdisjoint({*report, *report.get("request", {})})
