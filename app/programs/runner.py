"""Running a program: its arguments in order, the last one the name of an empty file that it must overwrite."""

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
"""Seconds of its silence after which we look whether it must end."""
DRAIN_TIMEOUT_SECONDS = 0.5
"""Seconds for the rest of what a program has said, when it has ended and something holds its streams open."""
TERM_TIMEOUT_SECONDS = 5.0
"""Between SIGTERM and SIGKILL."""
FAST_TERM_TIMEOUT_SECONDS = 1.0
"""The same, when its worker stops or the job is no longer ours."""


class _TimeLimitExceeded(Exception):
    """The time limit is over."""


@dataclass(frozen=True)
class Program:
    """A program and what is said of it."""

    path: Path
    manifest: Manifest


def run_program(program: Program, running: JobContext) -> dict[str, Any]:
    """One attempt; `output` is published when the program has ended well and has written something."""
    until = monotonic() + program.manifest.time_limit.total_seconds()
    plan = _prepare_launch(program, running)
    listener = OutputReader(running, _list_secrets(running))
    with _start_process(plan) as child:
        try:
            _read_until_exit(child, listener, running, until)
        except _TimeLimitExceeded:
            _terminate_process(child, listener, running, TERM_TIMEOUT_SECONDS)
            raise JobFailed(TIMED_OUT, "It took longer than its kind may take.", stderr=listener.get_stderr()) from None
        except Canceled:
            _terminate_process(child, listener, running, TERM_TIMEOUT_SECONDS)
            raise
        except (Interrupted, LeaseLost):
            _terminate_process(child, listener, running, FAST_TERM_TIMEOUT_SECONDS)
            raise
    exit_status.require_success(child, program.path, running, listener.get_stderr())
    return exit_status.publish_output(running, program.manifest.media_type, listener.get_stderr())


def _prepare_launch(program: Program, running: JobContext) -> LaunchSpec:
    """What is run; its file lies empty when it begins."""
    parameters = running.parameters
    try:
        KINDS[running.job.kind].validate_parameters(parameters, "")
    except (ApiErrorGroup, KeyError):
        raise JobFailed("invalid-parameters", "The program takes other parameters now.") from None
    if not directory.is_within(program.path):
        raise JobFailed("missing-program", "There is no such program on this server.")
    output = running.work_dir / exit_status.OUTPUT_NAME
    output.touch(mode=0o600)
    user = _find_program_user()
    if user is not None:
        running.work_dir.parent.chmod(0o711)  # to be passed, not to be listed
        for path in (running.work_dir, output):
            os.chown(path, *user)
    said = program.manifest
    command = [str(program.path), *command_line.build_arguments(said, parameters), str(output)]
    return LaunchSpec(
        command, command_line.build_environment(said, parameters, running.work_dir), str(running.work_dir), user=user
    )


def _find_program_user() -> tuple[int, int] | None:
    """Return the numbers of PROGRAM_USER and of its group; None where programs run as the user of the worker."""
    name = current_app.config["PROGRAM_USER"]
    if not name:
        return None
    if os.geteuid() != 0:
        raise exit_status.make_start_error("PROGRAM_USER is set, but the worker is not root")
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise exit_status.make_start_error("PROGRAM_USER is no user of this machine") from None
    return found.pw_uid, found.pw_gid


def _start_process(plan: LaunchSpec) -> ProgramProcess:
    try:
        return ProgramProcess(plan)
    except OSError as error:
        raise exit_status.make_start_error(error.strerror or type(error).__name__) from None


def _list_secrets(running: JobContext) -> list[str]:
    """What was kept sealed, whatever the program's NAME.json says now."""
    return [str(value) for name, value in running.parameters.items() if name not in running.job.parameters]


def _read_until_exit(child: ProgramProcess, listener: OutputReader, running: JobContext, until: float) -> None:
    """Listen until the program has ended; raises when it must end."""
    while not child.is_over:
        if monotonic() >= until:
            raise _TimeLimitExceeded
        for stream, data in child.read_output(min(POLL_INTERVAL_SECONDS, max(until - monotonic(), 0))):
            listener.feed(stream, data)
        running.raise_if_ending()
        listener.report_progress()
    lingering = monotonic() + DRAIN_TIMEOUT_SECONDS
    while not child.is_at_eof and monotonic() < lingering:
        for stream, data in child.read_output(max(lingering - monotonic(), 0)):
            listener.feed(stream, data)
    listener.report_rest()


def _terminate_process(child: ProgramProcess, listener: OutputReader, running: JobContext, seconds: float) -> None:
    """SIGTERM, and so many seconds for what can end by itself; the end of the block kills what is left."""
    child.terminate()
    until = monotonic() + seconds
    while not child.is_over and monotonic() < until:
        for stream, data in child.read_output(POLL_INTERVAL_SECONDS):
            listener.feed_stderr(stream, data)
        if running.end_reason in (Interrupted, LeaseLost):
            until = min(until, monotonic() + FAST_TERM_TIMEOUT_SECONDS)
