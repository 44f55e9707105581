"""Guarantees of jobs while processes are killed or frozen; each test prints its figure.

`CHAOS_SECONDS=60` makes the long ones as long as that.
"""

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import psutil
import pytest

from app.database import commit, open_transaction
from app.jobs import lifecycle
from app.jobs.models import Attempt, Job
from tests.conftest import Processes
from tests.dataset import JSONAPI, Dataset
from tests.jobs.db_helpers import list_job_rows
from tests.jobs.test_streams import web
from tests.jobs.test_worker_crashes import (
    LEASE_SECONDS,
    JobStack,
    attempts_dir,
    has_ended,
    job_stack,
    module_job_stack,
    read_signatures,
)

pytestmark = pytest.mark.faults

__all__ = ["attempts_dir", "job_stack", "module_job_stack", "web"]  # fixtures

CHAOS_SECONDS = float(os.environ.get("CHAOS_SECONDS", "10"))
Figure = Callable[[str], None]


def test_p7_one_key_makes_one_job_however_many_submit_it(dataset: Dataset, web: str, figure: Figure) -> None:
    clients, keys = 16, 200
    document = {"data": {"type": "job", "attributes": {"kind": "sleep", "parameters": {"seconds": 0}}}}
    headers = {"Authorization": f"JWT {dataset.stranger.token}", "Content-Type": JSONAPI}

    def submit_all(_client: int) -> list[str]:
        with httpx.Client(base_url=web, headers=headers, timeout=60) as client:
            answers = [
                client.post("/v1/jobs", json=document, headers={"Idempotency-Key": f"key-{key}"}) for key in range(keys)
            ]
        assert {answer.status_code for answer in answers} == {202}
        return [answer.json()["data"]["id"] for answer in answers]

    with ThreadPoolExecutor(clients) as threads:
        answered = list(threads.map(submit_all, range(clients)))

    assert len({tuple(ids) for ids in answered}) == 1
    assert len(set(answered[0])) == keys == dataset.count_rows(Job)
    figure(f"P7: {clients} clients x {keys} keys: {dataset.count_rows(Job)} jobs")


def test_p8_every_job_ends_and_once_whatever_dies_or_freezes(
    job_stack: JobStack, wait_until: Callable[..., Any], figure: Figure
) -> None:
    chance = random.Random(4)  # noqa: S311  # not for secrets
    jobs = [job_stack.enqueue_job("tests-work", seconds=0.4) for _ in range(int(CHAOS_SECONDS * 2))]
    kills = freezes = 0
    wait_until(lambda: any(job_stack.get_job(job_id).attempt for job_id in jobs), 60, "the worker works")
    until = monotonic() + CHAOS_SECONDS
    while monotonic() < until:
        job_stack.restart_worker()
        children = wait_until(lambda: _children(job_stack), 30)
        victim = chance.choice(children)
        if chance.random() < 0.2:
            freezes += 1
            _freeze_past_lease(victim)
        else:
            kills += 1
            _terminate(victim)
        threading.Event().wait(2)

    job_stack.restart_worker()
    wait_until(lambda: all(has_ended(job_stack, job_id) for job_id in jobs), 90)

    ended = [job_stack.get_job(job_id) for job_id in jobs]
    for job in ended:
        outcomes = [attempt.outcome for attempt in list_job_rows(job_stack.app, Attempt, job.id)]
        assert len(outcomes) == job.attempt
        assert outcomes[-1] == ("succeeded" if job.state == "succeeded" else "crashed")
        assert outcomes.count("succeeded") <= 1
        if job.state == "succeeded":
            assert (job.result or {})["attempt"] == job.attempt
    states = Counter(job.state for job in ended)
    assert set(states) <= {"succeeded", "failed"}
    attempts = sum(job.attempt for job in ended)
    figure(f"P8: {kills} kills, {freezes} freezes, {len(jobs)} jobs, {attempts} attempts: {dict(states)}, none twice")


def _children(job_stack: JobStack) -> list[psutil.Process]:
    return [each for each in psutil.Process(job_stack.worker.pid).children() if each.status() != psutil.STATUS_STOPPED]


def _terminate(victim: psutil.Process) -> None:
    try:
        victim.kill()
    except psutil.NoSuchProcess:
        return


def _freeze_past_lease(victim: psutil.Process) -> None:
    """Freeze a process for longer than the lease."""

    def go_on() -> None:
        try:
            victim.resume()
        except psutil.NoSuchProcess:
            return

    try:
        victim.suspend()
    except psutil.NoSuchProcess:
        return
    timer = threading.Timer(LEASE_SECONDS * 2, go_on)
    timer.daemon = True
    timer.start()


def test_p10_cancel_leaves_no_process_behind(
    job_stack: JobStack, attempts_dir: Path, wait_until: Callable[..., Any], figure: Figure
) -> None:
    mark = f"8{os.getpid()}.25"
    job_id = job_stack.enqueue_job("tests-spawn", file=str(attempts_dir), seconds=mark)
    wait_until(lambda: read_signatures(attempts_dir))
    wait_until(lambda: len(_find_marked_processes(mark)) >= 6)
    started = len(_find_marked_processes(mark))
    begun = monotonic()

    with job_stack.app.app_context(), open_transaction(is_read=False):
        lifecycle.cancel_job(job_id)
        commit()

    wait_until(lambda: has_ended(job_stack, job_id), 10)
    assert job_stack.get_job(job_id).state == "canceled"
    assert _find_marked_processes(mark) == []
    figure(f"P10: {started} processes that ignore SIGTERM, 0 left {monotonic() - begun:.1f} s after the cancel")


def _find_marked_processes(mark: str) -> list[int]:
    """Return the ids of processes with this mark in their command line."""
    return [each.pid for each in psutil.process_iter(["cmdline"]) if mark in " ".join(each.info["cmdline"] or [])]


def test_p11_a_busy_worker_is_alive_and_a_dead_one_is_not(
    dataset: Dataset, web: str, processes: Processes, wait_until: Callable[..., Any], figure: Figure
) -> None:
    def workers_pass() -> bool:
        results = httpx.get(f"{web}/health-check", timeout=5).json()["results"]
        return bool(next(each["passed"] for each in results if each["checker"] == "health_check_celery"))

    processes.start("relay")
    worker = processes.start("worker", WORKER_CONCURRENCY="1")
    wait_until(workers_pass, 60, "workers are seen")
    job = {"data": {"type": "job", "attributes": {"kind": "sleep", "parameters": {"seconds": 600}}}}
    busy = dataset.stranger.send("POST", "/v1/jobs", job).get_json(force=True)["data"]["id"]
    wait_until(lambda: _get_state(dataset, busy) == "running", 30)
    asked = 0
    until = monotonic() + CHAOS_SECONDS
    while monotonic() < until:
        assert workers_pass()
        asked += 1
        threading.Event().wait(0.25)

    os.killpg(worker.pid, signal.SIGKILL)
    killed = monotonic()
    wait_until(lambda: not workers_pass(), 10, "the dead worker is seen")
    figure(f"P11: busy for {CHAOS_SECONDS:.0f} s, {asked} probes passed; dead, seen after {monotonic() - killed:.1f} s")


def _get_state(dataset: Dataset, job_id: str) -> str:
    return str(dataset.stranger.get(f"/v1/jobs/{job_id}").get_json(force=True)["data"]["attributes"]["state"])
