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
from sqlalchemy import func, select, text

import config
from app import embedded
from app.database import commit, connection, transaction
from app.errors import Unprocessable
from app.factory import create_app
from app.jobs import lifecycle, running, submission, sweep
from app.jobs.models import Artifact, Attempt, Job, JobEvent
from app.jobs.records import JobRow
from app.storage import current_storage
from tests.background import entries, process
from tests.jobs import kinds  # noqa: F401  # declares them
from tests.world import World

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

    def work_dirs(self) -> list[str]:
        """What attempts have left behind."""
        path = Path(self.app.config["VAR_DIR"]) / "work"
        return os.listdir(path) if path.exists() else []


def read(app: Flask, job_id: UUID) -> JobRow:
    """A job as it is now."""
    with app.app_context(), transaction(is_read=True):
        return JobRow(*connection().execute(select(Job.__table__).where(Job.id == job_id)).one())


def written(app: Flask, table: type[Any], job_id: UUID) -> list[Any]:
    """The rows of a table that belong to a job."""
    with app.app_context(), transaction(is_read=True):
        statement = select(table.__table__).where(table.job_id == job_id)
        return list(connection().execute(statement.order_by(text("2, 3"))).all())


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
    if workshop_of_module.worker.poll() is not None:
        started = process(workshop_of_module.environment, workshop_of_module.log, "worker")
        workshop_of_module.worker = workshop_of_module.stack.enter_context(started)
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


# In this process, without a worker


@pytest.fixture
def here(app: Flask) -> Iterator[Flask]:
    """The context of the app."""
    with app.app_context():
        yield app


def submitted(kind: str, parameters: dict[str, Any] | None = None, owner_id: int | None = None) -> submission.Submitted:
    """Commit a job."""
    with transaction(is_read=False):
        made = submission.submit(kind, parameters or {}, trigger="api", owner_id=owner_id)
        commit()
    return made


def run(job_id: UUID) -> None:
    """What a worker does."""
    running.run(job_id, "tests")


def test_a_job_that_cannot_be_done_says_why(here: Flask) -> None:
    job_id = submitted("tests-fail").job.id

    run(job_id)

    job = read(here, job_id)
    assert (job.state, job.error) == ("failed", {"code": "no-output", "detail": "There is nothing to make."})


def test_a_job_that_breaks_tells_its_owner_nothing_of_the_inside(here: Flask) -> None:
    job_id = submitted("tests-fail", {"breaks": True}).job.id

    run(job_id)

    job = read(here, job_id)
    assert (job.error or {})["code"] == "failed"
    assert "not for everybody" not in str(job)


def test_a_file_is_replaced_by_the_next_of_its_name(here: Flask) -> None:
    job_id = submitted("tests-make").job.id

    run(job_id)

    (made,) = written(here, Artifact, job_id)
    assert (made.name, made.size, made.partial) == ("made.json", 2, False)
    assert current_storage().read(made.stored_as) == b"[]"


def test_whoever_is_woken_how_often_runs_a_job_once(here: Flask) -> None:
    job_id = submitted("sleep", {"seconds": 0}).job.id

    run(job_id)
    run(job_id)

    assert read(here, job_id).attempt == 1


def test_the_same_work_is_done_once_for_one_owner(here: Flask, world: World) -> None:
    first = submitted("sleep-once", {"seconds": 0, "steps": 2})

    assert submitted("sleep-once", {"steps": 2, "seconds": 0}).job.id == first.job.id
    run(first.job.id)
    again = submitted("sleep-once", {"seconds": 0, "steps": 2})
    assert (again.job.id, again.is_new) == (first.job.id, False)
    assert submitted("sleep-once", {"seconds": 0}).is_new
    assert submitted("sleep-once", {"seconds": 0, "steps": 2}, world.owner.id).is_new
    assert len([entry for entry in entries(here) if entry.consumer == submission.START]) == 3


def test_what_is_asked_for_while_it_runs_is_run_once_more(here: Flask) -> None:
    first = submitted("sleep-single-flight", {"seconds": 0}).job
    assert submitted("sleep-single-flight", {"seconds": 0}).job.id == first.id
    with transaction(is_read=False):
        claimed = lifecycle.claim(first.id, "tests", running._lease())
        commit()
    assert claimed is not None
    assert not submitted("sleep-single-flight", {"seconds": 0}).is_new

    running._end(claimed, lambda: lifecycle.succeed(claimed, None))

    with transaction(is_read=True):
        states = [row.state for row in connection().execute(select(Job.__table__).order_by(Job.id))]
    assert states == ["succeeded", "queued"]


def test_a_queued_job_is_canceled_at_once_and_never_begun(here: Flask) -> None:
    job_id = submitted("sleep", {"seconds": 0}).job.id
    with transaction(is_read=False):
        asked = lifecycle.cancel(job_id)
        assert lifecycle.cancel(job_id) is None
        commit()

    run(job_id)

    assert asked is not None
    assert (asked.state, read(here, job_id).attempt) == ("canceled", 0)


@pytest.mark.parametrize(
    ("kind", "parameters", "expected"),
    [
        ("fly", {}, {"/data/attributes/kind"}),
        ("sleep", {}, {"/data/attributes/parameters/seconds"}),
        ("sleep", {"seconds": "x"}, {"/data/attributes/parameters/seconds"}),
        ("sleep", {"seconds": 1, "mi/nutes": 1}, {"/data/attributes/parameters/mi~1nutes"}),
        ("sleep", {"seconds": 1, "x": "x" * 70_000}, {"/data/attributes/parameters"}),
    ],
)
def test_what_cannot_run_is_refused_with_its_place(
    here: Flask, kind: str, parameters: dict[str, Any], expected: set[str]
) -> None:
    with pytest.raises((Unprocessable, Exception)) as caught, transaction(is_read=False):
        submission.submit(kind, parameters, trigger="api", owner_id=None)

    refused = getattr(caught.value, "errors", [caught.value])
    assert {error.source["pointer"] for error in refused} == expected
    assert entries(here) == []


def test_a_wake_up_that_was_lost_is_repeated(here: Flask) -> None:
    job_id = submitted("sleep", {"seconds": 0}).job.id
    with transaction(is_read=False):
        connection().execute(text("UPDATE jobs SET queued_at = now() - interval '2 minutes'"))
        commit()

    sweep.sweep()

    woken = [entry.payload["id"] for entry in entries(here)]
    assert woken == [str(job_id)] * 2


def test_old_jobs_go_with_all_that_belongs_to_them(here: Flask) -> None:
    job_id = submitted("sleep", {"seconds": 0}).job.id
    run(job_id)
    young = submitted("sleep", {"seconds": 0}).job.id
    run(young)
    with transaction(is_read=False):
        connection().execute(
            text("UPDATE jobs SET finished_at = now() - interval '31 days' WHERE id = :id"), {"id": job_id}
        )
        commit()

    assert sweep.prune(running.timedelta(days=30)) == 1

    with transaction(is_read=True):
        assert connection().scalar(select(func.count()).select_from(Job)) == 1
        assert connection().scalar(select(func.count()).select_from(JobEvent).where(JobEvent.job_id == job_id)) == 0
