"""`python -m benchmarks.jobs [--quick]`: measure submission, start delay, throughput and progress reports of jobs.

Web, relay and worker are separate processes; the times of jobs are those of PostgreSQL.
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

from app.database import commit, open_transaction
from app.jobs import lifecycle, submission
from app.processes.process_tree import set_pdeathsig
from benchmarks.processes import ROOT, BenchmarkSite, run_site

ALL_CPUS = os.sched_getaffinity(0)
WAITING_JOB_COUNT = 4
WORKER_SLOT_COUNT = 2
MAX_MILLISECONDS = {"accepted": 20.0, "begun": 20.0}
"""Maximum milliseconds of `accepted` (99th percentile) and `begun` (median)."""
WAIT_TIMEOUT_SECONDS = 120.0


class BenchmarkClient:
    """Client that submits jobs, with a new connection for each request."""

    def __init__(self, port: int, headers: Mapping[str, str]) -> None:
        self.port = port
        self.headers = dict(headers)

    def request_data(self, method: str, path: str, document: Any = None) -> tuple[Any, float]:
        """Send a request; return the primary data of the response and the milliseconds it took."""
        answer, took = self.request_document(method, path, document)
        return answer["data"], took

    def request_document(self, method: str, path: str, document: Any = None) -> tuple[Any, float]:
        """Send a request; return the document of the response and the milliseconds it took."""
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

    def submit_job(self, seconds: float) -> tuple[str, float]:
        """Submit a job that sleeps; return its id and the milliseconds until the 202."""
        parameters = {"seconds": seconds, "steps": 1}
        document = {"data": {"type": "job", "attributes": {"kind": "sleep", "parameters": parameters}}}
        job, took = self.request_data("POST", "/v1/jobs", document)
        return job["id"], took


@contextmanager
def run_command(place: BenchmarkSite, *arguments: str) -> Iterator[None]:
    """Run `manage.py <arguments>` on all cores until the block ends."""

    def prepare() -> None:
        os.sched_setaffinity(0, ALL_CPUS)
        die_with_parent()

    die_with_parent = set_pdeathsig()
    with (place.directory / f"{arguments[0]}.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603  # our own command line
            [sys.executable, str(ROOT / "manage.py"), *arguments],
            env={**os.environ, **place.environment, "MAX_RUNNING_JOBS_PER_OWNER": str(WORKER_SLOT_COUNT)},
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


def query_value(place: BenchmarkSite, question: str, *values: Any) -> Any:
    """Return one value from the database."""
    with psycopg.connect(place.environment["DATABASE_URL"].replace("+psycopg", "")) as connection:
        ((value,),) = connection.execute(question, values).fetchall()
    return value


def wait_for_value(place: BenchmarkSite, question: str, value: Any) -> None:
    """Wait until the query returns this value; raise RuntimeError after WAIT_TIMEOUT_SECONDS."""
    deadline = monotonic() + WAIT_TIMEOUT_SECONDS
    while query_value(place, question) != value:
        if monotonic() > deadline:
            raise RuntimeError(f"not within {WAIT_TIMEOUT_SECONDS:.0f} s: {question} = {value}")
        sleep(0.02)


COUNT_UNFINISHED_JOBS = "SELECT count(*) FROM jobs WHERE finished_at IS NULL"
SELECT_START_DELAYS = """
    SELECT array_agg(extract(epoch FROM started_at - created_at)::float * 1000)
    FROM (SELECT * FROM jobs ORDER BY id DESC LIMIT %s) last
"""
SELECT_DURATION = """
    SELECT extract(epoch FROM max(finished_at) - min(started_at))::float
    FROM (SELECT * FROM jobs ORDER BY id DESC LIMIT %s) last
