"""Helpers that execute image jobs in this process and list their files."""

import os
from pathlib import Path
from uuid import UUID

from flask import Flask
from sqlalchemy import select

from app.database import get_connection, open_transaction
from app.jobs import executor
from app.jobs.models import Job
from app.jobs.records import JobRow
from app.storage import Storage
from app.stored_files import MARKER
from tests.worker_process import run_state_hooks


def list_jobs(app: Flask) -> list[JobRow]:
    """Return all jobs, oldest first."""
    with app.app_context(), open_transaction(is_read=True):
        return [JobRow(*row) for row in get_connection().execute(select(Job.__table__).order_by(Job.id))]


def execute_job(app: Flask, job_id: UUID) -> None:
    """Execute a job, as a worker does."""
    with app.app_context():
        executor.run_job(job_id, "tests")


def run_all_jobs(app: Flask) -> list[JobRow]:
    """Execute all queued jobs and those that they submit; return all jobs, oldest first."""
    run_state_hooks(app)
    while queued := [job for job in list_jobs(app) if job.state == "queued"]:
        execute_job(app, queued[0].id)
        run_state_hooks(app)
    return list_jobs(app)


def list_files(storage: Storage) -> list[str]:
    """Return the names of all stored files, also unfinished ones, without the marker of the database."""
    directory = Path(storage.storage_url.removeprefix("file://"))
    names = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    return sorted(names - {MARKER})


def list_work_files(app: Flask) -> list[str]:
    """Return the files in the work directories of jobs."""
    directory = Path(app.config["VAR_DIR"]) / "work"
    return os.listdir(directory) if directory.exists() else []
