"""What has become of a program that has ended: a file, or one code that says why there is none."""

import errno
import os
import signal
import stat
from pathlib import Path
from typing import Any, BinaryIO

from app.jobs.context import JobFailed, Running
from app.programs.child import Child

OUTPUT = "output"
"""The name of the file, and of the artifact."""

STOP_SECONDS = 2.0
"""For the news that the worker stops, which may come after the signal that ended the program."""

_BY_OTHERS = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
"""Whoever stops a whole service says so to each of its processes."""


def check(child: Child, path: Path, running: Running, stderr: str) -> None:
    """Raise JobFailed unless the program has ended well."""
    if child.errno is not None:
        raise _not_started(child.errno, path)
    returncode = child.returncode or 0
    if returncode in _BY_OTHERS:
        running.wait(STOP_SECONDS)
    if returncode < 0:
        name = _signal(-returncode)
        raise JobFailed(
            "signal", f"The program was ended by {name}.", returncode=returncode, signal=name, stderr=stderr
        )
    if returncode > 0:
        raise JobFailed(
            "exit-status", f"The program ended with status {returncode}.", returncode=returncode, stderr=stderr
        )


def publish(running: Running, media_type: str, stderr: str) -> dict[str, Any]:
    """Keep the file that the program has written; raises JobFailed where there is none."""
    file = _written(running.work_dir / OUTPUT)
    if file is None:
        raise JobFailed("no-output", "The program has ended well, but has written nothing.", stderr=stderr)
    with file:
        size = os.fstat(file.fileno()).st_size
        running.publish(OUTPUT, file, media_type)
    return {"artifact": OUTPUT, "size": size}


def _written(path: Path) -> BinaryIO | None:
    """The file, where it is one and not empty: no link, no pipe, no directory."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or not found.st_size:
        os.close(descriptor)
        return None
    return open(descriptor, "rb")


def _not_started(number: int, path: Path) -> JobFailed:
    reason = os.strerror(number)
    if number == errno.ENOENT and not path.exists():
        return JobFailed("missing-program", "There is no such program on this server.")
    if number == errno.ENOENT:
        return JobFailed("not-executable", "The program cannot be run: its interpreter is not there.")
    if number in (errno.EACCES, errno.ENOEXEC, errno.EPERM, errno.ELOOP):
        return JobFailed("not-executable", f"The program cannot be run: {reason}.")
    if number == errno.E2BIG:
        return JobFailed("arguments-too-long", "The arguments are more than a program may get.")
    return cannot_start(reason)


def cannot_start(reason: str) -> JobFailed:
    """What to raise where the machine could not start it."""
    return JobFailed("cannot-start", f"The program cannot be started: {reason}.")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the real-time signals
        return f"signal {number}"
