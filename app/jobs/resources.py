"""Resources and routes of /v1/jobs, /v1/job-events and /v1/job-artifacts, and the routes of /v1/job-kinds."""

from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, ClassVar

from flask import Response
from flask_rest_jsonapi_next import Api
from flask_rest_jsonapi_next import ResourceDetail as LibraryDetail
from sqlalchemy import select

from app.database import PreparedStatement
from app.errors import Conflict, NotFound
from app.jobs import state_hooks, submission
from app.jobs.kind_views import KindDetail, KindList
from app.jobs.kinds import Kind
from app.jobs.models import ACTIVE_STATES, SUCCEEDED, TERMINAL_STATES, Artifact, Job, JobEvent
from app.jobs.permissions import PARTS_PERMISSIONS, PERMISSIONS, belongs_to_visible_job, require_start
from app.jobs.progress_stream import ProgressView
from app.jobs.queue_position import queue_position
from app.jobs.records import JobRow
from app.jobs.schemas import ArtifactSchema, JobEventSchema, JobSchema, file_path
from app.jobs.submission import PARAMETERS_POINTER, SubmitResult
from app.jsonapi import select_statements
from app.jsonapi.base_view import View
from app.jsonapi.current_user import require_current_user
from app.jsonapi.data_layer import DataLayer
from app.jsonapi.document_parser import ResourceDocument
from app.jsonapi.idempotency import run_idempotent
from app.jsonapi.permissions import AccessContext, Predicate, VisibilityScope
from app.jsonapi.query_params import LINKAGE_FAMILIES, Query
from app.jsonapi.reader import ResourceReader
from app.jsonapi.relationship_views import register_relationship_routes
from app.jsonapi.resource_type import ResourceType
from app.jsonapi.resources import ActionView, ResourceDetail, ResourceList, build_creation_response
from app.storage import send_stored_file
from app.users.ownership import owner_or_admin

JOB = ResourceType(
    schema=JobSchema,
    model=Job,
    plural="jobs",
    noun="a job",
    description="Long-running work: start it, watch it, cancel it, retry it.",
    permissions=PERMISSIONS,
    order=("-id",),
    computed={"queue_position": queue_position},
)
JOB_EVENT = ResourceType(
    schema=JobEventSchema,
    model=JobEvent,
    plural="job-events",
    noun="a job event",
    description="Progress reports and state changes of jobs.",
    permissions=PARTS_PERMISSIONS,
    order=("seq", "id"),
)
ARTIFACT = ResourceType(
    schema=ArtifactSchema,
    model=Artifact,
    plural="job-artifacts",
    noun="a job artifact",
    description="Files that jobs produced.",
    permissions=PARTS_PERMISSIONS,
)


class JobData(DataLayer):
    """Data layer that creates a job by submitting it; the kind may return an existing job instead."""

    def create_object(self, document: ResourceDocument, access: AccessContext) -> JobRow:
        data = self.validate_new(document, access)
        return submit_for(data["kind"], data["parameters"], access, trigger="api").job


class ReadOnlyJobDataLayer(DataLayer):
    """Data layer of events and artifacts, which only jobs write."""


def submit_for(
    kind_name: str,
    parameters: Mapping[str, Any],
    access: AccessContext,
    *,
    pointer: str | None = PARAMETERS_POINTER,
    **more: Any,
) -> SubmitResult:
    """Submit a job that the current user owns, after a check of their permission.

    `pointer` is the JSON pointer to the parameters in the request document, None if there is no document.
    """

    def authorize(kind: Kind, converted: Mapping[str, Any]) -> None:
        require_start(kind, converted, access, pointer)

    return submission.submit_job(kind_name, parameters, authorize=authorize, **{"owner_id": access.viewer.id, **more})


def cancel_for(job: JobRow, access: AccessContext) -> None:
    """Cancel a locked job; raise Forbidden unless the current user may, Conflict if the job has ended."""
    access.require_permission(owner_or_admin, job)
    if job.state in TERMINAL_STATES:
        raise Conflict(f"Only active jobs can be canceled; this job is {job.state}.", code="job-ended")
    state_hooks.cancel_job(job.id)


def retry_for(job: JobRow, access: AccessContext) -> JobRow:
    """Submit a job once more; raise Forbidden unless the current user may, Conflict if the job has not ended."""
    access.require_permission(owner_or_admin, job)
    if job.state in ACTIVE_STATES:
        raise Conflict(f"Only jobs that have ended can be retried; this job is {job.state}.", code="job-not-finished")
    if (new := state_hooks.retry_by_kind(job)) is not None:
        return new
    origin: dict[str, Any] = {"trigger": "retry", "owner_id": job.owner_id, "retry_of_id": job.id}
    return submit_for(job.kind, job.parameters, access, pointer=None, **origin).job


def build_accepted_response(job: JobRow, access: AccessContext) -> Response:
    """Return 202 with the job, or 200 if it is an existing job that has succeeded."""
    document = ResourceReader(access, Query(access.scope)).get_document(JOB, job.id)
    if document is None:
        raise NotFound("The job has just been deleted.")
    return build_creation_response(document, _choose_status(job))


