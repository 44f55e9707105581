"""Uploads as the API shows them."""

from typing import Any

from app.jsonapi.naming import dasherize
from app.jsonapi.schema import Instant, MadeUrl, Relationship, Schema, Text, Whole
from app.storage import current_storage


def _url(upload: Any) -> str:
    """At the server's present address, whatever it was when the image came."""
    return current_storage().url(upload.stored_as)


class UploadSchema(Schema):
    """Attributes and relationships of an upload; all are written when it comes."""

    class Meta:
        type_ = "upload"
        inflect = dasherize

    url = MadeUrl(_url)
    media_type = Text(dump_only=True, sorted_as_text=False)
    width = Whole(dump_only=True)
    height = Whole(dump_only=True)
    size = Whole(dump_only=True)
    created_at = Instant(dump_only=True)
    deleted_at = Instant(dump_only=True)

    owner = Relationship("user", dump_only=True)
