"""Outcome of a program that has ended: its output as an artifact, or the error of the job."""

import errno
import os
import signal
import stat
from pathlib import Path
from typing import Any, BinaryIO

from app.jobs.context import JobContext, JobFailed
from app.programs.process import ProgramProcess

OUTPUT_NAME = "output"
"""Name of the output file and of the artifact."""

INTERRUPT_TIMEOUT_SECONDS = 2.0
"""Seconds to wait for the interruption of the job if a signal ended the program: the worker may be stopping too."""

_SHUTDOWN_RETURNCODES = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
"""Return codes of a program that got the signal by which an init system stops all processes of a service."""


def require_success(process: ProgramProcess, path: Path, context: JobContext, stderr: str) -> None:
    """Raise JobFailed unless the program has ended with exit status 0."""
    if process.errno is not None:
        raise _classify_start_error(process.errno, path)
    returncode = process.returncode or 0
    if returncode in _SHUTDOWN_RETURNCODES:
        context.wait(INTERRUPT_TIMEOUT_SECONDS)
    if returncode < 0:
        name = _get_signal_name(-returncode)
        raise JobFailed(
            "signal", f"The program was killed by {name}.", returncode=returncode, signal=name, stderr=stderr
        )
    if returncode > 0:
        raise JobFailed(
            "exit-status", f"The program exited with status {returncode}.", returncode=returncode, stderr=stderr
        )


def publish_output(context: JobContext, media_type: str, stderr: str) -> dict[str, Any]:
    """Publish the output file of the program; raise JobFailed if it wrote none. Return the result of the job."""
    file = _open_output(context.work_dir / OUTPUT_NAME)
    if file is None:
        raise JobFailed("no-output", "The program exited with status 0 but wrote no output file.", stderr=stderr)
    with file:
        size = os.fstat(file.fileno()).st_size
        context.publish_file(OUTPUT_NAME, file, media_type)
    return {"artifact": OUTPUT_NAME, "size": size}


def _open_output(path: Path) -> BinaryIO | None:
    """Open a regular file that is not empty; return None for anything else, such as a link, a pipe or a directory."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    info = os.fstat(descriptor)
    if not stat.S_ISREG(info.st_mode) or not info.st_size:
        os.close(descriptor)
        return None
    return open(descriptor, "rb")


def _classify_start_error(number: int, path: Path) -> JobFailed:
    reason = os.strerror(number)
    if number == errno.ENOENT and not path.exists():
        return JobFailed("missing-program", "The program does not exist on this server.")
    if number == errno.ENOENT:
        return JobFailed("not-executable", "The program cannot be executed: its interpreter does not exist.")
    if number in (errno.EACCES, errno.ENOEXEC, errno.EPERM, errno.ELOOP):
        return JobFailed("not-executable", f"The program cannot be executed: {reason}.")
    if number == errno.E2BIG:
        return JobFailed("arguments-too-long", "The arguments exceed the limit of the operating system.")
    return make_start_error(reason)


def make_start_error(reason: str) -> JobFailed:
    """Return the error for a program that the operating system could not start."""
    return JobFailed("cannot-start", f"The program cannot be started: {reason}.")


def _get_signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the real-time signals
        return f"signal {number}"
