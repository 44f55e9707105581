"""Fields of schemas as JSON Schema: what is taken in a body, what is given in an answer."""

from functools import singledispatch
from typing import Any

import marshmallow
from marshmallow.validate import Length

from app.events.schemas import MOST_DOCUMENT_LINKS, DocumentLinks
from app.hooks.schemas import ShownOnce
from app.jsonapi.resource_type import Attribute, Relation, ResourceType
from app.jsonapi.schema import (
    EARLIEST_YEAR,
    INTEGER_LIMIT,
    LATEST_YEAR,
    SHORT,
    URL_LIMIT,
    Choice,
    Flag,
    Html,
    Instant,
    MadeUrl,
    Number,
    Object,
    Text,
    Url,
    Whole,
    Zone,
)
from app.openapi.json_schema import Json, nullable
from app.users.schemas import Email

LIMITS = frozenset({"maxLength", "minLength", "pattern", "minimum", "maximum", "description"})
"""What input is held to; of answers nobody needs to know."""


def taken(field: marshmallow.fields.Field[Any]) -> Json:
    """The JSON Schema of an attribute in a body: the recommended form, where several are understood."""
    schema = described(field)
    for rule in field.validators:
        if isinstance(rule, Length) and rule.min is not None:
            schema["minLength"] = rule.min
    return nullable(schema) if field.allow_none else schema


def given(resource_type: ResourceType, attribute: Attribute) -> Json:
    """The JSON Schema of an attribute in an answer; its column, where it has one, says whether it may be null."""
    schema = {name: value for name, value in described(attribute.field).items() if name not in LIMITS}
    column = resource_type.table.c.get(attribute.name)
    may_be_null = attribute.field.allow_none if column is None else column.nullable
    return nullable(schema) if may_be_null else schema


def is_optional(resource_type: ResourceType, relation: Relation) -> bool:
    """Whether a to-one relationship may be null in an answer."""
    return relation.local is None or bool(resource_type.table.c[relation.local].nullable) or relation.field.guarded


@singledispatch
def described(field: marshmallow.fields.Field[Any]) -> Json:
    """The JSON Schema of a kind of field; a new kind is registered below."""
    raise TypeError(f"{type(field).__name__} is not described yet")


@described.register
def _(field: Text) -> Json:
    shortest = {"minLength": 1} if field.required else {}
    return {"type": "string", **shortest, "maxLength": field.limit}


@described.register
def _(field: Email) -> Json:
    return {"type": "string", "format": "email", "maxLength": field.limit}


@described.register
def _(field: Html) -> Json:
    shortest = {"minLength": 1} if field.required else {}
    return {"type": "string", "contentMediaType": "text/html", **shortest, "maxLength": field.limit}


@described.register
def _(field: Url) -> Json:
    return {"type": "string", "format": "uri", "pattern": "^https?://", "maxLength": field.limit}


@described.register
def _(_field: MadeUrl) -> Json:
    return {"type": "string", "format": "uri"}


@described.register
def _(_field: ShownOnce) -> Json:
    return {"type": "string"}


@described.register
def _(_field: Object) -> Json:
    return {"type": "object"}


@described.register
def _(field: Choice) -> Json:
    return {"type": "string", "enum": list(field.words)}


@described.register
def _(_field: Flag) -> Json:
    return {"type": "boolean"}


@described.register
def _(_field: Whole) -> Json:
    return {"type": "integer", "minimum": -INTEGER_LIMIT, "maximum": INTEGER_LIMIT}


@described.register
def _(field: Number) -> Json:
    return {"type": "number", "minimum": field.low, "maximum": field.high}


@described.register
def _(field: Zone) -> Json:
    example = {"description": "An IANA time zone like Europe/Berlin."}
    return {"type": "string", "maxLength": field.limit, **example}


@described.register
def _(_field: Instant) -> Json:
    years = {"description": f"With its offset from UTC; in the years {EARLIEST_YEAR} to {LATEST_YEAR}."}
    return {"type": "string", "format": "date-time", **years}


@described.register
def _(_field: DocumentLinks) -> Json:
    text = {"type": "string", "minLength": 1, "maxLength": SHORT}
    link = {"type": "string", "format": "uri", "maxLength": URL_LIMIT}
    item = {
        "type": "object",
        "properties": {"name": text, "link": link},
        "required": ["name", "link"],
        "additionalProperties": False,
    }
    return {"type": "array", "items": item, "maxItems": MOST_DOCUMENT_LINKS}
