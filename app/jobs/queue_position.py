"""Queue position of a job."""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, Uuid, and_, bindparam, case, func, literal, or_, select, tuple_

from app.database import PreparedStatement
from app.jobs.models import ACTIVE_STATES, QUEUED, Job

MAX_QUEUE_POSITION = 1_000
"""Largest queue position; further jobs are not counted."""


def queue_position(jobs: FromClause) -> ColumnElement[Any]:
    """Build the expression for the number of jobs that run or were queued before a queued job; NULL for other jobs."""
    others = Job.__table__.alias()
    is_before = tuple_(others.c.queued_at, others.c.id) < tuple_(jobs.c.queued_at, jobs.c.id)
    ahead = (
        select(literal(1))
        .select_from(others)
        .where(
            others.c.state.in_(ACTIVE_STATES),  # exactly the condition of the partial index ix_jobs_live
            # Only jobs with a lease occupy a worker; waiting jobs run on another server.
            or_(and_(others.c.state == QUEUED, is_before), others.c.lease_until.is_not(None)),
        )
        .limit(MAX_QUEUE_POSITION)
        .correlate(jobs)
        .subquery()
    )
    return case((jobs.c.state == QUEUED, select(func.count()).select_from(ahead).scalar_subquery()))


_jobs = Job.__table__
_select_queue_position = PreparedStatement(
    select(queue_position(_jobs)).where(_jobs.c.id == bindparam("id", type_=Uuid))
)


def get_queue_position(job_id: UUID) -> int | None:
    """Return the number of jobs that run or were queued before a queued job; None for other jobs."""
    return next((ahead for (ahead,) in _select_queue_position.fetch_rows({"id": job_id})), None)
