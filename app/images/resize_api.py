"""The resize API: POST an image and get a token; GET the token for the URL of the variant (docs/resize-api.md)."""

from http import HTTPStatus
from typing import Any
from uuid import UUID

from flask import Blueprint, Response, current_app, jsonify, request
from sqlalchemy import Uuid, bindparam, select
from uuid_utils.compat import uuid7

from app import quotas, throttle
from app.database import PreparedStatement, open_transaction
from app.errors import NotFound
from app.images import request_images
from app.images.image_info import MEDIA_TYPES, SUFFIXES
from app.images.inspection import inspect_image
from app.images.loader import get_input_folder
from app.images.resizer import DEFAULT_VARIANT
from app.images.tasks import KIND, VARIANT_OPTIONS
from app.jobs import submission
from app.jobs.kinds import KINDS
from app.jobs.models import CANCELED, FAILED, QUEUED, SUCCEEDED, Job
from app.jobs.records import JobRow
from app.jsonapi.current_user import CurrentUser, get_current_user, require_current_user
from app.jsonapi.idempotency import POST_ONLY, REPLAYED_HEADER, run_idempotent, set_location
from app.jsonapi.negotiation import JSON_TYPES, require_media_type
from app.storage import current_storage

routes = Blueprint("resize", __name__)

RESIZE_URL = "/api/v1/resize"
IMAGE_MEMBER = "imageData"
STATE_NAMES = {QUEUED: "PENDING", SUCCEEDED: "SUCCESS", FAILED: "FAILURE", CANCELED: "FAILURE"}
"""Names of job states in this API; all other states are STARTED."""
CANCELED_ERROR = {"code": "canceled", "detail": "The job was canceled."}

TEXT_SCHEMA = {"type": "string"}
_MEMBERS: dict[str, Any] = {
    "type": "object",
    "properties": {IMAGE_MEMBER: TEXT_SCHEMA, **VARIANT_OPTIONS},
    "required": [IMAGE_MEMBER],
}
REQUEST_SCHEMAS: dict[str, Any] = dict.fromkeys(JSON_TYPES, _MEMBERS)
TOKEN_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"success": {"type": "boolean", "enum": [True]}, "token": TEXT_SCHEMA},
    "required": ["success", "token"],
}
STATUS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": ["PENDING", "STARTED", "SUCCESS", "FAILURE"]},
        "resized_image_url": {"type": ["string", "null"]},
        "error": {
            "type": "object",
            "properties": {"code": TEXT_SCHEMA, "detail": TEXT_SCHEMA},
            "required": ["code", "detail"],
        },
    },
    "required": ["status", "resized_image_url"],
}

_jobs = Job.__table__
_select_job = PreparedStatement(select(*_jobs.c).where(_jobs.c.id == bindparam("id", type_=Uuid), _jobs.c.kind == KIND))


def _get_max_body_bytes() -> int:
    """Return the maximum size of the body in bytes; raise 429 if an anonymous caller exceeds the rate limit."""
    viewer = _get_caller()
    if viewer.is_anonymous:
        throttle.check_rate_limit("resize")
    quotas.require_quota(viewer.id)
    return request_images.get_max_body_bytes()


@routes.post(RESIZE_URL, strict_slashes=False)
def resize() -> Response:
    """Start a job that makes an image smaller, and return its token."""
    viewer = _get_caller()
    require_media_type(request.headers, REQUEST_SCHEMAS)
    members = request_images.read_members()
    options = {name: members[name] for name in VARIANT_OPTIONS if members.get(name) is not None}
    KINDS[KIND].validate_parameters({"image": IMAGE_MEMBER, **options}, "")
    content = request_images.decode_base64_image(members, IMAGE_MEMBER)
    with request_images.image_errors_as_api_errors(f"/{IMAGE_MEMBER}"):
        info = inspect_image(content)
    job_id = uuid7()
    name = f"{get_input_folder(job_id)}/input.{SUFFIXES[info.format]}"
    content = content[: info.end]
    current_storage().put(name, content, MEDIA_TYPES[info.format])
    return _submit_job(job_id, {"image": name, **options}, len(content), viewer)


@routes.get(f"{RESIZE_URL}/<token>", strict_slashes=False)
def show(token: str) -> Response:
    """Get the state of the job with this token, and the URL of the smaller image."""
    job = _get_job(token, _get_caller())
    url = job.result["urls"][DEFAULT_VARIANT.name] if job.result else None
    response = {"status": STATE_NAMES.get(job.state, "STARTED"), "resized_image_url": url}
    if job.state in (FAILED, CANCELED):
        response["error"] = _get_error(job)
    return jsonify(response)


PERMISSION = "signed in, or anyone with RESIZE_PUBLIC"
resize.permission = show.permission = PERMISSION  # type: ignore[attr-defined]  # read by `manage.py routes`
resize.keyed_methods = POST_ONLY  # type: ignore[attr-defined]  # read by app/jsonapi/idempotency.py
resize.largest_body = _get_max_body_bytes  # type: ignore[attr-defined]  # read by app/request_bodies.py
resize.takes, resize.gives = REQUEST_SCHEMAS, TOKEN_SCHEMA  # type: ignore[attr-defined]  # read by /openapi.json
show.takes, show.gives = None, STATUS_SCHEMA  # type: ignore[attr-defined]  # same
resize.status, show.status = HTTPStatus.ACCEPTED, HTTPStatus.OK  # type: ignore[attr-defined]  # same


def _get_caller() -> CurrentUser:
    with open_transaction(is_read=True):
        return get_current_user() if current_app.config["RESIZE_PUBLIC"] else require_current_user()


def _submit_job(job_id: UUID, parameters: dict[str, Any], size: int, viewer: CurrentUser) -> Response:
    """Submit the job, or replay the response to an earlier request; without a new job, delete the stored image."""

    def accept() -> Response:
        quotas.charge_upload(viewer.id, size)
        owned: dict[str, Any] = {"owner_id": viewer.id or None, "job_id": job_id, "input_bytes": size}
        submission.submit_job(KIND, parameters, trigger="api", pointer="", **owned)
        response = jsonify(success=True, token=str(job_id))
        response.status_code = HTTPStatus.ACCEPTED
        return set_location(response, f"{current_app.config['PUBLIC_URL']}{RESIZE_URL}/{job_id}")

    is_stored = False
    try:
        with open_transaction(is_read=False):
            response = run_idempotent(viewer, accept)
        is_stored = REPLAYED_HEADER not in response.headers
    finally:
        if not is_stored:
            current_storage().delete(parameters["image"])
    del response.headers["Content-Location"]  # a GET of that URL returns another representation
    return response


def _get_job(token: str, viewer: CurrentUser) -> JobRow:
    """Return the job if the caller owns it, it has no owner, or the caller is an admin; raise NotFound otherwise."""
    try:
        with open_transaction(is_read=True):
            rows = _select_job.fetch_rows({"id": UUID(token)})
    except ValueError:
        rows = ()
    for job in (JobRow(*row) for row in rows):
        if "image" in job.parameters and (job.owner_id in (None, viewer.id) or viewer.is_admin):
            return job
    raise NotFound("There is no job with this token.")


def _get_error(job: JobRow) -> dict[str, str]:
    error = job.error or CANCELED_ERROR
    return {"code": error["code"], "detail": error["detail"]}
