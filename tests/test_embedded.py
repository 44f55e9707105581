"""The embedded servers, really started and really killed."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis

from app import embedded
from app.embedded import Postgres, Redis
from app.processes import machine, var_dir
from app.processes.machine import EmbeddedError

pytestmark = pytest.mark.faults

ROOT = Path(__file__).resolve().parent.parent
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def fetch(server: Postgres, statement: str) -> Any:
    with psycopg.connect(server.url) as connection:
        row = connection.execute(statement.encode()).fetchone()
    return row[0] if row else None


def execute(server: Postgres, statement: str) -> None:
    with psycopg.connect(server.url) as connection:
        connection.execute(statement.encode())


@pytest.fixture(scope="module")
def long_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAR_DIR with spaces that is too long for the path of a socket."""
    return tmp_path_factory.mktemp("var dir") / ("a long name " * 12).strip()


@pytest.fixture(scope="module")
def postgres(long_path: Path) -> Postgres:
    long_path.mkdir()
    return Postgres(long_path)


def test_postgres_keeps_its_data_through_kill_9(postgres: Postgres) -> None:
    with embedded.run(postgres) as process:
        execute(postgres, "CREATE TABLE kept AS SELECT 42 AS answer")
        process.kill()

    with embedded.run(postgres):
        assert fetch(postgres, "SELECT answer FROM kept") == 42


def test_postgres_starts_beside_a_stale_pid_file_that_names_a_living_process(postgres: Postgres) -> None:
    with embedded.run(postgres) as process:
        lines = (postgres.directory / "postmaster.pid").read_text().splitlines()
        process.kill()
    # Not an ancestor of the server to come: those PostgreSQL would not believe.
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (postgres.directory / "postmaster.pid").write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")

        with embedded.run(postgres):
            assert fetch(postgres, "SELECT 1") == 1

        assert stranger.poll() is None
        stranger.kill()


def test_postgres_ends_what_an_earlier_one_left(postgres: Postgres) -> None:
    with embedded.run(postgres) as left_over, embedded.run(postgres):
        assert fetch(postgres, "SELECT 1") == 1
        assert left_over.wait(5) is not None


def test_postgres_knows_upper_and_lower_case_beyond_ascii(postgres: Postgres) -> None:
    with embedded.run(postgres):
        assert fetch(postgres, "SELECT lower('ÜBER ÇA')") == "über ça"


def test_postgres_refuses_to_lose_what_was_committed(postgres: Postgres) -> None:
    with embedded.run(postgres):
        assert fetch(
            postgres, "SELECT string_agg(setting, ' ') FROM pg_settings WHERE name ~ '^(fsync|full_page_writes)'"
        ) == ("on on")


@as_root
def test_root_without_user_namespaces_runs_postgres_as_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_succeeds", lambda _command: False)
    with tempfile.TemporaryDirectory(prefix="open event ") as directory:
        Path(directory).chmod(0o755)
        postgres = Postgres(Path(directory))

        with embedded.run(postgres) as process:
            assert psutil.Process(process.pid).uids().real == machine.NOBODY
            assert fetch(postgres, "SELECT 1") == 1


def test_two_var_dirs_do_not_meet(postgres: Postgres, tmp_path: Path) -> None:
    one, other = Redis(postgres.directory.parent), Redis(tmp_path)

    with embedded.run(one), embedded.run(other):
        with redis.Redis.from_url(one.url) as client:
            client.set("mine", "1")
        with redis.Redis.from_url(other.url) as client:
            assert client.get("mine") is None


def test_redis_reports_full_memory_and_starts_again_after_kill_9(tmp_path: Path) -> None:
    server = Redis(tmp_path)
    with embedded.run(server) as process:
        process.kill()

    with embedded.run(server), redis.Redis.from_url(server.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_a_socket_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    server = Redis(tmp_path)
    server.sockets.mkdir()
    server.sockets.chmod(0o777)

    with pytest.raises(EmbeddedError, match="belongs to somebody else"), embedded.run(server):
        pass

    server.sockets.rmdir()


def test_a_machine_without_redis_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(EmbeddedError, match=r"^there is no .*: install redis-server or set REDIS_URL$"):
        Redis(tmp_path).program()


def test_servers_that_are_named_elsewhere_are_not_started(tmp_path: Path) -> None:
    named = {"VAR_DIR": tmp_path, "DATABASE_URL": "postgresql+psycopg://db/x", "REDIS_URL": "redis://redis"}

    with embedded.available(named) as variables:
        assert variables == {}
        assert not list(tmp_path.iterdir())


OWNER = """
import pathlib, sys, time
from app import embedded
settings = {"VAR_DIR": pathlib.Path(sys.argv[1]), "DATABASE_URL": sys.argv[2], "REDIS_URL": ""}
with embedded.available(settings):
    print("up", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def owner(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns the Redis of this VAR_DIR until it reads a line."""
    command = [sys.executable, "-c", OWNER, str(path), "postgresql+psycopg://elsewhere/x"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=ROOT, **pipes) as process:  # type: ignore[call-overload]  # two pipes by name
        assert process.stdout.readline() == "up\n"
        yield process


def test_a_second_command_uses_the_servers_of_the_first_which_waits_for_it(
    tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    settings = {"VAR_DIR": tmp_path, "DATABASE_URL": "postgresql+psycopg://elsewhere/x", "REDIS_URL": ""}
    with owner(tmp_path) as first:
        with embedded.available(settings) as variables:
            first.stdin.write("end\n")
            first.stdin.flush()
            wait_until(lambda: psutil.Process(first.pid).status() == psutil.STATUS_SLEEPING)
            with redis.Redis.from_url(variables["REDIS_URL"]) as client:
                assert client.ping()
            assert first.poll() is None

        assert first.wait(10) == 0
    assert var_dir.running(tmp_path) is None


def test_kill_9_of_the_owner_takes_its_servers_along(tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    with owner(tmp_path) as process:
        state = var_dir.running(tmp_path)
        assert state is not None
        assert var_dir.is_alive(state["redis"])

        process.kill()

    wait_until(lambda: not var_dir.is_alive(state["redis"]), 5)
    assert var_dir.running(tmp_path) is None
