"""The start of a task at the processor: documents chosen, a request sent, and the worker free for something else."""

from collections.abc import Sequence
from functools import partial
from typing import NoReturn

from app.database import commit, transaction
from app.documents import expansion
from app.jobs.context import Elsewhere, JobFailed, Running
from app.jobs.permissions import owner_access
from app.jobs.records import JobRow
from app.processors import client, remote
from app.processors.modules import Document, Task, with_defaults
from app.processors.remote import APPLY, POLL
from app.processors.serving import source_url
from app.url_tokens import new_token

DOCUMENT_SET = "document-set"
"""The parameter that names the set; all others go to the processor."""


def start(name: str, task: Task, running: Running) -> NoReturn:
    """Ask the processor to begin, and leave the rest to what it calls back; JobFailed when it does not."""
    job = running.job
    documents = _documents(job)
    token = new_token()
    given = {each: value for each, value in running.parameters.items() if each != DOCUMENT_SET}
    told = [Document(each.type, source_url(job, each.uid), each.uid) for each in documents]
    request = task.prepare_request(told, job)
    body = {
        **with_defaults(task, given),
        **request,
        "documents": [each._asdict() for each in request["documents"]],
        "experiment_id": str(job.id),
        "notify_url": remote.callback_url(job, token),
        "notify_secret": remote.secret(job, token),
    }
    with transaction(is_read=False):
        remote.begin(job, name, token, documents)
        commit()
    running.check()
    try:
        tracking_id = client.start(name, body)
    except client.Rejected as rejected:
        raise JobFailed("rejected-by-processor", str(rejected)) from None
    raise Elsewhere(partial(_note, tracking_id))


def _documents(job: JobRow) -> Sequence[expansion.Document]:
    with transaction(is_read=True):
        access = owner_access(job)
        if access is None:
            raise JobFailed("forbidden", "Its owner may not start this any more.")
        try:
            found = expansion.expanded(job.parameters[DOCUMENT_SET], access)
        except expansion.TooMany as error:
            raise JobFailed("too-many-documents", str(error)) from None
    if not found:
        raise JobFailed("no-documents", "There is nothing in the document set any more.")
    return found


def _note(tracking_id: str, job: JobRow) -> None:
    """In the transaction that lets the worker go: what has been said meanwhile is heard now."""
    remote.track(job, tracking_id)
    remote.order(APPLY, job)
    remote.order(POLL, job, delay=remote.poll_pause())
