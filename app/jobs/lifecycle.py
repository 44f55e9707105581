"""The life of a job: the one place that writes `state`.

Every write is fenced: it names the attempt and the states it is about, and does nothing to a job that has moved on.
With each goes an event, and a NOTIFY to whoever watches, in one statement; `note` alone is told later. Nothing here
commits.
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
    cast,
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
"""The NOTIFY channel of progress; the payload is the id of the job."""

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
    """An UPDATE of one job, its event and the NOTIFY, in one statement; it returns the job as it is then."""
    moved = update(Job).where(fence).values({**values, "last_seq": _jobs.c.last_seq + 1}).returning(*_jobs.c).cte()
    told = _event_cte(moved.c)
    return PreparedStatement(select(*moved.c, func.pg_notify(NOTIFY_CHANNEL, cast(moved.c.id, Text))).add_cte(told))


def _event_cte(job: Any) -> Any:
    """The event that says what a job has come to."""
    values = {
        "id": bindparam("told_id", type_=Uuid),
        "job_id": job.id,
        "seq": job.last_seq,
        "level": _LEVEL,
        "state": job.state,
        "fraction": job.progress,
        "message": job.message,
    }
    statement = insert(JobEvent).from_select([*values], select(*values.values()), include_defaults=False)
    return statement.cte("told")


_is_owned = and_(_IS_SAME_ATTEMPT, _jobs.c.state.in_(OWNED_STATES))
_progress_values = {
    "progress": func.greatest(_jobs.c.progress, _bind_new_value("progress", Double)),  # it never goes back
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
    "sealed": null(),
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
    {"state": CANCELED, "finished_at": func.now(), "sealed": null()},
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
        "state": case((_jobs.c.state == RUNNING, WAITING), else_=_jobs.c.state),  # who cancels it goes on doing so
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
_select_job_for_update = PreparedStatement(  # its key stays as it is: what refers to the job is written meanwhile
    select(*_jobs.c).where(_jobs.c.id == _ID).with_for_update(key_share=True)
)
_renew_lease = PreparedStatement(
    update(Job)
    .where(_is_owned)
    .values(heartbeat_at=func.now(), lease_until=func.now() + _LEASE)
    .returning(_jobs.c.state)
)
_select_owned_job = PreparedStatement(select(_jobs.c.id).where(_is_owned))
_mark_rerun = PreparedStatement(update(Job).where(_jobs.c.id == _ID, _jobs.c.state != QUEUED).values(runs_again=True))
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
    """Begin the next attempt of a queued job; None when somebody else has it, or it has ended."""
    job = _transition(_claim, {"id": job_id, "lease": lease})
    if job is not None:
        _insert_attempt.run({"id": job_id, "attempt": job.attempt, "worker": worker})
    return job


def has_capacity(kind: str, concurrency: int) -> bool:
    """Whether fewer jobs of a kind than that are at work; until this transaction ends, no other learns so."""
    _lock_kind.run({"kind": kind})
    return count_active(kind) < concurrency


def count_active(kind: str) -> int:
    """How many jobs of a kind are neither queued nor ended."""
    ((count,),) = _count_active.fetch_rows({"kind": kind})
    return int(count)


def next_queued(kind: str, most: int) -> list[JobRow]:
    """So many jobs of a kind, those that have been queued for longest."""
    return [JobRow(*row) for row in _select_next_queued.fetch_rows({"kind": kind, "most": max(most, 0)})]


def get_job(job_id: UUID) -> JobRow | None:
    """A job as it is now."""
    return next((JobRow(*row) for row in _select_job.fetch_rows({"id": job_id})), None)


def get_job_for_update(job_id: UUID) -> JobRow | None:
    """A job that nobody else moves until this transaction ends."""
    return next((JobRow(*row) for row in _select_job_for_update.fetch_rows({"id": job_id})), None)


def start_waiting(job: JobRow, message: str | None = None) -> JobRow | None:
    """Free the worker: the work goes on elsewhere; None when the job is no longer this attempt's."""
    return _transition(_start_waiting, {**_fence_values(job), "new_message": message})


def record_remote_progress(
    job: JobRow, message: str | None, *, fraction: float | None = None, level: str = "info", finalizing: bool = False
) -> JobRow | None:
    """Note what is heard of work elsewhere, perhaps that only its results are missing; None when it has ended."""
    values = {"new_progress": fraction, "new_message": message, "new_level": level, "finalizing": finalizing}
    return _transition(_record_remote, {**_fence_values(job), **values})


def update_remote_progress(job: JobRow, message: str | None, fraction: float | None) -> None:
    """Note what is heard of work elsewhere too soon after other words for an event of its own."""
    _update_remote.run({**_fence_values(job), "new_progress": fraction, "new_message": message})


