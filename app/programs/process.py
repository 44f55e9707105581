"""A program at work: started apart from us, listened to, and ended with all that it has started."""

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
"""Seconds for the launcher to end what it has started."""

RESOURCE_LIMITS = {
    "RLIMIT_CORE": 0,
    "RLIMIT_FSIZE": 8 * 2**30,
    "RLIMIT_DATA": 8 * 2**30,
    "RLIMIT_NOFILE": 1024,
}
"""What each process of a program may have at most (getrlimit(2))."""

_LAUNCHER = (sys.executable, "-I", "-S", str(Path(__file__).with_name("launcher.py")))


@dataclass(frozen=True)
class LaunchSpec:
    """What is run, and how."""

    command: Sequence[str]
    environment: dict[str, str]
    directory: str
    limits: dict[str, int] = field(default_factory=RESOURCE_LIMITS.copy)
    user: tuple[int, int] | None = None
    """Numbers of the user and the group that the program runs as; None for those of the worker."""


class ProgramProcess:
    """One start of a program; nothing of it is left behind the block. OSError where the machine starts nothing more."""

    def __init__(self, plan: LaunchSpec) -> None:
        self.returncode: int | None = None
        """How it has ended, negative for a signal."""
        self.errno: int | None = None
        """Why it could not be started."""
        self._status_data = b""
        status, saying = os.pipe()
        try:
            self._launcher = subprocess.Popen(  # noqa: S603  # our own program; what it runs it is told later
                [*_LAUNCHER, str(saying)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env={},
                cwd="/",
                pass_fds=[saying],
                start_new_session=True,
            )
        except OSError:
            os.close(status)
            raise
        finally:
            os.close(saying)
        self._status = open(status, "rb", 0)  # noqa: SIM115  # closed with the others
        self._selector = selectors.DefaultSelector()
        for stream, name in self._list_streams():
            self._selector.register(stream, selectors.EVENT_READ, name)
        self._send_control(json.dumps(asdict(plan)).encode() + b"\n")

    def __enter__(self) -> "ProgramProcess":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        """SIGKILL for whatever is left of it."""
        self._launcher.stdin.close()  # type: ignore[union-attr]  # a pipe: we have asked for one
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
        """Whether it has ended, or was never started."""
        return self.returncode is not None or self.errno is not None

    @property
    def is_at_eof(self) -> bool:
        """Whether nothing more can come from it."""
        return not self._selector.get_map()

    def read_output(self, seconds: float) -> Iterator[tuple[str, bytes]]:
        """What it says next, and on which stream; nothing when it is silent for so long."""
        for key, _ in self._selector.select(seconds):
            data = os.read(key.fd, CHUNK_SIZE)
            if key.data == _STATUS:
                self._parse_status(data)
            elif data:
                yield key.data, data
            if not data:
                self._selector.unregister(key.fileobj)

    def terminate(self) -> None:
        """SIGTERM for its process group."""
        self._send_control(b".")

    def _parse_status(self, data: bytes) -> None:
        self._status_data += data
        if self._status_data.endswith(b"\n"):
            said = json.loads(self._status_data)
            self.returncode, self.errno = said.get("returncode"), said.get("errno")
        elif not data and not self.is_over:
            self.returncode = -signal.SIGKILL  # somebody has killed its launcher, and the kernel the program with it

    def _send_control(self, words: bytes) -> None:
        """What cannot be told to a launcher that is gone is learnt from its status."""
        view = memoryview(words)
        try:
            while view:
                view = view[os.write(self._launcher.stdin.fileno(), view) :]  # type: ignore[union-attr]  # as above
        except BrokenPipeError:
            return

    def _list_streams(self) -> tuple[tuple[IO[bytes], str], ...]:
        launcher = self._launcher
        return (launcher.stdout, STDOUT), (launcher.stderr, STDERR), (self._status, _STATUS)  # type: ignore[return-value]  # as above
