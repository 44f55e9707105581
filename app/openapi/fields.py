"""Fields of schemas as JSON Schema: as they are accepted in a body, and as they are returned in an answer."""

from functools import singledispatch
from typing import Any

import marshmallow
from marshmallow.validate import Length

from app.events.schemas import MOST_DOCUMENT_LINKS, DocumentLinks
from app.hooks.schemas import MAX_ALLOWED_PARAMETERS, ParameterNames, ShownOnce
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
from app.openapi.json_schema import Json, array_of, choice, closed_object_of, component, nullable, reference
from app.users.schemas import Email

LIMITS = frozenset({"maxLength", "minLength", "pattern", "minimum", "maximum", "description"})
"""Limits of input, which schemas of answers leave out."""


def choices_of(type_: ResourceType) -> dict[str, Json]:
    """Return the schemas of the attributes of a type that take one of some words."""
    fields = {each.key: each.field for each in type_.attributes.values()}
    return {component(type_, key): described(field) for key, field in fields.items() if isinstance(field, Choice)}


def value_of(type_: ResourceType, attribute: Attribute) -> Json:
    """Return the JSON Schema of the values of an attribute."""
    is_choice = isinstance(attribute.field, Choice)
    return reference(component(type_, attribute.key)) if is_choice else described(attribute.field)


def taken(type_: ResourceType, attribute: Attribute) -> Json:
    """Return the JSON Schema of an attribute in a body: the recommended form, where several are accepted."""
    field, schema = attribute.field, value_of(type_, attribute)
    for rule in field.validators:
        if isinstance(rule, Length) and rule.min is not None:
            schema["minLength"] = rule.min
    return nullable(schema) if field.allow_none else schema


def given(resource_type: ResourceType, attribute: Attribute) -> Json:
    """Return the JSON Schema of an attribute in an answer; its column, if any, decides whether it may be null."""
    schema = {name: value for name, value in value_of(resource_type, attribute).items() if name not in LIMITS}
    column = resource_type.table.c.get(attribute.name)
    may_be_null = attribute.field.allow_none if column is None else column.nullable
    return nullable(schema) if may_be_null else schema


def is_optional(resource_type: ResourceType, relation: Relation) -> bool:
    """Return whether a to-one relationship may be null in an answer."""
    return relation.local is None or bool(resource_type.table.c[relation.local].nullable) or relation.field.guarded


@singledispatch
def described(field: marshmallow.fields.Field[Any]) -> Json:
    """Return the JSON Schema of a kind of field; a new kind is registered below."""
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
def _(_field: ParameterNames) -> Json:
    return array_of({"type": "string", "maxLength": SHORT}, maxItems=MAX_ALLOWED_PARAMETERS)


@described.register
def _(_field: Object) -> Json:
    return {"type": "object"}


@described.register
def _(field: Choice) -> Json:
    return choice(field.words)


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
    example = {"description": "An IANA time zone, such as Europe/Berlin."}
    return {"type": "string", "maxLength": field.limit, **example}


@described.register
def _(_field: Instant) -> Json:
    years = {"description": f"With an offset from UTC; from the year {EARLIEST_YEAR} to {LATEST_YEAR}."}
    return {"type": "string", "format": "date-time", **years}


@described.register
def _(_field: DocumentLinks) -> Json:
    return array_of(reference("DocumentLink"), maxItems=MOST_DOCUMENT_LINKS)


def document_link() -> Json:
    """Return the schema of one of the links of an event."""
    text = {"type": "string", "minLength": 1, "maxLength": SHORT}
    link = {"type": "string", "format": "uri", "maxLength": URL_LIMIT}
    return closed_object_of({"name": text, "link": link}, ["name", "link"])
