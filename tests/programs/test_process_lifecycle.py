"""Programs in real workers that are canceled, killed or stopped: no process is left behind."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID

import psutil
import pytest
from flask import Flask

from app.database import commit, open_transaction
from app.jobs import lifecycle
from app.jobs.models import Attempt, JobEvent
from tests.jobs.db_helpers import list_job_rows
from tests.jobs.test_worker_crashes import JobStack, has_ended
from tests.programs.conftest import PYTHON, ProgramDirectory, find_marked_processes
from tests.worker_process import run_process

pytestmark = [pytest.mark.faults, pytest.mark.long]

Figure = Callable[[str], None]

STUBBORN_SCRIPT = """
sign() { echo $$ >> "$1"; }
trap '' TERM
sign "$1"
sh -c "trap '' TERM; sleep $2; true" &
setsid sh -c "trap '' TERM; sh -c 'sleep $2; true' & sleep $2; true" &
sleep "$2"; sleep "$2"
"""
"""Program that writes its process id to the file of its first argument, forks to four processes and ignores signals."""

STUBBORN_PROCESSES = 6


class ProgramStack(JobStack):
    """A job stack with a directory of programs."""

    programs: ProgramDirectory


@pytest.fixture(scope="module")
def module_program_stack(
    app: Flask, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProgramStack]:
    """Start real processes with a Redis of their own."""
    with ExitStack() as stack:
        directory = tmp_path_factory.mktemp("hall")
        programs = ProgramDirectory(directory / "programs")
        running = ProgramStack({**environment, "JOB_PROGRAMS_DIR": str(programs.directory)}, directory, stack)
        running.programs = programs
        yield running


@pytest.fixture
def program_stack(module_program_stack: ProgramStack) -> ProgramStack:
    """Return the stack with all processes running."""
    module_program_stack.restart_worker()
    return module_program_stack


@pytest.fixture
def mark() -> Iterator[str]:
    """Yield a unique number of seconds to sleep, by which processes of this test are found; check that none is left."""
    seconds = f"7{os.getpid()}.{os.urandom(3).hex().translate(str.maketrans('abcdef', '123456'))}"
    yield seconds
    assert find_marked_processes(seconds) == []


def start_stubborn_job(
    program_stack: ProgramStack, tmp_path: Path, mark: str, wait_until: Callable[..., Any], **members: Any
) -> UUID:
    """Start a job of a stubborn program and wait until it runs."""
    kind = program_stack.programs.add_program("stubborn", STUBBORN_SCRIPT, **members)
    job_id = program_stack.enqueue_job(kind, arguments=[str(tmp_path / "signed"), mark])
    wait_until(lambda: len(find_marked_processes(f"sleep {mark}")) >= STUBBORN_PROCESSES, 30)
    return job_id


def cancel_as_api(program_stack: ProgramStack, job_id: UUID) -> None:
    """Cancel a job as the API does."""
    with program_stack.app.app_context(), open_transaction(is_read=False):
        lifecycle.cancel_job(job_id)
        commit()


def get_pool_process(program_stack: ProgramStack, pid: int) -> psutil.Process:
    """Return the pool process that runs a program."""
    above = psutil.Process(pid).parents()
    return next(each for each in above if each.parent() and each.parent().pid in _list_nodes(program_stack))


def _list_nodes(program_stack: ProgramStack) -> set[int]:
    nodes = psutil.Process(program_stack.worker.pid)
    return {nodes.pid, *(each.pid for each in nodes.children() if each.children())}


def test_a_program_is_run_by_a_worker_and_leaves_nothing(
    program_stack: ProgramStack, wait_until: Callable[..., Any]
) -> None:
    kind = program_stack.programs.add_program("easy", 'sleep 0.1; printf "0.5\\thalf\\n"; printf abc > "$2"')

    job_id = program_stack.enqueue_job(kind, arguments=["a"])
    wait_until(lambda: has_ended(program_stack, job_id), 30)

    job = program_stack.get_job(job_id)
    assert (job.state, job.result) == ("succeeded", {"artifact": "output", "size": 3})
    wait_until(lambda: program_stack.list_work_dirs() == [])


def test_a_canceled_program_ends_although_it_ignores_sigterm(
    program_stack: ProgramStack, tmp_path: Path, mark: str, wait_until: Callable[..., Any], figure: Figure
) -> None:
    job_id = start_stubborn_job(program_stack, tmp_path, mark, wait_until)
    begun = monotonic()

    cancel_as_api(program_stack, job_id)

    wait_until(lambda: has_ended(program_stack, job_id), 20)
    assert program_stack.get_job(job_id).state == "canceled"
    assert find_marked_processes(mark) == []
    figure(f"program that ignores SIGTERM: 0 processes left {monotonic() - begun:.1f} s after the cancel")


def test_canceled_program_that_handles_sigterm_ends_soon(
    program_stack: ProgramStack, tmp_path: Path, wait_until: Callable[..., Any], figure: Figure
) -> None:
    kind = program_stack.programs.add_program("silent", 'touch "$1"; exec sleep 600')
    job_id = program_stack.enqueue_job(kind, arguments=[str(tmp_path / "begun")])
    wait_until((tmp_path / "begun").exists, 30)
    begun = monotonic()

    cancel_as_api(program_stack, job_id)

    wait_until(lambda: has_ended(program_stack, job_id), 10)
    took = monotonic() - begun
    assert program_stack.get_job(job_id).state == "canceled"
    assert took < 4.5
    figure(f"silent program: canceled after {took:.1f} s")


@pytest.mark.parametrize("victim", ["child", "worker", "launcher"])
def test_kill_9_leaves_no_process_of_a_program(
    program_stack: ProgramStack, tmp_path: Path, mark: str, wait_until: Callable[..., Any], figure: Figure, victim: str
) -> None:
    job_id = start_stubborn_job(program_stack, tmp_path, mark, wait_until)
    leader = int((tmp_path / "signed").read_text().split()[0])
    of_first = find_marked_processes(f"sleep {mark}")
    begun = monotonic()

    if victim == "child":
        get_pool_process(program_stack, leader).kill()
    elif victim == "launcher":
        psutil.Process(leader).parent().kill()  # type: ignore[union-attr]  # it has one
    else:
        os.killpg(program_stack.worker.pid, signal.SIGKILL)
        program_stack.worker.wait()

    wait_until(lambda: not {*of_first, leader} & set(psutil.pids()), 10)
    figure(f"kill -9 of the {victim}: {len(of_first)} processes gone after {monotonic() - begun:.2f} s")
    cancel_as_api(program_stack, job_id)
    program_stack.restart_worker()
    wait_until(lambda: has_ended(program_stack, job_id), 40)


def test_program_is_restarted_when_its_worker_stops(
    program_stack: ProgramStack, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    go_on = tmp_path / "go-on"
    kind = program_stack.programs.add_program(
        "patient", 'echo $$ >> "$1"; while [ ! -e "$2" ]; do sleep 0.1; done; echo done > "$3"'
    )
    job_id = program_stack.enqueue_job(kind, arguments=[str(tmp_path / "signed"), str(go_on)])
    wait_until((tmp_path / "signed").exists, 30)

    program_stack.worker.terminate()
    program_stack.worker.wait(15)
    given_back = program_stack.get_job(job_id)
    program_stack.worker = program_stack.stack.enter_context(
        run_process(program_stack.environment, program_stack.log, "worker")
    )
    go_on.touch()

    wait_until(lambda: has_ended(program_stack, job_id), 40)
    assert (given_back.state, program_stack.get_job(job_id).state) == ("queued", "succeeded")
    assert [each.outcome for each in list_job_rows(program_stack.app, Attempt, job_id)] == ["interrupted", "succeeded"]


def test_program_that_is_signaled_with_its_worker_is_requeued(
    program_stack: ProgramStack, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    kind = program_stack.programs.add_program(
        "obedient", 'echo $$ >> "$1"; [ -e "$2" ] || exec sleep 600; echo done > "$3"'
    )
    job_id = program_stack.enqueue_job(kind, arguments=[str(tmp_path / "signed"), str(tmp_path / "go-on")])
    wait_until((tmp_path / "signed").exists, 30)

    program_stack.worker.terminate()
    os.kill(
        int((tmp_path / "signed").read_text()), signal.SIGTERM
    )  # as an init system that stops all processes of a service
    program_stack.worker.wait(15)
    given_back = program_stack.get_job(job_id)
    (tmp_path / "go-on").touch()
    program_stack.worker = program_stack.stack.enter_context(
        run_process(program_stack.environment, program_stack.log, "worker")
    )

    wait_until(lambda: has_ended(program_stack, job_id), 40)
    assert (given_back.state, program_stack.get_job(job_id).state) == ("queued", "succeeded")


def test_program_that_floods_output_times_out(
    program_stack: ProgramStack, mark: str, wait_until: Callable[..., Any], figure: Figure
) -> None:
    kind = program_stack.programs.add_program("loud", f"trap '' TERM; : {mark}; yes & yes junk >&2", time_limit=2)
    begun = monotonic()

    job_id = program_stack.enqueue_job(kind, arguments=[mark])
    wait_until(lambda: has_ended(program_stack, job_id), 40)

    job = program_stack.get_job(job_id)
    assert (job.error or {})["code"] == "timed-out"
    assert (job.error or {})["stderr"].count("junk\n") > 10_000
    kept = len(list_job_rows(program_stack.app, JobEvent, job_id))
    figure(f"endless flood, time limit 2 s: over after {monotonic() - begun:.1f} s, {kept} events")
    assert kept < 60
    assert not [each for each in psutil.process_iter(["name"]) if each.info["name"] == "yes"]


def test_no_two_of_a_kind_run_at_once_over_two_workers(
    program_stack: ProgramStack, tmp_path: Path, wait_until: Callable[..., Any], figure: Figure
) -> None:
    alone = f"""{PYTHON}
