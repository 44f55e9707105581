"""A result file is fetched, kept as an artifact, and handed to its task: in one transaction, so once."""

from typing import Any
from uuid import UUID

import structlog

from app.errors import ApiError, Errors, is_outage
from app.extensions import db
from app.jobs import artifacts, lifecycle
from app.jobs.context import JobFailed, charge_output
from app.jobs.records import JobRow
from app.jsonapi.body import read_json
from app.processors import client, results
from app.processors.modules import Payload, Unfit, installed
from app.processors.results import File

MOST_TIMES = 4
MOST_WORDS = 500

log = structlog.get_logger(__name__)


def fetch(file_id: UUID, time: int) -> None:
    """Fetch a file that is still wanted and store what is in it; what fails for a while is tried a few times."""
    wanted = results.wanted(file_id)
    if wanted is None:
        return
    file, job = wanted
    try:
        content = client.result(file.url)
        document = read_json(content)
    except client.Unfetched as error:
        if error.is_transient and time < MOST_TIMES:
            results.order_fetch(file_id, time + 1)
        else:
            _refuse(file, f"The result of {file.doc_id!r} was not fetched. {error}")
        return
    except (ApiError, Errors):
        _refuse(file, f"The result of {file.doc_id!r} is not JSON.")
        return
    except Exception as error:  # else the job would wait for this file for days
        log.exception("result not fetched")
        _refuse(file, f"The result of {file.doc_id!r} was not fetched: this is our fault ({type(error).__name__}).")
        return
    try:
        charge_output(job, len(content))
    except JobFailed as failed:
        _refuse(file, f"The result of {file.doc_id!r} was not stored. {failed.detail}")
        return
    stored = artifacts.store(job, f"result-{file.number}.json", content, "application/json", partial=not file.final)
    _take_in(file, document, stored)


def _refuse(file: File, words: str) -> None:
    job = results.held(file)
    if job is not None:
        _close(job, file, words)


def _take_in(file: File, document: Any, stored: dict[str, Any]) -> None:
    job = results.held(file)
    if job is not None:
        artifacts.show(job, stored)
        _close(job, file, _processed(job, file, document))


def _close(job: JobRow, file: File, fault: str | None) -> None:
    results.close(file, fault)
    if fault:
        lifecycle.hear(job, fault[:MOST_WORDS], level="warning")
    results.finish(job)


def _processed(job: JobRow, file: File, document: Any) -> str | None:
    """Let the task store it; why it could not, all undone that it did."""
    task = installed().get(job.kind)
    if task is None:
        return "This server does not know the task any more."
    try:
        with db.session.begin_nested():
            task.process_results(Payload(job, file.doc_id, document), completed=file.final)
    except Unfit as error:
        return f"The result of {file.doc_id!r} does not fit. {error}"
    except Exception as error:  # a task may raise anything; the other files are kept
        if is_outage(error):
            raise
        log.exception("result not processed", task=job.kind)
        return f"The result of {file.doc_id!r} was not processed: this is our fault ({type(error).__name__})."
    return None
