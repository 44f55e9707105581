"""Polling of runs that send no callbacks, and cancellation of runs."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from flask import current_app

from app.http_client import OutboundError
from app.jobs import lifecycle
from app.jobs.models import CANCELING, TERMINAL_STATES
from app.jobs.records import JobRow
from app.processors import client, event_handlers, runs
from app.processors.callback_schema import is_valid_status
from app.processors.runs import CANCEL, CANCEL_DEADLINE, POLL, Run

HEARTBEAT_LOST = "heartbeat-lost"
MAX_UNANSWERED_POLLS = 5
"""Consecutive status requests without a valid response after which the job fails."""
MAX_RUN_DURATION = timedelta(days=7)
"""Longest time from the start of a run to its end."""

MAX_STORING_DURATION = timedelta(days=1)
"""Longest time without progress after SUCCESS until all results are stored: they wait for slots and the storage."""

CANCEL_RETRY_DELAY = timedelta(seconds=5)

STATUS_TO_EVENT: Mapping[str, str | None] = {
    "PENDING": None,
    "QUEUED": None,
    "STARTED": "STARTED",
    "IN PROGRESS": "PROGRESS",
    "RUNNING": "PROGRESS",
    "PROGRESS": "PROGRESS",
    "SUCCESS": "SUCCESS",
    "FINISHED": "SUCCESS",
    "COMPLETED": "SUCCESS",
    "ERROR": "ERROR",
    "FAILED": "ERROR",
    "CANCELLED": "CANCELLED",
    "CANCELED": "CANCELLED",
}
"""Event that is equivalent to each status of a status response; None for a run that has not started."""

log = structlog.get_logger(__name__)


def poll_run(job_id: UUID, attempt: int) -> None:
    """Request the status of a run without recent callbacks, enqueue the next poll, and fail overdue jobs."""
    job = lifecycle.get_job(job_id)
    run = None if job is None else runs.get_run(job)
    if job is None or run is None or job.attempt != attempt or job.state in TERMINAL_STATES:
        return
    silence = datetime.now(UTC) - run.last_seen_at
    if silence > MAX_STORING_DURATION and run.completed_at is not None:
        _fail_job(job_id, attempt, lifecycle.UNAVAILABLE, "The results could not be stored within a day.")
    elif datetime.now(UTC) - run.created_at > MAX_RUN_DURATION:
        _fail_job(job_id, attempt, lifecycle.TIMED_OUT, f"The run took more than {MAX_RUN_DURATION.days} days.")
    elif silence < runs.get_poll_interval() or run.completed_at is not None:
        runs.enqueue_for_run(POLL, job, delay=max(runs.get_poll_interval() - silence, runs.get_poll_interval() / 2))
    else:
        _poll_processor(job, run)


def _poll_processor(job: JobRow, run: Run) -> None:
    """Request the status, then lock the job and apply the response."""
    answer = _fetch_status(run)
    if event_handlers.lock_run(job.id, job.attempt) is None:
        return
    if answer is None:
        _record_no_answer(job)
        return
    if event_handlers.apply_pending_callbacks(job.id, job.attempt):  # callbacks received before come first
        _apply_answer(job, answer)
    runs.enqueue_for_run(POLL, job, delay=runs.get_poll_interval())


def _apply_answer(job: JobRow, answer: Mapping[str, Any]) -> None:
    event = STATUS_TO_EVENT[_normalize_status(answer)]
    if event is None:
        runs.touch_run(job.id, job.attempt)
    else:
        event_handlers.apply_event(job.id, event, answer)


def _fetch_status(run: Run) -> dict[str, Any] | None:
    """Return a valid status response of the processor; None when there is none."""
    try:
        answer = client.fetch_status(run.task, str(run.tracking_id))
    except OutboundError as error:
        log.warning("processor status request failed", reason=str(error))
        return None
    return (
        answer
        if answer is not None and is_valid_status(answer) and _normalize_status(answer) in STATUS_TO_EVENT
        else None
    )


def _normalize_status(answer: Mapping[str, Any]) -> str:
    return str(answer.get("status")).upper().replace("_", " ").replace("-", " ")


def _record_no_answer(job: JobRow) -> None:
    unanswered_polls = runs.increment_unanswered(job)
    if unanswered_polls < MAX_UNANSWERED_POLLS:
        runs.enqueue_for_run(POLL, job, delay=runs.get_poll_interval())
    elif current_app.config["PROCESSOR_URL"]:
        message = f"The processor sends no callbacks and has not answered {unanswered_polls} status requests."
        _fail_job(job.id, job.attempt, HEARTBEAT_LOST, message)
    else:
        _fail_job(job.id, job.attempt, HEARTBEAT_LOST, "This server no longer has a processor (PROCESSOR_URL).")


def _fail_job(job_id: UUID, attempt: int, code: str, message: str) -> None:
    """Fail an unfinished job and enqueue the cancellation of its run."""
    locked = event_handlers.lock_run(job_id, attempt)
    if locked is not None:
        runs.enqueue_for_run(CANCEL, locked[0])
        event_handlers.finish_job(lifecycle.finish_failed(locked[0], code, message))


def cancel_run(job_id: UUID, attempt: int) -> None:
    """Cancel a run; while the job is canceling, retry until the processor responds.

    The response or a later callback confirms the cancellation. A run whose job has ended is canceled without retries.
    """
    job = lifecycle.get_job(job_id)
    run = None if job is None else runs.get_run(job)
    if job is None or run is None or run.tracking_id is None or job.attempt != attempt or run.completed_at is not None:
        return
    try:
        answer = client.cancel_run(run.task, run.tracking_id)
    except OutboundError as error:
        log.warning("processor cancel request failed", reason=str(error))
        if job.state == CANCELING:
            runs.enqueue_for_run(CANCEL, job, delay=CANCEL_RETRY_DELAY)
        return
    if answer is not None and STATUS_TO_EVENT.get(_normalize_status(answer)) == "CANCELLED":
        event_handlers.apply_event(job.id, "CANCELLED", answer)


def expire_cancel(job_id: UUID, attempt: int) -> None:
    """End a canceling job whose processor has not confirmed within PROCESSOR_CANCEL_GRACE_SECONDS."""
    locked = event_handlers.lock_run(job_id, attempt)
    if locked is None or locked[0].state != CANCELING or locked[1].completed_at is not None:
        return
    seconds = current_app.config["PROCESSOR_CANCEL_GRACE_SECONDS"]
    message = f"The processor has not confirmed the cancellation within {seconds} s: the run may continue there."
    lifecycle.record_remote_progress(locked[0], message, level="warning")
    event_handlers.finish_job(lifecycle.finish_canceled(locked[0]))


def request_cancel(job: JobRow) -> None:
    """Enqueue the cancellation of a run and its deadline.

    After SUCCESS the job ends at once. Without a tracking id the run is canceled once it has one.
    """
    run = runs.get_run(job)
    if run is None or run.tracking_id is None:
        return
    if run.completed_at is not None:
        event_handlers.finish_job(lifecycle.finish_canceled(job))
        return
    runs.enqueue_for_run(CANCEL, job)
    grace = timedelta(seconds=current_app.config["PROCESSOR_CANCEL_GRACE_SECONDS"])
    runs.enqueue_for_run(CANCEL_DEADLINE, job, delay=grace)
