"""The place of a job in the queue."""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, Integer, Uuid, bindparam, case, func, literal, select

from app.database import PreparedStatement
from app.jobs.models import ACTIVE_STATES, QUEUED, Job

MAX_QUEUE_POSITION = 1_000
"""Jobs that are counted for a place in the queue."""


def queue_position(jobs: FromClause) -> ColumnElement[Any]:
    """How many run or were queued before a job that waits; null for one that does not.

    Both subqueries refer to no row outside: PostgreSQL runs each of them once for all rows of a list, and not at all
    where no job waits.
    """
    others = Job.__table__.alias()
    is_active = others.c.state.in_(ACTIVE_STATES)  # word for word what the index of live jobs holds
    queue = (
        select(others.c.id)
        .where(is_active, others.c.state == QUEUED)
        .order_by(others.c.queued_at, others.c.id)
        .limit(MAX_QUEUE_POSITION)
    )
    # At work is what a worker holds; the rest is elsewhere.
    at_work = select(literal(1)).where(is_active, others.c.lease_until.is_not(None)).limit(MAX_QUEUE_POSITION)
    place = func.array_position(func.array(queue.scalar_subquery()), jobs.c.id, type_=Integer) - 1
    count = select(func.count()).select_from(at_work.subquery()).scalar_subquery()
    ahead = func.least(func.coalesce(place, MAX_QUEUE_POSITION) + count, MAX_QUEUE_POSITION)
    return case((jobs.c.state == QUEUED, ahead))


_jobs = Job.__table__
_select_queue_position = PreparedStatement(
    select(queue_position(_jobs)).where(_jobs.c.id == bindparam("id", type_=Uuid))
)


def get_queue_position(job_id: UUID) -> int | None:
    """How many are before a job that waits; None for one that does not."""
    return next((ahead for (ahead,) in _select_queue_position.fetch_rows({"id": job_id})), None)
