"""Creation of the job of a treatment, and relaunch of a treatment as a new one."""

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


def submit_job(_app: object, verb: str, id: UUID, **_payload: Any) -> None:
    """Submit the job of a new treatment under the same id, in the transaction that creates the treatment."""
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
    """Raise Unprocessable when a document set has no documents or too many."""
    try:
        is_empty = not resolve_documents(document_set_id, access)
    except TooManyDocuments as error:
        raise Unprocessable(str(error), pointer=pointer, code="too-many-documents") from None
    if is_empty:
        raise Unprocessable("The document set has no documents.", pointer=pointer, code="no-documents")


def relaunch_treatment(job: JobRow) -> JobRow:
    """Create a copy of the treatment of this job, and return the job of the copy.

    Raise NotFound when the treatment is in the trash, Conflict when its owner is blocked or deleted.
    """
    type_ = TYPES["treatment"]
    table = type_.table
    original = (
        get_connection().execute(select(table).where(table.c.id == job.id, table.c.deleted_at.is_(None))).one_or_none()
    )
    if original is None:
        raise NotFound("The treatment of this job has been deleted.")
    access = get_owner_access(job)
    if access is None:
        raise Conflict("The user who requested the treatment is blocked or deleted.", code="gone")
    check_documents(original.document_set_id, access, None)
    try:
        copy = repository.insert_row(
            type_, {**{name: getattr(original, name) for name in _COPIED_COLUMNS}, "retry_of_id": original.id}
        )
    except ApiErrorGroup as group:
        raise ApiErrorGroup(_without_pointer(each) for each in group.errors) from None
    except Unprocessable as error:
        raise _without_pointer(error) from None
    new_job = lifecycle.get_job(copy.id)
    if new_job is None:
        raise RuntimeError("A treatment without a job")
    return new_job


def _without_pointer(error: ApiError) -> ApiError:
    """Return a copy of an error without a pointer: the request has no document to point into."""
    return type(error)(error.detail, code=error.code)


def set_job_retention(treatment_id: UUID, *, retained: bool) -> None:
    """Keep the job of a treatment, or let it be pruned, with the treatment, once the treatment is in the trash."""
    get_connection().execute(update(Job).where(Job.id == treatment_id).values(retained=retained))


def connect_signal() -> None:
    """Connect `submit_job` to the change signal of treatments, once per process."""
    Treatment.__signal__.connect(submit_job)
