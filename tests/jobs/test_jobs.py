"""Jobs in this process: submission, deduplication, outcomes and maintenance."""

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

from app.database import commit, get_connection, open_transaction
from app.errors import MAX_ERRORS, ApiErrorGroup, Unprocessable
from app.jobs import executor, lifecycle, maintenance, state_hooks, submission
from app.jobs.context import JobContext
from app.jobs.kinds import KINDS
from app.jobs.models import Artifact, Job, JobEvent
from app.jobs.records import JobRow
from app.storage import current_storage
from tests.dataset import Dataset
from tests.jobs import kinds  # noqa: F401  # declares them
from tests.jobs.db_helpers import get_job, list_job_rows
from tests.worker_process import list_entries, run_state_hooks


@pytest.fixture
def app_context(app: Flask) -> Iterator[Flask]:
    """Push the application context."""
    with app.app_context():
        yield app


def enqueue_job(
    kind: str, parameters: dict[str, Any] | None = None, owner_id: int | None = None
) -> submission.SubmitResult:
    """Commit a job."""
    with open_transaction(is_read=False):
        result = submission.submit_job(kind, parameters or {}, trigger="api", owner_id=owner_id)
        commit()
    return result


def submit_and_claim(*jobs: JobRow) -> list[JobRow]:
    """Return a job that a worker has claimed."""
    with open_transaction(is_read=False):
        claimed = [lifecycle.claim_job(job.id, "tests", executor._get_lease()) for job in jobs]
        commit()
    return [job for job in claimed if job is not None]


def submit_twice(kind: str) -> JobRow:
    """Return a running job with a rerun requested."""
    queued = enqueue_job(kind, {"seconds": 0}).job
    assert enqueue_job(kind, {"seconds": 0}).job.id == queued.id
    (job,) = submit_and_claim(queued)
    assert not enqueue_job(kind, {"seconds": 0}).is_new
    return job


def list_states() -> list[str]:
    """Return the states of all jobs, the oldest first."""
    with open_transaction(is_read=True):
        return [row.state for row in get_connection().execute(select(Job.__table__).order_by(Job.id))]


def list_wakeups(app: Flask) -> list[str]:
    """Return the ids of the jobs in the wake-up entries."""
    return [entry.payload["id"] for entry in list_entries(app) if entry.consumer == submission.RUN_CONSUMER]


def expire_leases() -> None:
    """Set all leases to a time in the past."""
    with open_transaction(is_read=False):
        get_connection().execute(update(Job).values(lease_until=func.now() - timedelta(seconds=1)))
        commit()


def execute_job(job_id: UUID) -> None:
    """Run a job as a worker does."""
    executor.run_job(job_id, "tests")


def test_failed_job_has_error_and_leaves_no_files(app_context: Flask) -> None:
    job_id = enqueue_job("tests-fail").job.id
    killed = Path(app_context.config["VAR_DIR"]) / "work" / f"{job_id}-0"
    killed.mkdir(parents=True)

    execute_job(job_id)

    assert os.listdir(killed.parent) == []
    job = get_job(app_context, job_id)
    assert (job.state, job.error) == ("failed", {"code": "no-output", "detail": "There is nothing to make."})


def test_unexpected_exception_is_not_shown_to_owner(app_context: Flask) -> None:
    job_id = enqueue_job("tests-fail", {"breaks": True}).job.id

    execute_job(job_id)

    job = get_job(app_context, job_id)
    assert (job.error or {})["code"] == "failed"
    assert "not for everybody" not in str(job)


