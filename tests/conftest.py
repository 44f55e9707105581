"""A PostgreSQL and a Redis of the suite's own, the app on them, and real processes beside it."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import flask_migrate
import psycopg
import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from psycopg import sql
from psycopg.errors import DeadlockDetected, ForeignKeyViolation, LockNotAvailable

import config
from app import embedded
from app.extensions import db
from app.factory import create_app
from app.processes.process_tree import kill_group, set_pdeathsig
from tests.jsonapi.validator import CheckedClient

pytest_plugins = ["tests.dataset", "tests.web_server"]

# A line for each of the tests' own requests would bury what is told of a failure.
logging.getLogger("httpx").setLevel(logging.WARNING)

# What a shell starts in the background ignores Ctrl-C, and so would every process that is started here.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
FIGURE = "figure"
"""The property of a report that holds something measured."""


def wait_until(condition: Callable[[], Any], seconds: float = 15, what: str = "") -> Any:
    """What the condition returns once it is true; fails when that takes longer than this."""
    deadline = monotonic() + seconds
    while not (result := condition()):
        if monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what or condition}")
        sleep(0.02)
    return result


@pytest.fixture(scope="session", name="wait_until")
def _wait_until() -> Callable[..., Any]:
    """`wait_until(condition, seconds)` for tests."""
    return wait_until


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one worker more than there are processors: tests wait for servers and processes."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files first that take long: a worker that begins one at the end would work alone."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say what was measured: it is printed at the end of the run, from whichever process it comes."""
    return lambda text: record_property(FIGURE, text)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """All figures of this run."""
    reports = terminalreporter.getreports("passed")
    figures = [text for report in reports for name, text in report.user_properties if name == FIGURE]
    if figures:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(sorted(figures)))


class UnsyncedPostgres(embedded.Postgres):
    """PostgreSQL that does not wait for the disk: its files outlive a killed process, not a crash of the machine."""

    def build_command(self) -> tuple[list[str], dict[str, Any]]:
        """Add the options that turn waiting off."""
        command, more = super().build_command()
        return [*command, "-c", "fsync=off", "-c", "full_page_writes=off"], more


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """DATABASE_URL and REDIS_URL of servers that nobody else uses, the tables made by Alembic."""
    var_dir = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        started: list[embedded.EmbeddedServer] = [UnsyncedPostgres(var_dir), embedded.Redis(var_dir)]
        for server in started:
            stack.enter_context(embedded.run_server(server))
        yield embedded.get_server_urls(started)


@pytest.fixture(scope="session")
def environment(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every setting of the suite, so that nothing comes from the developer's own environment or `.env`."""
    return {
        **{setting.name: setting.default for setting in config.SETTINGS},
        **servers,
        "APP_ENV": "testing",
        "PORT": str(find_free_port()),
        "VAR_DIR": str(tmp_path_factory.mktemp("var")),
        "RATELIMIT_ENABLED": "0",
        "MAX_RUNNING_JOBS_PER_OWNER": "100",
    }


def find_free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def app(environment: dict[str, str]) -> Iterator[Flask]:
    """The app; a test that needs its context pushes one."""
    app = create_app(config.read_config(environment))
    app.test_client_class = CheckedClient
    with app.app_context():
        flask_migrate.upgrade(directory=str(ROOT / "migrations"))
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def make_app(environment: dict[str, str]) -> Iterator[Callable[..., Flask]]:
    """Make further apps with other settings; close the connections of their pools after the test."""
    made: list[Flask] = []

    def make(**settings: str) -> Flask:
        made.append(create_app(config.read_config({**environment, **settings})))
        return made[-1]

    yield make
    for each in made:
        with each.app_context():
            db.engine.dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client that speaks WSGI to the app in this process."""
    return app.test_client()


@pytest.fixture(autouse=True)
def _clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """Empty all tables and Redis after each test that could write."""
    yield
    if {"app", "processes"} & set(request.fixturenames):
        servers = request.getfixturevalue("servers")
        wait_until(lambda: clean_tables(servers["DATABASE_URL"]), 30)
        with redis.Redis.from_url(servers["REDIS_URL"]) as client:
            client.flushall()


CLEAN_TABLE = sql.SQL("IF EXISTS (SELECT FROM {table}) THEN DELETE FROM {table}; END IF; ")
CLEAN_TABLES = sql.SQL("DO $$ BEGIN {} END $$").format(
    sql.SQL("").join(
        CLEAN_TABLE.format(table=sql.Identifier(table.name)) for table in reversed(db.metadata.sorted_tables)
    )
)
"""Deletes the rows of the tables that have any, in one round trip."""


def clean_tables(database_url: str) -> bool:
    """Delete all rows; return False when processes that outlive the test write at the same time, and win."""
    try:
        with psycopg.connect(database_url, options="-c lock_timeout=10s") as connection:
            connection.execute(CLEAN_TABLES)
    except (DeadlockDetected, ForeignKeyViolation, LockNotAvailable):
        return False
    return True


@dataclass
class Processes:
    """Real `manage.py` processes on the suite's servers; `stop` or the end of the test ends them for sure."""

    environment: Mapping[str, str]
    logs: Path
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        """Where `web` listens."""
        return f"http://127.0.0.1:{self.environment['PORT']}"

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[bytes]:
        """Run `manage.py <arguments>`, with these settings besides the suite's."""
        with self.log(arguments[0]).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), *arguments],
                env={**os.environ, **self.environment, **settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=set_pdeathsig(),
            )
        self.children.append(process)
        return process

    def log(self, name: str) -> Path:
        """What the process of this name has said."""
        return self.logs / f"{name}.log"

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL for the process alone; its children follow on their own."""
        process.kill()
        process.wait(10)

    def stop(self, process: subprocess.Popen[bytes], seconds: float = 15) -> int:
        """SIGTERM, and SIGKILL for the whole group when that takes too long; the exit status."""
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        kill_group(process.pid)
        return process.wait(10)


@pytest.fixture
def processes(app: Flask, environment: dict[str, str], tmp_path: Path) -> Iterator[Processes]:
    """Start worker, relay and web for one test."""
    running = Processes(environment, tmp_path)
    yield running
    for process in running.children:
        process.send_signal(signal.SIGTERM)
    for process in running.children:
        running.stop(process)
