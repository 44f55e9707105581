"""What has become of a program that has ended: a file, or one code that says why there is none."""

import errno
import os
import signal
import stat
from pathlib import Path
from typing import Any, BinaryIO

from app.jobs.context import JobContext, JobFailed
from app.programs.process import ProgramProcess

OUTPUT_NAME = "output"
"""The name of the file, and of the artifact."""

INTERRUPT_TIMEOUT_SECONDS = 2.0
"""For the news that the worker stops, which may come after the signal that ended the program."""

_SHUTDOWN_RETURNCODES = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
"""Whoever stops a whole service says so to each of its processes."""


def require_success(child: ProgramProcess, path: Path, running: JobContext, stderr: str) -> None:
    """Raise JobFailed unless the program has ended well."""
    if child.errno is not None:
        raise _classify_start_error(child.errno, path)
    returncode = child.returncode or 0
    if returncode in _SHUTDOWN_RETURNCODES:
        running.wait(INTERRUPT_TIMEOUT_SECONDS)
    if returncode < 0:
        name = _get_signal_name(-returncode)
        raise JobFailed(
            "signal", f"The program was ended by {name}.", returncode=returncode, signal=name, stderr=stderr
        )
    if returncode > 0:
        raise JobFailed(
            "exit-status", f"The program ended with status {returncode}.", returncode=returncode, stderr=stderr
        )


def publish_output(running: JobContext, media_type: str, stderr: str) -> dict[str, Any]:
    """Keep the file that the program has written; raises JobFailed where there is none."""
    file = _open_output(running.work_dir / OUTPUT_NAME)
    if file is None:
        raise JobFailed("no-output", "The program has ended well, but has written nothing.", stderr=stderr)
    with file:
        size = os.fstat(file.fileno()).st_size
        running.publish_file(OUTPUT_NAME, file, media_type)
    return {"artifact": OUTPUT_NAME, "size": size}


def _open_output(path: Path) -> BinaryIO | None:
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


def _classify_start_error(number: int, path: Path) -> JobFailed:
    reason = os.strerror(number)
    if number == errno.ENOENT and not path.exists():
        return JobFailed("missing-program", "There is no such program on this server.")
    if number == errno.ENOENT:
        return JobFailed("not-executable", "The program cannot be run: its interpreter is not there.")
    if number in (errno.EACCES, errno.ENOEXEC, errno.EPERM, errno.ELOOP):
        return JobFailed("not-executable", f"The program cannot be run: {reason}.")
    if number == errno.E2BIG:
        return JobFailed("arguments-too-long", "The arguments are more than a program may get.")
    return make_start_error(reason)


def make_start_error(reason: str) -> JobFailed:
    """What to raise where the machine could not start it."""
    return JobFailed("cannot-start", f"The program cannot be started: {reason}.")


def _get_signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the real-time signals
        return f"signal {number}"
