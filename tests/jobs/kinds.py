"""Kinds for tests, for the processes that are killed, frozen and starved: each writes down who ran it."""

import os
import signal
import subprocess
from datetime import timedelta
from pathlib import Path
from time import sleep
from typing import Any

from app.jobs.context import JobFailed, Running
from app.jobs.kinds import job_kind

ANYTHING: dict[str, Any] = {"type": "object"}


@job_kind("tests-linger", parameters=ANYTHING)
def linger(running: Running) -> dict[str, Any]:
    """Go on until a file is there, and say who ended it."""
    _sign(running)
    while not Path(running.parameters["until"]).exists():
        running.wait(0.02)
    return {"by": os.getpid()}


@job_kind("tests-die", parameters=ANYTHING)
def die(running: Running) -> None:
    """Kill the process of the worker, each time."""
    _sign(running)
    os.kill(os.getpid(), signal.SIGKILL)


@job_kind("tests-hang", parameters=ANYTHING, time_limit=timedelta(seconds=1))
def hang(running: Running) -> None:
    """Never look whether it should end."""
    _sign(running)
    sleep(3600)


@job_kind("tests-fail", parameters=ANYTHING)
def fail(running: Running) -> None:
    """Say why it cannot be done, or break."""
    (running.work_dir / "leftover").touch()
    if running.parameters.get("breaks"):
        raise RuntimeError("not for everybody")
    raise JobFailed("no-output", "There is nothing to make.")


@job_kind("tests-make", parameters=ANYTHING)
def make(running: Running) -> None:
    """Make a file twice, the second time for good."""
    running.publish("made.json", b"[", "application/json", partial=True)
    running.publish("made.json", b"[]", "application/json")


@job_kind("tests-spawn", parameters=ANYTHING)
def spawn(running: Running) -> None:
    """Start a tree of processes that ignore SIGTERM, some of them orphans, and stay until told to end."""
    asleep = f"trap '' TERM; sleep {running.parameters['seconds']}; true"
    subprocess.Popen(["sh", "-c", asleep])
    subprocess.Popen(["sh", "-c", f'setsid sh -c "{asleep}" & {asleep}'], start_new_session=True)
    _sign(running)
    while True:
        running.wait(0.05)


@job_kind("tests-work", parameters=ANYTHING)
def work(running: Running) -> dict[str, Any]:
    """Work for a while, and say who has done it."""
    for _ in range(10):
        running.wait(running.parameters["seconds"] / 10)
    return {"by": os.getpid(), "attempt": running.job.attempt}


def _sign(running: Running) -> None:
    with Path(running.parameters["file"]).open("a") as file:
        file.write(f"{running.job.attempt} {os.getpid()} {running.work_dir}\n")
