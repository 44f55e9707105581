"""Helpers that read the tables of jobs."""

from typing import Any
from uuid import UUID

from flask import Flask
from sqlalchemy import select, text

from app.database import get_connection, open_transaction
from app.jobs.models import Job
from app.jobs.records import JobRow


def get_job(app: Flask, job_id: UUID) -> JobRow:
    """Return the current row of a job."""
    with app.app_context(), open_transaction(is_read=True):
        return JobRow(*get_connection().execute(select(Job.__table__).where(Job.id == job_id)).one())


def list_job_rows(app: Flask, table: type[Any], job_id: UUID) -> list[Any]:
    """Return the rows of a table that belong to a job."""
    with app.app_context(), open_transaction(is_read=True):
        statement = select(table.__table__).where(table.job_id == job_id)
        return list(get_connection().execute(statement.order_by(text("2, 3"))).all())
