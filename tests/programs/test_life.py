"""Programs in real workers: canceled, killed, stopped, crowded; nothing of them is left behind."""

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

from app.database import commit, transaction
from app.jobs import lifecycle
from app.jobs.models import Attempt, JobEvent
from tests.background import process
from tests.jobs.test_life import Workshop, is_over
from tests.jobs.written import written
from tests.programs.conftest import PYTHON, Programs, marked

pytestmark = [pytest.mark.faults, pytest.mark.long]

Figure = Callable[[str], None]

STUBBORN = """
sign() { echo $$ >> "$1"; }
trap '' TERM
sign "$1"
sh -c "trap '' TERM; sleep $2; true" &
setsid sh -c "trap '' TERM; sh -c 'sleep $2; true' & sleep $2; true" &
sleep "$2"; sleep "$2"
"""
"""Signs the file of its first argument, and goes on, four processes of it, however it is asked."""

STUBBORN_PROCESSES = 6


class Hall(Workshop):
    """The same, with a directory of programs."""

    programs: Programs


@pytest.fixture(scope="module")
def hall_of_module(app: Flask, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hall]:
    """Real processes on a Redis of their own."""
    with ExitStack() as stack:
        directory = tmp_path_factory.mktemp("hall")
        programs = Programs(directory / "programs")
        made = Hall({**environment, "JOB_PROGRAMS_DIR": str(programs.directory)}, directory, stack)
        made.programs = programs
        yield made


@pytest.fixture
def hall(hall_of_module: Hall) -> Hall:
    """All of them running."""
    hall_of_module.revive()
    return hall_of_module


@pytest.fixture
def mark() -> Iterator[str]:
    """Seconds to sleep, known by which a process of this test is found; none is left after it."""
    made = f"7{os.getpid()}.{os.urandom(3).hex().translate(str.maketrans('abcdef', '123456'))}"
    yield made
    assert marked(made) == []


def stubborn(hall: Hall, tmp_path: Path, mark: str, wait_until: Callable[..., Any], **said: Any) -> UUID:
    """A job of a program that runs."""
    kind = hall.programs.add("stubborn", STUBBORN, **said)
    job_id = hall.submit(kind, arguments=[str(tmp_path / "signed"), mark])
    wait_until(lambda: len(marked(f"sleep {mark}")) >= STUBBORN_PROCESSES, 30)
    return job_id


def cancel(hall: Hall, job_id: UUID) -> None:
    """What the API does."""
    with hall.app.app_context(), transaction(is_read=False):
        lifecycle.cancel(job_id)
        commit()


def child_of(hall: Hall, pid: int) -> psutil.Process:
    """The process of the pool that a program belongs to."""
    above = psutil.Process(pid).parents()
    return next(each for each in above if each.parent() and each.parent().pid in _nodes(hall))


def _nodes(hall: Hall) -> set[int]:
    nodes = psutil.Process(hall.worker.pid)
    return {nodes.pid, *(each.pid for each in nodes.children() if each.children())}


def test_a_program_is_run_by_a_worker_and_leaves_nothing(hall: Hall, wait_until: Callable[..., Any]) -> None:
    kind = hall.programs.add("easy", 'sleep 0.1; printf "0.5\\thalf\\n"; printf abc > "$2"')

    job_id = hall.submit(kind, arguments=["a"])
    wait_until(lambda: is_over(hall, job_id), 30)

    job = hall.job(job_id)
    assert (job.state, job.result) == ("succeeded", {"artifact": "output", "size": 3})
    wait_until(lambda: hall.work_dirs() == [])


def test_a_canceled_program_ends_although_it_ignores_sigterm(
    hall: Hall, tmp_path: Path, mark: str, wait_until: Callable[..., Any], figure: Figure
) -> None:
    job_id = stubborn(hall, tmp_path, mark, wait_until)
    begun = monotonic()

    cancel(hall, job_id)

    wait_until(lambda: is_over(hall, job_id), 20)
    assert hall.job(job_id).state == "canceled"
    assert marked(mark) == []
    figure(f"program that ignores SIGTERM: 0 processes left {monotonic() - begun:.1f} s after the cancel")


def test_a_canceled_program_that_listens_ends_soon(
    hall: Hall, tmp_path: Path, wait_until: Callable[..., Any], figure: Figure
) -> None:
    kind = hall.programs.add("silent", 'touch "$1"; exec sleep 600')
    job_id = hall.submit(kind, arguments=[str(tmp_path / "begun")])
    wait_until((tmp_path / "begun").exists, 30)
    begun = monotonic()

    cancel(hall, job_id)

    wait_until(lambda: is_over(hall, job_id), 10)
    took = monotonic() - begun
    assert hall.job(job_id).state == "canceled"
    assert took < 4.5
    figure(f"silent program: canceled after {took:.1f} s")


@pytest.mark.parametrize("victim", ["child", "worker", "launcher"])
def test_kill_9_leaves_no_process_of_a_program(
    hall: Hall, tmp_path: Path, mark: str, wait_until: Callable[..., Any], figure: Figure, victim: str
) -> None:
    job_id = stubborn(hall, tmp_path, mark, wait_until)
    leader = int((tmp_path / "signed").read_text().split()[0])
    of_first = marked(f"sleep {mark}")
    begun = monotonic()

    if victim == "child":
        child_of(hall, leader).kill()
    elif victim == "launcher":
        psutil.Process(leader).parent().kill()  # type: ignore[union-attr]  # it has one
    else:
        os.killpg(hall.worker.pid, signal.SIGKILL)
        hall.worker.wait()

    wait_until(lambda: not {*of_first, leader} & set(psutil.pids()), 10)
    figure(f"kill -9 of the {victim}: {len(of_first)} processes gone after {monotonic() - begun:.2f} s")
    cancel(hall, job_id)
    hall.revive()
    wait_until(lambda: is_over(hall, job_id), 40)