def renew_lease(job: JobRow, lease: timedelta) -> str | None:
    """Say that the attempt lives; the state of the job, None when it is no longer this attempt's."""
    found = _renew_lease.fetch_rows({"id": job.id, "attempt": job.attempt, "lease": lease})
    return found[0][0] if found else None


def is_attempt_active(job_id: UUID, attempt: int) -> bool:
    """Whether this attempt may still be at work."""
    return bool(_select_owned_job.fetch_rows({"id": job_id, "attempt": attempt}))


def record_progress(job: JobRow, fraction: float | None, message: str | None, level: str = "info") -> JobRow | None:
    """Note progress; None when the job is no longer this attempt's, or is being canceled."""
    return _transition(
        _report, {**_fence_values(job), "new_progress": fraction, "new_message": message, "new_level": level}
    )


def finish_succeeded(job: JobRow, result: Mapping[str, Any] | None, message: str | None = None) -> JobRow | None:
    """End an attempt well, perhaps with a last word; None when the job is no longer this attempt's."""
    return _finish_job(job, SUCCEEDED, outcome=SUCCEEDED, progress=1.0, result=result, message=message)


def finish_failed(job: JobRow, code: str, detail: str, **more: Any) -> JobRow | None:
    """End an attempt badly; None when the job is no longer this attempt's."""
    error = {"code": code, "detail": detail, **more}
    return _finish_job(job, FAILED, outcome=code, error=error, message=detail, level="error")


def cancel_job(job_id: UUID) -> JobRow | None:
    """Ask a job to end: at once where nobody works on it yet; None when it has ended, or was asked already."""
    values = {"id": job_id, "new_level": "info"}
    return _transition(_cancel_queued, values) or _transition(_cancel_held, values)


def finish_canceled(job: JobRow) -> JobRow | None:
    """End an attempt because it was asked to end."""
    return _finish_job(job, CANCELED, outcome=CANCELED)


def expire_attempt(job: JobRow, code: str = CRASHED, what: str = "Its worker was lost") -> JobRow | None:
    """What becomes of an attempt that ended without a result: another one, or the end."""
    if job.attempt >= job.max_attempts and job.state != CANCELING:
        return finish_failed(job, code, f"{what}, at the last of {job.max_attempts} attempts.")
    return requeue_job(job, code, f"{what}; it starts again.")


def requeue_job(
    job: JobRow, outcome: str, message: str, *, uncounted: int = 0, delay: timedelta = timedelta(0)
) -> JobRow | None:
    """Give the job back to the queue, with so many attempts more as were not its fault; one to be canceled ends.

    It begins after the delay at the earliest.
    """
    values = {"new_message": message, "new_level": "warning", "uncounted": uncounted, "delay": delay}
    moved = _transition(_requeue, {**_fence_values(job), **values})
    if moved is None:
        return finish_canceled(job)
    _end_attempt.run({**_fence_values(job), "new_outcome": outcome})
    return moved


def interrupt_attempt(job: JobRow) -> JobRow | None:
    """Give the job back because its worker stops."""
    return requeue_job(job, INTERRUPTED, "Its worker stops; it starts again.", uncounted=1)


def list_expired() -> list[UUID]:
    """Jobs whose worker has not been heard of for longer than the lease."""
    return [job_id for (job_id,) in _select_expired.fetch_rows({})]


def lock_expired(job_id: UUID) -> JobRow | None:
    """One of those, locked; None where that has changed, or somebody else is at it."""
    return next((JobRow(*row) for row in _lock_expired.fetch_rows({"id": job_id})), None)


def mark_rerun(job_id: UUID) -> None:
    """Let a job that runs be submitted once more when it has ended."""
    _mark_rerun.run({"id": job_id})


def _finish_job(job: JobRow, state: str, *, outcome: str, **more: Any) -> JobRow | None:
    given = {"progress": None, "result": None, "error": None, "message": None, "level": "info", **more, "state": state}
    ended = _transition(_finish, {**_fence_values(job), **{f"new_{name}": value for name, value in given.items()}})
    if ended is not None:
        _end_attempt.run({**_fence_values(job), "new_outcome": outcome})
    return ended


def _fence_values(job: JobRow) -> dict[str, Any]:
    return {"id": job.id, "attempt": job.attempt}


def _transition(statement: PreparedStatement, values: Mapping[str, Any]) -> JobRow | None:
    found = statement.fetch_rows({"new_level": "info", **values, "told_id": uuid7()})
    return JobRow(*found[0][:-1]) if found else None
