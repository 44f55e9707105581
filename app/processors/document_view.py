"""GET /v1/jobs/{id}/documents/{uid}: a document for the processor, at a signed URL that is valid until the job ends."""

import hmac
from base64 import urlsafe_b64encode
from urllib.parse import quote
from uuid import UUID

from flask import Response, current_app, request
from sqlalchemy import Text, Uuid, bindparam, select

from app.database import PreparedStatement, open_transaction
from app.derived_keys import derive_key
from app.documents import resolver
from app.errors import NotFound
from app.jobs import lifecycle
from app.jobs.models import TERMINAL_STATES
from app.jobs.permissions import get_owner_access
from app.jobs.records import JobRow
from app.jsonapi.resource_type import parse_uuid
from app.processors.models import JobDocument

SIGNATURE_PARAMETER = "signature"

_documents = JobDocument.__table__
_select_document = PreparedStatement(
    select(_documents.c.uid, _documents.c.type, _documents.c.resource_type, _documents.c.resource_id).where(
        _documents.c.job_id == bindparam("job_id", type_=Uuid), _documents.c.uid == bindparam("uid", type_=Text)
    )
)


def build_source_url(job: JobRow, uid: str) -> str:
    """Return the signed URL at which the processor downloads a document of a job."""
    path = f"/v1/jobs/{job.id}/documents/{quote(uid, safe='')}"
    return f"{current_app.config['PUBLIC_URL']}{path}?{SIGNATURE_PARAMETER}={_sign_document(job.id, uid)}"


def serve_job_document(id: str, uid: str) -> Response:
    """Return the current content of a document that the owner of the job may see; raise NotFound after the job."""
    job_id = parse_uuid(id)
    with open_transaction(is_read=True):
        if job_id is None or not _has_valid_signature(job_id, uid):
            raise _build_not_found()
        job = lifecycle.get_job(job_id)
        access = None if job is None or job.state in TERMINAL_STATES else get_owner_access(job)
        for row in _select_document.fetch_rows({"job_id": job_id, "uid": uid}):
            if access is not None:
                return resolver.serve_document(resolver.Document(*row), access)
    raise _build_not_found()


serve_job_document.permission = "the processor, by the signature in the URL"  # type: ignore[attr-defined]  # read by `manage.py routes`


def _build_not_found() -> NotFound:
    return NotFound("There is no such document here, or its job has ended.")


def _has_valid_signature(job_id: UUID, uid: str) -> bool:
    sent = request.args.get(SIGNATURE_PARAMETER, "").encode(errors="replace")
    return hmac.compare_digest(_sign_document(job_id, uid).encode(), sent)


def _sign_document(job_id: UUID, uid: str) -> str:
    about = b"processors.document\n%s\n%s" % (str(job_id).encode(), uid.encode("utf-8", "replace"))
    return urlsafe_b64encode(derive_key(about)).decode().rstrip("=")
