"""What the processor says becomes what the job is: forward only, each thing once, in the order of its arrival.

All of this happens in transactions that hold the job.
"""

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
"""Characters of what it says that are kept."""

APPLY_BUDGET_SECONDS = 0.5
"""Seconds for which the job is held to hear: whoever else wants it, or calls back, waits for 2 s (`lock_timeout`)."""

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
        _events.c.message == bindparam("words", type_=Text),
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
    """Apply what was called back and not applied yet, and order the rest when that takes long; whether it was all.

    Before the start has been answered, it waits for that.
    """
    held = lock_run(job_id, attempt)
    if held is None:
        return False
    until = monotonic() + APPLY_BUDGET_SECONDS
    while monotonic() < until:
        if not _apply_next_callback(held[0]):
            return True
    runs.enqueue_for_run(APPLY, held[0])
    return False


def _apply_next_callback(job: JobRow) -> bool:
    """Apply what was called back first of all that was not applied yet; False where there is nothing."""
    found = _select_next_callback.fetch_rows({"job_id": job.id, "attempt": job.attempt})
    for id_, event, payload in found:
        _apply_or_warn(job, event, payload)
        _mark_applied.run({"id": id_})
    return bool(found)


def _apply_or_warn(job: JobRow, event: str, payload: Mapping[str, Any]) -> None:
    """One that we cannot apply must not keep all that follow it from being heard."""
    try:
        with db.session.begin_nested():
            apply_event(job.id, event, payload)
    except Exception as error:
        if is_outage(error):
            raise
        log.exception("callback not applied", event_word=event)
        words = f"A word of the processor ({event}) is passed over: this is our fault ({type(error).__name__})."
        lifecycle.record_remote_progress(job, words, level="warning")


def flush_progress(job_id: UUID, attempt: int) -> None:
    """Let what was last said of its progress become an event, where none has come after it."""
    held = lock_run(job_id, attempt)
    if (
        held is None
        or not held[1].has_pending_progress
        or held[1].completed_at is not None
        or not runs.try_publish_progress(held[0])
    ):
        return
    job = held[0]
    ((progress, message),) = _select_event.fetch_rows({"job_id": job.id, "seq": job.last_seq})
    if (progress, message) != (job.progress, job.message):
        lifecycle.record_remote_progress(job, job.message)


def lock_run(job_id: UUID, attempt: int) -> tuple[JobRow, Run] | None:
    """A job that has not ended and its run at the processor, nobody else's until this transaction ends."""
    job = lifecycle.get_job_for_update(job_id)
    if job is None or job.attempt != attempt or job.state in TERMINAL_STATES:
        return None
    run = runs.get_run(job)
    return None if run is None or run.tracking_id is None else (job, run)


def apply_event(job_id: UUID, event: str, payload: Mapping[str, Any]) -> None:
    """Let one word of the processor count; after the end none does."""
    job = lifecycle.get_job_for_update(job_id)
    if job is not None and job.state not in TERMINAL_STATES:
        EVENT_HANDLERS[event](job, runs.record_event(job), payload)


def _handle_started(job: JobRow, _run: Run, payload: Mapping[str, Any]) -> None:
    lifecycle.record_remote_progress(
        job, _get_message(payload) or "The processor has begun.", fraction=_get_fraction(payload)
    )


def _handle_progress(job: JobRow, run: Run, payload: Mapping[str, Any]) -> None:
    if run.completed_at is not None:
        return  # late: all that it names was named at the end
    words, fraction = _get_message(payload), _get_fraction(payload)
    if runs.try_publish_progress(job):
        lifecycle.record_remote_progress(job, words, fraction=fraction)
    else:  # as of functions, not all that is said becomes an event
        lifecycle.update_remote_progress(job, words, fraction)
        runs.schedule_progress_flush(job)
    _record_results(job, payload, final=False)


def _handle_success(job: JobRow, run: Run, payload: Mapping[str, Any]) -> None:
    if run.completed_at is not None:
        return
    runs.complete_run(job)
    lifecycle.record_remote_progress(
        job, _get_message(payload) or "The processor is done; its results are fetched.", finalizing=True
    )
    _record_results(job, payload, final=True)
    results.complete_if_done(job)


def _handle_error(job: JobRow, run: Run, payload: Mapping[str, Any]) -> None:
    words = _get_message(payload) or _get_error_message(payload) or "The processor gives no reason."
    if run.completed_at is not None:
        lifecycle.record_remote_progress(
            job, f"After its SUCCESS, which counts, the processor said ERROR: {words}", level="warning"
        )
    elif payload.get("completed", True):
        _record_results(job, payload, final=False)
        finish_job(lifecycle.finish_failed(job, PROCESSOR_ERROR, words))
    else:
        lifecycle.record_remote_progress(job, words, level="warning")
        _record_results(job, payload, final=False)


def _handle_canceled(job: JobRow, run: Run, _payload: Mapping[str, Any]) -> None:
    if run.completed_at is None:
        if job.state != CANCELING:
            lifecycle.record_remote_progress(job, "The processor canceled this by itself.", level="warning")
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
    """What follows from the end of a job."""
    if job is not None:
        state_hooks.on_state_change(job)


def _record_results(job: JobRow, payload: Mapping[str, Any], *, final: bool) -> None:
    output = payload.get("output") or {}
    faults = [each[:MAX_MESSAGE_LENGTH] for each in _list_errors(output.get("error"))]
    if not results.register_files(job, output.get("results_url") or [], final=final):
        faults.append(f"Of all its results only {results.MAX_FILES} are fetched.")
    for words in dict.fromkeys(faults):
        if not _select_warning.fetch_rows(
            {"job_id": job.id, "words": words}
        ):  # processors repeat all of them each time
            lifecycle.record_remote_progress(job, words, level="warning")


def _list_errors(errors: Any) -> Iterator[str]:
    """What stands in `output.error`: a text, or a list of what may be anything."""
    listed = errors if isinstance(errors, list) else [errors] if errors else []
    for each in listed[:20]:
        yield each if isinstance(each, str) else str(each)


def _get_message(payload: Mapping[str, Any]) -> str | None:
    return (payload.get("message") or "")[:MAX_MESSAGE_LENGTH] or None


def _get_error_message(payload: Mapping[str, Any]) -> str:
    return " ".join(_list_errors(payload.get("error")))[:MAX_MESSAGE_LENGTH]


def _get_fraction(payload: Mapping[str, Any]) -> float | None:
    fraction = payload.get("fraction")
    return None if fraction is None else min(max(float(fraction), 0.0), 1.0)
