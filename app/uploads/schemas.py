"""JSON:API schema of uploads."""

from typing import Any

from app.jsonapi.fields import ComputedUrl, DateTime, Integer, Relationship, ResourceSchema, Text
from app.jsonapi.inflection import dasherize
from app.storage import current_storage


def _get_url(upload: Any) -> str:
    """Return the URL of the file under the current PUBLIC_URL."""
    return current_storage().get_url(upload.storage_key)


class UploadSchema(ResourceSchema):
    """Attributes and relationships of an upload, all of them read-only."""

    class Meta:
        type_ = "upload"
        inflect = dasherize

    url = ComputedUrl(_get_url)
    media_type = Text(dump_only=True, sorted_as_text=False)
    width = Integer(dump_only=True)
    height = Integer(dump_only=True)
    size = Integer(dump_only=True)
    created_at = DateTime(dump_only=True)
    deleted_at = DateTime(dump_only=True)

    owner = Relationship("user", dump_only=True)
