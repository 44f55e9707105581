"""Queue position of a job."""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, Integer, Uuid, bindparam, case, func, literal, select

from app.database import PreparedStatement
from app.jobs.models import ACTIVE_STATES, QUEUED, Job

MAX_QUEUE_POSITION = 1_000
"""Largest queue position; further jobs are not counted."""


def queue_position(jobs: FromClause) -> ColumnElement[Any]:
    """Build the expression for the number of jobs that run or were queued before a queued job; NULL for other jobs.

    Both subqueries refer to no outer row: PostgreSQL runs each of them once for all rows of a list, and not at all
    if no job is queued.
    """
    others = Job.__table__.alias()
    is_active = others.c.state.in_(ACTIVE_STATES)  # exactly the condition of the partial index ix_jobs_live
    queue = (
        select(others.c.id)
        .where(is_active, others.c.state == QUEUED)
        .order_by(others.c.queued_at, others.c.id)
        .limit(MAX_QUEUE_POSITION)
    )
    # Only jobs with a lease occupy a worker; waiting jobs run on another server.
    running = select(literal(1)).where(is_active, others.c.lease_until.is_not(None)).limit(MAX_QUEUE_POSITION)
    place = func.array_position(func.array(queue.scalar_subquery()), jobs.c.id, type_=Integer) - 1
    count = select(func.count()).select_from(running.subquery()).scalar_subquery()
    ahead = func.least(func.coalesce(place, MAX_QUEUE_POSITION) + count, MAX_QUEUE_POSITION)
    return case((jobs.c.state == QUEUED, ahead))


_jobs = Job.__table__
_select_queue_position = PreparedStatement(
    select(queue_position(_jobs)).where(_jobs.c.id == bindparam("id", type_=Uuid))
)


def get_queue_position(job_id: UUID) -> int | None:
    """Return the number of jobs that run or were queued before a queued job; None for other jobs."""
    return next((ahead for (ahead,) in _select_queue_position.fetch_rows({"id": job_id})), None)
