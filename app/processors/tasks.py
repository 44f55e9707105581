"""The Celery side of processors: what they say is applied, they are asked, and their results are fetched."""

from uuid import UUID

from app import outbox
from app.outbox import OutboxEntry, consumer
from app.processes.nodes import REMOTE_QUEUE
from app.processors import asking, callbacks, fetching, hearing
from app.processors.remote import APPLY, CANCEL, CANCEL_DEADLINE, CLEAR, FETCH, POLL, TELL


@consumer(APPLY)
def apply_callbacks(entry: OutboxEntry) -> None:
    """Let what was called back count."""
    hearing.hear(*_attempt(entry))


@consumer(TELL)
def tell_progress(entry: OutboxEntry) -> None:
    """Let watchers know of progress that came too soon after other progress."""
    hearing.tell(*_attempt(entry))


@consumer(POLL, queue=REMOTE_QUEUE)
def poll(entry: OutboxEntry) -> None:
    """Ask a silent processor how far it is."""
    asking.poll(*_attempt(entry))


@consumer(CANCEL, queue=REMOTE_QUEUE)
def cancel(entry: OutboxEntry) -> None:
    """Ask the processor to stop."""
    asking.cancel(*_attempt(entry))


@consumer(CANCEL_DEADLINE)
def end_cancel(entry: OutboxEntry) -> None:
    """Wait no longer for its word that it has."""
    asking.forget(*_attempt(entry))


@consumer(FETCH, queue=REMOTE_QUEUE)
def fetch_result(entry: OutboxEntry) -> None:
    """Fetch a result file and store what is in it."""
    fetching.fetch(UUID(entry.payload["id"]), entry.payload["time"])


@consumer(CLEAR)
def clear_callbacks(entry: OutboxEntry) -> None:
    """Delete what was called back about a job that has ended."""
    if callbacks.clear(UUID(entry.payload["job_id"])):
        outbox.order(CLEAR, entry.topic, entry.payload)


def _attempt(entry: OutboxEntry) -> tuple[UUID, int]:
    return UUID(entry.payload["job_id"]), entry.payload["attempt"]
