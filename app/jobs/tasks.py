"""The Celery side of jobs: an id comes in, the work begins; and what follows when it has ended."""

import os
import socket
from uuid import UUID

import structlog

from app.errors import ApiError, ApiErrorGroup
from app.jobs import executor, lifecycle, submission
from app.jobs.kinds import KINDS
from app.jobs.state_hooks import RERUN_CONSUMER, WAKE_NEXT_CONSUMER
from app.jobs.submission import RUN_CONSUMER
from app.outbox import OutboxEntry, consumer_task, wakeup_task
from app.processes.worker_nodes import JOBS_QUEUE

WAKEUP_BATCH_SIZE = 4

log = structlog.get_logger(__name__)


@wakeup_task(RUN_CONSUMER, queue=JOBS_QUEUE)
def run_job(_job_id: str) -> None:
    """Run one attempt of the queued job whose turn it is.

    A message says that there is one job more in the queue, not which one is next: then one owner with many jobs would
    keep all others waiting.
    """
    executor.run_next(f"{socket.gethostname()}/{os.getpid()}")


@consumer_task(RERUN_CONSUMER)
def rerun_job(entry: OutboxEntry) -> None:
    """Submit once more what was asked for again while it ran, unless its kind takes it no longer.

    KeyError while there is no such kind: its file may be being replaced.
    """
    job = lifecycle.get_job(UUID(entry.payload["job_id"]))
    if job is None:
        return
    kind = KINDS[job.kind]
    try:
        submission.resubmit_job(job)
    except (ApiError, ApiErrorGroup) as error:
        log.warning("job is not submitted again", job_id=str(job.id), kind=kind.name, error=str(error))


@consumer_task(WAKE_NEXT_CONSUMER)
def wake_next(entry: OutboxEntry) -> None:
    """Wake jobs of a kind for which there is room now, those first that have waited for longest.

    A few at each end: several may have ended at once, and where there is room for many, slots are what they wait for.
    """
    kind, concurrency = entry.payload["kind"], entry.payload["concurrency"]
    room = concurrency - lifecycle.count_active(kind)
    for job in lifecycle.next_queued(kind, min(room, WAKEUP_BATCH_SIZE)):
        submission.enqueue_job(job)
