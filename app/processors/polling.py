"""What we ask a processor on our own account: how far it is when it is silent, and to stop."""

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
"""Questions in a row."""
MAX_RUN_DURATION = timedelta(days=7)
"""What a processor may take."""

MAX_STORING_DURATION = timedelta(days=1)
"""From its word that it is done until all results are here: they wait for slots, and for the storage."""

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
"""The words of a status, and the event that says the same; None for a run that has not begun."""

log = structlog.get_logger(__name__)


def poll_run(job_id: UUID, attempt: int) -> None:
    """Ask how far it is where nothing was heard for a while, and see to it that it is asked again."""
    job = lifecycle.get_job(job_id)
    run = None if job is None else runs.get_run(job)
    if job is None or run is None or job.attempt != attempt or job.state in TERMINAL_STATES:
        return
    silence = datetime.now(UTC) - run.last_seen_at
    if silence > MAX_STORING_DURATION and run.completed_at is not None:
        _fail_job(job_id, attempt, lifecycle.UNAVAILABLE, "Its results could not be stored for a day.")
    elif datetime.now(UTC) - run.created_at > MAX_RUN_DURATION:
        _fail_job(job_id, attempt, lifecycle.TIMED_OUT, "The processor took longer than it may.")
    elif silence < runs.get_poll_interval() or run.completed_at is not None:
        runs.enqueue_for_run(POLL, job, delay=max(runs.get_poll_interval() - silence, runs.get_poll_interval() / 2))
    else:
        _poll_processor(job, run)


def _poll_processor(job: JobRow, run: Run) -> None:
    """One question, which the job is not held for."""
    answer = _fetch_status(run)
    held = event_handlers.lock_run(job.id, job.attempt)
    if held is None:
        return
    if answer is None:
        _record_no_answer(job)
        return
    if event_handlers.apply_pending_callbacks(job.id, job.attempt):  # what was called back before counts first
        _apply_answer(job, answer)
    runs.enqueue_for_run(POLL, job, delay=runs.get_poll_interval())


def _apply_answer(job: JobRow, answer: Mapping[str, Any]) -> None:
    event = STATUS_TO_EVENT[_normalize_status(answer)]
    if event is None:
        runs.touch_run(job.id, job.attempt)
    else:
        event_handlers.apply_event(job.id, event, answer)


def _fetch_status(run: Run) -> dict[str, Any] | None:
    """What it says; None for nothing that could be understood."""
    try:
        answer = client.fetch_status(run.task, str(run.tracking_id))
    except OutboundError as error:
        log.warning("processor does not answer", reason=str(error))
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
        words = f"The processor has not been heard of, and did not answer {unanswered_polls} times."
        _fail_job(job.id, job.attempt, HEARTBEAT_LOST, words)
    else:
        _fail_job(job.id, job.attempt, HEARTBEAT_LOST, "This server has no processor any more.")


def _fail_job(job_id: UUID, attempt: int, code: str, words: str) -> None:
    """Fail a job; whatever still goes on there is asked to stop."""
    held = event_handlers.lock_run(job_id, attempt)
    if held is not None:
        runs.enqueue_for_run(CANCEL, held[0])
        event_handlers.finish_job(lifecycle.finish_failed(held[0], code, words))


def cancel_run(job_id: UUID, attempt: int) -> None:
    """Ask to stop, until there is an answer or nobody waits for it; that it has, it says by it or by a callback.

    A job that has ended meanwhile without its word is asked about once.
    """
    job = lifecycle.get_job(job_id)
    run = None if job is None else runs.get_run(job)
    if job is None or run is None or run.tracking_id is None or job.attempt != attempt or run.completed_at is not None:
        return
    try:
        answer = client.cancel_run(run.task, run.tracking_id)
    except OutboundError as error:
        log.warning("processor does not answer", reason=str(error))
        if job.state == CANCELING:
            runs.enqueue_for_run(CANCEL, job, delay=CANCEL_RETRY_DELAY)
        return
    if answer is not None and STATUS_TO_EVENT.get(_normalize_status(answer)) == "CANCELLED":
        event_handlers.apply_event(job.id, "CANCELLED", answer)


def expire_cancel(job_id: UUID, attempt: int) -> None:
    """End what was to be canceled without the word of the processor, which had its time to say it."""
    held = event_handlers.lock_run(job_id, attempt)
    if held is None or held[0].state != CANCELING or held[1].completed_at is not None:
        return
    seconds = current_app.config["PROCESSOR_CANCEL_GRACE_SECONDS"]
    words = f"The processor has not said within {seconds} s that it stopped: it may still be at work."
    lifecycle.record_remote_progress(held[0], words, level="warning")
    event_handlers.finish_job(lifecycle.finish_canceled(held[0]))


def request_cancel(job: JobRow) -> None:
    """Order the processor to be asked to stop; its word is not waited for longer than the grace.

    One that is done has nothing to stop: the job ends at once. One that has not answered the start is asked after that.
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
