"""Fixtures of all tests: PostgreSQL and Redis servers of the test suite, the app, and processes of `manage.py`."""

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

# A line for each request of the tests would hide the output of a failed test.
logging.getLogger("httpx").setLevel(logging.WARNING)

# A shell starts background commands with SIGINT ignored; the processes started here would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
FIGURE = "figure"
"""Property of a test report with a measured figure."""


def wait_until(condition: Callable[[], Any], seconds: float = 15, what: str = "") -> Any:
    """Return the value of the condition once it is true; fail the test after this many seconds."""
    deadline = monotonic() + seconds
    while not (result := condition()):
        if monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what or condition}")
        sleep(0.02)
    return result


@pytest.fixture(scope="session", name="wait_until")
def _wait_until() -> Callable[..., Any]:
    """Return `wait_until(condition, seconds)`."""
    return wait_until


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one worker more than there are processors, because tests wait for servers and processes."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow files first, so that none of them runs alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Return a function that records a measured figure, which is printed at the end of the run."""
    return lambda text: record_property(FIGURE, text)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print all figures of this run."""
    reports = terminalreporter.getreports("passed")
    figures = [text for report in reports for name, text in report.user_properties if name == FIGURE]
    if figures:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(sorted(figures)))


class UnsyncedPostgres(embedded.Postgres):
    """PostgreSQL without fsync: its files survive a killed process, but not a crash of the machine."""

    def build_command(self) -> tuple[list[str], dict[str, Any]]:
        """Return the command line with the options that disable fsync."""
        command, more = super().build_command()
        return [*command, "-c", "fsync=off", "-c", "full_page_writes=off"], more


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Yield DATABASE_URL and REDIS_URL of servers for the tests alone, with tables created by Alembic."""
    var_dir = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        started: list[embedded.EmbeddedServer] = [UnsyncedPostgres(var_dir), embedded.Redis(var_dir)]
        for server in started:
            stack.enter_context(embedded.run_server(server))
        yield embedded.get_server_urls(started)


@pytest.fixture(scope="session")
def environment(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return all settings of the test suite, so that none comes from the developer's environment or `.env`."""
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
    """Return a TCP port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def app(environment: dict[str, str]) -> Iterator[Flask]:
    """Yield the app; a test that needs its context pushes one."""
    app = create_app(config.read_config(environment))
    app.test_client_class = CheckedClient
    with app.app_context():
        flask_migrate.upgrade(directory=str(ROOT / "migrations"))
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def make_app(environment: dict[str, str]) -> Iterator[Callable[..., Flask]]:
    """Yield a function that creates apps with other settings; close their connection pools after the test."""
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
    """Return a client that calls the app in this process through WSGI."""
    return app.test_client()


@pytest.fixture(autouse=True)
def _clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """Empty all tables and Redis after each test that may have written."""
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
"""Statement that deletes the rows of all tables in one round trip."""


def clean_tables(database_url: str) -> bool:
    """Delete all rows; return False if a process that outlives the test writes at the same time and holds a lock."""
    try:
        with psycopg.connect(database_url, options="-c lock_timeout=10s") as connection:
            connection.execute(CLEAN_TABLES)
    except (DeadlockDetected, ForeignKeyViolation, LockNotAvailable):
        return False
    return True


@dataclass
class Processes:
    """Processes of `manage.py` on the servers of the tests; `stop` or the end of the test ends them."""

    environment: Mapping[str, str]
    logs: Path
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        """Return the URL of the web process."""
        return f"http://127.0.0.1:{self.environment['PORT']}"

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[bytes]:
        """Run `manage.py <arguments>` with these settings in addition to those of the tests."""
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
        """Return the path of the log of this process."""
        return self.logs / f"{name}.log"

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Send SIGKILL to the process alone; its children end by themselves."""
        process.kill()
        process.wait(10)

    def stop(self, process: subprocess.Popen[bytes], seconds: float = 15) -> int:
        """Send SIGTERM, and SIGKILL to the process group if it has not ended in time; return the exit status."""
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        kill_group(process.pid)
        return process.wait(10)


@pytest.fixture
def processes(app: Flask, environment: dict[str, str], tmp_path: Path) -> Iterator[Processes]:
    """Yield an object that starts processes for one test."""
    running = Processes(environment, tmp_path)
    yield running
    for process in running.children:
        process.send_signal(signal.SIGTERM)
    for process in running.children:
        running.stop(process)
