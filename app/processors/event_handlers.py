"""Application of callbacks and status responses to jobs: each once, in order of arrival, while the job is locked."""

from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import BigInteger, Text, Uuid, bindparam, func, select, update

from app.database import PreparedStatement
from app.errors import is_outage
from app.extensions import db
from app.jobs import lifecycle, state_hooks
from app.jobs.models import CANCELING, TERMINAL_STATES, JobEvent
from app.jobs.records import JobRow
from app.processors import results, runs
from app.processors.models import Callback
from app.processors.runs import APPLY, Run

PROCESSOR_ERROR = "processor-error"
MAX_MESSAGE_LENGTH = 2_000
"""Characters of a message that are stored."""

APPLY_BUDGET_SECONDS = 0.5
"""Seconds for which the job stays locked while callbacks are applied; other transactions wait 2 s (`lock_timeout`)."""

log = structlog.get_logger(__name__)

_callbacks, _events = Callback.__table__, JobEvent.__table__
_IS_PENDING = (_callbacks.c.job_id == bindparam("job_id", type_=Uuid), _callbacks.c.applied_at.is_(None))
_select_next_callback = PreparedStatement(  # one at a time: each may be as large as a body
    select(_callbacks.c.id, _callbacks.c.event, _callbacks.c.payload)
    .where(*_IS_PENDING, _callbacks.c.attempt == bindparam("attempt", type_=BigInteger))
    .order_by(_callbacks.c.id)
    .limit(1)
)
_select_warning = PreparedStatement(
    select(_events.c.seq)
    .where(
        _events.c.job_id == bindparam("job_id", type_=Uuid),
        _events.c.level == "warning",
        _events.c.message == bindparam("message", type_=Text),
    )
    .limit(1)
)
_select_event = PreparedStatement(
    select(_events.c.fraction, _events.c.message).where(
        _events.c.job_id == bindparam("job_id", type_=Uuid), _events.c.seq == bindparam("seq", type_=BigInteger)
    )
)
_mark_applied = PreparedStatement(
    update(Callback).where(_callbacks.c.id == bindparam("id", type_=BigInteger)).values(applied_at=func.now())
)


def apply_pending_callbacks(job_id: UUID, attempt: int) -> bool:
    """Apply pending callbacks for APPLY_BUDGET_SECONDS, then enqueue the rest; return whether all were applied.

    Callbacks stay pending until the run has a tracking id.
    """
    locked = lock_run(job_id, attempt)
    if locked is None:
        return False
    until = monotonic() + APPLY_BUDGET_SECONDS
    while monotonic() < until:
        if not _apply_next_callback(locked[0]):
            return True
    runs.enqueue_for_run(APPLY, locked[0])
    return False


def _apply_next_callback(job: JobRow) -> bool:
    """Apply the oldest pending callback; return False when there is none."""
    rows = _select_next_callback.fetch_rows({"job_id": job.id, "attempt": job.attempt})
    for id_, event, payload in rows:
        _apply_or_warn(job, event, payload)
        _mark_applied.run({"id": id_})
    return bool(rows)


def _apply_or_warn(job: JobRow, event: str, payload: Mapping[str, Any]) -> None:
    """Apply an event; when that fails, record a warning, because later callbacks must still be applied."""
    try:
        with db.session.begin_nested():
            apply_event(job.id, event, payload)
    except Exception as error:
        if is_outage(error):
            raise
        log.exception("callback application failed", callback_event=event)
        message = f"Callback {event} could not be applied (internal error: {type(error).__name__})."
        lifecycle.record_remote_progress(job, message, level="warning")


def flush_progress(job_id: UUID, attempt: int) -> None:
    """Record the latest unpublished progress of a run as a progress event."""
    locked = lock_run(job_id, attempt)
    if locked is None:
        return
    job, run = locked
    if not run.has_pending_progress or run.completed_at is not None or not runs.try_publish_progress(job):
        return
    ((progress, message),) = _select_event.fetch_rows({"job_id": job.id, "seq": job.last_seq})
    if (progress, message) != (job.progress, job.message):
        lifecycle.record_remote_progress(job, job.message)


def lock_run(job_id: UUID, attempt: int) -> tuple[JobRow, Run] | None:
    """Lock an unfinished job and return it with its run; None when there is none or it has no tracking id yet."""
    job = lifecycle.get_job_for_update(job_id)
    if job is None or job.attempt != attempt or job.state in TERMINAL_STATES:
        return None
    run = runs.get_run(job)
    return None if run is None or run.tracking_id is None else (job, run)


