"""Jobs while processes are killed or frozen: none is lost, none succeeds twice."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from flask import Flask

import config
from app import embedded
from app.database import commit, open_transaction
from app.extensions import db
from app.factory import create_app
from app.jobs import lifecycle, submission
from app.jobs.models import Attempt, Job, JobEvent
from app.jobs.records import JobRow
from tests.jobs import kinds  # noqa: F401  # declares them
from tests.jobs.db_helpers import get_job, list_job_rows
from tests.worker_process import run_process

pytestmark = pytest.mark.faults

LEASE_SECONDS = 2


class JobStack:
    """A relay, and a worker with two slots and a short lease; tests may kill all of them."""

    def __init__(self, environment: dict[str, str], directory: Path, stack: ExitStack) -> None:
        self.redis = embedded.Redis(directory)
        stack.enter_context(embedded.run_server(self.redis))
        more = {
            "REDIS_URL": self.redis.url,
            "JOB_LEASE_SECONDS": str(LEASE_SECONDS),
            "WORKER_CONCURRENCY": "2",
            "VAR_DIR": str(directory),
        }
        self.environment = {**environment, **more}
        self.app = create_app(config.read_config(self.environment))
        self.log = directory / "output"
        self.stack = stack
        stack.callback(self.disconnect)
        stack.enter_context(run_process(self.environment, self.log, "relay", "2"))
        self.worker = stack.enter_context(run_process(self.environment, self.log, "worker"))

    def enqueue_job(self, kind: str, **parameters: Any) -> UUID:
        """Commit a job."""
        with self.app.app_context(), open_transaction(is_read=False):
            job = submission.submit_job(kind, parameters, trigger="cli", owner_id=None).job
            commit()
        return job.id

    def get_job(self, job_id: UUID) -> JobRow:
        """Return the current row of a job."""
        return get_job(self.app, job_id)

    def disconnect(self) -> None:
        """Close the database connections of this process."""
        with self.app.app_context():
            db.engine.dispose()

    def restart_worker(self) -> None:
        """Start the worker again, as a supervisor does."""
        if self.worker.poll() is not None:
            self.worker = self.stack.enter_context(run_process(self.environment, self.log, "worker"))

    def list_work_dirs(self) -> list[str]:
        """Return the names of the working directories of attempts."""
        path = Path(self.app.config["VAR_DIR"]) / "work"
        return os.listdir(path) if path.exists() else []


@pytest.fixture(scope="module")
def module_job_stack(
    app: Flask, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[JobStack]:
    """Start real processes with a Redis of their own."""
    with ExitStack() as stack:
        yield JobStack(environment, tmp_path_factory.mktemp("jobs"), stack)


@pytest.fixture
def job_stack(module_job_stack: JobStack) -> JobStack:
    """Return the stack with all processes running."""
    module_job_stack.restart_worker()
    return module_job_stack


@pytest.fixture
def attempts_dir(tmp_path: Path) -> Path:
    """Return the directory in which attempts write their signatures."""
    return tmp_path / "acts"


def read_signatures(attempts_dir: Path) -> list[list[str]]:
    """Return attempt, process and working directory of all attempts."""
    return [line.split() for line in attempts_dir.read_text().splitlines()] if attempts_dir.exists() else []


def has_ended(job_stack: JobStack, job_id: UUID) -> bool:
    """Return whether the job has ended."""
    return job_stack.get_job(job_id).finished_at is not None


def test_the_columns_of_a_row_are_those_of_the_model() -> None:
    assert list(JobRow._fields) == [column.name for column in Job.__table__.columns]


def test_a_job_is_run_and_leaves_no_directory(job_stack: JobStack, wait_until: Callable[..., Any]) -> None:
    job_id = job_stack.enqueue_job("sleep", seconds=0.1, steps=2)

    wait_until(lambda: has_ended(job_stack, job_id))

    job = job_stack.get_job(job_id)
    assert (job.state, job.progress, job.attempt, job.result) == ("succeeded", 1.0, 1, {"slept": 0.1})
    assert [event.seq for event in list_job_rows(job_stack.app, JobEvent, job_id)] == list(range(1, job.last_seq + 1))
    wait_until(lambda: job_stack.list_work_dirs() == [])


@pytest.mark.parametrize("victim", ["child", "worker"])
def test_job_whose_worker_is_killed_is_run_again(
    job_stack: JobStack, attempts_dir: Path, tmp_path: Path, wait_until: Callable[..., Any], victim: str
) -> None:
    job_id = job_stack.enqueue_job("tests-linger", file=str(attempts_dir), until=str(tmp_path / "go-on"))
    wait_until(lambda: read_signatures(attempts_dir))

    if victim == "child":
        os.kill(int(read_signatures(attempts_dir)[0][1]), signal.SIGKILL)
    else:
        job_stack.worker.kill()
        job_stack.worker.wait()
        started = run_process(job_stack.environment, job_stack.log, "worker")
        job_stack.worker = job_stack.stack.enter_context(started)
    (tmp_path / "go-on").touch()

    wait_until(lambda: has_ended(job_stack, job_id), 30)
    job = job_stack.get_job(job_id)
    assert (job.state, job.attempt) == ("succeeded", 2)
    outcomes = [attempt.outcome for attempt in list_job_rows(job_stack.app, Attempt, job_id)]
    assert outcomes == ["crashed", "succeeded"]


def test_worker_that_is_stopped_requeues_its_jobs(
    job_stack: JobStack, attempts_dir: Path, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    job_id = job_stack.enqueue_job("tests-linger", file=str(attempts_dir), until=str(tmp_path / "go-on"))
    wait_until(lambda: read_signatures(attempts_dir))

    job_stack.worker.terminate()
    job_stack.worker.wait(15)
    given_back = job_stack.get_job(job_id)
    job_stack.worker = job_stack.stack.enter_context(run_process(job_stack.environment, job_stack.log, "worker"))
    (tmp_path / "go-on").touch()
    wait_until(lambda: has_ended(job_stack, job_id), 30)

    assert (given_back.state, given_back.attempt, given_back.max_attempts) == ("queued", 1, 4)
    assert job_stack.get_job(job_id).state == "succeeded"
    outcomes = [attempt.outcome for attempt in list_job_rows(job_stack.app, Attempt, job_id)]
    assert outcomes == ["interrupted", "succeeded"]


def test_a_job_that_kills_its_worker_ends_after_three_attempts(
    job_stack: JobStack, attempts_dir: Path, wait_until: Callable[..., Any]
) -> None:
    job_id = job_stack.enqueue_job("tests-die", file=str(attempts_dir))

    wait_until(lambda: has_ended(job_stack, job_id), 45)

    job = job_stack.get_job(job_id)
    assert (job.state, job.attempt, (job.error or {})["code"]) == ("failed", 3, "crashed")
    assert [attempt for attempt, *_ in read_signatures(attempts_dir)] == ["1", "2", "3"]


def test_an_attempt_that_was_frozen_beyond_its_lease_changes_nothing(
    job_stack: JobStack, attempts_dir: Path, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    job_id = job_stack.enqueue_job("tests-linger", file=str(attempts_dir), until=str(tmp_path / "go-on"))
    wait_until(lambda: read_signatures(attempts_dir))
    frozen = psutil.Process(int(read_signatures(attempts_dir)[0][1]))

    frozen.suspend()
    try:
        wait_until(lambda: len(read_signatures(attempts_dir)) == 2, 30)
        (tmp_path / "go-on").touch()
        wait_until(lambda: has_ended(job_stack, job_id), 30)
    finally:
        frozen.resume()

    job = job_stack.get_job(job_id)
    assert (job.state, job.attempt, job.result) == ("succeeded", 2, {"by": int(read_signatures(attempts_dir)[1][1])})
    wait_until(lambda: b"attempt no longer owns its job" in job_stack.log.read_bytes())
    assert job_stack.get_job(job_id) == job


def test_a_running_job_is_canceled(
    job_stack: JobStack, attempts_dir: Path, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    job_id = job_stack.enqueue_job("tests-linger", file=str(attempts_dir), until=str(tmp_path / "never"))
    wait_until(lambda: read_signatures(attempts_dir))

    with job_stack.app.app_context(), open_transaction(is_read=False):
        asked = lifecycle.cancel_job(job_id)
        commit()

    assert asked is not None
    assert asked.state == "canceling"
    wait_until(lambda: has_ended(job_stack, job_id))
    assert job_stack.get_job(job_id).state == "canceled"
    assert not Path(read_signatures(attempts_dir)[0][2]).exists()


def test_a_job_that_hangs_is_ended_with_its_process(
    job_stack: JobStack, attempts_dir: Path, wait_until: Callable[..., Any]
) -> None:
    job_id = job_stack.enqueue_job("tests-hang", file=str(attempts_dir))

    wait_until(lambda: has_ended(job_stack, job_id), 20)

    job = job_stack.get_job(job_id)
    assert (job.state, (job.error or {})["code"], job.attempt) == ("failed", "timed-out", 1)
    wait_until(lambda: not psutil.pid_exists(int(read_signatures(attempts_dir)[0][1])))
    wait_until(lambda: job_stack.list_work_dirs() == [])
