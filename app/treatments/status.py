"""Status of a treatment in the values of the original server, computed from its job and run."""

from sqlalchemy import ColumnElement, FromClause, and_, case, select

from app.jobs.models import CANCELED, FAILED, QUEUED, RUNNING, SUCCEEDED, WAITING, Job
from app.processors.models import RemoteRun

PENDING, STARTED, IN_PROGRESS = "PENDING", "STARTED", "IN PROGRESS"
SUCCESS, ERROR, CANCELLED = "SUCCESS", "ERROR", "CANCELLED"
STATUSES = (PENDING, STARTED, IN_PROGRESS, SUCCESS, ERROR, CANCELLED)


def is_current_run(jobs: FromClause, runs: FromClause) -> ColumnElement[bool]:
    """Return the join condition of a job and the run of its current attempt."""
    return and_(runs.c.job_id == jobs.c.id, runs.c.attempt == jobs.c.attempt)


def status_column(treatments: FromClause) -> ColumnElement[str]:
    """Return the status: PENDING until the run is started, STARTED until the first event of the processor."""
    jobs, runs = Job.__table__.alias(), RemoteRun.__table__.alias()
    status = case(
        (jobs.c.state.in_((QUEUED, RUNNING)), PENDING),
        (jobs.c.state == SUCCEEDED, SUCCESS),
        (jobs.c.state == FAILED, ERROR),
        (jobs.c.state == CANCELED, CANCELLED),
        (and_(jobs.c.state == WAITING, runs.c.begun_at.is_(None)), STARTED),
        else_=IN_PROGRESS,
    )
    return (
        select(status)
        .select_from(jobs.outerjoin(runs, is_current_run(jobs, runs)))
        .where(jobs.c.id == treatments.c.id)
        .scalar_subquery()
    )


def tracking_id_column(treatments: FromClause) -> ColumnElement[str]:
    """Return the tracking id of the run of the current attempt."""
    jobs, runs = Job.__table__.alias(), RemoteRun.__table__.alias()
    return (
        select(runs.c.tracking_id)
        .select_from(jobs.join(runs, is_current_run(jobs, runs)))
        .where(jobs.c.id == treatments.c.id)
        .scalar_subquery()
    )