"""
COUNT_RUNNING_JOBS = "SELECT count(*) FROM jobs WHERE state = 'running'"


def measure_start_delays(place: BenchmarkSite, client: BenchmarkClient, count: int) -> list[float]:
    """Return the milliseconds from inserting each job to its first attempt, one job at a time."""
    client.submit_job(0)
    wait_for_value(place, COUNT_UNFINISHED_JOBS, 0)
    for _ in track(range(count), "from submitting to start", transient=True):
        client.submit_job(0)
        wait_for_value(place, COUNT_UNFINISHED_JOBS, 0)
    return list(query_value(place, SELECT_START_DELAYS, count))


def measure_submit_times(place: BenchmarkSite, client: BenchmarkClient, count: int) -> list[float]:
    """Return the milliseconds until each 202, with WAITING_JOB_COUNT waiting and WORKER_SLOT_COUNT running jobs."""
    jobs = [client.submit_job(3600)[0] for _ in range(WAITING_JOB_COUNT + WORKER_SLOT_COUNT)]
    wait_for_value(place, COUNT_RUNNING_JOBS, WORKER_SLOT_COUNT)
    took = []
    for _ in track(range(count), "until the 202", transient=True):
        job_id, milliseconds = client.submit_job(3600)
        took.append(milliseconds)
        client.request_data("POST", f"/v1/jobs/{job_id}/cancel")
    for job_id in reversed(jobs):
        client.request_data("POST", f"/v1/jobs/{job_id}/cancel")
    wait_for_value(place, COUNT_UNFINISHED_JOBS, 0)
    return took


def measure_throughput(place: BenchmarkSite, count: int) -> float:
    """Return jobs per second of a worker with WORKER_SLOT_COUNT slots, from the first start to the last end."""
    with place.app.app_context(), open_transaction(is_read=False):
        for _ in range(count):
            submission.submit_job("sleep", {"seconds": 0, "steps": 1}, trigger="cli", owner_id=None)
        commit()
    wait_for_value(place, COUNT_UNFINISHED_JOBS, 0)
    seconds = query_value(place, SELECT_DURATION, count)
    return count / float(seconds)


def measure_progress_report(place: BenchmarkSite, count: int) -> tuple[float, float]:
    """Return the milliseconds of a stored progress report: elapsed, and processor time of this process."""
    with place.app.app_context():
        with open_transaction(is_read=False):
            submitted = submission.submit_job("sleep", {"seconds": 0}, trigger="cli", owner_id=None).job
            job = lifecycle.claim_job(submitted.id, "benchmark", timedelta(minutes=5))
            commit()
        if job is None:
            raise RuntimeError("another worker has started the job")
        clock, processor = perf_counter(), process_time()
        for number in range(count):
            with open_transaction(is_read=False):
                lifecycle.record_progress(job, number / count, "at work")
                commit()
        clock, processor = perf_counter() - clock, process_time() - processor
        with open_transaction(is_read=False):
            lifecycle.finish_succeeded(job, None)
            commit()
    return clock / count * 1000, processor / count * 1000


def format_percentiles(milliseconds: list[float]) -> str:
    """Return the median and the 99th percentile as text."""
    cuts = quantiles(milliseconds, n=100)
    return f"p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms"


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs", description="Jobs, from the 202 to the end.")
    parser.add_argument("--quick", action="store_true", help="rougher")
    count = 100 if parser.parse_args().quick else 500
    console = Console()
    with ExitStack() as stack:
        place = stack.enter_context(run_site())
        console.print("a progress report: {:.2f} ms, {:.2f} ms of CPU".format(*measure_progress_report(place, count)))
        web = stack.enter_context(place.run_web("ours"))
        stack.enter_context(run_command(place, "relay"))
        stack.enter_context(run_command(place, "worker"))
        client = BenchmarkClient(web.port, place.build_headers())
        console.print(
            f"from submitting to start, idle: {format_percentiles(measure_start_delays(place, client, count))} "
            f"(bar: p50 {MAX_MILLISECONDS['begun']})"
        )
        took = format_percentiles(measure_submit_times(place, client, count))
        console.print(
            f"202 beside {WAITING_JOB_COUNT} waiting, {WORKER_SLOT_COUNT} running: {took} "
            f"(bar: p99 {MAX_MILLISECONDS['accepted']})"
        )
        console.print(f"through {WORKER_SLOT_COUNT} slots: {measure_throughput(place, count * 2):.0f} jobs/s")


if __name__ == "__main__":
    main()
