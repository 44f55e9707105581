"""Processes of the benchmarks: a database of their own, and web processes that differ only in the app they serve."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic, sleep

import flask_migrate
from flask import Flask

import config
from app import embedded
from app.extensions import db
from app.factory import create_app
from app.processes.process_tree import set_pdeathsig
from app.users import login_sessions
from app.users.tokens import AccessClaims, new_access_token, read_access_token
from benchmarks import cpu_affinity, dataset

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_SECONDS = 60
STOP_TIMEOUT_SECONDS = 15


@dataclass(frozen=True)
class WebProcess:
    """Web process that serves one system."""

    system: str
    pid: int
    port: int


@dataclass(frozen=True)
class BenchmarkSite:
    """The database with its data, and the current user of all requests."""

    app: Flask
    environment: Mapping[str, str]
    access: AccessClaims

    @property
    def directory(self) -> Path:
        """Return the directory of logs and of the responses for comparison."""
        return Path(self.environment["VAR_DIR"])

    def build_headers(self) -> dict[str, str]:
        """Return the request headers with a new access token, which is valid for 15 minutes."""
        with self.app.app_context():
            token = new_access_token(self.access)
        return {"Authorization": f"JWT {token}", "Content-Type": "application/vnd.api+json"}

    @contextmanager
    def run_web(self, system: str) -> Iterator[WebProcess]:
        """Run the web process of a system until the block ends; enter the block when it is ready."""
        port = _find_free_port()
        with (self.directory / f"{system}.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603  # our own command line
                [sys.executable, "-m", "benchmarks.serve", system],
                cwd=ROOT,
                env={**os.environ, **self.environment, "PORT": str(port)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_pin_to_web_cpus,
            )
        try:
            _wait_for_web(process, port, log.name)
            yield WebProcess(system, process.pid, port)
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_SECONDS)


@contextmanager
def run_site() -> Iterator[BenchmarkSite]:
    """Yield a database with the data of `benchmarks.dataset`; delete it when the block ends."""
    os.sched_setaffinity(0, cpu_affinity.OTHER_CPUS)
    with ExitStack() as stack:
        var_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="open-event-bench-")))
        started: list[embedded.EmbeddedServer] = [embedded.Postgres(var_dir), embedded.Redis(var_dir)]
        for server in started:
            stack.enter_context(embedded.run_server(server))
        environment = {
            **{setting.name: setting.default for setting in config.SETTINGS},
            **embedded.get_server_urls(started),
            "APP_ENV": "testing",
            "VAR_DIR": str(var_dir),
            "PUBLIC_URL": "http://localhost",
            "RATELIMIT_ENABLED": "0",
            "MAX_WRITE_MB_PER_DAY": "1000000",
            "LOG_FORMAT": "json",  # as on any server
        }
        app = create_app(config.read_config(environment))
        with app.app_context():
            flask_migrate.upgrade(directory=str(ROOT / "migrations"))
            dataset.fill_tables(environment["DATABASE_URL"])
            access = read_access_token(login_sessions.create_session(dataset.CALLER_ID).access_token)
            db.session.commit()
        yield BenchmarkSite(app, environment, access)
        with app.app_context():
            db.engine.dispose()


def _find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _pin_to_web_cpus() -> None:
    os.sched_setaffinity(0, cpu_affinity.WEB_CPUS)
    _set_pdeathsig()


_set_pdeathsig = set_pdeathsig()


def _wait_for_web(process: subprocess.Popen[bytes], port: int, log: str) -> None:
    deadline = monotonic() + START_TIMEOUT_SECONDS
    while not _is_responding(port):
        if process.poll() is not None or monotonic() > deadline:
            raise RuntimeError(f"the web process does not answer: {Path(log).read_text()[-2000:]}")
        sleep(0.05)


def _is_responding(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    return True
