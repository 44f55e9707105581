"""Jobs in this process: what is refused, found again, ended, and swept up."""

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import func, select, text, update

from app.database import commit, connection, transaction
from app.errors import MOST_ERRORS, Errors, Unprocessable
from app.jobs import consequences, lifecycle, running, submission, sweep
from app.jobs.context import Running
from app.jobs.kinds import KINDS
from app.jobs.models import Artifact, Job, JobEvent
from app.jobs.records import JobRow
from app.storage import current_storage
from tests.background import entries, follow
from tests.jobs import kinds  # noqa: F401  # declares them
from tests.jobs.written import read, written
from tests.world import World


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


def claimed_by_a_worker(*jobs: JobRow) -> list[JobRow]:
    """The same, running."""
    with transaction(is_read=False):
        claimed = [lifecycle.claim(job.id, "tests", running._lease()) for job in jobs]
        commit()
    return [job for job in claimed if job is not None]


def asked_for_again(kind: str) -> JobRow:
    """A job that runs, and was asked for once more meanwhile."""
    queued = submitted(kind, {"seconds": 0}).job
    assert submitted(kind, {"seconds": 0}).job.id == queued.id
    (job,) = claimed_by_a_worker(queued)
    assert not submitted(kind, {"seconds": 0}).is_new
    return job


def states() -> list[str]:
    """Of all jobs, the oldest first."""
    with transaction(is_read=True):
        return [row.state for row in connection().execute(select(Job.__table__).order_by(Job.id))]


def woken(app: Flask) -> list[str]:
    """The jobs that workers were told of."""
    return [entry.payload["id"] for entry in entries(app) if entry.consumer == submission.START]


def expire_all() -> None:
    """As if nobody had heard of the workers for long."""
    with transaction(is_read=False):
        connection().execute(update(Job).values(lease_until=func.now() - timedelta(seconds=1)))
        commit()


def run(job_id: UUID) -> None:
    """What a worker does."""
    running.run(job_id, "tests")


def test_a_job_that_cannot_be_done_says_why_and_leaves_nothing_lying(here: Flask) -> None:
    job_id = submitted("tests-fail").job.id
    killed = Path(here.config["VAR_DIR"]) / "work" / f"{job_id}-0"
    killed.mkdir(parents=True)

    run(job_id)

    assert os.listdir(killed.parent) == []
    job = read(here, job_id)
    assert (job.state, job.error) == ("failed", {"code": "no-output", "detail": "There is nothing to make."})


def test_a_job_that_breaks_tells_its_owner_nothing_of_the_inside(here: Flask) -> None:
    job_id = submitted("tests-fail", {"breaks": True}).job.id

    run(job_id)

    job = read(here, job_id)
    assert (job.error or {})["code"] == "failed"
    assert "not for everybody" not in str(job)


