"""The place of a job in the queue."""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, Uuid, and_, bindparam, case, func, literal, or_, select, tuple_

from app.database import PreparedStatement
from app.jobs.models import ACTIVE_STATES, QUEUED, Job

MAX_QUEUE_POSITION = 1_000
"""Jobs that are counted for a place in the queue."""


def queue_position(jobs: FromClause) -> ColumnElement[Any]:
    """How many run or were queued before a job that waits; null for one that does not."""
    others = Job.__table__.alias()
    is_before = tuple_(others.c.queued_at, others.c.id) < tuple_(jobs.c.queued_at, jobs.c.id)
    ahead = (
        select(literal(1))
        .select_from(others)
        .where(
            others.c.state.in_(ACTIVE_STATES),  # word for word what the index of live jobs holds
            # At work is what a worker holds; the rest is elsewhere.
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
    """How many are before a job that waits; None for one that does not."""
    return next((ahead for (ahead,) in _select_queue_position.fetch_rows({"id": job_id})), None)
