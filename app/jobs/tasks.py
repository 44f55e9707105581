"""The Celery side of jobs: an id comes in, the work begins."""

import os
import socket
from uuid import UUID

from app.jobs import running
from app.jobs.submission import START
from app.outbox import wake_up
from app.processes.nodes import JOBS_QUEUE


@wake_up(START, queue=JOBS_QUEUE)
def run_job(job_id: str) -> None:
    """Run one attempt of a job, unless somebody has taken it already."""
    running.run(UUID(job_id), f"{socket.gethostname()}/{os.getpid()}")
