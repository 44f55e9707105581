"""/v1/uploads: the images that users sent to /v1/upload/image; uploads are not created here."""

from typing import Any

from flask_rest_jsonapi_next import Api

from app import stored_files
from app.errors import Conflict
from app.jsonapi.data_layer import DataLayer
from app.jsonapi.permissions import AccessContext
from app.jsonapi.relationship_views import register_relationship_routes
from app.jsonapi.resource_type import ResourceType
from app.jsonapi.resources import ResourceDetail, ResourceList
from app.storage import current_storage
from app.uploads.models import Upload
from app.uploads.permissions import PERMISSIONS
from app.uploads.schemas import UploadSchema

UPLOAD = ResourceType(
    schema=UploadSchema,
    model=Upload,
    plural="uploads",
    noun="an upload",
    description="Images that users uploaded.",
    permissions=PERMISSIONS,
    order=("-id",),
)


class StoredFileData(DataLayer):
    """Data layer of rows that each refer to a stored file, which is deleted with the row."""

    def before_delete_object(self, row: Any, access: AccessContext) -> None:
        stored_files.enqueue_deletion([row.storage_key])

    def before_update_object(self, row: Any, data: dict[str, Any], access: AccessContext) -> None:
        """Raise Conflict if a row is restored whose file has been deleted."""
        if row.deleted_at is None or "deleted_at" not in data:
            return
        stored_files.lock_file(row.storage_key)
        if not current_storage().exists(row.storage_key):
            raise Conflict("The file of this resource has been deleted, so it cannot be restored.", code="file-deleted")


class UploadList(ResourceList):
    """The caller's uploads, the newest first."""

    data_layer = {"class": StoredFileData, "type": UPLOAD}
    methods = {"GET"}


class UploadDetail(ResourceDetail):
    """One upload; PATCH can only restore it, while its file exists."""

    data_layer = {"class": StoredFileData, "type": UPLOAD}


def route(api: Api) -> None:
    """Register the routes of uploads."""
    api.route(UploadList, "upload_list", "/uploads")
    api.route(UploadDetail, "upload_detail", "/uploads/<id>")
    register_relationship_routes(api, UPLOAD, StoredFileData)
