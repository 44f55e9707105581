"""FAQs and their types as the API shows them."""

from typing import Any

from app.jsonapi.naming import dasherize
from app.jsonapi.schema import Html, Instant, Relationship, Schema, Text, Whole


class TypeName(Text):
    """The name of a type, trimmed: `Venue` and ` venue ` are one type."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> str:
        return super()._deserialize(value, attr, data, **more).strip()


class FaqTypeSchema(Schema):
    """Attributes and relationships of a FAQ type."""

    class Meta:
        type_ = "faq-type"
        inflect = dasherize

    name = TypeName(required=True)
    created_at = Instant(dump_only=True)
    deleted_at = Instant(dump_only=True)

    event = Relationship("event", required=True, fixed=True)
    faqs = Relationship("faq", many=True)


class FaqSchema(Schema):
    """Attributes and relationships of a FAQ."""

    class Meta:
        type_ = "faq"
        inflect = dasherize

    question = Text(2000, required=True)
    answer = Html(required=True)
    position = Whole()
    created_at = Instant(dump_only=True)
    deleted_at = Instant(dump_only=True)

    event = Relationship("event", required=True, fixed=True)
    faq_type = Relationship("faq-type", guarded=True)
