"""`python -m benchmarks.jobs [--quick]`: how soon a job is accepted and begun, how many are done, what progress costs.

Web, relay and worker are processes of their own; times of jobs are PostgreSQL's.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from http.client import HTTPConnection
from statistics import quantiles
from time import monotonic, perf_counter, process_time, sleep
from typing import Any

import orjson
import psycopg
from rich.console import Console
from rich.progress import track

from app.database import commit, transaction
from app.jobs import lifecycle, submission
from app.processes.orphans import dying_with_parent
from benchmarks.servers import ROOT, Site, site

ALL_CORES = os.sched_getaffinity(0)
WAITING = 4
SLOTS = 2
BARS = {"accepted": 20.0, "begun": 20.0}
"""Milliseconds: the 99th percentile of the first, the median of the second."""
PATIENCE = 120.0


class Client:
    """Somebody who submits jobs, on a new connection each time."""

    def __init__(self, port: int, headers: Mapping[str, str]) -> None:
        self.port = port
        self.headers = dict(headers)

    def send(self, method: str, path: str, document: Any = None) -> tuple[Any, float]:
        """The primary data of the answer, and the milliseconds it took."""
        answer, took = self.ask(method, path, document)
        return answer["data"], took

    def ask(self, method: str, path: str, document: Any = None) -> tuple[Any, float]:
        """The answer, and the milliseconds it took."""
        body = None if document is None else orjson.dumps(document)
        begun = perf_counter()
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, body, self.headers)
            response = connection.getresponse()
            answer = response.read()
        took = (perf_counter() - begun) * 1000
        if response.status >= 300:
            raise RuntimeError(answer.decode())
        return orjson.loads(answer), took

    def submit(self, seconds: float) -> tuple[str, float]:
        """The id of a new job that sleeps, and the milliseconds of its 202."""
        parameters = {"seconds": seconds, "steps": 1}
        document = {"data": {"type": "job", "attributes": {"kind": "sleep", "parameters": parameters}}}
        job, took = self.send("POST", "/v1/jobs", document)
        return job["id"], took


@contextmanager
def running(place: Site, *arguments: str) -> Iterator[None]:
    """`manage.py <arguments>` on all cores, ended with the block."""

    def prepare() -> None:
        os.sched_setaffinity(0, ALL_CORES)
        die_with_parent()

    die_with_parent = dying_with_parent()
    with (place.directory / f"{arguments[0]}.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603  # our own command line
            [sys.executable, str(ROOT / "manage.py"), *arguments],
            env={**os.environ, **place.environment, "MAX_RUNNING_JOBS_PER_OWNER": str(SLOTS)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=prepare,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def asked(place: Site, question: str, *values: Any) -> Any:
    """One value from the database."""
    with psycopg.connect(place.environment["DATABASE_URL"].replace("+psycopg", "")) as connection:
        ((value,),) = connection.execute(question, values).fetchall()
    return value


def wait_for(place: Site, question: str, value: Any) -> None:
    """Until the database says so."""
    deadline = monotonic() + PATIENCE
    while asked(place, question) != value:
        if monotonic() > deadline:
            raise RuntimeError(f"not within {PATIENCE:.0f} s: {question} = {value}")
        sleep(0.02)


LIVE = "SELECT count(*) FROM jobs WHERE finished_at IS NULL"
BEGUN = """
    SELECT array_agg(extract(epoch FROM started_at - created_at)::float * 1000)
    FROM (SELECT * FROM jobs ORDER BY id DESC LIMIT %s) last
"""
DONE = """
    SELECT extract(epoch FROM max(finished_at) - min(started_at))::float
    FROM (SELECT * FROM jobs ORDER BY id DESC LIMIT %s) last
"""
RUNNING = "SELECT count(*) FROM jobs WHERE state = 'running'"


def begun(place: Site, client: Client, count: int) -> list[float]:
    """Milliseconds from the row of a job to its first attempt, one job at a time."""
    client.submit(0)
    wait_for(place, LIVE, 0)
    for _ in track(range(count), "from submitting to start", transient=True):
        client.submit(0)
        wait_for(place, LIVE, 0)
    return list(asked(place, BEGUN, count))


def accepted(place: Site, client: Client, count: int) -> list[float]:
    """Milliseconds of the 202 beside WAITING jobs that wait and SLOTS that run."""
    jobs = [client.submit(3600)[0] for _ in range(WAITING + SLOTS)]
    wait_for(place, RUNNING, SLOTS)
    took = []
    for _ in track(range(count), "until the 202", transient=True):
        job_id, milliseconds = client.submit(3600)
        took.append(milliseconds)
        client.send("POST", f"/v1/jobs/{job_id}/cancel")
    for job_id in reversed(jobs):
        client.send("POST", f"/v1/jobs/{job_id}/cancel")
    wait_for(place, LIVE, 0)
    return took


def done(place: Site, count: int) -> float:
    """Jobs a second through a worker with SLOTS slots, from the first start to the last end."""
    with place.app.app_context(), transaction(is_read=False):
        for _ in range(count):
            submission.submit("sleep", {"seconds": 0, "steps": 1}, trigger="cli", owner_id=None)
        commit()
    wait_for(place, LIVE, 0)
    seconds = asked(place, DONE, count)
    return count / float(seconds)


def reported(place: Site, count: int) -> tuple[float, float]:
    """Milliseconds of one stored progress report: by the clock, and of our own processor time."""
    with place.app.app_context():
        with transaction(is_read=False):
            submitted = submission.submit("sleep", {"seconds": 0}, trigger="cli", owner_id=None).job
            job = lifecycle.claim(submitted.id, "benchmark", timedelta(minutes=5))
            commit()
        if job is None:
            raise RuntimeError("somebody else has begun the job")
        clock, processor = perf_counter(), process_time()
        for number in range(count):
            with transaction(is_read=False):
                lifecycle.report(job, number / count, "at work")
                commit()
        clock, processor = perf_counter() - clock, process_time() - processor
        with transaction(is_read=False):
            lifecycle.succeed(job, None)
            commit()
    return clock / count * 1000, processor / count * 1000


def said(milliseconds: list[float]) -> str:
    """The median and the tail."""
    cuts = quantiles(milliseconds, n=100)
    return f"p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs", description="Jobs, from the 202 to the end.")
    parser.add_argument("--quick", action="store_true", help="rougher")
    count = 100 if parser.parse_args().quick else 500
    console = Console()
    with ExitStack() as stack:
        place = stack.enter_context(site())
        console.print("a progress report: {:.2f} ms, {:.2f} ms of CPU".format(*reported(place, count)))
        web = stack.enter_context(place.web("ours"))
        stack.enter_context(running(place, "relay"))
        stack.enter_context(running(place, "worker"))
        client = Client(web.port, place.headers())
        console.print(f"from submitting to start, idle: {said(begun(place, client, count))} (bar: p50 {BARS['begun']})")
        took = said(accepted(place, client, count))
        console.print(f"202 beside {WAITING} waiting, {SLOTS} running: {took} (bar: p99 {BARS['accepted']})")
        console.print(f"through {SLOTS} slots: {done(place, count * 2):.0f} jobs/s")


if __name__ == "__main__":
    main()
