"""Schema of document sets."""

from typing import Any

from app.jsonapi.fields import DateTime, Relationship, ResourceSchema, Text
from app.jsonapi.inflection import dasherize

MAX_TITLE_LENGTH = 50


class Title(Text):
    """Title that is trimmed before its length is checked."""

    def __init__(self) -> None:
        super().__init__(MAX_TITLE_LENGTH, required=True)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> str:
        trimmed = value.strip() if isinstance(value, str) else value
        return super()._deserialize(trimmed, attr, data, **more)


class DocumentSetSchema(ResourceSchema):
    """Attributes and relationships of a document set."""

    class Meta:
        type_ = "document-set"
        inflect = dasherize

    title = Title()
    created_at = DateTime(dump_only=True)
    deleted_at = DateTime(dump_only=True)

    owner = Relationship("user", dump_only=True)
    events = Relationship("event", many=True)
    faqs = Relationship("faq", many=True)
    uploads = Relationship("upload", many=True)
