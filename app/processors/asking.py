"""What we ask a processor on our own account: how far it is when it is silent, and to stop."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from flask import current_app

from app.http_client import OutboundError
from app.jobs import lifecycle
from app.jobs.models import CANCELING, ENDED
from app.jobs.records import JobRow
from app.processors import client, hearing, remote
from app.processors.remote import CANCEL, CANCEL_DEADLINE, POLL, Run
from app.processors.words import is_answer

HEARTBEAT_LOST = "heartbeat-lost"
MOST_UNANSWERED = 5
"""Questions in a row."""
LONGEST = timedelta(days=7)
"""What a processor may take."""

LONGEST_STORING = timedelta(days=1)
"""From its word that it is done until all results are here: they wait for slots, and for the storage."""

CANCEL_AGAIN = timedelta(seconds=5)

WORDS: Mapping[str, str | None] = {
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


def poll(job_id: UUID, attempt: int) -> None:
    """Ask how far it is where nothing was heard for a while, and see to it that it is asked again."""
    job = lifecycle.found(job_id)
    run = None if job is None else remote.run_of(job)
    if job is None or run is None or job.attempt != attempt or job.state in ENDED:
        return
    silence = datetime.now(UTC) - run.heard_at
    if silence > LONGEST_STORING and run.completed_at is not None:
        _give_up(job_id, attempt, lifecycle.UNAVAILABLE, "Its results could not be stored for a day.")
    elif datetime.now(UTC) - run.created_at > LONGEST:
        _give_up(job_id, attempt, lifecycle.TIMED_OUT, "The processor took longer than it may.")
    elif silence < remote.poll_pause() or run.completed_at is not None:
        remote.order(POLL, job, delay=max(remote.poll_pause() - silence, remote.poll_pause() / 2))
    else:
        _ask(job, run)


def _ask(job: JobRow, run: Run) -> None:
    """One question, which the job is not held for."""
    answer = _status(run)
    held = hearing.held_run(job.id, job.attempt)
    if held is None:
        return
    if answer is None:
        _note_silence(job)
        return
    if hearing.hear(job.id, job.attempt):  # what was called back before counts first
        _let_count(job, answer)
    remote.order(POLL, job, delay=remote.poll_pause())


def _let_count(job: JobRow, answer: Mapping[str, Any]) -> None:
    event = WORDS[_word(answer)]
    if event is None:
        remote.hear_alive(job.id, job.attempt)
    else:
        hearing.apply(job.id, event, answer)


def _status(run: Run) -> dict[str, Any] | None:
    """What it says; None for nothing that could be understood."""
    try:
        answer = client.status(run.task, str(run.tracking_id))
    except OutboundError as error:
        log.warning("processor does not answer", reason=str(error))
        return None
    return answer if answer is not None and is_answer(answer) and _word(answer) in WORDS else None


def _word(answer: Mapping[str, Any]) -> str:
    return str(answer.get("status")).upper().replace("_", " ").replace("-", " ")


def _note_silence(job: JobRow) -> None:
    unanswered = remote.count_silence(job)
    if unanswered < MOST_UNANSWERED:
        remote.order(POLL, job, delay=remote.poll_pause())
    elif current_app.config["PROCESSOR_URL"]:
        words = f"The processor has not been heard of, and did not answer {unanswered} times."
        _give_up(job.id, job.attempt, HEARTBEAT_LOST, words)
    else:
        _give_up(job.id, job.attempt, HEARTBEAT_LOST, "This server has no processor any more.")


def _give_up(job_id: UUID, attempt: int, code: str, words: str) -> None:
    """Fail a job; whatever still goes on there is asked to stop."""
    held = hearing.held_run(job_id, attempt)
    if held is not None:
        remote.order(CANCEL, held[0])
        hearing.end(lifecycle.fail(held[0], code, words))


def cancel(job_id: UUID, attempt: int) -> None:
    """Ask to stop, until there is an answer or nobody waits for it; that it has, it says by it or by a callback.

    A job that has ended meanwhile without its word is asked about once.
    """
    job = lifecycle.found(job_id)
    run = None if job is None else remote.run_of(job)
    if job is None or run is None or run.tracking_id is None or job.attempt != attempt or run.completed_at is not None:
        return
    try:
        answer = client.cancel(run.task, run.tracking_id)
    except OutboundError as error:
        log.warning("processor does not answer", reason=str(error))
        if job.state == CANCELING:
            remote.order(CANCEL, job, delay=CANCEL_AGAIN)
        return
    if answer is not None and WORDS.get(_word(answer)) == "CANCELLED":
        hearing.apply(job.id, "CANCELLED", answer)


def forget(job_id: UUID, attempt: int) -> None:
    """End what was to be canceled without the word of the processor, which had its time to say it."""
    held = hearing.held_run(job_id, attempt)
    if held is None or held[0].state != CANCELING or held[1].completed_at is not None:
        return
    seconds = current_app.config["PROCESSOR_CANCEL_GRACE_SECONDS"]
    words = f"The processor has not said within {seconds} s that it stopped: it may still be at work."
    lifecycle.hear(held[0], words, level="warning")
    hearing.end(lifecycle.canceled(held[0]))


def ask_to_cancel(job: JobRow) -> None:
    """Order the processor to be asked to stop; its word is not waited for longer than the grace.

    One that is done has nothing to stop: the job ends at once. One that has not answered the start is asked after that.
    """
    run = remote.run_of(job)
    if run is None or run.tracking_id is None:
        return
    if run.completed_at is not None:
        hearing.end(lifecycle.canceled(job))
        return
    remote.order(CANCEL, job)
    grace = timedelta(seconds=current_app.config["PROCESSOR_CANCEL_GRACE_SECONDS"])
    remote.order(CANCEL_DEADLINE, job, delay=grace)
