"""One supervised program: its process, its output, its end."""

import asyncio
import os
import signal
import sys
from asyncio import subprocess
from collections.abc import Awaitable, Callable
from typing import Any

from app.processes.orphans import dying_with_parent, kill_group

Starter = Callable[[int], Awaitable[subprocess.Process]]
"""Starts the program once, with this descriptor for its output."""


class Child:
    """A program that may be started again and again."""

    def __init__(self, name: str, start: Starter, ends_by: signal.Signals) -> None:
        self.name = name
        self.restarts = -1
        self.process: subprocess.Process | None = None
        self._start = start
        self._ends_by = ends_by
        self._output: int | None = None

    @property
    def is_running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self.process is not None and self.process.returncode is None

    async def start(self) -> None:
        """Start it."""
        if self._output is None:
            # One pipe for all its lives: what a grandchild still holds open must not look like a running child.
            reading, self._output = os.pipe()
            loop = asyncio.get_running_loop()
            await loop.connect_read_pipe(lambda: _Lines(self.name), os.fdopen(reading, "rb", 0))
        self.process = await self._start(self._output)
        self.restarts += 1

    async def wait(self) -> int:
        """Its exit status, once it has ended; nothing is left of its process group then."""
        if self.process is None:
            return 0
        status = await self.process.wait()
        kill_group(self.process.pid)
        return status

    async def end(self, seconds: float) -> None:
        """Ask it to end, and end its whole group when it has not after this many seconds."""
        if self.process is None or not self.is_running:
            return
        self.process.send_signal(self._ends_by)
        try:
            await asyncio.wait_for(self.wait(), seconds)
        except TimeoutError:
            say(f"{self.name} did not end in time and is killed")
            kill_group(self.process.pid)
            await self.wait()


class _Lines(asyncio.Protocol):
    """Prints whole lines behind the name of the child, so that two children never share one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        """What the child wrote."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            _print(self.name, line)


async def spawn(command: list[str], output: int, dies_by: signal.Signals, **more: Any) -> subprocess.Process:
    """Start a program in a session of its own; it gets this signal when we end without a word."""
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=dying_with_parent(dies_by),
        **more,
    )


def say(text: str) -> None:
    """A line of the supervisor's own, between those of its children."""
    _print("run", text.encode())


def _print(name: str, line: bytes) -> None:
    write(f"{name:<8} | ".encode() + line)


def write(line: bytes) -> None:
    """Print a line; a reader that has gone away, like a closed terminal, must not end the servers."""
    try:
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
