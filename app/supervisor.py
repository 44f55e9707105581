"""`manage.py run`: PostgreSQL, Redis, web, worker and relay under one parent that keeps them going."""

import asyncio
import os
import signal
import socket
import sys
import time
from asyncio import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from app import embedded
from app import var_dir as ownership
from app.orphans import dying_with_parent, kill_group

MANAGE = Path(__file__).resolve().parent.parent / "manage.py"
SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
STEADY_SECONDS = 10.0
"""A child that ran this long starts again without delay."""

WEB_FIRST_SECONDS = 2.0
KILL_SECONDS = 12.0
SERVER_SECONDS = 1.2
"""SIGTERM for web at 0 s, for relay and worker when it is gone, at 2 s at the latest; SIGKILL at 12 s; then the servers."""

PORT_PATIENCE = 2.0


class CannotRun(Exception):
    """The server cannot start; the message is one line that says why."""


class Output(asyncio.Protocol):
    """What a child says goes to our stdout, each line behind the child's name."""

    def __init__(self, name: str) -> None:
        self.prefix = f"{name:<8} | ".encode()
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        """Print whole lines, keep the rest."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        sys.stdout.buffer.write(b"".join(self.prefix + line + b"\n" for line in lines))
        sys.stdout.buffer.flush()


class Child:
    """One program that is started again whenever it ends."""

    def __init__(self, name: str, start: Callable[[int], Awaitable[subprocess.Process]], ends_by: signal.Signals) -> None:
        self.name = name
        self.ends_by = ends_by
        self._start = start
        self._output: int | None = None
        self.process: subprocess.Process | None = None
        self.restarts = 0

    async def start(self) -> None:
        """Start it once."""
        if self._output is None:
            # One pipe for all its lives: what a grandchild still holds open must not look like a running child.
            reading, self._output = os.pipe()
            loop = asyncio.get_running_loop()
            await loop.connect_read_pipe(lambda: Output(self.name), os.fdopen(reading, "rb", 0))
        self.process = await self._start(self._output)

    async def wait(self) -> int:
        """Its exit status; nothing of its process group is left then."""
        if self.process is None:
            return 0
        status = await self.process.wait()
        kill_group(self.process.pid)
        return status

    async def end(self, seconds: float) -> None:
        """Ask it to end, and after this many seconds end its group."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.send_signal(self.ends_by)
        try:
            await asyncio.wait_for(self.wait(), seconds)
        except TimeoutError:
            say(f"{self.name} did not end in time and is killed")
            kill_group(self.process.pid)
            await self.process.wait()


