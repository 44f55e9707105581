"""/v1/treatments: what a processor makes of document sets; each one is a job under the same id."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from flask import Response
from flask_rest_jsonapi_next import Api

from app.errors import Conflict, NotFound, Unprocessable
from app.jobs import lifecycle
from app.jobs.kinds import KINDS
from app.jobs.models import ENDED
from app.jobs.submission import is_offered
from app.jsonapi.idempotency import answered_once
from app.jsonapi.permissions import Access, Predicate
from app.jsonapi.reading import Reader
from app.jsonapi.relations import route_relations
from app.jsonapi.resource_type import ResourceType
from app.jsonapi.resources import Command, ResourceDetail, ResourceList, located
from app.jsonapi.viewer import signed_in_viewer
from app.jsonapi.writing import DataLayer
from app.processors.starting import DOCUMENT_SET
from app.treatments import launching
from app.treatments.launching import API_PARAMETERS
from app.treatments.models import Region, Similarity, Treatment
from app.treatments.permissions import PARTS_PERMISSIONS, PERMISSIONS
from app.treatments.schemas import RegionSchema, SimilaritySchema, TreatmentSchema
from app.treatments.status import status, tracking_id

TASK_TYPE = "/data/attributes/task-type"
SET = "/data/relationships/document-set/data"

TREATMENT = ResourceType(
    schema=TreatmentSchema,
    model=Treatment,
    plural="treatments",
    noun="a treatment",
    description="Requests to have an external processor work on a document set.",
    permissions=PERMISSIONS,
    order=("-id",),
    computed={"status": status, "tracking_id": tracking_id},
)
REGION = ResourceType(
    schema=RegionSchema,
    model=Region,
    plural="regions",
    noun="a region",
    description="Regions of images that treatments found.",
    permissions=PARTS_PERMISSIONS,
)
SIMILARITY = ResourceType(
    schema=SimilaritySchema,
    model=Similarity,
    plural="similarities",
    noun="a similarity",
    description="Pairs of similar documents that treatments found.",
    permissions=PARTS_PERMISSIONS,
)


class TreatmentData(DataLayer):
    """What is asked for can be done: the task is installed, and there is something in the set."""

    def before_create_object(self, data: dict[str, Any], access: Access) -> None:
        _check_task(data["task_type"], data["api_parameters"], data["document_set_id"])
        launching.check_documents(data["document_set_id"], access, SET)
        data["requested_by_id"] = access.viewer.id

    def before_delete_object(self, row: Any, access: Access) -> None:
        # Not locked: who stores results of one that lives holds it and waits for this row, and what has ended stays so.
        job = lifecycle.found(row.id)
        if job is not None and job.state not in ENDED:
            raise Conflict(f"Its job has not ended: it is {job.state}. Cancel it first.", code="job-lives")
        launching.keep_job(row.id, kept=False)

    def after_update_object(self, row: Any, data: dict[str, Any], access: Access) -> None:
        if "deleted_at" in data:
            launching.keep_job(row.id, kept=row.deleted_at is None)


class PartData(DataLayer):
    """What processors have found; nobody else writes it."""


def _check_task(task_type: str, parameters: Mapping[str, Any], document_set_id: int) -> None:
    kind = KINDS.get(task_type)
    if kind is None or kind.runner != "external" or not is_offered(kind):
        raise Unprocessable("This server has no such task.", pointer=TASK_TYPE, code="unknown-kind")
    if DOCUMENT_SET in parameters:
        raise Unprocessable("The set is a relationship, not a parameter.", pointer=f"{API_PARAMETERS}/{DOCUMENT_SET}")
    kind.check({**parameters, DOCUMENT_SET: document_set_id}, API_PARAMETERS)


class TreatmentList(ResourceList):
    """The caller's treatments, the newest first; a POST starts one."""

    data_layer = {"class": TreatmentData, "type": TREATMENT}


class TreatmentDetail(ResourceDetail):
    """One treatment."""

    data_layer = {"class": TreatmentData, "type": TREATMENT}


class RelaunchTreatment(Command):
    """Starts the same once more, as a new treatment."""

    data_layer = {"class": TreatmentData, "type": TREATMENT}
    methods = {"POST"}

    @classmethod
    def rules(cls) -> Mapping[str, Predicate]:
        return {"POST": PERMISSIONS.update}

    def post(self, id: str) -> Response:
        """201 with the new treatment; 409 for one that has not ended."""
        reader = self.reader()
        return answered_once(signed_in_viewer(), lambda: self._again(id, reader))

    def _again(self, id: str, reader: Reader) -> Response:
        row = self.row(id, reader.access)
        reader.access.require(PERMISSIONS.update, row)
        job = lifecycle.found(row.id)  # not locked, as above
        if job is not None and job.state not in ENDED:
            raise Conflict(f"It has not ended: its job is {job.state}.", code="job-lives")
        document = job and reader.resource(TREATMENT, launching.again(job).id)
        if not document:
            raise NotFound("The treatment has just gone away.")
        return located(document, HTTPStatus.CREATED)


class RegionDetail(ResourceDetail):
    """One region."""

    data_layer = {"class": PartData, "type": REGION}
    methods = {"GET"}


class SimilarityDetail(ResourceDetail):
    """One pair."""

    data_layer = {"class": PartData, "type": SIMILARITY}
    methods = {"GET"}


def route(api: Api) -> None:
    """The URLs of treatments and of what they have found."""
    api.route(TreatmentList, "treatment_list", "/treatments")
    api.route(TreatmentDetail, "treatment_detail", "/treatments/<id>")
    api.route(RelaunchTreatment, "treatment_relaunch", "/treatments/<id>/relaunch")
    route_relations(api, TREATMENT, TreatmentData)
    api.route(RegionDetail, "region_detail", "/regions/<id>")
    route_relations(api, REGION, PartData)
    api.route(SimilarityDetail, "similarity_detail", "/similarities/<id>")
    route_relations(api, SIMILARITY, PartData)