import fcntl, os, sys, time
with open(sys.argv[1], "a") as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("not alone")
    time.sleep(0.3)
open(sys.argv[-1], "w").write("done")
"""
    kind = program_stack.programs.add_program("alone", alone, concurrency=1)
    lock = str(tmp_path / "lock")
    with run_process(program_stack.environment, tmp_path / "output", "worker"):
        jobs = [program_stack.enqueue_job(kind, arguments=[lock, str(number)]) for number in range(12)]
        begun = monotonic()
        wait_until(lambda: all(has_ended(program_stack, job_id) for job_id in jobs), 90)

    ended = [program_stack.get_job(job_id) for job_id in jobs]
    assert [job.error for job in ended] == [None] * len(jobs)
    figure(
        f"concurrency 1, 2 workers of 2 slots: 12 programs of 0.3 s in {monotonic() - begun:.1f} s, never two at once"
    )


def test_secrets_are_in_no_command_line_and_in_no_log(
    program_stack: ProgramStack, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    secret = f"s3cr3t-{os.getpid()}"
    kind = program_stack.programs.add_program(
        "secretive",
        'echo "$API_TOKEN" > "$1"; echo "$API_TOKEN" >&2; echo "$API_TOKEN"\n'
        'while [ ! -e "$1.on" ]; do sleep 0.1; done; exit 1',
        parameters={
            "type": "object",
            "properties": {"file": {"type": "string"}, "token": {"type": "string", "writeOnly": True}},
        },
        environment={"API_TOKEN": "token"},
    )
    job_id = program_stack.enqueue_job(kind, file=str(tmp_path / "seen"), token=secret)
    wait_until((tmp_path / "seen").exists, 30)

    in_command_lines = find_marked_processes(secret)
    (tmp_path / "seen.on").touch()
    wait_until(lambda: has_ended(program_stack, job_id), 30)

    assert (tmp_path / "seen").read_text() == f"{secret}\n"
    assert in_command_lines == []
    shown = [
        str(program_stack.get_job(job_id)),
        str(list_job_rows(program_stack.app, JobEvent, job_id)),
        program_stack.log.read_text(errors="replace"),
    ]
    assert not [where for where in shown if secret in where]
    assert (program_stack.get_job(job_id).error or {})["stderr"] == "[hidden]\n"
