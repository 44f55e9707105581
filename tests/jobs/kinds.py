"""Kinds for tests in which processes are killed or frozen: each attempt writes its process id to a file."""

import os
import signal
import subprocess
from datetime import timedelta
from pathlib import Path
from time import sleep
from typing import Any

from app.jobs.context import JobContext, JobFailed
from app.jobs.kinds import job_kind

ANY_OBJECT_SCHEMA: dict[str, Any] = {"type": "object"}


@job_kind("tests-linger", parameters=ANY_OBJECT_SCHEMA)
def wait_for_release(running: JobContext) -> dict[str, Any]:
    """Report progress until a file exists; return the attempt and the process."""
    _sign_attempt(running)
    while not Path(running.parameters["until"]).exists():
        running.wait(0.02)
    return {"by": os.getpid()}


@job_kind("tests-die", parameters=ANY_OBJECT_SCHEMA)
def kill_worker(running: JobContext) -> None:
    """Kill the worker process in each attempt."""
    _sign_attempt(running)
    os.kill(os.getpid(), signal.SIGKILL)


@job_kind("tests-hang", parameters=ANY_OBJECT_SCHEMA, time_limit=timedelta(seconds=1))
def hang_forever(running: JobContext) -> None:
    """Sleep without a check for cancellation."""
    _sign_attempt(running)
    sleep(3600)


@job_kind("tests-fail", parameters=ANY_OBJECT_SCHEMA)
def fail_job(running: JobContext) -> None:
    """Raise JobFailed or an unexpected exception."""
    (running.work_dir / "leftover").touch()
    if running.parameters.get("breaks"):
        raise RuntimeError("not for everybody")
    raise JobFailed("no-output", "There is nothing to make.")


@job_kind("tests-make", parameters=ANY_OBJECT_SCHEMA)
def make_file(running: JobContext) -> None:
    """Publish a partial file, then its final version."""
    running.publish_file("made.json", b"[", "application/json", partial=True)
    running.publish_file("made.json", b"[]", "application/json")


@job_kind("tests-spawn", parameters=ANY_OBJECT_SCHEMA)
def spawn_processes(running: JobContext) -> None:
    """Start a tree of processes that ignore SIGTERM, some of them orphans, and wait until the job must end."""
    asleep = f"trap '' TERM; sleep {running.parameters['seconds']}; true"
    subprocess.Popen(["sh", "-c", asleep])
    subprocess.Popen(["sh", "-c", f'setsid sh -c "{asleep}" & {asleep}'], start_new_session=True)
    _sign_attempt(running)
    while True:
        running.wait(0.05)


@job_kind("tests-work", parameters=ANY_OBJECT_SCHEMA)
def work_for_a_while(running: JobContext) -> dict[str, Any]:
    """Work for a while; return the attempt and the process."""
    for _ in range(10):
        running.wait(running.parameters["seconds"] / 10)
    return {"by": os.getpid(), "attempt": running.job.attempt}


def _sign_attempt(running: JobContext) -> None:
    with Path(running.parameters["file"]).open("a") as file:
        file.write(f"{running.job.attempt} {os.getpid()} {running.work_dir}\n")
