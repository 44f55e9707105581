"""The life of a job: nothing is lost, nothing is done twice, whoever dies or freezes on the way."""

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
from app.database import commit, transaction
from app.extensions import db
from app.factory import create_app
from app.jobs import lifecycle, submission
from app.jobs.models import Attempt, Job, JobEvent
from app.jobs.records import JobRow
from tests.background import process
from tests.jobs import kinds  # noqa: F401  # declares them
from tests.jobs.written import read, written

pytestmark = pytest.mark.faults

LEASE_SECONDS = 2


class Workshop:
    """A relay and a worker with two slots and a short lease; all of them may be killed."""

    def __init__(self, environment: dict[str, str], directory: Path, stack: ExitStack) -> None:
        self.redis = embedded.Redis(directory)
        stack.enter_context(embedded.run(self.redis))
        more = {
            "REDIS_URL": self.redis.url,
            "JOB_LEASE_SECONDS": str(LEASE_SECONDS),
            "WORKER_CONCURRENCY": "2",
            "VAR_DIR": str(directory),
        }
        self.environment = {**environment, **more}
        self.app = create_app(config.read(self.environment))
        self.log = directory / "output"
        self.stack = stack
        stack.callback(self.disconnect)
        stack.enter_context(process(self.environment, self.log, "relay", "2"))
        self.worker = stack.enter_context(process(self.environment, self.log, "worker"))

    def submit(self, kind: str, **parameters: Any) -> UUID:
        """Commit a job."""
        with self.app.app_context(), transaction(is_read=False):
            job = submission.submit(kind, parameters, trigger="cli", owner_id=None).job
            commit()
        return job.id

    def job(self, job_id: UUID) -> JobRow:
        """The job as it is now."""
        return read(self.app, job_id)

    def disconnect(self) -> None:
        """Close what this process has opened."""
        with self.app.app_context():
            db.engine.dispose()

    def revive(self) -> None:
        """What a supervisor does when the worker has ended."""
        if self.worker.poll() is not None:
            self.worker = self.stack.enter_context(process(self.environment, self.log, "worker"))

    def work_dirs(self) -> list[str]:
        """What attempts have left behind."""
        path = Path(self.app.config["VAR_DIR"]) / "work"
        return os.listdir(path) if path.exists() else []


@pytest.fixture(scope="module")
def workshop_of_module(
    app: Flask, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workshop]:
    """Real processes on a Redis of their own."""
    with ExitStack() as stack:
        yield Workshop(environment, tmp_path_factory.mktemp("jobs"), stack)


@pytest.fixture
def workshop(workshop_of_module: Workshop) -> Workshop:
    """All of them running."""
    workshop_of_module.revive()
    return workshop_of_module


@pytest.fixture
def acts(tmp_path: Path) -> Path:
    """Where attempts sign."""
    return tmp_path / "acts"


def signed(acts: Path) -> list[list[str]]:
    """Attempt, process and work dir of all that began."""
    return [line.split() for line in acts.read_text().splitlines()] if acts.exists() else []


def is_over(workshop: Workshop, job_id: UUID) -> bool:
    """Whether the job has ended."""
    return workshop.job(job_id).finished_at is not None


def test_the_columns_of_a_row_are_those_of_the_model() -> None:
    assert list(JobRow._fields) == [column.name for column in Job.__table__.columns]


def test_a_job_is_run_and_leaves_no_directory(workshop: Workshop, wait_until: Callable[..., Any]) -> None:
    job_id = workshop.submit("sleep", seconds=0.1, steps=2)

    wait_until(lambda: is_over(workshop, job_id))

    job = workshop.job(job_id)
    assert (job.state, job.progress, job.attempt, job.result) == ("succeeded", 1.0, 1, {"slept": 0.1})
    assert [event.seq for event in written(workshop.app, JobEvent, job_id)] == list(range(1, job.last_seq + 1))
    wait_until(lambda: workshop.work_dirs() == [])


