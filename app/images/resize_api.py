"""The resize API: an image in, a token out, by which its smaller copy is asked for (docs/resize-api.md)."""

from http import HTTPStatus
from typing import Any
from uuid import UUID

from flask import Blueprint, Response, current_app, jsonify, request
from sqlalchemy import Uuid, bindparam, select
from uuid_utils.compat import uuid7

from app import quotas, throttle
from app.database import Prepared, transaction
from app.errors import NotFound
from app.images import sent
from app.images.headers import inspect
from app.images.picture import MEDIA_TYPES, SUFFIXES
from app.images.pixels import RESIZED
from app.images.sources import input_folder
from app.images.tasks import KIND, OPTIONS
from app.jobs import submission
from app.jobs.kinds import KINDS
from app.jobs.models import CANCELED, FAILED, QUEUED, SUCCEEDED, Job
from app.jobs.records import JobRow
from app.jsonapi.idempotency import REPLAYED, TAKES_KEY, answered_once, locate
from app.jsonapi.negotiation import JSON_TYPES, require_media_type
from app.jsonapi.viewer import Viewer, current_viewer, signed_in_viewer
from app.storage import current_storage

routes = Blueprint("resize", __name__)

URL = "/api/v1/resize"
IMAGE = "imageData"
WORDS = {QUEUED: "PENDING", SUCCEEDED: "SUCCESS", FAILED: "FAILURE", CANCELED: "FAILURE"}
"""States as this API calls them; all others are STARTED."""
WAS_CANCELED = {"code": "canceled", "detail": "The job was canceled."}

TEXT = {"type": "string"}
_MEMBERS: dict[str, Any] = {"type": "object", "properties": {IMAGE: TEXT, **OPTIONS}, "required": [IMAGE]}
TAKES: dict[str, Any] = dict.fromkeys(JSON_TYPES, _MEMBERS)
TAKEN: dict[str, Any] = {
    "type": "object",
    "properties": {"success": {"type": "boolean", "enum": [True]}, "token": TEXT},
    "required": ["success", "token"],
}
STATUS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": ["PENDING", "STARTED", "SUCCESS", "FAILURE"]},
        "resized_image_url": {"type": ["string", "null"]},
        "error": {"type": "object", "properties": {"code": TEXT, "detail": TEXT}, "required": ["code", "detail"]},
    },
    "required": ["status", "resized_image_url"],
}

_jobs = Job.__table__
_job = Prepared(select(*_jobs.c).where(_jobs.c.id == bindparam("id", type_=Uuid), _jobs.c.kind == KIND))


def _largest_body() -> int:
    """Where the API is public, whoever is not signed in may not send as many as he likes."""
    viewer = _caller()
    if viewer.is_anonymous:
        throttle.count("resize")
    quotas.require_room(viewer.id)
    return sent.largest_body()


@routes.post(URL, strict_slashes=False)
def resize() -> Response:
    """Start a job that makes an image smaller, and return its token."""
    viewer = _caller()
    require_media_type(request.headers, TAKES)
    members = sent.read_members()
    options = {name: members[name] for name in OPTIONS if members.get(name) is not None}
    KINDS[KIND].check({"image": IMAGE, **options}, "")
    content = sent.decoded(members, IMAGE)
    with sent.refusing(f"/{IMAGE}"):
        picture = inspect(content)
    job_id = uuid7()
    name = f"{input_folder(job_id)}/input.{SUFFIXES[picture.format]}"
    content = content[: picture.end]
    current_storage().put(name, content, MEDIA_TYPES[picture.format])
    return _submit(job_id, {"image": name, **options}, len(content), viewer)


@routes.get(f"{URL}/<token>", strict_slashes=False)
def show(token: str) -> Response:
    """Get the state of the job with this token, and the URL of the smaller image."""
    job = _found(token, _caller())
    url = job.result["urls"][RESIZED.name] if job.result else None
    answer = {"status": WORDS.get(job.state, "STARTED"), "resized_image_url": url}
    if job.state in (FAILED, CANCELED):
        answer["error"] = _reason(job)
    return jsonify(answer)


WHO = "signed in, anyone where RESIZE_PUBLIC says so"
resize.permission = show.permission = WHO  # type: ignore[attr-defined]  # read by `manage.py routes`
resize.keyed_methods = TAKES_KEY  # type: ignore[attr-defined]  # read by app/jsonapi/idempotency.py
resize.largest_body = _largest_body  # type: ignore[attr-defined]  # read by app/bodies.py
resize.takes, resize.gives = TAKES, TAKEN  # type: ignore[attr-defined]  # read by /openapi.json
show.takes, show.gives = None, STATUS  # type: ignore[attr-defined]  # same
resize.status, show.status = HTTPStatus.ACCEPTED, HTTPStatus.OK  # type: ignore[attr-defined]  # same


def _caller() -> Viewer:
    with transaction(is_read=True):
        return current_viewer() if current_app.config["RESIZE_PUBLIC"] else signed_in_viewer()


def _submit(job_id: UUID, parameters: dict[str, Any], size: int, viewer: Viewer) -> Response:
    """Write the row of the job, or replay an earlier answer; without a new row the image does not stay in storage."""

    def accept() -> Response:
        quotas.charge(viewer.id, size)
        owned: dict[str, Any] = {"owner_id": viewer.id or None, "job_id": job_id, "input_bytes": size}
        submission.submit(KIND, parameters, trigger="api", pointer="", **owned)
        answer = jsonify(success=True, token=str(job_id))
        answer.status_code = HTTPStatus.ACCEPTED
        return locate(answer, f"{current_app.config['PUBLIC_URL']}{URL}/{job_id}")

    is_stored = False
    try:
        with transaction(is_read=False):
            answer = answered_once(viewer, accept)
        is_stored = REPLAYED not in answer.headers
    finally:
        if not is_stored:
            current_storage().delete(parameters["image"])
    del answer.headers["Content-Location"]  # what is there is not this answer
    return answer


def _found(token: str, viewer: Viewer) -> JobRow:
    """The caller's job; one that nobody owns is everybody's who has its token."""
    try:
        with transaction(is_read=True):
            rows = _job.rows({"id": UUID(token)})
    except ValueError:
        rows = ()
    for job in (JobRow(*row) for row in rows):
        if "image" in job.parameters and (job.owner_id in (None, viewer.id) or viewer.is_admin):
            return job
    raise NotFound("There is no such token here.")


def _reason(job: JobRow) -> dict[str, str]:
    error = job.error or WAS_CANCELED
    return {"code": error["code"], "detail": error["detail"]}
