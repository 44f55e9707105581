"""PostgreSQL and Redis for a machine that has none: their binaries from packages, run for one VAR_DIR."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import psycopg
import redis

from app.processes import var_dir as ownership
from app.processes.database_connections import DEFAULT_MAX_CONNECTIONS, count_connections
from app.processes.embedded_binaries import find_postgres, find_redis
from app.processes.embedded_runtime import (
    NOBODY_UID,
    STOP_TIMEOUT_SECONDS,
    EmbeddedError,
    create_socket_directory,
    drop_root,
    get_socket_directory,
    kill_stale_servers,
    wait_until,
)
from app.processes.process_tree import kill_group, set_pdeathsig


class EmbeddedServer(Protocol):
    """A server program with its directory."""

    name: str
    setting: str
    url: str
    directory: Path
    sockets: Path
    stop_signal: signal.Signals
    kill_signal: signal.Signals

    @property
    def binaries(self) -> Path:
        """Path of what is run, looked for once; raises EmbeddedError when this machine has no usable version."""

    def prepare_directory(self) -> None:
        """Clear away what was left by an earlier one, and make its directory."""

    def build_command(self) -> tuple[list[str], dict[str, Any]]:
        """Its command line and further arguments of Popen."""

    def is_ready(self) -> bool:
        """Whether it serves."""


class Postgres:
    """PostgreSQL on a Unix socket that only its owner can reach."""

    name = "postgres"
    setting = "DATABASE_URL"
    stop_signal = signal.SIGINT  # fast shutdown
    kill_signal = signal.SIGQUIT  # immediate shutdown: takes its backends along, which SIGKILL does not

    def __init__(self, var_dir: Path, max_connections: int = DEFAULT_MAX_CONNECTIONS) -> None:
        self.max_connections = max(max_connections, DEFAULT_MAX_CONNECTIONS)
        self.directory = var_dir / "postgres"
        self.sockets = get_socket_directory(var_dir)
        self.url = f"postgresql://postgres@/postgres?host={quote(str(self.sockets), safe='')}"

    @cached_property
    def binaries(self) -> Path:
        """Directory of `postgres` and `initdb`."""
        return find_postgres(self.directory)

    def prepare_directory(self) -> None:
        """Make the data directory, whole or not at all."""
        kill_stale_servers(self.directory, "postgres")
        create_socket_directory(self.sockets)
        # Nobody is left who could own them, and PostgreSQL would believe any process that has the number by now.
        for lock in (self.directory / "postmaster.pid", self.sockets / ".s.PGSQL.5432.lock"):
            lock.unlink(missing_ok=True)
        if not self.directory.exists():
            self._initialise_database()
        os.chown(self.sockets, self.directory.stat().st_uid, -1)

    def _initialise_database(self) -> None:
        draft = self.directory.with_name("postgres.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        wrapper, identity = drop_root(draft)
        if identity:
            os.chown(draft, NOBODY_UID, NOBODY_UID)
        # The builtin C.UTF-8 locale: lower() must know more than ASCII, or unique names without regard to case are not.
        command = [*wrapper, str(self.binaries / "initdb"), "-D", str(draft), "-A", "trust", "-U", "postgres"]
        command += ["-E", "UTF8", "--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        done = subprocess.run(  # noqa: S603  # our own command line
            command, capture_output=True, text=True, check=False, preexec_fn=set_pdeathsig(), cwd=draft, **identity
        )
        if done.returncode:
            shutil.rmtree(draft, ignore_errors=True)
            raise EmbeddedError(f"cannot make the database: {_find_error_line(done.stderr)}; or set DATABASE_URL")
        draft.rename(self.directory)

    def build_command(self) -> tuple[list[str], dict[str, Any]]:
        """PostgreSQL refuses to run as root: as root it becomes somebody else first."""
        wrapper, identity = drop_root(self.directory)
        options = {
            "listen_addresses": "",
            "max_connections": str(self.max_connections),
            "unix_socket_directories": str(self.sockets),
            "unix_socket_permissions": "0700",
            "log_timezone": "UTC",
            "log_error_verbosity": "terse",  # its details hold what people wrote
            # Not the errors of statements: a name that is taken is a 409, and what is unexpected is logged by the app.
            "log_min_messages": "log",
        }
        command = [*wrapper, str(self.binaries / "postgres"), "-D", str(self.directory)]
        for option, value in options.items():
            command += ["-c", f"{option}={value}"]
        return command, {"cwd": self.directory, **identity}

    def is_ready(self) -> bool:
        """It may still be recovering from a crash."""
        try:
            with psycopg.connect(self.url, connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


class Redis:
    """Valkey or Redis on a Unix socket; it keeps nothing, because it is only the wake-up of the outbox."""

    name = "redis"
    setting = "REDIS_URL"
    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL

    def __init__(self, var_dir: Path) -> None:
        self.directory = var_dir / "redis"
        self.sockets = get_socket_directory(var_dir)
        self.socket = self.sockets / "redis.sock"
        self.url = f"unix://{quote(str(self.socket))}"

    @cached_property
    def binaries(self) -> Path:
        """Path of `valkey-server` or `redis-server`."""
        return find_redis()

    def prepare_directory(self) -> None:
        """Make its directory."""
        kill_stale_servers(self.directory, "valkey-server", "redis-server")
        create_socket_directory(self.sockets)
        self.socket.unlink(missing_ok=True)
        self.directory.mkdir(exist_ok=True)

    def build_command(self) -> tuple[list[str], dict[str, Any]]:
        """No port, no snapshots; full memory is an error, never a silent loss."""
        command = [str(self.binaries), "--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"]
        command += ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", "--loglevel", "warning"]
        return command, {"cwd": self.directory}

    def is_ready(self) -> bool:
        """Any other error than a missing server is worth raising."""
        try:
            with redis.Redis(unix_socket_path=str(self.socket), socket_timeout=2) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False


def select_servers(settings: Mapping[str, Any]) -> list[EmbeddedServer]:
    """The servers these settings name no other for."""
    servers: list[EmbeddedServer] = []
    if not settings["DATABASE_URL"]:
        servers.append(Postgres(settings["VAR_DIR"], count_connections(settings)))
    if not settings["REDIS_URL"]:
        servers.append(Redis(settings["VAR_DIR"]))
    return servers


def find_binaries(servers: Iterable[EmbeddedServer]) -> None:
    """Find the programs of all these servers, before any is started; raises EmbeddedError for the first without."""
    for server in servers:
        _ = server.binaries  # looked for once, and kept


@contextmanager
def provide_servers(settings: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The variables that name the servers of this VAR_DIR: those that run, else our own until the block ends."""
    servers = select_servers(settings)
    var_dir = settings["VAR_DIR"]
    with ExitStack() as stack:
        if servers:
            try:
                stack.enter_context(ownership.exclusive_lock(var_dir))
            except ownership.VarDirLocked:
                stack.enter_context(ownership.shared_lock(var_dir))
                for server in servers:
                    wait_until(server.is_ready, f"{server.name} in {var_dir} does not answer")
            else:
                stack.enter_context(_run_servers(servers, var_dir))
        yield get_server_urls(servers)