@pytest.mark.parametrize("victim", ["child", "worker"])
def test_a_job_whose_worker_is_killed_is_begun_again(
    workshop: Workshop, acts: Path, tmp_path: Path, wait_until: Callable[..., Any], victim: str
) -> None:
    job_id = workshop.submit("tests-linger", file=str(acts), until=str(tmp_path / "go-on"))
    wait_until(lambda: signed(acts))

    if victim == "child":
        os.kill(int(signed(acts)[0][1]), signal.SIGKILL)
    else:
        workshop.worker.kill()
        workshop.worker.wait()
        started = process(workshop.environment, workshop.log, "worker")
        workshop.worker = workshop.stack.enter_context(started)
    (tmp_path / "go-on").touch()

    wait_until(lambda: is_over(workshop, job_id), 30)
    job = workshop.job(job_id)
    assert (job.state, job.attempt) == ("succeeded", 2)
    outcomes = [attempt.outcome for attempt in written(workshop.app, Attempt, job_id)]
    assert outcomes == ["crashed", "succeeded"]


def test_a_worker_that_is_told_to_stop_gives_its_jobs_back(
    workshop: Workshop, acts: Path, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    job_id = workshop.submit("tests-linger", file=str(acts), until=str(tmp_path / "go-on"))
    wait_until(lambda: signed(acts))

    workshop.worker.terminate()
    workshop.worker.wait(15)
    given_back = workshop.job(job_id)
    workshop.worker = workshop.stack.enter_context(process(workshop.environment, workshop.log, "worker"))
    (tmp_path / "go-on").touch()
    wait_until(lambda: is_over(workshop, job_id), 30)

    assert (given_back.state, given_back.attempt, given_back.max_attempts) == ("queued", 1, 4)
    assert workshop.job(job_id).state == "succeeded"
    outcomes = [attempt.outcome for attempt in written(workshop.app, Attempt, job_id)]
    assert outcomes == ["interrupted", "succeeded"]


def test_a_job_that_kills_its_worker_ends_after_three_attempts(
    workshop: Workshop, acts: Path, wait_until: Callable[..., Any]
) -> None:
    job_id = workshop.submit("tests-die", file=str(acts))

    wait_until(lambda: is_over(workshop, job_id), 45)

    job = workshop.job(job_id)
    assert (job.state, job.attempt, (job.error or {})["code"]) == ("failed", 3, "crashed")
    assert [attempt for attempt, *_ in signed(acts)] == ["1", "2", "3"]


def test_an_attempt_that_was_frozen_beyond_its_lease_changes_nothing(
    workshop: Workshop, acts: Path, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    job_id = workshop.submit("tests-linger", file=str(acts), until=str(tmp_path / "go-on"))
    wait_until(lambda: signed(acts))
    frozen = psutil.Process(int(signed(acts)[0][1]))

    frozen.suspend()
    try:
        wait_until(lambda: len(signed(acts)) == 2, 30)
        (tmp_path / "go-on").touch()
        wait_until(lambda: is_over(workshop, job_id), 30)
    finally:
        frozen.resume()

    job = workshop.job(job_id)
    assert (job.state, job.attempt, job.result) == ("succeeded", 2, {"by": int(signed(acts)[1][1])})
    wait_until(lambda: b"belongs to another attempt now" in workshop.log.read_bytes())
    assert workshop.job(job_id) == job


def test_a_running_job_is_canceled(
    workshop: Workshop, acts: Path, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    job_id = workshop.submit("tests-linger", file=str(acts), until=str(tmp_path / "never"))
    wait_until(lambda: signed(acts))

    with workshop.app.app_context(), transaction(is_read=False):
        asked = lifecycle.cancel(job_id)
        commit()

    assert asked is not None
    assert asked.state == "canceling"
    wait_until(lambda: is_over(workshop, job_id))
    assert workshop.job(job_id).state == "canceled"
    assert not Path(signed(acts)[0][2]).exists()


def test_a_job_that_hangs_is_ended_with_its_process(
    workshop: Workshop, acts: Path, wait_until: Callable[..., Any]
) -> None:
    job_id = workshop.submit("tests-hang", file=str(acts))

    wait_until(lambda: is_over(workshop, job_id), 20)

    job = workshop.job(job_id)
    assert (job.state, (job.error or {})["code"], job.attempt) == ("failed", "timed-out", 1)
    wait_until(lambda: not psutil.pid_exists(int(signed(acts)[0][1])))
    wait_until(lambda: workshop.work_dirs() == [])
