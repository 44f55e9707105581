"""What follows when a job moves: another attempt, another job, whatever its kind wants to be told."""

from uuid import UUID

from app import outbox
from app.errors import Conflict
from app.jobs import lifecycle, shares, submission
from app.jobs.kinds import KINDS, Kind
from app.jobs.models import CANCELING, QUEUED, TERMINAL_STATES, WAITING
from app.jobs.records import JobRow

RERUN_CONSUMER, WAKE_NEXT_CONSUMER = "jobs.again", "jobs.next"
"""The consumers of what follows from an end but must not hold it up: with the job held, another could wait for it, and
what is refused would undo the end."""


def on_state_change(job: JobRow) -> None:
    """Do what the state brings about that a job has just come to, in the transaction that brought it there."""
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
    """Order a worker to look for the next job of the share: its messages may have come while the share was full."""
    if (queued := shares.find_oldest_queued(job.share)) is not None:
        submission.enqueue_run(queued)


def _request_cancel(job: JobRow, kind: Kind | None) -> None:
    if kind is not None:
        kind.on_cancel(job)
    elif job.lease_until is None and (canceled := lifecycle.finish_canceled(job)) is not None:
        on_state_change(canceled)  # nobody works on it, and nobody knows any more who could be asked


def cancel_job(job_id: UUID) -> JobRow | None:
    """Ask a job to end; None when it has ended, or was asked already."""
    moved = lifecycle.cancel_job(job_id)
    if moved is not None:
        on_state_change(moved)
    return moved


def retry_by_kind(job: JobRow) -> JobRow | None:
    """What its kind makes of trying a job again; None where that is another job with the same parameters.

    409 where it had secrets: they are gone.
    """
    kind = KINDS.get(job.kind)
    if kind is not None and kind.secrets:
        raise Conflict("What was secret in it is not kept: submit it anew.", code="secrets-needed")
    return None if kind is None or kind.on_retry is None else kind.on_retry(job)


def _on_end(job: JobRow, kind: Kind | None) -> None:
    if job.runs_again:
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