def test_a_program_is_begun_again_when_its_worker_stops(
    hall: Hall, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    go_on = tmp_path / "go-on"
    kind = hall.programs.add("patient", 'echo $$ >> "$1"; while [ ! -e "$2" ]; do sleep 0.1; done; echo done > "$3"')
    job_id = hall.submit(kind, arguments=[str(tmp_path / "signed"), str(go_on)])
    wait_until((tmp_path / "signed").exists, 30)

    hall.worker.terminate()
    hall.worker.wait(15)
    given_back = hall.job(job_id)
    hall.worker = hall.stack.enter_context(process(hall.environment, hall.log, "worker"))
    go_on.touch()

    wait_until(lambda: is_over(hall, job_id), 40)
    assert (given_back.state, hall.job(job_id).state) == ("queued", "succeeded")
    assert [each.outcome for each in written(hall.app, Attempt, job_id)] == ["interrupted", "succeeded"]


def test_a_program_that_is_told_to_stop_with_its_worker_is_not_at_fault(
    hall: Hall, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    kind = hall.programs.add("obedient", 'echo $$ >> "$1"; [ -e "$2" ] || exec sleep 600; echo done > "$3"')
    job_id = hall.submit(kind, arguments=[str(tmp_path / "signed"), str(tmp_path / "go-on")])
    wait_until((tmp_path / "signed").exists, 30)

    hall.worker.terminate()
    os.kill(int((tmp_path / "signed").read_text()), signal.SIGTERM)  # as who stops a whole service does
    hall.worker.wait(15)
    given_back = hall.job(job_id)
    (tmp_path / "go-on").touch()
    hall.worker = hall.stack.enter_context(process(hall.environment, hall.log, "worker"))

    wait_until(lambda: is_over(hall, job_id), 40)
    assert (given_back.state, hall.job(job_id).state) == ("queued", "succeeded")


def test_a_program_that_floods_is_out_of_time(
    hall: Hall, mark: str, wait_until: Callable[..., Any], figure: Figure
) -> None:
    kind = hall.programs.add("loud", f"trap '' TERM; : {mark}; yes & yes junk >&2", time_limit=2)
    begun = monotonic()

    job_id = hall.submit(kind, arguments=[mark])
    wait_until(lambda: is_over(hall, job_id), 40)

    job = hall.job(job_id)
    assert (job.error or {})["code"] == "timed-out"
    assert (job.error or {})["stderr"].count("junk\n") > 10_000
    kept = len(written(hall.app, JobEvent, job_id))
    figure(f"endless flood, time limit 2 s: over after {monotonic() - begun:.1f} s, {kept} events")
    assert kept < 60
    assert not [each for each in psutil.process_iter(["name"]) if each.info["name"] == "yes"]


def test_no_two_of_a_kind_run_at_once_over_two_workers(
    hall: Hall, tmp_path: Path, wait_until: Callable[..., Any], figure: Figure
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
    kind = hall.programs.add("alone", alone, concurrency=1)
    lock = str(tmp_path / "lock")
    with process(hall.environment, tmp_path / "output", "worker"):
        jobs = [hall.submit(kind, arguments=[lock, str(number)]) for number in range(12)]
        begun = monotonic()
        wait_until(lambda: all(is_over(hall, job_id) for job_id in jobs), 90)

    ended = [hall.job(job_id) for job_id in jobs]
    assert [job.error for job in ended] == [None] * len(jobs)
    figure(
        f"concurrency 1, 2 workers of 2 slots: 12 programs of 0.3 s in {monotonic() - begun:.1f} s, never two at once"
    )


def test_secrets_are_in_no_command_line_and_in_no_log(
    hall: Hall, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    secret = f"s3cr3t-{os.getpid()}"
    kind = hall.programs.add(
        "secretive",
        'echo "$API_TOKEN" > "$1"; echo "$API_TOKEN" >&2; echo "$API_TOKEN"\n'
        'while [ ! -e "$1.on" ]; do sleep 0.1; done; exit 1',
        parameters={
            "type": "object",
            "properties": {"file": {"type": "string"}, "token": {"type": "string", "writeOnly": True}},
        },
        environment={"API_TOKEN": "token"},
    )
    job_id = hall.submit(kind, file=str(tmp_path / "seen"), token=secret)
    wait_until((tmp_path / "seen").exists, 30)

    in_command_lines = marked(secret)
    (tmp_path / "seen.on").touch()
    wait_until(lambda: is_over(hall, job_id), 30)

    assert (tmp_path / "seen").read_text() == f"{secret}\n"
    assert in_command_lines == []
    shown = [str(hall.job(job_id)), str(written(hall.app, JobEvent, job_id)), hall.log.read_text(errors="replace")]
    assert not [where for where in shown if secret in where]
    assert (hall.job(job_id).error or {})["stderr"] == "[hidden]\n"