def test_data_error_fails_job_without_retry(app_context: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def store(running: JobContext) -> None:
        with open_transaction(is_read=False):
            get_connection().execute(text("CREATE TEMP TABLE names (name text UNIQUE) ON COMMIT DROP"))
            long = "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(3_000))
            get_connection().execute(text("INSERT INTO names VALUES (:name)"), {"name": long})

    monkeypatch.setitem(KINDS.declared, "tests-large", replace(KINDS["sleep"], name="tests-large", run=store))
    job_id = enqueue_job("tests-large", {"seconds": 0}).job.id

    execute_job(job_id)

    job = get_job(app_context, job_id)
    assert (job.state, (job.error or {})["code"], job.attempt) == ("failed", "failed", 1)


def test_a_file_is_replaced_by_the_next_of_its_name(app_context: Flask) -> None:
    job_id = enqueue_job("tests-make").job.id

    execute_job(job_id)

    (artifact,) = list_job_rows(app_context, Artifact, job_id)
    assert (artifact.name, artifact.size, artifact.partial) == ("made.json", 2, False)
    assert current_storage().read_file(artifact.storage_key) == b"[]"


def test_repeated_wakeup_runs_job_once(app_context: Flask) -> None:
    job_id = enqueue_job("sleep", {"seconds": 0}).job.id

    execute_job(job_id)
    execute_job(job_id)

    assert get_job(app_context, job_id).attempt == 1


def test_the_same_work_is_done_once_for_one_owner(app_context: Flask, dataset: Dataset) -> None:
    first = enqueue_job("sleep-once", {"seconds": 0, "steps": 2})

    assert enqueue_job("sleep-once", {"steps": 2, "seconds": 0}).job.id == first.job.id
    execute_job(first.job.id)
    again = enqueue_job("sleep-once", {"seconds": 0, "steps": 2})
    assert (again.job.id, again.is_new) == (first.job.id, False)
    assert enqueue_job("sleep-once", {"seconds": 0}).is_new
    assert enqueue_job("sleep-once", {"seconds": 0, "steps": 2}, dataset.owner.id).is_new
    assert len([entry for entry in list_entries(app_context) if entry.consumer == submission.RUN_CONSUMER]) == 3


def test_single_flight_resubmitted_while_running_runs_again(app_context: Flask) -> None:
    claimed = submit_twice("sleep-single-flight")

    executor._write_outcome(claimed, lambda: lifecycle.finish_succeeded(claimed, None))
    run_state_hooks(app_context)

    assert list_states() == ["succeeded", "queued"]


def test_rerun_with_invalid_parameters_is_dropped(app_context: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = replace(KINDS["sleep-single-flight"], name="tests-changed")
    monkeypatch.setitem(KINDS.declared, kind.name, kind)
    claimed = submit_twice(kind.name)
    monkeypatch.setitem(KINDS.declared, kind.name, replace(kind, parameters={"type": "object", "required": ["new"]}))

    executor._write_outcome(claimed, lambda: lifecycle.finish_succeeded(claimed, None))
    run_state_hooks(app_context)

    assert list_states() == ["succeeded"]
    assert [
        entry.done_at is not None for entry in list_entries(app_context) if entry.consumer == state_hooks.RERUN_CONSUMER
    ] == [True]


def test_rerun_of_undeclared_kind_is_submitted_later(app_context: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = replace(KINDS["sleep-single-flight"], name="tests-changed")
    monkeypatch.setitem(KINDS.declared, kind.name, kind)
    claimed = submit_twice(kind.name)
    executor._write_outcome(claimed, lambda: lifecycle.finish_succeeded(claimed, None))

    monkeypatch.delitem(KINDS.declared, kind.name)
    with pytest.raises(KeyError):
        run_state_hooks(app_context)
    monkeypatch.setitem(KINDS.declared, kind.name, kind)
    run_state_hooks(app_context)

    assert list_states() == ["succeeded", "queued"]


def test_failed_reclaim_does_not_prevent_others(app_context: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_job: JobRow) -> None:
        raise RuntimeError("as always")

    monkeypatch.setitem(
        KINDS.declared, "tests-broken", replace(KINDS["sleep"], name="tests-broken", max_attempts=1, on_end=refuse)
    )
    broken, whole = enqueue_job("tests-broken", {"seconds": 0}).job, enqueue_job("sleep", {"seconds": 0}).job
    submit_and_claim(broken, whole)
    expire_leases()

    maintenance.run_maintenance()

    assert [get_job(app_context, job.id).state for job in (broken, whole)] == ["running", "queued"]


def test_the_end_of_two_at_once_wakes_two(app_context: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS.declared, "tests-two", replace(KINDS["sleep"], name="tests-two", concurrency=2))
    jobs = [enqueue_job("tests-two", {"seconds": 0}).job for _ in range(5)]
    for job in submit_and_claim(*jobs[:2]):
        executor._write_outcome(job, lambda job=job: lifecycle.finish_succeeded(job, None))  # type: ignore[misc]  # bound at once
    before = len(list_wakeups(app_context))

    run_state_hooks(app_context)

    assert set(list_wakeups(app_context)[before:]) == {str(job.id) for job in jobs[2:4]}


def test_a_queued_job_is_canceled_at_once_and_never_begun(app_context: Flask) -> None:
    job_id = enqueue_job("sleep", {"seconds": 0}).job.id
    with open_transaction(is_read=False):
        asked = lifecycle.cancel_job(job_id)
        assert lifecycle.cancel_job(job_id) is None
        commit()

    execute_job(job_id)

    assert asked is not None
    assert (asked.state, get_job(app_context, job_id).attempt) == ("canceled", 0)


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
def test_submit_invalid_job_raises_with_pointers(
    app_context: Flask, kind: str, parameters: dict[str, Any], expected: set[str]
) -> None:
    with pytest.raises((Unprocessable, ApiErrorGroup)) as caught, open_transaction(is_read=False):
        submission.submit_job(kind, parameters, trigger="api", owner_id=None)

    refused = getattr(caught.value, "errors", [caught.value])
    assert {error.source["pointer"] for error in refused} == expected
    assert list_entries(app_context) == []


def test_repeated_error_hides_no_other(app_context: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"x{n}" for n in range(20)]
    schema = {"type": "object", "required": names, "properties": {"y": {"type": "string"}}}
    monkeypatch.setitem(KINDS.declared, "tests-many", replace(KINDS["sleep"], name="tests-many", parameters=schema))

    with pytest.raises(ApiErrorGroup) as caught, open_transaction(is_read=False):
        submission.submit_job("tests-many", {"y": 1}, trigger="api", owner_id=None)

    places = {(error.source or {})["pointer"].rpartition("/")[2] for error in caught.value.errors}
    assert places == {*names, "y"}


def test_submit_reports_at_most_max_errors(app_context: Flask) -> None:
    with pytest.raises(ApiErrorGroup) as caught, open_transaction(is_read=False):
        submission.submit_job("sleep", {f"x{n}": 1 for n in range(5000)}, trigger="api", owner_id=None)

    assert len(caught.value.errors) == MAX_ERRORS


def test_lost_wakeup_is_repeated(app_context: Flask) -> None:
    job_id = enqueue_job("sleep", {"seconds": 0}).job.id
    with open_transaction(is_read=False):
        get_connection().execute(text("UPDATE jobs SET queued_at = now() - interval '2 minutes'"))
        commit()

    maintenance.run_maintenance()

    assert list_wakeups(app_context) == [str(job_id)] * 2


def test_old_jobs_are_pruned_with_events_and_files(app_context: Flask) -> None:
    job_id = enqueue_job("sleep", {"seconds": 0}).job.id
    execute_job(job_id)
    young = enqueue_job("sleep", {"seconds": 0}).job.id
    execute_job(young)
    with open_transaction(is_read=False):
        get_connection().execute(
            text("UPDATE jobs SET finished_at = now() - interval '31 days' WHERE id = :id"), {"id": job_id}
        )
        commit()

    assert maintenance.prune_jobs(executor.timedelta(days=30)) == 1

    with open_transaction(is_read=True):
        assert get_connection().scalar(select(func.count()).select_from(Job)) == 1
        assert get_connection().scalar(select(func.count()).select_from(JobEvent).where(JobEvent.job_id == job_id)) == 0
