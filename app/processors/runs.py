"""Run rows, the outbox consumers of runs, and the callback URL and secret of a run."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from flask import current_app
from sqlalchemy import BigInteger, LargeBinary, Text, Uuid, bindparam, delete, func, insert, or_, select, update

from app import outbox, webhook_signatures
from app.database import PreparedStatement, get_connection
from app.documents.resolver import Document
from app.jobs.context import MAX_REPORTS_PER_SECOND
from app.jobs.records import JobRow
from app.processors.models import JobDocument, RemoteRun
from app.url_tokens import hash_token

APPLY, FLUSH_PROGRESS, POLL, CANCEL, CANCEL_DEADLINE, FETCH, CLEAR = (
    f"processors.{name}" for name in ("apply", "tell", "poll", "cancel", "cancel-deadline", "fetch", "clear")
)
"""Outbox consumers; the payload is a job id and attempt, for FETCH the id of a result file."""

_runs, _documents = RemoteRun.__table__, JobDocument.__table__
_RUN_CRITERIA = (
    _runs.c.job_id == bindparam("job_id", type_=Uuid),
    _runs.c.attempt == bindparam("attempt", type_=BigInteger),
)


class Run(NamedTuple):
    """A row of `remote_runs`: the columns of `models.RemoteRun`, in their order (a test compares them)."""

    job_id: UUID
    attempt: int
    task: str
    token_hash: bytes
    tracking_id: str | None
    created_at: datetime
    begun_at: datetime | None
    last_seen_at: datetime
    unanswered_polls: int
    completed_at: datetime | None
    progress_published_at: datetime | None
    has_pending_progress: bool


_select_run = PreparedStatement(select(*_runs.c).where(*_RUN_CRITERIA))
_insert_run = PreparedStatement(
    insert(RemoteRun).values(
        {
            "job_id": bindparam("job_id", type_=Uuid),
            "attempt": bindparam("attempt", type_=BigInteger),
            "task": bindparam("task", type_=Text),
            "token_hash": bindparam("token_hash", type_=LargeBinary),
            "has_pending_progress": False,
        }
    )
)
_update_tracking_id = PreparedStatement(
    update(RemoteRun)
    .where(*_RUN_CRITERIA)
    .values(tracking_id=bindparam("tracking_id", type_=Text), last_seen_at=func.now())
)
_mark_active = PreparedStatement(
    update(RemoteRun)
    .where(*_RUN_CRITERIA)
    .values(last_seen_at=func.now(), unanswered_polls=0, begun_at=func.coalesce(_runs.c.begun_at, func.now()))
    .returning(*_runs.c)
)
_mark_seen = PreparedStatement(
    update(RemoteRun).where(*_RUN_CRITERIA).values(last_seen_at=func.now(), unanswered_polls=0)
)
_update_unanswered = PreparedStatement(
    update(RemoteRun)
    .where(*_RUN_CRITERIA)
    .values(unanswered_polls=_runs.c.unanswered_polls + 1)
    .returning(_runs.c.unanswered_polls)
)
_mark_completed = PreparedStatement(update(RemoteRun).where(*_RUN_CRITERIA).values(completed_at=func.now()))
_REPORT_INTERVAL = timedelta(seconds=1 / MAX_REPORTS_PER_SECOND)
_is_report_due = or_(
    _runs.c.progress_published_at.is_(None), _runs.c.progress_published_at <= func.now() - _REPORT_INTERVAL
)
_mark_published = PreparedStatement(
    update(RemoteRun)
    .where(*_RUN_CRITERIA, _is_report_due)
    .values(progress_published_at=func.now(), has_pending_progress=False)
    .returning(_runs.c.job_id)
)
_mark_pending = PreparedStatement(
    update(RemoteRun)
    .where(*_RUN_CRITERIA, _runs.c.has_pending_progress.is_(False))
    .values(has_pending_progress=True)
    .returning(_runs.c.job_id)
)


def get_run(job: JobRow) -> Run | None:
    """Return the run of the current attempt of a job, None when there is none."""
    return next((Run(*row) for row in _select_run.fetch_rows(_build_key(job))), None)


def create_run(job: JobRow, task: str, token: str, documents: Sequence[Document]) -> None:
    """Insert a run and its documents before the start request: callbacks may arrive before its response."""
    _insert_run.run({**_build_key(job), "task": task, "token_hash": hash_token(token)})
    get_connection().execute(delete(JobDocument).where(_documents.c.job_id == job.id))  # of the previous attempt
    rows = [
        {**document._asdict(), "job_id": job.id, "position": position} for position, document in enumerate(documents)
    ]
    get_connection().execute(insert(JobDocument), rows)


def set_tracking_id(job: JobRow, tracking_id: str) -> None:
    """Store the tracking id that the processor has assigned to the run."""
    _update_tracking_id.run({**_build_key(job), "tracking_id": tracking_id})


def record_event(job: JobRow) -> Run:
    """Record that the processor has just sent an event, and return the run."""
    (row,) = _mark_active.fetch_rows(_build_key(job))
    return Run(*row)


def touch_run(job_id: UUID, attempt: int) -> None:
    """Record that the processor has just reported on a run, without a change of its state."""
    _mark_seen.run({"job_id": job_id, "attempt": attempt})


def increment_unanswered(job: JobRow) -> int:
    """Count a status request without a valid response; return how many there were in a row."""
    ((unanswered_polls,),) = _update_unanswered.fetch_rows(_build_key(job))
    return int(unanswered_polls)


def complete_run(job: JobRow) -> None:
    """Record that the processor has finished the run."""
    _mark_completed.run(_build_key(job))


def try_publish_progress(job: JobRow) -> bool:
    """Claim the right to publish a progress event now; return False within 1 / MAX_REPORTS_PER_SECOND of the last."""
    return bool(_mark_published.fetch_rows(_build_key(job)))


def schedule_progress_flush(job: JobRow) -> None:
    """Enqueue the publication of the latest progress, unless it is enqueued already."""
    if _mark_pending.fetch_rows(_build_key(job)):
        enqueue_for_run(FLUSH_PROGRESS, job, delay=_REPORT_INTERVAL)


def build_callback_url(job: JobRow, token: str) -> str:
    """Return the callback URL of a job; its token authorizes the caller."""
    return f"{current_app.config['PUBLIC_URL']}/v1/jobs/{job.id}/callback?token={token}"


def signing_context(job_id: UUID, attempt: int, hashed_token: bytes) -> bytes:
    """Return the context from which the signing secret of the callbacks of an attempt is derived."""
    return b"processors.callback\n%s\n%d\n" % (str(job_id).encode(), attempt) + hashed_token


def derive_callback_secret(job: JobRow, token: str) -> str:
    """Return the secret with which the processor can sign its callbacks."""
    return webhook_signatures.derive_secret(signing_context(job.id, job.attempt, hash_token(token)))


def enqueue_for_run(consumer: str, job: JobRow, *, delay: timedelta = timedelta(0)) -> None:
    """Enqueue an outbox entry about the current attempt of a job."""
    outbox.enqueue_entry(consumer, f"job.{job.state}", {"job_id": str(job.id), "attempt": job.attempt}, delay=delay)


def get_poll_interval() -> timedelta:
    """Return the time without callbacks after which the status is requested."""
    return timedelta(seconds=current_app.config["PROCESSOR_POLL_SECONDS"])


def _build_key(job: JobRow) -> dict[str, Any]:
    return {"job_id": job.id, "attempt": job.attempt}