def _choose_status(job: JobRow) -> HTTPStatus:
    return HTTPStatus.OK if job.state == SUCCEEDED else HTTPStatus.ACCEPTED


class JobList(ResourceList):
    """The jobs of the current user, newest first; POST submits one."""

    data_layer = {"class": JobData, "type": JOB}

    def get_creation_status(self, row: Any) -> HTTPStatus:
        return _choose_status(row)


class JobDetail(ResourceDetail):
    """One job."""

    data_layer = {"class": JobData, "type": JOB}
    methods = {"GET"}


class JobAction(ActionView):
    """Base of actions on a job: POST without a body."""

    data_layer = {"class": JobData, "type": JOB}
    methods = {"POST"}

    @classmethod
    def predicates_by_method(cls) -> Mapping[str, Predicate]:
        return {"POST": owner_or_admin}

    def post(self, id: str) -> Response:
        """Perform the action on the locked job, once for each Idempotency-Key."""
        reader = self.make_reader()
        return run_idempotent(
            require_current_user(), lambda: self.perform_action(self.lock_row(id, reader.access), reader.access)
        )

    def perform_action(self, job: JobRow, access: AccessContext) -> Response:
        """Perform the action without a commit; return the response."""
        raise NotImplementedError


class CancelJob(JobAction):
    """Action that cancels a job."""

    methods = {"POST"}

    def perform_action(self, job: JobRow, access: AccessContext) -> Response:
        cancel_for(job, access)
        return build_accepted_response(job, access)


class RetryJob(JobAction):
    """Action that submits a job once more, as a new job."""

    methods = {"POST"}

    def perform_action(self, job: JobRow, access: AccessContext) -> Response:
        return build_accepted_response(retry_for(job, access), access)


class JobEventDetail(ResourceDetail):
    """One event."""

    data_layer = {"class": ReadOnlyJobDataLayer, "type": JOB_EVENT}
    methods = {"GET"}


class ArtifactDetail(ResourceDetail):
    """The metadata of one artifact."""

    data_layer = {"class": ReadOnlyJobDataLayer, "type": ARTIFACT}
    methods = {"GET"}


class ArtifactFile(View, LibraryDetail):  # type: ignore[misc]  # the library carries no types
    """The content of an artifact, for users who may read its job."""

    data_layer = {"class": ReadOnlyJobDataLayer, "type": ARTIFACT}
    methods: ClassVar[set[str]] = {"GET"}
    families = {"GET": LINKAGE_FAMILIES}

    @classmethod
    def predicates_by_method(cls) -> Mapping[str, Predicate]:
        return {"GET": PARTS_PERMISSIONS.read}

    def get(self, id: str) -> Response:
        self.authorize(PARTS_PERMISSIONS.read)
        return artifact_response(id, self.make_reader().access)


def artifact_response(artifact_id: str, access: AccessContext) -> Response:
    """Return a response that streams an artifact; raise NotFound if the current user may not see it."""
    values = {**access.sql_parameters(), "key": ARTIFACT.parse_id(artifact_id)}
    for storage_key, media_type, name in _build_file_query(access.scope).fetch_rows(values):
        return send_stored_file(storage_key, media_type=media_type, filename=name)
    raise NotFound(f"There is no job-artifact {artifact_id[:80]!r} here.")


@cache
def _build_file_query(scope: VisibilityScope) -> PreparedStatement:
    table = ARTIFACT.table
    columns = (table.c.storage_key, table.c.media_type, table.c.name)
    return PreparedStatement(
        select(*columns).where(select_statements.column_is(table, "id"), belongs_to_visible_job(scope, table))
    )


def route(api: Api) -> None:
    """Register the routes of jobs, events, artifacts and kinds."""
    api.route(JobList, "job_list", "/jobs")
    api.route(JobDetail, "job_detail", "/jobs/<id>")
    api.route(CancelJob, "job_cancel", "/jobs/<id>/cancel")
    api.route(RetryJob, "job_retry", "/jobs/<id>/retry")
    for url, view, name in (
        ("/jobs/<id>/progress", ProgressView, "job_progress"),
        ("/job-kinds", KindList, "job_kind_list"),
        ("/job-kinds/<id>", KindDetail, "job_kind_detail"),
    ):
        api.blueprint.add_url_rule(url, view_func=view.as_view(name))
    register_relationship_routes(api, JOB, JobData)
    api.route(JobEventDetail, "job_event_detail", "/job-events/<id>")
    register_relationship_routes(api, JOB_EVENT, ReadOnlyJobDataLayer)
    api.route(ArtifactDetail, "job_artifact_detail", "/job-artifacts/<id>")
    api.route(ArtifactFile, "job_artifact_file", file_path("<id>").removeprefix("/v1"))
    register_relationship_routes(api, ARTIFACT, ReadOnlyJobDataLayer)