def get_server_urls(servers: list[EmbeddedServer]) -> dict[str, str]:
    """The variables that name these servers."""
    return {server.setting: server.url for server in servers}


@contextmanager
def _run_servers(servers: list[EmbeddedServer], var_dir: Path) -> Iterator[None]:
    find_binaries(servers)
    with ExitStack() as stack:
        state = {
            server.name: ownership.process_identity(stack.enter_context(run_server(server)).pid) for server in servers
        }
        ownership.write_state(var_dir, state)
        yield
        ownership.wait_for_shared_locks(var_dir)


@contextmanager
def run_server(server: EmbeddedServer) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server as our child, from when it answers until the block ends; its output goes to VAR_DIR/log."""
    server.prepare_directory()
    logs = server.directory.parent / "log"
    logs.mkdir(exist_ok=True)
    command, more = server.build_command()
    with (logs / f"{server.name}.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603  # our own command line
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=set_pdeathsig(server.kill_signal),
            **more,
        )

    def answers() -> bool:
        if process.poll() is not None:
            raise EmbeddedError(f"{server.name} has ended; {log.name} says why")
        return server.is_ready()

    with process:
        try:
            wait_until(answers, f"{server.name} does not answer; {log.name} may say why")
            yield process
        finally:
            process.send_signal(server.stop_signal)
            try:
                process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                kill_group(process.pid)
            remove_sockets(server)


def remove_sockets(server: EmbeddedServer) -> None:
    """Leave nothing in /tmp, unless another server still has its socket there."""
    with suppress(FileNotFoundError):
        if not any(server.sockets.iterdir()):
            server.sockets.rmdir()


def _find_error_line(text: str) -> str:
    """Return the first line that names an error, else the last one."""
    lines = text.strip().splitlines() or ["no message"]
    return next((line for line in lines if re.search(r"FATAL|PANIC|error: ", line)), lines[-1])
