"""Effects of a change of state: outbox entries for further attempts and jobs, and the hooks of the kind."""

from uuid import UUID

from app import outbox
from app.errors import Conflict
from app.jobs import lifecycle, shares, submission
from app.jobs.kinds import KINDS, Kind
from app.jobs.models import CANCELING, QUEUED, TERMINAL_STATES, WAITING
from app.jobs.records import JobRow

RERUN_CONSUMER, WAKE_NEXT_CONSUMER = "jobs.again", "jobs.next"
"""Outbox consumers that run after a job ended, outside its row lock: a deadlock is not possible, and an error does not
undo the end of the job."""


def on_state_change(job: JobRow) -> None:
    """Enqueue and call everything that follows from the new state of a job, in the transaction of the change."""
    kind = KINDS.get(job.kind)
    if job.state == QUEUED:
        submission.enqueue_job(job)
    elif job.state == CANCELING:
        _request_cancel(job, kind)
    elif job.state in TERMINAL_STATES:
        _on_end(job, kind)
    if job.state in (WAITING, *TERMINAL_STATES):
        _wake_share(job)


def _wake_share(job: JobRow) -> None:
    """Wake a worker for the next job of the share, whose earlier wake-ups may have come while the share was full."""
    if (queued := shares.find_oldest_queued(job.share)) is not None:
        submission.enqueue_run(queued)


def _request_cancel(job: JobRow, kind: Kind | None) -> None:
    if kind is not None:
        kind.on_cancel(job)
    elif job.lease_until is None and (canceled := lifecycle.finish_canceled(job)) is not None:
        on_state_change(canceled)  # the kind no longer exists, so nothing on another server can be canceled


def cancel_job(job_id: UUID) -> JobRow | None:
    """Cancel a job or request its cancellation; return None if it has ended or is being canceled already."""
    changed = lifecycle.cancel_job(job_id)
    if changed is not None:
        on_state_change(changed)
    return changed


def retry_by_kind(job: JobRow) -> JobRow | None:
    """Retry a job with the `on_retry` of its kind; return None if a new job with the same parameters must be submitted.

    Raise Conflict if the kind has secret parameters, because they are deleted when a job ends.
    """
    kind = KINDS.get(job.kind)
    if kind is not None and kind.secrets:
        raise Conflict(
            "Its secret parameters were deleted when it ended. Submit a new job with all parameters.",
            code="secrets-not-retained",
        )
    return None if kind is None or kind.on_retry is None else kind.on_retry(job)


def _on_end(job: JobRow, kind: Kind | None) -> None:
    if job.rerun_requested:
        outbox.enqueue_entry(RERUN_CONSUMER, f"job.{job.state}", {"job_id": str(job.id)})
    if kind is None:
        return
    kind.on_end(job)
    if kind.runner == "external" and (queued := shares.find_queued_run(KINDS.list_remote_names())) is not None:
        submission.enqueue_run(queued)  # the processor has room for a job of any owner
    if kind.concurrency is not None:
        outbox.enqueue_entry(
            WAKE_NEXT_CONSUMER, f"job.{job.state}", {"kind": kind.name, "concurrency": kind.concurrency}
        )
