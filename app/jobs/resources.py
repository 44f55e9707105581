"""/v1/jobs: what runs, what it has said and what it has made; /v1/job-kinds: what can run."""

from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, ClassVar

from flask import Response
from flask_rest_jsonapi_next import Api
from flask_rest_jsonapi_next import ResourceDetail as LibraryDetail
from sqlalchemy import select

from app.database import Prepared
from app.errors import Conflict, NotFound
from app.jobs import consequences, submission
from app.jobs.job_kinds import KindDetail, KindList
from app.jobs.kinds import Kind
from app.jobs.models import ENDED, LIVE, SUCCEEDED, Artifact, Job, JobEvent
from app.jobs.permissions import PARTS_PERMISSIONS, PERMISSIONS, of_own_jobs, require_start
from app.jobs.progress import ProgressView
from app.jobs.queue import queue_position
from app.jobs.records import JobRow
from app.jobs.schemas import ArtifactSchema, JobEventSchema, JobSchema, file_path
from app.jobs.submission import PARAMETERS, Submitted
from app.jsonapi import statements
from app.jsonapi.documents import ResourceDocument
from app.jsonapi.idempotency import answered_once
from app.jsonapi.permissions import Access, Predicate, Scope
from app.jsonapi.query import LINKAGE, Query
from app.jsonapi.reading import Reader
from app.jsonapi.relations import route_relations
from app.jsonapi.resource_type import ResourceType
from app.jsonapi.resources import Command, ResourceDetail, ResourceList, located
from app.jsonapi.view import View
from app.jsonapi.viewer import signed_in_viewer
from app.jsonapi.writing import DataLayer
from app.storage import send
from app.users.owning import owner

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
    """A new job is submitted, or found: it may be one that does the same already."""

    def create_object(self, document: ResourceDocument, access: Access) -> JobRow:
        data = self.new_values(document, access)
        return submitted(data["kind"], data["parameters"], access, trigger="api").job


class PartData(DataLayer):
    """What jobs write themselves; nobody else does."""


def submitted(
    kind_name: str, parameters: Mapping[str, Any], access: Access, *, pointer: str | None = PARAMETERS, **more: Any
) -> Submitted:
    """Submit for the caller, who must be allowed to; the job is his. No `pointer` where no document was sent."""

    def authorize(kind: Kind, converted: Mapping[str, Any]) -> None:
        require_start(kind, converted, access, pointer)

    return submission.submit(kind_name, parameters, authorize=authorize, **{"owner_id": access.viewer.id, **more})


def cancel(job: JobRow, access: Access) -> None:
    """Ask a locked job to end; 403 unless the caller may, 409 for one that has ended."""
    access.require(owner, job)
    if job.state in ENDED:
        raise Conflict(f"The job has ended: it is {job.state}.", code="job-ended")
    consequences.cancel(job.id)


def retry(job: JobRow, access: Access) -> JobRow:
    """Submit the same once more; 403 unless the caller may, 409 for one that has not ended."""
    access.require(owner, job)
    if job.state in LIVE:
        raise Conflict(f"The job has not ended: it is {job.state}.", code="job-lives")
    if (own := consequences.again(job)) is not None:
        return own
    origin: dict[str, Any] = {"trigger": "retry", "owner_id": job.owner_id, "retry_of_id": job.id}
    return submitted(job.kind, job.parameters, access, pointer=None, **origin).job


def accepted(job: JobRow, access: Access) -> Response:
    """202 with the job as it is now; 200 for one that was found and has succeeded already."""
    document = Reader(access, Query(access.scope)).resource(JOB, job.id)
    if document is None:
        raise NotFound("The job has just gone away.")
    return located(document, _status(job))


def _status(job: JobRow) -> HTTPStatus:
    return HTTPStatus.OK if job.state == SUCCEEDED else HTTPStatus.ACCEPTED


class JobList(ResourceList):
    """The caller's jobs, the newest first; a POST starts one."""

    data_layer = {"class": JobData, "type": JOB}

    def status(self, row: Any) -> HTTPStatus:
        return _status(row)


class JobDetail(ResourceDetail):
    """One job."""

    data_layer = {"class": JobData, "type": JOB}
    methods = {"GET"}


class JobCommand(Command):
    """A POST without a body that moves a job."""

    data_layer = {"class": JobData, "type": JOB}
    methods = {"POST"}

    @classmethod
    def rules(cls) -> Mapping[str, Predicate]:
        return {"POST": owner}

    def post(self, id: str) -> Response:
        """Answered once for an Idempotency-Key."""
        reader = self.reader()
        return answered_once(signed_in_viewer(), lambda: self.move(self.row(id, reader.access), reader.access))

    def move(self, job: JobRow, access: Access) -> Response:
        """The answer, nothing committed yet."""
        raise NotImplementedError


class CancelJob(JobCommand):
    """Asks a job to end."""

    methods = {"POST"}

    def move(self, job: JobRow, access: Access) -> Response:
        cancel(job, access)
        return accepted(job, access)


class RetryJob(JobCommand):
    """Submits the same once more, as a new job."""

    methods = {"POST"}

    def move(self, job: JobRow, access: Access) -> Response:
        return accepted(retry(job, access), access)


class JobEventDetail(ResourceDetail):
    """One event."""

    data_layer = {"class": PartData, "type": JOB_EVENT}
    methods = {"GET"}


class ArtifactDetail(ResourceDetail):
    """One artifact, by what is known of it."""

    data_layer = {"class": PartData, "type": ARTIFACT}
    methods = {"GET"}


class ArtifactFile(View, LibraryDetail):  # type: ignore[misc]  # the library carries no types
    """The content of an artifact, for those who may read its job."""

    data_layer = {"class": PartData, "type": ARTIFACT}
    methods: ClassVar[set[str]] = {"GET"}
    families = {"GET": LINKAGE}

    @classmethod
    def rules(cls) -> Mapping[str, Predicate]:
        return {"GET": PARTS_PERMISSIONS.read}

    def get(self, id: str) -> Response:
        self.allow(PARTS_PERMISSIONS.read)
        return file_of(id, self.reader().access)


def file_of(artifact_id: str, access: Access) -> Response:
    """The answer that streams an artifact; 404 where there is none for this caller."""
    values = {**access.parameters(), "key": ARTIFACT.parse_id(artifact_id)}
    for stored_as, media_type, name in _stored_file(access.scope).rows(values):
        return send(stored_as, media_type=media_type, filename=name)
    raise NotFound(f"There is no job-artifact {artifact_id[:80]!r} here.")


@cache
def _stored_file(scope: Scope) -> Prepared:
    table = ARTIFACT.table
    columns = (table.c.stored_as, table.c.media_type, table.c.name)
    return Prepared(select(*columns).where(statements.keyed(table, "id"), of_own_jobs(scope, table)))


def route(api: Api) -> None:
    """The URLs of jobs."""
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
    route_relations(api, JOB, JobData)
    api.route(JobEventDetail, "job_event_detail", "/job-events/<id>")
    route_relations(api, JOB_EVENT, PartData)
    api.route(ArtifactDetail, "job_artifact_detail", "/job-artifacts/<id>")
    api.route(ArtifactFile, "job_artifact_file", file_path("<id>").removeprefix("/v1"))
    route_relations(api, ARTIFACT, PartData)
