"""Supervisor of `manage.py run`: starts PostgreSQL, Redis, web, worker and relay, and restarts them."""

import asyncio
import compileall
import re
import signal
import sys
import time
from asyncio import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import psutil
import psycopg

from app import embedded
from app.console import COLOR_VARIABLE, Console, is_colored
from app.processes import bind_address, demo_login, embedded_runtime
from app.processes import var_dir as ownership
from app.processes.supervised_process import ProcessStarter, SupervisedProcess, spawn_process

MANAGE_PATH = Path(__file__).resolve().parent.parent / "manage.py"
PROGRAM_NAMES = ("web", "worker", "relay")
STOP_ORDER = ("database", "web", "relay", "worker", "redis", "postgres")

MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.2, 5.0
RESET_BACKOFF_AFTER_SECONDS = 10.0
"""Run time after which a child restarts with the shortest backoff again."""

WEB_DRAIN_SECONDS = 2.0
KILL_TIMEOUT_SECONDS = 12.0
SERVER_STOP_TIMEOUT_SECONDS = 1.2
"""Shutdown: web at 0 s; relay and worker when it has ended, at 2 s at the latest; SIGKILL at 12 s; then each server."""

DUPLICATE_SIGNAL_SECONDS = 1.0


class StartupError(Exception):
    """The server cannot start; the message is one line with the reason."""


