"""Job function of programs: starts the program, whose last argument is an empty file that it must overwrite."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from flask import current_app

from app.errors import ApiErrorGroup
from app.jobs.context import Canceled, Interrupted, JobContext, JobFailed, LeaseLost
from app.jobs.kinds import KINDS
from app.jobs.lifecycle import TIMED_OUT
from app.programs import command_line, directory, exit_status
from app.programs.manifest import Manifest
from app.programs.output_reader import OutputReader
from app.programs.process import LaunchSpec, ProgramProcess

POLL_INTERVAL_SECONDS = 0.1
"""Seconds without output after which the runner checks whether the program must end."""
DRAIN_TIMEOUT_SECONDS = 0.5
"""Seconds for the remaining output of a program that has ended, if another process holds its streams open."""
TERM_TIMEOUT_SECONDS = 5.0
"""Seconds between SIGTERM and SIGKILL."""
FAST_TERM_TIMEOUT_SECONDS = 1.0
"""The same if the worker is stopping or the attempt has lost its lease."""


class _TimeLimitExceeded(Exception):
    """The program has exceeded its time limit."""


@dataclass(frozen=True)
class Program:
    """A program and its manifest."""

    path: Path
    manifest: Manifest


def run_program(program: Program, context: JobContext) -> dict[str, Any]:
    """Run a program for one attempt and publish its output file; return the result of the job.

    Raise JobFailed if the program fails, exceeds its time limit or writes no output.
    """
    until = monotonic() + program.manifest.time_limit.total_seconds()
    spec = _prepare_launch(program, context)
    reader = OutputReader(context, _list_secrets(context))
    with _start_process(spec) as process:
        try:
            _read_until_exit(process, reader, context, until)
        except _TimeLimitExceeded:
            _terminate_process(process, reader, context, TERM_TIMEOUT_SECONDS)
            detail = "The program exceeded the time limit of its kind."
            raise JobFailed(TIMED_OUT, detail, stderr=reader.get_stderr()) from None
        except Canceled:
            _terminate_process(process, reader, context, TERM_TIMEOUT_SECONDS)
            raise
        except (Interrupted, LeaseLost):
            _terminate_process(process, reader, context, FAST_TERM_TIMEOUT_SECONDS)
            raise
    exit_status.require_success(process, program.path, context, reader.get_stderr())
    return exit_status.publish_output(context, program.manifest.media_type, reader.get_stderr())


def _prepare_launch(program: Program, context: JobContext) -> LaunchSpec:
    """Create the empty output file and return the launch spec; raise JobFailed if the program cannot be started."""
    parameters = context.parameters
    try:
        KINDS[context.job.kind].validate_parameters(parameters, "")
    except (ApiErrorGroup, KeyError):
        raise JobFailed("invalid-parameters", "The parameters of the program have changed.") from None
    if not directory.is_within(program.path):
        raise JobFailed("missing-program", "The program does not exist on this server.")
    output = context.work_dir / exit_status.OUTPUT_NAME
    output.touch(mode=0o600)
    user = _find_program_user()
    if user is not None:
        context.work_dir.parent.chmod(0o711)  # may be traversed but not listed
        for path in (context.work_dir, output):
            os.chown(path, *user)
    manifest = program.manifest
    command = [str(program.path), *command_line.build_arguments(manifest, parameters), str(output)]
    environment = command_line.build_environment(manifest, parameters, context.work_dir)
    return LaunchSpec(command, environment, str(context.work_dir), user=user)


def _find_program_user() -> tuple[int, int] | None:
    """Return the user id and group id of PROGRAM_USER; None if programs run as the user of the worker."""
    name = current_app.config["PROGRAM_USER"]
    if not name:
        return None
    if os.geteuid() != 0:
        raise exit_status.make_start_error("PROGRAM_USER is set, but the worker is not root")
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise exit_status.make_start_error("PROGRAM_USER does not exist on this machine") from None
    return user.pw_uid, user.pw_gid


def _start_process(spec: LaunchSpec) -> ProgramProcess:
    try:
        return ProgramProcess(spec)
    except OSError as error:
        raise exit_status.make_start_error(error.strerror or type(error).__name__) from None


def _list_secrets(context: JobContext) -> list[str]:
    """Return the values of the parameters that are stored encrypted, even if the current manifest differs."""
    return [str(value) for name, value in context.parameters.items() if name not in context.job.parameters]


def _read_until_exit(process: ProgramProcess, reader: OutputReader, context: JobContext, until: float) -> None:
    """Read output until the program ends; raise _TimeLimitExceeded or what `raise_if_ending` raises if it must end."""
    while not process.is_over:
        if monotonic() >= until:
            raise _TimeLimitExceeded
        for stream, data in process.read_output(min(POLL_INTERVAL_SECONDS, max(until - monotonic(), 0))):
            reader.feed(stream, data)
        context.raise_if_ending()
        reader.report_progress()
    drain_until = monotonic() + DRAIN_TIMEOUT_SECONDS
    while not process.is_at_eof and monotonic() < drain_until:
        for stream, data in process.read_output(max(drain_until - monotonic(), 0)):
            reader.feed(stream, data)
    reader.report_rest()


def _terminate_process(process: ProgramProcess, reader: OutputReader, context: JobContext, seconds: float) -> None:
    """Send SIGTERM and wait up to `seconds` for the program to end; `ProgramProcess` kills what is left."""
    process.terminate()
    until = monotonic() + seconds
    while not process.is_over and monotonic() < until:
        for stream, data in process.read_output(POLL_INTERVAL_SECONDS):
            reader.feed_stderr(stream, data)
        if context.end_reason in (Interrupted, LeaseLost):
            until = min(until, monotonic() + FAST_TERM_TIMEOUT_SECONDS)
