"""What a treatment has come to, in the words of the original: read from its job and what the processor has said."""

from sqlalchemy import ColumnElement, FromClause, and_, case, select

from app.jobs.models import CANCELED, FAILED, QUEUED, RUNNING, SUCCEEDED, WAITING, Job
from app.processors.models import RemoteRun

PENDING, STARTED, IN_PROGRESS = "PENDING", "STARTED", "IN PROGRESS"
SUCCESS, ERROR, CANCELLED = "SUCCESS", "ERROR", "CANCELLED"
STATUSES = (PENDING, STARTED, IN_PROGRESS, SUCCESS, ERROR, CANCELLED)


def is_current_run(jobs: FromClause, runs: FromClause) -> ColumnElement[bool]:
    """The run of the present attempt of a job."""
    return and_(runs.c.job_id == jobs.c.id, runs.c.attempt == jobs.c.attempt)


def status_column(treatments: FromClause) -> ColumnElement[str]:
    """PENDING until the processor has it, STARTED until it says that it has begun."""
    jobs, runs = Job.__table__.alias(), RemoteRun.__table__.alias()
    words = case(
        (jobs.c.state.in_((QUEUED, RUNNING)), PENDING),
        (jobs.c.state == SUCCEEDED, SUCCESS),
        (jobs.c.state == FAILED, ERROR),
        (jobs.c.state == CANCELED, CANCELLED),
        (and_(jobs.c.state == WAITING, runs.c.begun_at.is_(None)), STARTED),
        else_=IN_PROGRESS,
    )
    return (
        select(words)
        .select_from(jobs.outerjoin(runs, is_current_run(jobs, runs)))
        .where(jobs.c.id == treatments.c.id)
        .scalar_subquery()
    )


def tracking_id_column(treatments: FromClause) -> ColumnElement[str]:
    """The name that the processor has given to the run of the present attempt."""
    jobs, runs = Job.__table__.alias(), RemoteRun.__table__.alias()
    return (
        select(runs.c.tracking_id)
        .select_from(jobs.join(runs, is_current_run(jobs, runs)))
        .where(jobs.c.id == treatments.c.id)
        .scalar_subquery()
    )
