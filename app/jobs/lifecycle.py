"""State transitions of jobs: the only module that writes `state`.

Every write has a fence: it names the attempt and the allowed states, and changes nothing if the job has left them. One
statement changes the job, inserts a progress event and sends a NOTIFY; only `update_remote_progress` and `renew_lease`
do neither of the last two. Nothing here commits.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Double,
    Interval,
    Text,
    Uuid,
    and_,
    bindparam,
    case,
    func,
    insert,
    null,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from uuid_utils.compat import uuid7

from app.database import PreparedStatement
from app.jobs.models import (
    CANCELED,
    CANCELING,
    FAILED,
    FINALIZING,
    QUEUED,
    RUNNING,
    SUCCEEDED,
    WAITING,
    Attempt,
    Job,
    JobEvent,
)
from app.jobs.records import JobRow

NOTIFY_CHANNEL = "jobs"
"""NOTIFY channel of progress; the payload is the id of the job, a space, and the id of its owner or nothing."""

OWNED_STATES = (RUNNING, WAITING, FINALIZING, CANCELING)
"""States in which an attempt owns the job."""

CRASHED, TIMED_OUT, INTERRUPTED, UNAVAILABLE = "crashed", "timed-out", "interrupted", "unavailable"

_jobs, _attempts = Job.__table__, Attempt.__table__


def _bind_new_value(name: str, type_: Any) -> Any:
    return bindparam(f"new_{name}", type_=type_)


_ID = bindparam("id", type_=Uuid)
_LEASE = bindparam("lease", type_=Interval)
_IS_SAME_ATTEMPT = and_(_jobs.c.id == _ID, _jobs.c.attempt == bindparam("attempt", type_=BigInteger))
_LEVEL, _MESSAGE = _bind_new_value("level", Text), _bind_new_value("message", Text)


def _build_transition(fence: ColumnElement[bool], values: Mapping[str, Any]) -> PreparedStatement:
    """Build the statement that updates one job, inserts its event and sends the NOTIFY; it returns the updated job."""
    job = update(Job).where(fence).values({**values, "last_seq": _jobs.c.last_seq + 1}).returning(*_jobs.c).cte()
    event = _event_cte(job.c)
    return PreparedStatement(select(*job.c, notify_change(job.c)).add_cte(event))


def notify_change(job: Any) -> ColumnElement[Any]:
    """Return the expression that sends the notification of a change of this job."""
    return func.pg_notify(NOTIFY_CHANNEL, func.concat(job.id, " ", job.owner_id))


def _event_cte(job: Any) -> Any:
    """Build the INSERT of the progress event with the new state of a job."""
    values = {
        "id": bindparam("progress_event_id", type_=Uuid),
        "job_id": job.id,
        "seq": job.last_seq,
        "level": _LEVEL,
        "state": job.state,
        "fraction": job.progress,
        "message": job.message,
    }
    statement = insert(JobEvent).from_select([*values], select(*values.values()), include_defaults=False)
    return statement.cte("event")


_is_owned = and_(_IS_SAME_ATTEMPT, _jobs.c.state.in_(OWNED_STATES))
_progress_values = {
    "progress": func.greatest(_jobs.c.progress, _bind_new_value("progress", Double)),  # never decreases
    "message": func.coalesce(_MESSAGE, _jobs.c.message),
}
_outcome_values = {
    "state": _bind_new_value("state", Text),
    "progress": func.coalesce(_bind_new_value("progress", Double), _jobs.c.progress),
    "message": func.coalesce(_MESSAGE, _jobs.c.message),
    "result": _bind_new_value("result", JSONB(none_as_null=True)),
    "error": _bind_new_value("error", JSONB(none_as_null=True)),
    "finished_at": func.now(),
    "lease_until": null(),
    "encrypted_secrets": null(),
}

_claim = _build_transition(
    and_(_jobs.c.id == _ID, _jobs.c.state == QUEUED),
    {
        "state": RUNNING,
        "attempt": _jobs.c.attempt + 1,
        "message": null(),
        "started_at": func.coalesce(_jobs.c.started_at, func.now()),
        "heartbeat_at": func.now(),
        "lease_until": func.now() + _LEASE,
    },
)
_report = _build_transition(
    and_(_IS_SAME_ATTEMPT, _jobs.c.state.in_((RUNNING, FINALIZING))),
    _progress_values,
)
_finish = _build_transition(_is_owned, _outcome_values)
_cancel_queued = _build_transition(
    and_(_jobs.c.id == _ID, _jobs.c.state == QUEUED),
    {"state": CANCELED, "finished_at": func.now(), "encrypted_secrets": null()},
)
_cancel_held = _build_transition(
    and_(_jobs.c.id == _ID, _jobs.c.state.in_((RUNNING, WAITING, FINALIZING))), {"state": CANCELING}
)
_requeue = _build_transition(
    and_(_IS_SAME_ATTEMPT, _jobs.c.state.in_((RUNNING, WAITING, FINALIZING))),
    {
        "state": QUEUED,
        "max_attempts": _jobs.c.max_attempts + bindparam("uncounted", type_=BigInteger),
        "queued_at": func.now() + bindparam("delay", type_=Interval),
        "lease_until": null(),
        "heartbeat_at": null(),
        "message": func.coalesce(_MESSAGE, _jobs.c.message),
    },
)
_start_waiting = _build_transition(
    and_(_IS_SAME_ATTEMPT, _jobs.c.state.in_((RUNNING, CANCELING))),
    {
        "state": case((_jobs.c.state == RUNNING, WAITING), else_=_jobs.c.state),  # CANCELING stays
        "lease_until": null(),
        "heartbeat_at": null(),
        "message": func.coalesce(_MESSAGE, _jobs.c.message),
    },
)
_record_remote = _build_transition(
    and_(_IS_SAME_ATTEMPT, _jobs.c.state.in_((WAITING, FINALIZING, CANCELING))),
    {
        "state": case(
            (and_(_jobs.c.state == WAITING, bindparam("finalizing", type_=Boolean)), FINALIZING), else_=_jobs.c.state
        ),
        **_progress_values,
        "heartbeat_at": func.now(),
    },
)
_update_remote = PreparedStatement(
    update(Job).where(_is_owned).values({**_progress_values, "heartbeat_at": func.now()})
)
_select_job = PreparedStatement(select(*_jobs.c).where(_jobs.c.id == _ID))
_select_job_for_update = PreparedStatement(  # NO KEY UPDATE: rows with a foreign key to the job can still be inserted
    select(*_jobs.c).where(_jobs.c.id == _ID).with_for_update(key_share=True)
)
_renew_lease = PreparedStatement(
    update(Job)
    .where(_is_owned)
    .values(heartbeat_at=func.now(), lease_until=func.now() + _LEASE)
    .returning(_jobs.c.state)
)
_select_owned_job = PreparedStatement(select(_jobs.c.id).where(_is_owned))
_mark_rerun = PreparedStatement(
    update(Job).where(_jobs.c.id == _ID, _jobs.c.state != QUEUED).values(rerun_requested=True)
)
_insert_attempt = PreparedStatement(
    insert(Attempt).values(
        job_id=_ID, number=bindparam("attempt", type_=BigInteger), worker=bindparam("worker", type_=Text)
    )
)
_end_attempt = PreparedStatement(
    update(Attempt)
    .where(_attempts.c.job_id == _ID, _attempts.c.number == bindparam("attempt", type_=BigInteger))
    .values(ended_at=func.now(), outcome=_bind_new_value("outcome", Text))
)
_lock_kind = PreparedStatement(
    select(func.pg_advisory_xact_lock(func.hashtextextended(bindparam("kind", type_=Text), 0)))
)
_count_active = PreparedStatement(
    select(func.count())
    .select_from(Job)
    .where(_jobs.c.kind == bindparam("kind", type_=Text), _jobs.c.state.in_(OWNED_STATES))
)
_select_next_queued = PreparedStatement(
    select(*_jobs.c)
    .where(_jobs.c.kind == bindparam("kind", type_=Text), _jobs.c.state == QUEUED)
    .order_by(_jobs.c.queued_at, _jobs.c.id)
    .limit(bindparam("most", type_=BigInteger))
)
_IS_EXPIRED = (_jobs.c.state.in_((RUNNING, FINALIZING, CANCELING)), _jobs.c.lease_until < func.now())
_select_expired = PreparedStatement(
    select(_jobs.c.id).where(*_IS_EXPIRED).order_by(_jobs.c.queued_at, _jobs.c.id).limit(100)
)
_lock_expired = PreparedStatement(
    select(*_jobs.c).where(_jobs.c.id == _ID, *_IS_EXPIRED).with_for_update(skip_locked=True)
)


def claim_job(job_id: UUID, worker: str, lease: timedelta) -> JobRow | None:
    """Begin the next attempt of a queued job; return None if it is not queued."""
    job = _transition(_claim, {"id": job_id, "lease": lease})
    if job is not None:
        _insert_attempt.run({"id": job_id, "attempt": job.attempt, "worker": worker})
    return job


def has_capacity(kind: str, concurrency: int) -> bool:
    """Return whether fewer than `concurrency` jobs of a kind are active; lock the kind until the transaction ends."""
    _lock_kind.run({"kind": kind})
    return count_active(kind) < concurrency


def count_active(kind: str) -> int:
    """Count the jobs of a kind that an attempt owns: neither queued nor ended."""
    ((count,),) = _count_active.fetch_rows({"kind": kind})
    return int(count)


def next_queued(kind: str, most: int) -> list[JobRow]:
    """Return up to `most` queued jobs of a kind, oldest first."""
    return [JobRow(*row) for row in _select_next_queued.fetch_rows({"kind": kind, "most": max(most, 0)})]


def get_job(job_id: UUID) -> JobRow | None:
    """Return a job, or None."""
    return next((JobRow(*row) for row in _select_job.fetch_rows({"id": job_id})), None)


def get_job_for_update(job_id: UUID) -> JobRow | None:
    """Return a job, or None, and lock its row until the transaction ends (FOR NO KEY UPDATE)."""
    return next((JobRow(*row) for row in _select_job_for_update.fetch_rows({"id": job_id})), None)


def start_waiting(job: JobRow, message: str | None = None) -> JobRow | None:
    """Free the worker, because the work continues on another server; return None if the attempt lost the job."""
    return _transition(_start_waiting, {**_fence_values(job), "new_message": message})


def record_remote_progress(
    job: JobRow, message: str | None, *, fraction: float | None = None, level: str = "info", finalizing: bool = False
) -> JobRow | None:
    """Record progress of work on another server as an event; return None if the job is no longer there or has ended.

    With `finalizing` the job enters the state FINALIZING: only its results are missing.
    """
    values = {"new_progress": fraction, "new_message": message, "new_level": level, "finalizing": finalizing}
    return _transition(_record_remote, {**_fence_values(job), **values})


def update_remote_progress(job: JobRow, message: str | None, fraction: float | None) -> None:
    """Record progress of work on another server without an event, because the last one was too recent."""
    _update_remote.run({**_fence_values(job), "new_progress": fraction, "new_message": message})


def renew_lease(job: JobRow, lease: timedelta) -> str | None:
    """Renew the lease of an attempt; return the state of the job, or None if the attempt lost the job."""
    rows = _renew_lease.fetch_rows({"id": job.id, "attempt": job.attempt, "lease": lease})
    return rows[0][0] if rows else None


def is_attempt_active(job_id: UUID, attempt: int) -> bool:
    """Return whether this attempt still owns its job."""
    return bool(_select_owned_job.fetch_rows({"id": job_id, "attempt": attempt}))


def record_progress(job: JobRow, fraction: float | None, message: str | None, level: str = "info") -> JobRow | None:
    """Record progress of a running attempt; return None if it lost the job or the job is being canceled."""
    return _transition(
        _report, {**_fence_values(job), "new_progress": fraction, "new_message": message, "new_level": level}
    )


def finish_succeeded(job: JobRow, result: Mapping[str, Any] | None, message: str | None = None) -> JobRow | None:
    """End an attempt and its job as succeeded; return None if the attempt lost the job."""
    return _finish_job(job, SUCCEEDED, outcome=SUCCEEDED, progress=1.0, result=result, message=message)


def finish_failed(job: JobRow, code: str, detail: str, **more: Any) -> JobRow | None:
    """End an attempt and its job as failed; return None if the attempt lost the job."""
    error = {"code": code, "detail": detail, **more}
    return _finish_job(job, FAILED, outcome=code, error=error, message=detail, level="error")


def cancel_job(job_id: UUID) -> JobRow | None:
    """Cancel a queued job, or request the cancellation of an active one.

    Return None if the job has ended or is being canceled already.
    """
    values = {"id": job_id, "new_level": "info"}
    return _transition(_cancel_queued, values) or _transition(_cancel_held, values)


def finish_canceled(job: JobRow) -> JobRow | None:
    """End an attempt and its job as canceled; return None if the attempt lost the job."""
    return _finish_job(job, CANCELED, outcome=CANCELED)


def expire_attempt(job: JobRow, code: str = CRASHED, reason: str = "The worker was lost") -> JobRow | None:
    """Requeue a job whose attempt ended without a result, or fail it after the last attempt.

    Return None if the attempt lost the job.
    """
    if job.attempt >= job.max_attempts and job.state != CANCELING:
        return finish_failed(job, code, f"{reason} in the last of {job.max_attempts} attempts.")
    return requeue_job(job, code, f"{reason}; the job is queued again.")


def requeue_job(
    job: JobRow, outcome: str, message: str, *, uncounted: int = 0, delay: timedelta = timedelta(0)
) -> JobRow | None:
    """End an attempt and requeue its job, or cancel it if cancellation was requested.

    `uncounted` attempts are added to `max_attempts`. The job starts again after `delay` at the earliest. Return None if
    the attempt lost the job.
    """
    values = {"new_message": message, "new_level": "warning", "uncounted": uncounted, "delay": delay}
    queued = _transition(_requeue, {**_fence_values(job), **values})
    if queued is None:
        return finish_canceled(job)
    _end_attempt.run({**_fence_values(job), "new_outcome": outcome})
    return queued


def interrupt_attempt(job: JobRow) -> JobRow | None:
    """Requeue the job because its worker stops; the attempt does not count."""
    return requeue_job(job, INTERRUPTED, "The worker was stopped; the job is queued again.", uncounted=1)


def list_expired() -> list[UUID]:
    """Return the ids of up to 100 jobs with an expired lease."""
    return [job_id for (job_id,) in _select_expired.fetch_rows({})]


def lock_expired(job_id: UUID) -> JobRow | None:
    """Lock and return a job with an expired lease; return None if it was renewed or is locked already."""
    return next((JobRow(*row) for row in _lock_expired.fetch_rows({"id": job_id})), None)


def mark_rerun(job_id: UUID) -> None:
    """Mark a job that is not queued to be submitted again after its end."""
    _mark_rerun.run({"id": job_id})


def _finish_job(job: JobRow, state: str, *, outcome: str, **more: Any) -> JobRow | None:
    values = {"progress": None, "result": None, "error": None, "message": None, "level": "info", **more, "state": state}
    ended = _transition(_finish, {**_fence_values(job), **{f"new_{name}": value for name, value in values.items()}})
    if ended is not None:
        _end_attempt.run({**_fence_values(job), "new_outcome": outcome})
    return ended


def _fence_values(job: JobRow) -> dict[str, Any]:
    return {"id": job.id, "attempt": job.attempt}


def _transition(statement: PreparedStatement, values: Mapping[str, Any]) -> JobRow | None:
    rows = statement.fetch_rows({"new_level": "info", **values, "progress_event_id": uuid7()})
    return JobRow(*rows[0][:-1]) if rows else None
