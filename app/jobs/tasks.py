"""Celery tasks of jobs: running attempts, and the outbox consumers that run after a job has ended."""

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

    The message only means that a job was queued; the worker chooses the job, so that owners take turns.
    """
    executor.run_next(f"{socket.gethostname()}/{os.getpid()}")


@consumer_task(RERUN_CONSUMER)
def rerun_job(entry: OutboxEntry) -> None:
    """Submit a job once more that was submitted again while it ran, unless its parameters are no longer valid.

    Raise KeyError, and so try again later, while the kind does not exist: its file may be being replaced.
    """
    job = lifecycle.get_job(UUID(entry.payload["job_id"]))
    if job is None:
        return
    kind = KINDS[job.kind]
    try:
        submission.resubmit_job(job)
    except (ApiError, ApiErrorGroup) as error:
        log.warning("job rerun rejected", job_id=str(job.id), kind=kind.name, error=str(error))


@consumer_task(WAKE_NEXT_CONSUMER)
def wake_next(entry: OutboxEntry) -> None:
    """Wake workers for the oldest queued jobs of a kind that its concurrency limit now permits.

    At most WAKEUP_BATCH_SIZE jobs after each end, because several jobs may have ended at once. If the limit permits
    more, the jobs wait for slots of workers and need no wake-up.
    """
    kind, concurrency = entry.payload["kind"], entry.payload["concurrency"]
    capacity = concurrency - lifecycle.count_active(kind)
    for job in lifecycle.next_queued(kind, min(capacity, WAKEUP_BATCH_SIZE)):
        submission.enqueue_job(job)
