"""Schema of gallery images."""

from typing import Any

from app.jsonapi.fields import ComputedUrl, DateTime, Integer, Relationship, ResourceSchema, Text
from app.jsonapi.inflection import dasherize
from app.storage import current_storage


def _get_image_url(image: Any) -> str:
    """Return the URL of an image at the current PUBLIC_URL or storage URL."""
    return current_storage().get_url(image.storage_key)


class EventImageSchema(ResourceSchema):
    """Attributes and relationships of a gallery image; the import sets all of them."""

    class Meta:
        type_ = "event-image"
        inflect = dasherize

    name = Text(dump_only=True)
    image_url = ComputedUrl(_get_image_url)
    media_type = Text(dump_only=True, sorted_as_text=False)
    width = Integer(dump_only=True)
    height = Integer(dump_only=True)
    size = Integer(dump_only=True)
    sha256 = Text(dump_only=True, sorted_as_text=False)
    created_at = DateTime(dump_only=True)
    deleted_at = DateTime(dump_only=True)

    event = Relationship("event", dump_only=True)
