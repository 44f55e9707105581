"""The Celery side of jobs: an id comes in, the work begins; and what follows when it has ended."""

import os
import socket
from uuid import UUID

import structlog

from app.errors import ApiError, Errors
from app.jobs import lifecycle, running, submission
from app.jobs.consequences import AGAIN, NEXT
from app.jobs.kinds import KINDS
from app.jobs.submission import START
from app.outbox import OutboxEntry, consumer, wake_up
from app.processes.nodes import JOBS_QUEUE

log = structlog.get_logger(__name__)


@wake_up(START, queue=JOBS_QUEUE)
def run_job(job_id: str) -> None:
    """Run one attempt of a job, unless somebody has taken it already."""
    running.run(UUID(job_id), f"{socket.gethostname()}/{os.getpid()}")


@consumer(AGAIN)
def submit_again(entry: OutboxEntry) -> None:
    """Submit once more what was asked for again while it ran, unless its kind takes it no longer."""
    job = lifecycle.found(UUID(entry.payload["job_id"]))
    if job is None:
        return
    try:
        submission.again(job)
    except (ApiError, Errors) as error:
        log.warning("job is not submitted again", job_id=str(job.id), kind=job.kind, error=str(error))


@consumer(NEXT)
def wake_next(entry: OutboxEntry) -> None:
    """Wake as many jobs of a kind as have room now, those first that have waited for longest."""
    kind = KINDS.get(entry.payload["kind"])
    if kind is None or kind.concurrency is None:
        return
    for job in lifecycle.next_of(kind.name, kind.concurrency - lifecycle.at_work(kind.name)):
        submission.start(job)
