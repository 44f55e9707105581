"""Embedded PostgreSQL and Redis: server programs from Python packages or the system, run for one VAR_DIR."""

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
    """Interface of an embedded server."""

    name: str
    setting: str
    url: str
    directory: Path
    sockets: Path
    stop_signal: signal.Signals
    kill_signal: signal.Signals

    @property
    def binaries(self) -> Path:
        """Return the path of the server program, or of its directory; raise EmbeddedError if none can be used."""

    def prepare_directory(self) -> None:
        """Stop an earlier instance, remove its lock files, and create the directory."""

    def build_command(self) -> tuple[list[str], dict[str, Any]]:
        """Return the command line, and keyword arguments for Popen."""

    def is_ready(self) -> bool:
        """Return whether the server accepts connections and executes commands."""


class Postgres:
    """PostgreSQL on a Unix socket that only its owner can access."""

    name = "postgres"
    setting = "DATABASE_URL"
    stop_signal = signal.SIGINT  # fast shutdown
    kill_signal = signal.SIGQUIT  # immediate shutdown: ends the backends too, unlike SIGKILL

    def __init__(self, var_dir: Path, max_connections: int = DEFAULT_MAX_CONNECTIONS) -> None:
        self.max_connections = max(max_connections, DEFAULT_MAX_CONNECTIONS)
        self.directory = var_dir / "postgres"
        self.sockets = get_socket_directory(var_dir)
        self.url = f"postgresql://postgres@/postgres?host={quote(str(self.sockets), safe='')}"

    @cached_property
    def binaries(self) -> Path:
        """Return the directory of `postgres` and `initdb`."""
        return find_postgres(self.directory)

    def prepare_directory(self) -> None:
        """Stop an earlier instance, and create the data directory atomically if it is missing."""
        kill_stale_servers(self.directory, "postgres")
        create_socket_directory(self.sockets)
        # Their owner has ended, and PostgreSQL would take any later process with its pid for the owner.
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
        # The builtin C.UTF-8 locale: unique indexes over lower() need it for letters outside ASCII.
        command = [*wrapper, str(self.binaries / "initdb"), "-D", str(draft), "-A", "trust", "-U", "postgres"]
        command += ["-E", "UTF8", "--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        done = subprocess.run(  # noqa: S603  # our own command line
            command, capture_output=True, text=True, check=False, preexec_fn=set_pdeathsig(), cwd=draft, **identity
        )
        if done.returncode:
            shutil.rmtree(draft, ignore_errors=True)
            raise EmbeddedError(
                f"cannot create the database: {_find_error_line(done.stderr)}; fix this, or set DATABASE_URL"
            )
        draft.rename(self.directory)

    def build_command(self) -> tuple[list[str], dict[str, Any]]:
        """Return the command line and arguments of Popen; as root with another user, since PostgreSQL refuses root."""
        wrapper, identity = drop_root(self.directory)
        options = {
            "listen_addresses": "",
            "max_connections": str(self.max_connections),
            "unix_socket_directories": str(self.sockets),
            "unix_socket_permissions": "0700",
            "log_timezone": "UTC",
            "log_error_verbosity": "terse",  # DETAIL contains user data
            # Not the errors of statements: a unique violation is a 409, and the app logs unexpected errors.
            "log_min_messages": "log",
        }
        command = [*wrapper, str(self.binaries / "postgres"), "-D", str(self.directory)]
        for option, value in options.items():
            command += ["-c", f"{option}={value}"]
        return command, {"cwd": self.directory, **identity}

    def is_ready(self) -> bool:
        """Return whether it executes statements: after a crash it first recovers."""
        try:
            with psycopg.connect(self.url, connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


class Redis:
    """Valkey or Redis on a Unix socket, without persistence: the outbox in PostgreSQL holds all work."""

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
        """Return the path of `valkey-server` or `redis-server`."""
        return find_redis()

    def prepare_directory(self) -> None:
        """Stop an earlier instance, remove its socket, and create the directory."""
        kill_stale_servers(self.directory, "valkey-server", "redis-server")
        create_socket_directory(self.sockets)
        self.socket.unlink(missing_ok=True)
        self.directory.mkdir(exist_ok=True)

    def build_command(self) -> tuple[list[str], dict[str, Any]]:
        """Return the command line: no TCP port, no snapshots, and an error instead of eviction if memory is full."""
        command = [str(self.binaries), "--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"]
        command += ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", "--loglevel", "warning"]
        return command, {"cwd": self.directory}

    def is_ready(self) -> bool:
        """Return whether it answers PING; raise errors other than connection errors."""
        try:
            with redis.Redis(unix_socket_path=str(self.socket), socket_timeout=2) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False


def select_servers(settings: Mapping[str, Any]) -> list[EmbeddedServer]:
    """Return the embedded servers to use: those for which the settings have no URL."""
    servers: list[EmbeddedServer] = []
    if not settings["DATABASE_URL"]:
        servers.append(Postgres(settings["VAR_DIR"], count_connections(settings)))
    if not settings["REDIS_URL"]:
        servers.append(Redis(settings["VAR_DIR"]))
    return servers


def find_binaries(servers: Iterable[EmbeddedServer]) -> None:
    """Find the programs of all servers before one is started; raise EmbeddedError if one is missing."""
    for server in servers:
        _ = server.binaries  # cached


@contextmanager
def provide_servers(settings: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the settings with the URLs of the embedded servers of this VAR_DIR.

    Use the running ones of another process, else start them and stop them when the block ends.
    """
    servers = select_servers(settings)
    var_dir = settings["VAR_DIR"]
    with ExitStack() as stack:
        if servers:
            try:
                stack.enter_context(ownership.hold_exclusive_lock(var_dir))
            except ownership.VarDirLocked:
                stack.enter_context(ownership.hold_shared_lock(var_dir))
                for server in servers:
                    wait_until(server.is_ready, f"{server.name} in {var_dir} does not answer")
            else:
                stack.enter_context(_run_servers(servers, var_dir))
        yield get_server_urls(servers)


def get_server_urls(servers: list[EmbeddedServer]) -> dict[str, str]:
    """Return the settings with the URLs of these servers."""
    return {server.setting: server.url for server in servers}


@contextmanager
def _run_servers(servers: list[EmbeddedServer], var_dir: Path) -> Iterator[None]:
    find_binaries(servers)
    with ExitStack() as stack:
        state = {
            server.name: ownership.get_process_identity(stack.enter_context(run_server(server)).pid)
            for server in servers
        }
        ownership.write_state(var_dir, state)
        yield
        ownership.wait_for_shared_locks(var_dir)


@contextmanager
def run_server(server: EmbeddedServer) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server as a child process until the block ends, with its output in VAR_DIR/log; enter it when ready."""
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
            raise EmbeddedError(f"{server.name} has ended; see {log.name}")
        return server.is_ready()

    with process:
        try:
            wait_until(answers, f"{server.name} does not answer; see {log.name}")
            yield process
        finally:
            process.send_signal(server.stop_signal)
            try:
                process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                kill_group(process.pid)
            remove_sockets(server)


def remove_sockets(server: EmbeddedServer) -> None:
    """Remove the socket directory in /tmp, unless another server still has its socket there."""
    with suppress(FileNotFoundError):
        if not any(server.sockets.iterdir()):
            server.sockets.rmdir()


def _find_error_line(text: str) -> str:
    """Return the first line with an error, else the last line."""
    lines = text.strip().splitlines() or ["no message"]
    return next((line for line in lines if re.search(r"FATAL|PANIC|error: ", line)), lines[-1])