def apply_event(job_id: UUID, event: str, payload: Mapping[str, Any]) -> None:
    """Apply an event of the processor to its job; ignore it when the job has ended."""
    job = lifecycle.get_job_for_update(job_id)
    if job is not None and job.state not in TERMINAL_STATES:
        EVENT_HANDLERS[event](job, runs.record_event(job), payload)


def _handle_started(job: JobRow, _run: Run, payload: Mapping[str, Any]) -> None:
    lifecycle.record_remote_progress(
        job, _get_message(payload) or "The processor has started the run.", fraction=_get_fraction(payload)
    )


def _handle_progress(job: JobRow, run: Run, payload: Mapping[str, Any]) -> None:
    if run.completed_at is not None:
        return  # late: SUCCESS has named all results
    message, fraction = _get_message(payload), _get_fraction(payload)
    if runs.try_publish_progress(job):
        lifecycle.record_remote_progress(job, message, fraction=fraction)
    else:  # above MAX_REPORTS_PER_SECOND, as for jobs that run here
        lifecycle.update_remote_progress(job, message, fraction)
        runs.schedule_progress_flush(job)
    _record_results(job, payload, final=False)


def _handle_success(job: JobRow, run: Run, payload: Mapping[str, Any]) -> None:
    if run.completed_at is not None:
        return
    runs.complete_run(job)
    lifecycle.record_remote_progress(
        job, _get_message(payload) or "The processor has finished; downloading its results.", finalizing=True
    )
    _record_results(job, payload, final=True)
    results.complete_if_done(job)


def _handle_error(job: JobRow, run: Run, payload: Mapping[str, Any]) -> None:
    message = (
        _get_message(payload) or _get_error_message(payload) or "The processor reported an error without a message."
    )
    if run.completed_at is not None:
        lifecycle.record_remote_progress(job, f"Ignored ERROR received after SUCCESS: {message}", level="warning")
    elif payload.get("completed", True):
        _record_results(job, payload, final=False)
        finish_job(lifecycle.finish_failed(job, PROCESSOR_ERROR, message))
    else:
        lifecycle.record_remote_progress(job, message, level="warning")
        _record_results(job, payload, final=False)


def _handle_canceled(job: JobRow, run: Run, _payload: Mapping[str, Any]) -> None:
    if run.completed_at is None:
        if job.state != CANCELING:
            lifecycle.record_remote_progress(job, "The processor canceled the run without a request.", level="warning")
        finish_job(lifecycle.finish_canceled(job))


EVENT_HANDLERS: Mapping[str, Callable[[JobRow, Run, Mapping[str, Any]], None]] = {
    "STARTED": _handle_started,
    "PROGRESS": _handle_progress,
    "SUCCESS": _handle_success,
    "ERROR": _handle_error,
    "CANCELLED": _handle_canceled,
    "CANCELED": _handle_canceled,
}


def finish_job(job: JobRow | None) -> None:
    """Run the hooks of a job that has just ended; None for a job that had ended before."""
    if job is not None:
        state_hooks.on_state_change(job)


def _record_results(job: JobRow, payload: Mapping[str, Any], *, final: bool) -> None:
    output = payload.get("output") or {}
    warnings = [each[:MAX_MESSAGE_LENGTH] for each in _list_errors(output.get("error"))]
    if not results.register_files(job, output.get("results_url") or [], final=final):
        warnings.append(f"The run has more than {results.MAX_FILES} results; the others are not downloaded.")
    for message in dict.fromkeys(warnings):
        # Processors repeat all errors in each callback.
        if not _select_warning.fetch_rows({"job_id": job.id, "message": message}):
            lifecycle.record_remote_progress(job, message, level="warning")


def _list_errors(errors: Any) -> Iterator[str]:
    """Yield the first 20 errors, as text, of a member that is a text or a list of any values."""
    values = errors if isinstance(errors, list) else [errors] if errors else []
    for each in values[:20]:
        yield each if isinstance(each, str) else str(each)


def _get_message(payload: Mapping[str, Any]) -> str | None:
    return (payload.get("message") or "")[:MAX_MESSAGE_LENGTH] or None


def _get_error_message(payload: Mapping[str, Any]) -> str:
    return " ".join(_list_errors(payload.get("error")))[:MAX_MESSAGE_LENGTH]


def _get_fraction(payload: Mapping[str, Any]) -> float | None:
    fraction = payload.get("fraction")
    return None if fraction is None else min(max(float(fraction), 0.0), 1.0)