class Supervisor:
    """All children of one VAR_DIR, from the first start to the last SIGKILL."""

    def __init__(self, settings: dict[str, Any], environ: dict[str, str]) -> None:
        self.settings = settings
        self.servers = embedded.needed(settings)
        self.environ = {**environ, **embedded.urls(self.servers), "PYTHONUNBUFFERED": "1"}
        self.children: dict[str, Child] = {}
        self.keepers: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Start everything and keep it going until SIGTERM, SIGINT or SIGHUP."""
        told_to_stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
        starting = asyncio.create_task(self._start())
        stopping = asyncio.create_task(told_to_stop.wait())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await stopping
        finally:
            starting.cancel()
            stopping.cancel()
            await self._stop()

    async def _start(self) -> None:
        check_port(self.settings)
        for server in self.servers:
            await self._keep(Child(server.name, self._server_starter(server), server.ends_by))
        for server in self.servers:
            await self._until(server.answers, f"{server.name} does not answer")
        await self._prepare_database()
        for name in ("web", "worker", "relay"):
            await self._keep(Child(name, self._manage_starter(name), signal.SIGTERM))
        while not await asyncio.to_thread(is_healthy, self.settings):
            await asyncio.sleep(0.1)
        say(f"ready: {self.settings['PUBLIC_URL']}", prefix="")

    async def _keep(self, child: Child) -> None:
        await self._launch(child)
        self.children[child.name] = child
        self.keepers.append(asyncio.create_task(self._restart_for_ever(child)))

    async def _launch(self, child: Child) -> None:
        await child.start()
        self.children[child.name] = child
        self._write_state()

    async def _restart_for_ever(self, child: Child) -> None:
        pause = SHORTEST_PAUSE
        while True:
            started = time.monotonic()
            status = await child.wait()
            self._write_state()
            pause = SHORTEST_PAUSE if time.monotonic() - started > STEADY_SECONDS else pause
            say(f"{child.name} ended with status {status}, starting it again in {pause:.1f} s")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            child.restarts += 1
            try:
                await self._launch(child)
            except (OSError, embedded.EmbeddedError) as error:
                say(f"{child.name} cannot start: {error}")

    async def _prepare_database(self) -> None:
        child = Child("prepare", self._manage_starter("prepare"), signal.SIGTERM)
        await self._launch(child)
        if await child.wait():
            raise CannotRun("the database cannot be prepared")
        del self.children[child.name]

    async def _until(self, condition: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + embedded.START_SECONDS
        while not await asyncio.to_thread(condition):
            if time.monotonic() > deadline:
                raise CannotRun(complaint)
            await asyncio.sleep(0.02)

    async def _stop(self) -> None:
        for keeper in self.keepers:
            keeper.cancel()
        deadline = time.monotonic() + KILL_SECONDS
        children = dict(self.children)
        ending = [asyncio.create_task(children[name].end(KILL_SECONDS)) for name in ("web", "prepare") if name in children]
        if ending:
            await asyncio.wait(ending, timeout=WEB_FIRST_SECONDS)
        for name in ("relay", "worker"):
            if name in children:
                ending.append(asyncio.create_task(children[name].end(deadline - time.monotonic())))
        if ending:
            await asyncio.wait(ending)
        for name in ("redis", "postgres"):
            if name in children:
                await children[name].end(SERVER_SECONDS)

    def _write_state(self) -> None:
        state: dict[str, Any] = {"base_url": self.settings["PUBLIC_URL"]}
        for name, child in self.children.items():
            if child.process is not None and child.process.returncode is None:
                with suppress(ProcessLookupError):
                    state[name] = {**ownership.described(child.process.pid), "restarts": child.restarts}
        ownership.write(self.settings["VAR_DIR"], state)

    def _server_starter(self, server: embedded.Server) -> Callable[[int], Awaitable[subprocess.Process]]:
        async def start(output: int) -> subprocess.Process:
            server.prepare()
            command, more = server.program()
            return await spawn(command, output, server.dies_by, **more)

        return start

    def _manage_starter(self, name: str) -> Callable[[int], Awaitable[subprocess.Process]]:
        async def start(output: int) -> subprocess.Process:
            return await spawn([sys.executable, str(MANAGE), name], output, signal.SIGKILL, env=self.environ)

        return start


async def spawn(command: list[str], output: int, dies_by: signal.Signals, **more: Any) -> subprocess.Process:
    """Start a program in a session of its own; it ends with us, however we end."""
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=dying_with_parent(dies_by),
        **more,
    )


def run(settings: dict[str, Any], environ: dict[str, str]) -> None:
    """Own VAR_DIR and run everything in it until told to stop."""
    with ownership.owned(settings["VAR_DIR"]):
        asyncio.run(Supervisor(settings, environ).run())


def check_port(settings: dict[str, Any]) -> None:
    """Raise CannotRun when somebody listens on our port: granian would share it without a word."""
    deadline = time.monotonic() + PORT_PATIENCE
    while (reason := _taken(settings["HOST"], settings["PORT"])) is not None:
        if time.monotonic() > deadline:
            raise CannotRun(f"cannot listen on {settings['HOST']}:{settings['PORT']}: {reason}; set PORT to another one")
        time.sleep(0.1)


def _taken(host: str, port: int) -> str | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            # As servers do, so that connections of an earlier server that linger do not count.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
    except OSError as error:
        return error.strerror
    return None


def is_healthy(settings: dict[str, Any]) -> bool:
    """Whether /health-check says so."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where to ask, not where to listen
    connection = HTTPConnection(everywhere.get(settings["HOST"], settings["HOST"]), settings["PORT"], timeout=3)
    try:
        connection.request("GET", "/health-check")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def say(text: str, prefix: str = "run      | ") -> None:
    """One line of our own between the children's."""
    sys.stdout.write(f"{prefix}{text}\n")
    sys.stdout.flush()
