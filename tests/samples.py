"""Sample values and rows for resource types without tests of their own, such as a new one."""

from typing import Any

import marshmallow

from app.jsonapi.fields import Boolean, DateTime, Enum, Html, Integer, JsonObject, Number, Text, TimeZone, Url
from app.jsonapi.resource_type import ResourceType
from app.users.schemas import Email

SAMPLES: dict[type[marshmallow.fields.Field[Any]], Any] = {
    TimeZone: "Europe/Berlin",
    Url: "https://example.com/",
    Email: "person@example.com",
    Html: "<p>A text</p>",
    Text: "A text",
    Boolean: True,
    Integer: 1,
    DateTime: "2030-05-01T10:00:00+00:00",
    JsonObject: {},
}


def sample_value(field: marshmallow.fields.Field[Any]) -> Any:
    """Return a value that a client may send for this attribute."""
    if isinstance(field, Enum):
        return field.words[0]
    if isinstance(field, Number):
        return field.low
    return next(value for kind, value in SAMPLES.items() if isinstance(field, kind))


def sample_required_attributes(type_: ResourceType) -> dict[str, Any]:
    """Return the attributes without which no resource of this type can be created."""
    return {
        each.key: sample_value(each.field)
        for each in type_.attributes.values()
        if each.field.required and not each.field.dump_only
    }


def sample_columns(type_: ResourceType) -> dict[str, Any]:
    """Return the columns that hold the required attributes, with values."""
    return {name.replace("-", "_"): value for name, value in sample_required_attributes(type_).items()}
