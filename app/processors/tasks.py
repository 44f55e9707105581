"""The Celery side of processors: what they say is applied, they are asked, and their results are fetched."""

from uuid import UUID

from app import outbox
from app.outbox import OutboxEntry, consumer_task
from app.processes.worker_nodes import REMOTE_QUEUE
from app.processors import callbacks, event_handlers, polling, result_download
from app.processors.runs import APPLY, CANCEL, CANCEL_DEADLINE, CLEAR, FETCH, FLUSH_PROGRESS, POLL


@consumer_task(APPLY)
def apply_callbacks(entry: OutboxEntry) -> None:
    """Let what was called back count."""
    event_handlers.apply_pending_callbacks(*_get_attempt(entry))


@consumer_task(FLUSH_PROGRESS)
def flush_progress(entry: OutboxEntry) -> None:
    """Let watchers know of progress that came too soon after other progress."""
    event_handlers.flush_progress(*_get_attempt(entry))


@consumer_task(POLL, queue=REMOTE_QUEUE)
def poll_run(entry: OutboxEntry) -> None:
    """Ask a silent processor how far it is."""
    polling.poll_run(*_get_attempt(entry))


@consumer_task(CANCEL, queue=REMOTE_QUEUE)
def cancel_run(entry: OutboxEntry) -> None:
    """Ask the processor to stop."""
    polling.cancel_run(*_get_attempt(entry))


@consumer_task(CANCEL_DEADLINE)
def expire_cancel(entry: OutboxEntry) -> None:
    """Wait no longer for its word that it has."""
    polling.expire_cancel(*_get_attempt(entry))


@consumer_task(FETCH, queue=REMOTE_QUEUE)
def fetch_result(entry: OutboxEntry) -> None:
    """Fetch a result file and store what is in it."""
    result_download.download_result(UUID(entry.payload["id"]), entry.payload["time"])


@consumer_task(CLEAR)
def delete_callbacks(entry: OutboxEntry) -> None:
    """Delete what was called back about a job that has ended."""
    if callbacks.delete_callbacks(UUID(entry.payload["job_id"])):
        outbox.enqueue_entry(CLEAR, entry.topic, entry.payload)


def _get_attempt(entry: OutboxEntry) -> tuple[UUID, int]:
    return UUID(entry.payload["job_id"]), entry.payload["attempt"]
