"""A treatment becomes a job when it is created, and another treatment when it is launched again."""

from typing import Any
from uuid import UUID

from sqlalchemy import select, update

from app.database import get_connection
from app.documents.resolver import TooManyDocuments, resolve_documents
from app.errors import ApiError, ApiErrorGroup, Conflict, NotFound, Unprocessable
from app.jobs import lifecycle, submission
from app.jobs.models import Job
from app.jobs.permissions import get_owner_access
from app.jobs.records import JobRow
from app.jsonapi import repository
from app.jsonapi.permissions import AccessContext
from app.jsonapi.resource_type import TYPES
from app.processors.run_start import DOCUMENT_SET_PARAMETER
from app.treatments.models import Treatment

API_PARAMETERS_POINTER = "/data/attributes/api-parameters"

_COPIED_COLUMNS = ("task_type", "api_parameters", "notify_email", "document_set_id", "requested_by_id")


def submit_job(_app: object, verb: str, id: UUID, **_sent: Any) -> None:
    """Submit the job of a treatment that has just been created, in the same transaction, under the same id."""
    if verb != "created":
        return
    table = Treatment.__table__
    row = get_connection().execute(select(table).where(table.c.id == id)).one()
    submission.submit_job(
        row.task_type,
        {**row.api_parameters, DOCUMENT_SET_PARAMETER: row.document_set_id},
        trigger="signal" if row.retry_of_id is None else "retry",
        owner_id=row.requested_by_id,
        retry_of_id=row.retry_of_id,
        job_id=row.id,
        retained=True,
        pointer=API_PARAMETERS_POINTER,
    )


def check_documents(document_set_id: int, access: AccessContext, pointer: str | None) -> None:
    """422 for a set that comes to nothing, or to too much."""
    try:
        is_empty = not resolve_documents(document_set_id, access)
    except TooManyDocuments as error:
        raise Unprocessable(str(error), pointer=pointer, code="too-many-documents") from None
    if is_empty:
        raise Unprocessable("There is nothing in this set.", pointer=pointer, code="no-documents")


def relaunch_treatment(job: JobRow) -> JobRow:
    """A new treatment like the one of this job, and its job."""
    type_ = TYPES["treatment"]
    table = type_.table
    old = (
        get_connection().execute(select(table).where(table.c.id == job.id, table.c.deleted_at.is_(None))).one_or_none()
    )
    if old is None:
        raise NotFound("The treatment of this job has been deleted.")
    access = get_owner_access(job)
    if access is None:
        raise Conflict("Whoever asked for it may do nothing any more.", code="gone")
    check_documents(old.document_set_id, access, None)
    try:
        made = repository.insert_row(
            type_, {**{name: getattr(old, name) for name in _COPIED_COLUMNS}, "retry_of_id": old.id}
        )
    except ApiErrorGroup as refused:
        raise ApiErrorGroup(_without_pointer(each) for each in refused.errors) from None
    except Unprocessable as refused:
        raise _without_pointer(refused) from None
    new = lifecycle.get_job(made.id)
    if new is None:
        raise RuntimeError("A treatment without a job")
    return new


def _without_pointer(refused: ApiError) -> ApiError:
    """The same without a pointer: what is wrong stands in no document that was sent."""
    return type(refused)(refused.detail, code=refused.code)


def set_job_retention(treatment_id: UUID, *, retained: bool) -> None:
    """Keep the job of a treatment from being pruned; without, it is, and the treatment with it."""
    get_connection().execute(update(Job).where(Job.id == treatment_id).values(retained=retained))


def connect_signal() -> None:
    """Let each new treatment have its job; once, however many apps a process makes."""
    Treatment.__signal__.connect(submit_job)
