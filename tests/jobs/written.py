"""What the tables of jobs hold now."""

from typing import Any
from uuid import UUID

from flask import Flask
from sqlalchemy import select, text

from app.database import connection, transaction
from app.jobs.models import Job
from app.jobs.records import JobRow


def read(app: Flask, job_id: UUID) -> JobRow:
    """A job as it is now."""
    with app.app_context(), transaction(is_read=True):
        return JobRow(*connection().execute(select(Job.__table__).where(Job.id == job_id)).one())


def written(app: Flask, table: type[Any], job_id: UUID) -> list[Any]:
    """The rows of a table that belong to a job."""
    with app.app_context(), transaction(is_read=True):
        statement = select(table.__table__).where(table.job_id == job_id)
        return list(connection().execute(statement.order_by(text("2, 3"))).all())
