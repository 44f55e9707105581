"""Child process of the supervisor: start, output and end."""

import asyncio
import os
import signal
from asyncio import subprocess
from collections.abc import Awaitable, Callable
from typing import Any

from app.console import SERVER_LINE_PARSERS, Console
from app.processes.process_tree import kill_group, set_pdeathsig

ProcessStarter = Callable[[int], Awaitable[subprocess.Process]]
"""Function that starts the program with a file descriptor for its output."""

DRAIN_TIMEOUT_SECONDS = 1.0
"""Time to wait for the last lines of a child that has ended."""


class SupervisedProcess:
    """A program that can be started repeatedly."""

    def __init__(
        self,
        name: str,
        start: ProcessStarter,
        console: Console,
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
        kill_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.name = name
        self.console = console
        self.restarts = -1
        self.process: subprocess.Process | None = None
        self._start_process = start
        self._stop_signal = stop_signal
        self._kill_signal = kill_signal
        self._output: int | None = None
        self._lines = _OutputProtocol(name, console)

    @property
    def is_running(self) -> bool:
        """Return whether the process has started and not ended."""
        return self.process is not None and self.process.returncode is None

    async def start(self) -> None:
        """Start the program."""
        if self._output is None:
            # One pipe for all starts: a grandchild that keeps it open must not look like a running child.
            reading, self._output = os.pipe()
            loop = asyncio.get_running_loop()
            await loop.connect_read_pipe(lambda: self._lines, os.fdopen(reading, "rb", 0))
        self.process = await self._start_process(self._output)
        self.restarts += 1

    async def wait(self) -> int:
        """Wait for the end of the process, kill the rest of its group, and return the exit status."""
        if self.process is None:
            return 0
        status = await self.process.wait()
        kill_group(self.process.pid)
        return status

    async def stop_gracefully(self, seconds: float) -> None:
        """Send the stop signal, and kill the process group if it has not ended after this many seconds."""
        if self.process is None or not self.is_running:
            return
        self.process.send_signal(self._stop_signal)
        try:
            await asyncio.wait_for(self.wait(), seconds)
        except TimeoutError:
            self.console.log_event(self.name, "killed because it did not stop in time", "warning")
            kill_group(self.process.pid)
            await self.wait()

    def kill(self) -> None:
        """Kill the process group; PostgreSQL gets SIGQUIT, ends its backends, and recovers when it starts again."""
        if self.process is not None and self.is_running:
            if self._kill_signal == signal.SIGKILL:
                kill_group(self.process.pid)
            else:
                self.process.send_signal(self._kill_signal)

    async def drain_output(self) -> None:
        """Print the remaining output of the ended process; afterwards it cannot be started again."""
        if self._output is not None:
            os.close(self._output)
            self._output = None
            await asyncio.wait([self._lines.end_future], timeout=DRAIN_TIMEOUT_SECONDS)


class _OutputProtocol(asyncio.Protocol):
    """Printer of complete lines with the name of the child, so that output of two children is never mixed in a line."""

    def __init__(self, name: str, console: Console) -> None:
        self.name = name
        self.console = console
        self.rest = b""
        self.end_future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parse = SERVER_LINE_PARSERS.get(name)
        self._level = "warning"

    def data_received(self, data: bytes) -> None:
        """Print complete lines."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self._print_line(line)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Print the last, incomplete line."""
        self._print_line(self.rest)
        self.end_future.set_result(None)

    def _print_line(self, line: bytes) -> None:
        if self._parse is None:
            self.console.forward_line(self.name, line)
        elif line.strip():
            level, message = self._parse(line.decode(errors="replace"))
            self._level = level or self._level
            self.console.log_event(self.name, message, self._level)


async def spawn_process(
    command: list[str], output: int, kill_signal: signal.Signals, **more: Any
) -> subprocess.Process:
    """Start a program in its own session; the kernel sends it this signal when this process ends."""
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=set_pdeathsig(kill_signal),
        **more,
    )
