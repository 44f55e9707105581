"""Uploads as the API shows them."""

from typing import Any

from app.jsonapi.fields import ComputedUrl, DateTime, Integer, Relationship, ResourceSchema, Text
from app.jsonapi.inflection import dasherize
from app.storage import current_storage


def _get_url(upload: Any) -> str:
    """At the server's present address, whatever it was when the image came."""
    return current_storage().get_url(upload.storage_key)


class UploadSchema(ResourceSchema):
    """Attributes and relationships of an upload; all are written when it comes."""

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