def test_what_the_database_can_never_take_is_no_outage(here: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def store(running: Running) -> None:
        with transaction(is_read=False):
            connection().execute(text("CREATE TEMP TABLE names (name text UNIQUE) ON COMMIT DROP"))
            long = "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(3_000))
            connection().execute(text("INSERT INTO names VALUES (:name)"), {"name": long})

    monkeypatch.setitem(KINDS.declared, "tests-large", replace(KINDS["sleep"], name="tests-large", run=store))
    job_id = submitted("tests-large", {"seconds": 0}).job.id

    run(job_id)

    job = read(here, job_id)
    assert (job.state, (job.error or {})["code"], job.attempt) == ("failed", "failed", 1)


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
    claimed = asked_for_again("sleep-single-flight")

    running._end(claimed, lambda: lifecycle.succeed(claimed, None))
    follow(here)

    assert states() == ["succeeded", "queued"]


def test_what_cannot_be_submitted_once_more_ends_all_the_same(here: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = replace(KINDS["sleep-single-flight"], name="tests-changed")
    monkeypatch.setitem(KINDS.declared, kind.name, kind)
    claimed = asked_for_again(kind.name)
    monkeypatch.setitem(KINDS.declared, kind.name, replace(kind, parameters={"type": "object", "required": ["new"]}))

    running._end(claimed, lambda: lifecycle.succeed(claimed, None))
    follow(here)

    assert states() == ["succeeded"]
    assert [entry.done_at is not None for entry in entries(here) if entry.consumer == consequences.AGAIN] == [True]


def test_what_is_of_no_kind_for_a_moment_is_submitted_later(here: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = replace(KINDS["sleep-single-flight"], name="tests-changed")
    monkeypatch.setitem(KINDS.declared, kind.name, kind)
    claimed = asked_for_again(kind.name)
    running._end(claimed, lambda: lifecycle.succeed(claimed, None))

    monkeypatch.delitem(KINDS.declared, kind.name)
    with pytest.raises(KeyError):
        follow(here)
    monkeypatch.setitem(KINDS.declared, kind.name, kind)
    follow(here)

    assert states() == ["succeeded", "queued"]


def test_a_job_that_cannot_be_given_up_keeps_no_other_from_it(here: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_job: JobRow) -> None:
        raise RuntimeError("as always")

    monkeypatch.setitem(
        KINDS.declared, "tests-broken", replace(KINDS["sleep"], name="tests-broken", max_attempts=1, ended=refuse)
    )
    broken, whole = submitted("tests-broken", {"seconds": 0}).job, submitted("sleep", {"seconds": 0}).job
    claimed_by_a_worker(broken, whole)
    expire_all()

    sweep.sweep()

    assert [read(here, job.id).state for job in (broken, whole)] == ["running", "queued"]


def test_the_end_of_two_at_once_wakes_two(here: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS.declared, "tests-two", replace(KINDS["sleep"], name="tests-two", concurrency=2))
    jobs = [submitted("tests-two", {"seconds": 0}).job for _ in range(5)]
    for job in claimed_by_a_worker(*jobs[:2]):
        running._end(job, lambda job=job: lifecycle.succeed(job, None))  # type: ignore[misc]  # bound at once
    before = len(woken(here))

    follow(here)

    assert set(woken(here)[before:]) == {str(job.id) for job in jobs[2:4]}


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
    with pytest.raises((Unprocessable, Errors)) as caught, transaction(is_read=False):
        submission.submit(kind, parameters, trigger="api", owner_id=None)

    refused = getattr(caught.value, "errors", [caught.value])
    assert {error.source["pointer"] for error in refused} == expected
    assert entries(here) == []


def test_one_fault_that_comes_often_hides_no_other(here: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"x{n}" for n in range(20)]
    schema = {"type": "object", "required": names, "properties": {"y": {"type": "string"}}}
    monkeypatch.setitem(KINDS.declared, "tests-many", replace(KINDS["sleep"], name="tests-many", parameters=schema))

    with pytest.raises(Errors) as caught, transaction(is_read=False):
        submission.submit("tests-many", {"y": 1}, trigger="api", owner_id=None)

    places = {(error.source or {})["pointer"].rpartition("/")[2] for error in caught.value.errors}
    assert places == {*names, "y"}


def test_of_many_faults_a_hundred_are_told(here: Flask) -> None:
    with pytest.raises(Errors) as caught, transaction(is_read=False):
        submission.submit("sleep", {f"x{n}": 1 for n in range(5000)}, trigger="api", owner_id=None)

    assert len(caught.value.errors) == MOST_ERRORS


def test_a_wake_up_that_was_lost_is_repeated(here: Flask) -> None:
    job_id = submitted("sleep", {"seconds": 0}).job.id
    with transaction(is_read=False):
        connection().execute(text("UPDATE jobs SET queued_at = now() - interval '2 minutes'"))
        commit()

    sweep.sweep()

    assert woken(here) == [str(job_id)] * 2


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
