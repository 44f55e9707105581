"""Start of a run: documents are resolved, the start request is sent, and the worker hands the job off."""

from collections.abc import Sequence
from functools import partial
from typing import NoReturn

from app.database import commit, open_transaction
from app.documents import resolver
from app.jobs.context import HandedOff, JobContext, JobFailed, Postponed
from app.jobs.permissions import get_owner_access
from app.jobs.records import JobRow
from app.processors import client, runs
from app.processors.document_view import build_source_url
from app.processors.runs import APPLY, POLL
from app.processors.task_registry import RequestDocument, Task, add_defaults
from app.url_tokens import new_token

DOCUMENT_SET_PARAMETER = "document-set"
"""Parameter with the id of the document set; all others are sent to the processor."""

REJECTED = "rejected-by-processor"
"""The code of the error of a job that the processor did not start."""


def start_run(name: str, task: Task, running: JobContext) -> NoReturn:
    """Start a run at the processor and raise HandedOff; raise Postponed if it is busy, JobFailed if it cannot start."""
    job = running.job
    documents = _resolve_documents(job)
    token = new_token()
    given = {each: value for each, value in running.parameters.items() if each != DOCUMENT_SET_PARAMETER}
    told = [RequestDocument(each.type, build_source_url(job, each.uid), each.uid) for each in documents]
    request = task.prepare_request(told, job)
    body = {
        **add_defaults(task, given),
        **request,
        "documents": [each._asdict() for each in request["documents"]],
        "experiment_id": str(job.id),
        "notify_url": runs.build_callback_url(job, token),
        "notify_secret": runs.derive_callback_secret(job, token),
    }
    with open_transaction(is_read=False):
        runs.create_run(job, name, token, documents)
        commit()
    running.raise_if_ending()
    try:
        tracking_id = client.start_run(name, body)
    except client.ProcessorBusy as busy:
        raise Postponed(REJECTED, str(busy)) from None
    except client.StartRejected as rejected:
        raise JobFailed(REJECTED, str(rejected)) from None
    raise HandedOff(partial(_record_start, tracking_id))


def _resolve_documents(job: JobRow) -> Sequence[resolver.Document]:
    with open_transaction(is_read=True):
        access = get_owner_access(job)
        if access is None:
            raise JobFailed("forbidden", "The owner of the job is blocked or deleted.")
        try:
            found = resolver.resolve_documents(job.parameters[DOCUMENT_SET_PARAMETER], access)
        except resolver.TooManyDocuments as error:
            raise JobFailed("too-many-documents", str(error)) from None
    if not found:
        raise JobFailed("no-documents", "The document set has no documents that its owner can see.")
    return found


def _record_start(tracking_id: str, job: JobRow) -> None:
    """Store the tracking id in the hand-off transaction; apply the callbacks received since, and begin to poll."""
    runs.set_tracking_id(job, tracking_id)
    runs.enqueue_for_run(APPLY, job)
    runs.enqueue_for_run(POLL, job, delay=runs.get_poll_interval())
