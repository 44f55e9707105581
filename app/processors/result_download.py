"""Download of a result file: it is stored as an artifact and processed by its task in one transaction."""

from typing import Any
from uuid import UUID

import structlog

from app.errors import ApiError, ApiErrorGroup, is_outage
from app.extensions import db
from app.jobs import artifacts, lifecycle
from app.jobs.context import JobFailed, charge_output
from app.jobs.records import JobRow
from app.jsonapi.json_parsing import parse_json
from app.processors import client, results
from app.processors.results import ResultFileRow
from app.processors.task_registry import InvalidResult, Payload, load_tasks

MAX_DOWNLOAD_ATTEMPTS = 4
MAX_MESSAGE_LENGTH = 500
"""Characters of the error of a result file, in its row and in the warning of the job."""
MAX_RESULT_CONTAINERS = 200_000
"""Objects and arrays of a result file: 16 MiB of `[]` would take 1.2 GB of memory."""

log = structlog.get_logger(__name__)


def download_result(file_id: UUID, time: int) -> None:
    """Download and process a pending result file; retry transient errors up to MAX_DOWNLOAD_ATTEMPTS."""
    wanted = results.get_pending(file_id)
    if wanted is None:
        return
    file, job = wanted
    try:
        content = client.fetch_result(file.url)
        document = parse_json(content, max_containers=MAX_RESULT_CONTAINERS)
    except client.DownloadFailed as error:
        if error.is_transient and time < MAX_DOWNLOAD_ATTEMPTS:
            results.schedule_download(file_id, time + 1)
        else:
            _reject_result(file, f"The result of {file.doc_id!r} could not be downloaded. {error}")
        return
    except (ApiError, ApiErrorGroup):
        limit = f"of at most {MAX_RESULT_CONTAINERS:,} objects and arrays"
        _reject_result(file, f"The result of {file.doc_id!r} is not JSON {limit}.")
        return
    except Exception as error:  # else the job would wait for this file for MAX_STORING_DURATION
        log.exception("result download failed")
        _reject_result(
            file, f"The result of {file.doc_id!r} could not be downloaded (internal error: {type(error).__name__})."
        )
        return
    try:
        charge_output(job, len(content))
    except JobFailed as failed:
        _reject_result(file, f"The result of {file.doc_id!r} could not be stored. {failed.detail}")
        return
    stored = artifacts.store_file(
        job, f"result-{file.number}.json", content, "application/json", partial=not file.final
    )
    _store_result(file, document, stored)


def _reject_result(file: ResultFileRow, words: str) -> None:
    job = results.lock_job(file)
    if job is not None:
        _close_file(job, file, words)


def _store_result(file: ResultFileRow, document: Any, stored: dict[str, Any]) -> None:
    job = results.lock_job(file)
    if job is not None:
        artifacts.attach_file(job, stored)
        _close_file(job, file, _process_result(job, file, document))


def _close_file(job: JobRow, file: ResultFileRow, fault: str | None) -> None:
    fault = fault and fault[:MAX_MESSAGE_LENGTH]  # it may quote the whole file
    results.set_outcome(file, fault)
    if fault:
        lifecycle.record_remote_progress(job, fault, level="warning")
    results.complete_if_done(job)


def _process_result(job: JobRow, file: ResultFileRow, document: Any) -> str | None:
    """Let the task process a result in a savepoint; return the reason when it cannot."""
    task = load_tasks().get(job.kind)
    if task is None:
        return f"The task {job.kind} is no longer installed."
    try:
        with db.session.begin_nested():
            task.process_results(Payload(job, file.doc_id, document), completed=file.final)
    except InvalidResult as error:
        return f"The result of {file.doc_id!r} is not valid. {error}"
    except Exception as error:  # a task may raise any exception; other results are not affected
        if is_outage(error):
            raise
        log.exception("result processing failed", task=job.kind)
        return f"The result of {file.doc_id!r} could not be processed (internal error: {type(error).__name__})."
    return None
