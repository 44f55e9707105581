"""Outbox consumers of runs: apply callbacks, poll and cancel runs, download results."""

from uuid import UUID

from app import outbox
from app.outbox import OutboxEntry, consumer_task
from app.processes.worker_nodes import REMOTE_QUEUE
from app.processors import callbacks, event_handlers, polling, result_download
from app.processors.runs import APPLY, CANCEL, CANCEL_DEADLINE, CLEAR, FETCH, FLUSH_PROGRESS, POLL


@consumer_task(APPLY)
def apply_callbacks(entry: OutboxEntry) -> None:
    """Apply the pending callbacks of a run."""
    event_handlers.apply_pending_callbacks(*_get_attempt(entry))


@consumer_task(FLUSH_PROGRESS)
def flush_progress(entry: OutboxEntry) -> None:
    """Publish progress that arrived too soon after the previous progress event."""
    event_handlers.flush_progress(*_get_attempt(entry))


@consumer_task(POLL, queue=REMOTE_QUEUE)
def poll_run(entry: OutboxEntry) -> None:
    """Request the status of a run that sends no callbacks."""
    polling.poll_run(*_get_attempt(entry))


@consumer_task(CANCEL, queue=REMOTE_QUEUE)
def cancel_run(entry: OutboxEntry) -> None:
    """Cancel a run at the processor."""
    polling.cancel_run(*_get_attempt(entry))


@consumer_task(CANCEL_DEADLINE)
def expire_cancel(entry: OutboxEntry) -> None:
    """End a job whose cancellation the processor has not confirmed in time."""
    polling.expire_cancel(*_get_attempt(entry))


@consumer_task(FETCH, queue=REMOTE_QUEUE)
def fetch_result(entry: OutboxEntry) -> None:
    """Download and process a result file."""
    result_download.download_result(UUID(entry.payload["id"]), entry.payload["time"])


@consumer_task(CLEAR)
def delete_callbacks(entry: OutboxEntry) -> None:
    """Delete the callbacks of a job that has ended, in batches."""
    if callbacks.delete_callbacks(UUID(entry.payload["job_id"])):
        outbox.enqueue_entry(CLEAR, entry.topic, entry.payload)


def _get_attempt(entry: OutboxEntry) -> tuple[UUID, int]:
    return UUID(entry.payload["job_id"]), entry.payload["attempt"]
