"""Running a program: its arguments in order, the last one the name of an empty file that it must overwrite."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from flask import current_app

from app.errors import Errors
from app.jobs.context import Canceled, Interrupted, JobFailed, LeaseLost, Running
from app.jobs.kinds import KINDS
from app.jobs.lifecycle import TIMED_OUT
from app.programs import calls, directory, outcome
from app.programs.child import Child, Plan
from app.programs.listening import Listener
from app.programs.manifest import Manifest

POLL = 0.1
"""Seconds of its silence after which we look whether it must end."""
LINGER = 0.5
"""Seconds for the rest of what a program has said, when it has ended and something holds its streams open."""
TERM_SECONDS = 5.0
"""Between SIGTERM and SIGKILL."""
QUICK_SECONDS = 1.0
"""The same, when its worker stops or the job is no longer ours."""


class _OutOfTime(Exception):
    """The time limit is over."""


@dataclass(frozen=True)
class Program:
    """A program and what is said of it."""

    path: Path
    manifest: Manifest


def run(program: Program, running: Running) -> dict[str, Any]:
    """One attempt; `output` is published when the program has ended well and has written something."""
    until = monotonic() + program.manifest.time_limit.total_seconds()
    plan = _plan(program, running)
    listener = Listener(running, _secrets(running))
    with _started(plan) as child:
        try:
            _follow(child, listener, running, until)
        except _OutOfTime:
            _end(child, listener, running, TERM_SECONDS)
            raise JobFailed(TIMED_OUT, "It took longer than its kind may take.", stderr=listener.stderr()) from None
        except Canceled:
            _end(child, listener, running, TERM_SECONDS)
            raise
        except (Interrupted, LeaseLost):
            _end(child, listener, running, QUICK_SECONDS)
            raise
    outcome.check(child, program.path, running, listener.stderr())
    return outcome.publish(running, program.manifest.media_type, listener.stderr())


def _plan(program: Program, running: Running) -> Plan:
    """What is run; its file lies empty when it begins."""
    parameters = running.parameters
    try:
        KINDS[running.job.kind].check(parameters, "")
    except (Errors, KeyError):
        raise JobFailed("invalid-parameters", "The program takes other parameters now.") from None
    if not directory.is_within(program.path):
        raise JobFailed("missing-program", "There is no such program on this server.")
    output = running.work_dir / outcome.OUTPUT
    output.touch(mode=0o600)
    user = _user()
    if user is not None:
        running.work_dir.parent.chmod(0o711)  # to be passed, not to be listed
        for path in (running.work_dir, output):
            os.chown(path, *user)
    said = program.manifest
    command = [str(program.path), *calls.arguments(said, parameters), str(output)]
    return Plan(command, calls.environment(said, parameters, running.work_dir), str(running.work_dir), user=user)


def _user() -> tuple[int, int] | None:
    """Return the numbers of PROGRAM_USER and of its group; None where programs run as the user of the worker."""
    name = current_app.config["PROGRAM_USER"]
    if not name:
        return None
    if os.geteuid() != 0:
        raise outcome.cannot_start("PROGRAM_USER is set, but the worker is not root")
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise outcome.cannot_start("PROGRAM_USER is no user of this machine") from None
    return found.pw_uid, found.pw_gid


def _started(plan: Plan) -> Child:
    try:
        return Child(plan)
    except OSError as error:
        raise outcome.cannot_start(error.strerror or type(error).__name__) from None


def _secrets(running: Running) -> list[str]:
    """What was kept sealed, whatever the program's NAME.json says now."""
    return [str(value) for name, value in running.parameters.items() if name not in running.job.parameters]


def _follow(child: Child, listener: Listener, running: Running, until: float) -> None:
    """Listen until the program has ended; raises when it must end."""
    while not child.is_over:
        if monotonic() >= until:
            raise _OutOfTime
        for stream, data in child.read(min(POLL, max(until - monotonic(), 0))):
            listener.hear(stream, data)
        running.check()
        listener.tell()
    lingering = monotonic() + LINGER
    while not child.is_silent and monotonic() < lingering:
        for stream, data in child.read(max(lingering - monotonic(), 0)):
            listener.hear(stream, data)
    listener.end()


def _end(child: Child, listener: Listener, running: Running, seconds: float) -> None:
    """SIGTERM, and so many seconds for what can end by itself; the end of the block kills what is left."""
    child.terminate()
    until = monotonic() + seconds
    while not child.is_over and monotonic() < until:
        for stream, data in child.read(POLL):
            listener.overhear(stream, data)
        if running.ends in (Interrupted, LeaseLost):
            until = min(until, monotonic() + QUICK_SECONDS)
