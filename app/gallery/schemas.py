"""The images of a gallery as the API shows them."""

from typing import Any

from app.jsonapi.naming import dasherize
from app.jsonapi.schema import Instant, MadeUrl, Relationship, Schema, Text, Whole
from app.storage import current_storage


def _image_url(image: Any) -> str:
    """At the server's present address, whatever it was when the image came."""
    return current_storage().url(image.stored_as)


class EventImageSchema(Schema):
    """Attributes and relationships of an image; all are written by the import."""

    class Meta:
        type_ = "event-image"
        inflect = dasherize

    name = Text(dump_only=True)
    image_url = MadeUrl(_image_url)
    media_type = Text(dump_only=True, sorted_as_text=False)
    width = Whole(dump_only=True)
    height = Whole(dump_only=True)
    size = Whole(dump_only=True)
    sha256 = Text(dump_only=True, sorted_as_text=False)
    created_at = Instant(dump_only=True)
    deleted_at = Instant(dump_only=True)

    event = Relationship("event", dump_only=True)
