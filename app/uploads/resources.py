"""/v1/uploads: what its owners have sent to /v1/upload/image; nobody posts here."""

from flask_rest_jsonapi_next import Api

from app.jsonapi.relations import route_relations
from app.jsonapi.resource_type import ResourceType
from app.jsonapi.resources import ResourceDetail, ResourceList
from app.jsonapi.writing import DataLayer
from app.uploads.models import Upload
from app.uploads.permissions import PERMISSIONS
from app.uploads.schemas import UploadSchema

UPLOAD = ResourceType(
    schema=UploadSchema,
    model=Upload,
    plural="uploads",
    permissions=PERMISSIONS,
    order=("-id",),
)


class UploadList(ResourceList):
    """The caller's uploads, the newest first."""

    data_layer = {"class": DataLayer, "type": UPLOAD}
    methods = {"GET"}


class UploadDetail(ResourceDetail):
    """One upload; a PATCH takes it out of the trash, and nothing else. Its file stays: others may show it."""

    data_layer = {"class": DataLayer, "type": UPLOAD}


def route(api: Api) -> None:
    """The URLs of uploads."""
    api.route(UploadList, "upload_list", "/uploads")
    api.route(UploadDetail, "upload_detail", "/uploads/<id>")
    route_relations(api, UPLOAD, DataLayer)