class Supervisor:
    """Owner of the child processes of one VAR_DIR."""

    def __init__(self, settings: dict[str, Any], environ: dict[str, str]) -> None:
        self.settings = settings
        self.servers = embedded.select_servers(settings)
        colored = is_colored(sys.stdout, environ)
        self.console = Console(settings["LOG_FORMAT"], settings["LOG_LEVEL"], colored=colored)
        self.environ = {
            **environ,
            **embedded.get_server_urls(self.servers),
            "PYTHONUNBUFFERED": "1",
            COLOR_VARIABLE: "1" if colored else "0",
        }
        self.children: dict[str, SupervisedProcess] = {}
        self.restart_tasks: list[asyncio.Task[None]] = []
        self.stop_event = asyncio.Event()
        self.stopping_since = 0.0

    async def run(self) -> None:
        """Start all children and restart them until SIGTERM, SIGINT or SIGHUP; then stop them."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._handle_signal, number)
        starting = asyncio.create_task(self._start_children())
        stopping = asyncio.create_task(self.stop_event.wait())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not stopping.done():
                starting.result()
                await stopping
        finally:
            starting.cancel()
            stopping.cancel()
            await self._stop_children()

    def _handle_signal(self, number: signal.Signals) -> None:
        """Begin to stop; at a second Ctrl-C kill all children."""
        now = time.monotonic()
        if not self.stop_event.is_set():
            self.stopping_since = now
            self.stop_event.set()
        # A terminal and a wrapper such as `npm run` may both deliver the same Ctrl-C: this is not a second one.
        elif number == signal.SIGINT and now - self.stopping_since > DUPLICATE_SIGNAL_SECONDS:
            self.console.log_event("run", "killing all processes", "warning")
            for child in self.children.values():
                child.kill()

    async def _start_children(self) -> None:
        for server in self.servers:
            starter = _make_server_starter(server)
            child = SupervisedProcess(
                server.name, starter, self.console, stop_signal=server.stop_signal, kill_signal=server.kill_signal
            )
            await self._keep_running(child)
        for server in self.servers:
            await _wait_for(server.is_ready, f"{server.name} does not answer")
            self.console.log_event(server.name, "ready")
        await self._prepare_database()
        for name in PROGRAM_NAMES:
            await self._keep_running(self._make_child(name, name))
        while not await asyncio.to_thread(bind_address.is_healthy, self.settings):
            await asyncio.sleep(0.1)
        self._print_ready()

    def _print_ready(self) -> None:
        """Print `ready: URL`, which scripts wait for, and the most important addresses and paths."""
        url, var_dir = self.settings["PUBLIC_URL"], self.settings["VAR_DIR"]
        mails = var_dir / "mail" if self.settings["MAIL_URL"] == "file" else "sent by SMTP"
        storage = self.settings["STORAGE_URL"]
        lines = {
            "Documentation": f"{url}/docs",
            "Jobs": f"{url}/jobs",
            "Health": f"{url}/health-check",
            "Mails": mails,
            "Files": url2pathname(urlsplit(storage).path) if storage.startswith("file:") else storage,
            "Demo login": demo_login.take_login(var_dir),
        }
        self.console.write_line(f"ready: {url}".encode())
        for name, value in lines.items():
            if value:
                self.console.write_line(f"  {name:<14} {value}".encode())
        self.console.write_line(b"  Ctrl-C stops everything.")

    async def _prepare_database(self) -> None:
        if await asyncio.to_thread(is_database_prepared, self._get_database_url()):
            return
        child = self._make_child("database", "prepare")
        await self._launch_child(child)
        status = await child.wait()
        await child.drain_output()
        if status:
            raise StartupError("the database migration failed, see the lines above")

    def _get_database_url(self) -> str:
        return (self.settings["DATABASE_URL"] or self.environ["DATABASE_URL"]).replace("+psycopg", "", 1)

    def _make_child(self, name: str, command: str) -> SupervisedProcess:
        async def start(output: int) -> subprocess.Process:
            return await spawn_process(
                [sys.executable, str(MANAGE_PATH), command], output, signal.SIGKILL, env=self.environ
            )

        return SupervisedProcess(name, start, self.console)

    async def _keep_running(self, child: SupervisedProcess) -> None:
        await self._launch_child(child)
        self.restart_tasks.append(asyncio.create_task(self._restart_forever(child)))

    async def _launch_child(self, child: SupervisedProcess) -> None:
        self.children[child.name] = child
        await child.start()
        self._write_state()

    async def _restart_forever(self, child: SupervisedProcess) -> None:
        backoff = MIN_BACKOFF_SECONDS
        while True:
            started = time.monotonic()
            status = await child.wait()
            self._write_state()
            if time.monotonic() - started > RESET_BACKOFF_AFTER_SECONDS:
                backoff = MIN_BACKOFF_SECONDS
            self.console.log_event(
                child.name, f"ended with status {status} and starts again in {backoff:.1f} s", "warning"
            )
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)
            try:
                await self._launch_child(child)
            except (OSError, embedded_runtime.EmbeddedError) as error:
                self.console.log_event(child.name, f"cannot start: {error}", "error")

    def _write_state(self) -> None:
        state: dict[str, Any] = {"base_url": self.settings["PUBLIC_URL"]}
        for name, child in self.children.items():
            if child.process is not None and child.is_running:
                with suppress(psutil.NoSuchProcess):  # it has just ended; its restart task will handle that
                    state[name] = {**ownership.get_process_identity(child.process.pid), "restarts": child.restarts}
        try:
            ownership.write_state(self.settings["VAR_DIR"], state)
        except OSError as error:  # a full disk must not prevent restarts
            self.console.log_event(
                "run", f"cannot write {self.settings['VAR_DIR']}/running.json: {error.strerror}", "error"
            )

    async def _stop_children(self) -> None:
        running = [name for name in STOP_ORDER if name in self.children and self.children[name].is_running]
        if running:
            self.console.log_event("run", f"stopping {', '.join(running)}; a second Ctrl-C kills them")
        started = time.monotonic()
        for task in self.restart_tasks:
            task.cancel()
        deadline = time.monotonic() + KILL_TIMEOUT_SECONDS
        ending = self._end_children("database", "web", seconds=KILL_TIMEOUT_SECONDS)
        await asyncio.wait(ending, timeout=WEB_DRAIN_SECONDS)
        ending += self._end_children("relay", "worker", seconds=deadline - time.monotonic())
        await asyncio.wait(ending)
        for name in ("redis", "postgres"):
            await asyncio.wait(self._end_children(name, seconds=SERVER_STOP_TIMEOUT_SECONDS))
        for server in self.servers:
            embedded.remove_sockets(server)
        for child in self.children.values():
            await child.drain_output()
        if running:
            self.console.log_event("run", f"stopped after {time.monotonic() - started:.1f} s")

    def _end_children(self, *names: str, seconds: float) -> list[asyncio.Task[None]]:
        idle = asyncio.create_task(asyncio.sleep(0))  # asyncio.wait rejects an empty list
        running = [self.children[name] for name in names if name in self.children]
        return [idle, *(asyncio.create_task(child.stop_gracefully(seconds)) for child in running)]


def run_supervisor(settings: dict[str, Any], environ: dict[str, str]) -> None:
    """Lock VAR_DIR and run all processes in it until a signal stops them."""
    var_dir = settings["VAR_DIR"]
    with ownership.hold_exclusive_lock(var_dir):
        bind_address.check_ports_free(settings)
        is_new = not settings["DATABASE_URL"] and not (var_dir / "postgres").exists()
        ownership.check_free_space(
            var_dir, ownership.MIN_FREE_BYTES_FOR_NEW_DATABASE if is_new else ownership.MIN_FREE_BYTES
        )
        supervisor = Supervisor(settings, environ)
        embedded.find_binaries(supervisor.servers)
        compile_modules()
        try:
            asyncio.run(supervisor.run())
        except (StartupError, embedded_runtime.EmbeddedError):
            ownership.check_free_space(var_dir, ownership.FULL_DISK_BYTES)
            raise


def compile_modules() -> None:
    """Compile our modules before several processes import them at the same time; they compile those that fail."""
    if not sys.dont_write_bytecode:
        compileall.compile_dir(MANAGE_PATH.parent / "app", quiet=2)


def is_database_prepared(database_url: str) -> bool:
    """Return whether the latest revision has been applied and there are users, so that `prepare` is not needed.

    The revisions are numbered (migrations/env.py); Alembic itself would take as long as starting the app.
    """
    newest = max(path.name.partition("_")[0] for path in (MANAGE_PATH.parent / "migrations" / "versions").glob("*.py"))
    with psycopg.connect(database_url, connect_timeout=5) as connection:
        if connection.execute("SELECT to_regclass('alembic_version')").fetchone() == (None,):
            return False
        applied = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        return applied == [(newest,)] and bool(connection.execute("SELECT FROM users LIMIT 1").fetchall())


def _make_server_starter(server: embedded.EmbeddedServer) -> ProcessStarter:
    async def start(output: int) -> subprocess.Process:
        server.prepare_directory()
        command, more = server.build_command()
        return await spawn_process(command, output, server.kill_signal, **more)

    return start


async def _wait_for(condition: Callable[[], bool], message: str) -> None:
    deadline = time.monotonic() + embedded_runtime.START_TIMEOUT_SECONDS
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            raise StartupError(message)
        await asyncio.sleep(0.02)


def collect_status(settings: dict[str, Any]) -> dict[str, Any]:
    """Return pid and start time of each process in VAR_DIR, None if it does not run, and the URLs without passwords."""
    state = ownership.read_owner_state(settings["VAR_DIR"]) or {}
    parts = {name: state.get(name) for name in (*PROGRAM_NAMES, "postgres", "redis")}
    urls = embedded.get_server_urls(
        [server for server in embedded.select_servers(settings) if ownership.is_alive(parts[server.name])]
    )
    return {
        **{name: process if ownership.is_alive(process) else None for name, process in parts.items()},
        "database_url": urls.get("DATABASE_URL") or _redact_password(settings["DATABASE_URL"]),
        "redis_url": urls.get("REDIS_URL") or _redact_password(settings["REDIS_URL"]),
        "base_url": state.get("base_url"),
    }


def _redact_password(url: str) -> str | None:
    hidden = re.sub(r"(://[^:/?@]*):[^@]*@", r"\1@", url)
    return re.sub(r"([?&]\w*password)=[^&]*", r"\1=", hidden) or None
