"""Schemas of FAQs and their types."""

from typing import Any

from app.jsonapi.fields import DateTime, Html, Integer, Relationship, ResourceSchema, Text
from app.jsonapi.inflection import dasherize


class TypeName(Text):
    """Name of a type, trimmed."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> str:
        return super()._deserialize(value, attr, data, **more).strip()


class FaqTypeSchema(ResourceSchema):
    """Attributes and relationships of a FAQ type."""

    class Meta:
        type_ = "faq-type"
        inflect = dasherize

    name = TypeName(required=True)
    created_at = DateTime(dump_only=True)
    deleted_at = DateTime(dump_only=True)

    event = Relationship("event", required=True, fixed=True)
    faqs = Relationship("faq", many=True)


class FaqSchema(ResourceSchema):
    """Attributes and relationships of a FAQ."""

    class Meta:
        type_ = "faq"
        inflect = dasherize

    question = Text(2000, required=True)
    answer = Html(required=True)
    position = Integer()
    created_at = DateTime(dump_only=True)
    deleted_at = DateTime(dump_only=True)

    event = Relationship("event", required=True, fixed=True)
    faq_type = Relationship("faq-type", guarded=True)
