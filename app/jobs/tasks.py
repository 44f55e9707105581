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

WOKEN_AT_ONCE = 4

log = structlog.get_logger(__name__)


@wake_up(START, queue=JOBS_QUEUE)
def run_job(_job_id: str) -> None:
    """Run one attempt of the queued job whose turn it is.

    A message says that there is one job more in the queue, not which one is next: then one owner with many jobs would
    keep all others waiting.
    """
    running.run_next(f"{socket.gethostname()}/{os.getpid()}")


@consumer(AGAIN)
def submit_again(entry: OutboxEntry) -> None:
    """Submit once more what was asked for again while it ran, unless its kind takes it no longer.

    KeyError while there is no such kind: its file may be being replaced.
    """
    job = lifecycle.found(UUID(entry.payload["job_id"]))
    if job is None:
        return
    kind = KINDS[job.kind]
    try:
        submission.again(job)
    except (ApiError, Errors) as error:
        log.warning("job is not submitted again", job_id=str(job.id), kind=kind.name, error=str(error))


@consumer(NEXT)
def wake_next(entry: OutboxEntry) -> None:
    """Wake jobs of a kind for which there is room now, those first that have waited for longest.

    A few at each end: several may have ended at once, and where there is room for many, slots are what they wait for.
    """
    kind, concurrency = entry.payload["kind"], entry.payload["concurrency"]
    room = concurrency - lifecycle.at_work(kind)
    for job in lifecycle.next_of(kind, min(room, WOKEN_AT_ONCE)):
        submission.start(job)
