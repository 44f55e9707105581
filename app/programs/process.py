"""A running program: started by a launcher process, read through pipes, and killed with all its descendants."""

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

STDOUT, STDERR, _STATUS = "stdout", "stderr", "status"

CHUNK_SIZE = 2**16
LAUNCHER_TIMEOUT_SECONDS = 10.0
"""Seconds for the launcher to kill the program and its descendants."""

RESOURCE_LIMITS = {
    "RLIMIT_CORE": 0,
    "RLIMIT_FSIZE": 8 * 2**30,
    "RLIMIT_DATA": 8 * 2**30,
    "RLIMIT_NOFILE": 1024,
}
"""Resource limits of each process of a program (setrlimit(2))."""

_LAUNCHER = (sys.executable, "-I", "-S", str(Path(__file__).with_name("launcher.py")))


@dataclass(frozen=True)
class LaunchSpec:
    """Command, environment and limits of a program to start."""

    command: Sequence[str]
    environment: dict[str, str]
    directory: str
    limits: dict[str, int] = field(default_factory=RESOURCE_LIMITS.copy)
    user: tuple[int, int] | None = None
    """User id and group id of the program; None for those of the worker."""


class ProgramProcess:
    """One execution of a program, a context manager: at its end all processes of the program are killed.

    Raise OSError if the launcher cannot be started.
    """

    def __init__(self, spec: LaunchSpec) -> None:
        self.returncode: int | None = None
        """Exit status, negative for a signal; None before the end."""
        self.errno: int | None = None
        """Error number if the program could not be started."""
        self._status_data = b""
        status, status_writer = os.pipe()
        try:
            self._launcher = subprocess.Popen(  # noqa: S603  # our own launcher; it gets the command through a pipe
                [*_LAUNCHER, str(status_writer)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env={},
                cwd="/",
                pass_fds=[status_writer],
                start_new_session=True,
            )
        except OSError:
            os.close(status)
            raise
        finally:
            os.close(status_writer)
        self._status = open(status, "rb", 0)  # noqa: SIM115  # closed with the others
        self._selector = selectors.DefaultSelector()
        for stream, name in self._list_streams():
            self._selector.register(stream, selectors.EVENT_READ, name)
        self._send_control(json.dumps(asdict(spec)).encode() + b"\n")

    def __enter__(self) -> "ProgramProcess":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Kill all remaining processes of the program."""
        self._launcher.stdin.close()  # type: ignore[union-attr]  # a pipe, because of stdin=PIPE
        try:
            self._launcher.wait(LAUNCHER_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._launcher.kill()
            self._launcher.wait()
        self._selector.close()
        for stream, _name in self._list_streams():
            stream.close()

    @property
    def is_over(self) -> bool:
        """Return whether the program has ended or could not be started."""
        return self.returncode is not None or self.errno is not None

    @property
    def is_at_eof(self) -> bool:
        """Return whether all streams have reached their end."""
        return not self._selector.get_map()

    def read_output(self, seconds: float) -> Iterator[tuple[str, bytes]]:
        """Yield the name of a stream and data for each stream with output; nothing after `seconds` without output."""
        for key, _ in self._selector.select(seconds):
            data = os.read(key.fd, CHUNK_SIZE)
            if key.data == _STATUS:
                self._parse_status(data)
            elif data:
                yield key.data, data
            if not data:
                self._selector.unregister(key.fileobj)

    def terminate(self) -> None:
        """Send SIGTERM to the process group of the program."""
        self._send_control(b".")

    def _parse_status(self, data: bytes) -> None:
        self._status_data += data
        if self._status_data.endswith(b"\n"):
            status = json.loads(self._status_data)
            self.returncode, self.errno = status.get("returncode"), status.get("errno")
        elif not data and not self.is_over:
            self.returncode = -signal.SIGKILL  # the launcher was killed, and so the kernel has killed the program

    def _send_control(self, data: bytes) -> None:
        """Write to the launcher; ignore that it has ended, because its status reports that."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._launcher.stdin.fileno(), view) :]  # type: ignore[union-attr]  # as above
        except BrokenPipeError:
            return

    def _list_streams(self) -> tuple[tuple[IO[bytes], str], ...]:
        launcher = self._launcher
        return (launcher.stdout, STDOUT), (launcher.stderr, STDERR), (self._status, _STATUS)  # type: ignore[return-value]  # as above
