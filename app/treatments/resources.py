"""/v1/treatments: execution of tasks on document sets, and their results."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from flask import Response
from flask_rest_jsonapi_next import Api

from app.errors import Conflict, NotFound, Unprocessable
from app.jobs import lifecycle
from app.jobs.kinds import KINDS
from app.jobs.models import TERMINAL_STATES
from app.jobs.submission import is_offered
from app.jsonapi.current_user import require_current_user
from app.jsonapi.data_layer import DataLayer
from app.jsonapi.idempotency import run_idempotent
from app.jsonapi.permissions import AccessContext, Predicate
from app.jsonapi.reader import ResourceReader
from app.jsonapi.relationship_views import register_relationship_routes
from app.jsonapi.resource_type import ResourceType
from app.jsonapi.resources import ActionView, ResourceDetail, ResourceList, build_creation_response
from app.processors.run_start import DOCUMENT_SET_PARAMETER
from app.treatments import job_creation
from app.treatments.job_creation import API_PARAMETERS_POINTER
from app.treatments.models import Region, Similarity, Treatment
from app.treatments.permissions import PERMISSIONS, RESULT_PERMISSIONS
from app.treatments.schemas import RegionSchema, SimilaritySchema, TreatmentSchema
from app.treatments.status import status_column, tracking_id_column

TASK_TYPE_POINTER = "/data/attributes/task-type"
DOCUMENT_SET_POINTER = "/data/relationships/document-set/data"

TREATMENT = ResourceType(
    schema=TreatmentSchema,
    model=Treatment,
    plural="treatments",
    noun="a treatment",
    description="Requests to have an external processor work on a document set.",
    permissions=PERMISSIONS,
    order=("-id",),
    computed={"status": status_column, "tracking_id": tracking_id_column},
)
REGION = ResourceType(
    schema=RegionSchema,
    model=Region,
    plural="regions",
    noun="a region",
    description="Regions of images that treatments found.",
    permissions=RESULT_PERMISSIONS,
)
SIMILARITY = ResourceType(
    schema=SimilaritySchema,
    model=Similarity,
    plural="similarities",
    noun="a similarity",
    description="Pairs of similar documents that treatments found.",
    permissions=RESULT_PERMISSIONS,
)


class TreatmentData(DataLayer):
    """Data layer of treatments: requires an available task and a document set with documents."""

    def before_create_object(self, data: dict[str, Any], access: AccessContext) -> None:
        _check_task(data["task_type"], data["api_parameters"], data["document_set_id"])
        job_creation.check_documents(data["document_set_id"], access, DOCUMENT_SET_POINTER)
        data["requested_by_id"] = access.viewer.id

    def before_delete_object(self, row: Any, access: AccessContext) -> None:
        # Not locked: a transaction that stores results locks the job before this row, and a terminal state is final.
        job = lifecycle.get_job(row.id)
        if job is not None and job.state not in TERMINAL_STATES:
            raise Conflict(f"The job of the treatment is {job.state}: cancel it first.", code="job-not-finished")
        job_creation.set_job_retention(row.id, retained=False)

    def after_update_object(self, row: Any, data: dict[str, Any], access: AccessContext) -> None:
        if "deleted_at" in data:
            job_creation.set_job_retention(row.id, retained=row.deleted_at is None)


class TreatmentResultData(DataLayer):
    """Data layer of results, which only tasks write."""


def _check_task(task_type: str, parameters: Mapping[str, Any], document_set_id: int) -> None:
    kind = KINDS.get(task_type)
    if kind is None or kind.runner != "external" or not is_offered(kind):
        raise Unprocessable("This server has no such task.", pointer=TASK_TYPE_POINTER, code="unknown-kind")
    if DOCUMENT_SET_PARAMETER in parameters:
        raise Unprocessable(
            "The document set is a relationship, not a parameter.",
            pointer=f"{API_PARAMETERS_POINTER}/{DOCUMENT_SET_PARAMETER}",
        )
    kind.validate_parameters({**parameters, DOCUMENT_SET_PARAMETER: document_set_id}, API_PARAMETERS_POINTER)


class TreatmentList(ResourceList):
    """The treatments of the current user, newest first; a POST starts one."""

    data_layer = {"class": TreatmentData, "type": TREATMENT}


class TreatmentDetail(ResourceDetail):
    """One treatment."""

    data_layer = {"class": TreatmentData, "type": TREATMENT}


class RelaunchTreatment(ActionView):
    """Start a copy of a treatment."""

    data_layer = {"class": TreatmentData, "type": TREATMENT}
    methods = {"POST"}

    @classmethod
    def predicates_by_method(cls) -> Mapping[str, Predicate]:
        return {"POST": PERMISSIONS.update}

    def post(self, id: str) -> Response:
        """Return 201 with the new treatment; raise Conflict when the job of the original is unfinished."""
        reader = self.make_reader()
        return run_idempotent(require_current_user(), lambda: self._create_relaunch(id, reader))

    def _create_relaunch(self, id: str, reader: ResourceReader) -> Response:
        row = self.lock_row(id, reader.access)
        reader.access.require_permission(PERMISSIONS.update, row)
        job = lifecycle.get_job(row.id)  # not locked, as above
        if job is not None and job.state not in TERMINAL_STATES:
            raise Conflict(
                f"The job of the treatment is {job.state}: it can be relaunched once it has ended.",
                code="job-not-finished",
            )
        document = job and reader.get_document(TREATMENT, job_creation.relaunch_treatment(job).id)
        if not document:
            raise NotFound("The treatment has just been deleted.")
        return build_creation_response(document, HTTPStatus.CREATED)


class RegionDetail(ResourceDetail):
    """One region."""

    data_layer = {"class": TreatmentResultData, "type": REGION}
    methods = {"GET"}


class SimilarityDetail(ResourceDetail):
    """One pair."""

    data_layer = {"class": TreatmentResultData, "type": SIMILARITY}
    methods = {"GET"}


def route(api: Api) -> None:
    """Register the routes of treatments and their results."""
    api.route(TreatmentList, "treatment_list", "/treatments")
    api.route(TreatmentDetail, "treatment_detail", "/treatments/<id>")
    api.route(RelaunchTreatment, "treatment_relaunch", "/treatments/<id>/relaunch")
    register_relationship_routes(api, TREATMENT, TreatmentData)
    api.route(RegionDetail, "region_detail", "/regions/<id>")
    register_relationship_routes(api, REGION, TreatmentResultData)
    api.route(SimilarityDetail, "similarity_detail", "/similarities/<id>")
    register_relationship_routes(api, SIMILARITY, TreatmentResultData)
