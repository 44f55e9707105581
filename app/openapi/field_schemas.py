"""JSON Schemas of fields, in requests and in responses."""

from functools import singledispatch
from typing import Any

import marshmallow
from marshmallow.validate import Length

from app.events.schemas import MAX_DOCUMENT_LINKS, DocumentLinks
from app.hooks.schemas import MAX_ALLOWED_PARAMETERS, OneTimeSecret, ParameterNames
from app.jsonapi.fields import (
    MAX_INTEGER,
    MAX_SHORT_TEXT_LENGTH,
    MAX_URL_LENGTH,
    MAX_YEAR,
    MIN_YEAR,
    Boolean,
    ComputedUrl,
    DateTime,
    Enum,
    Html,
    Integer,
    JsonObject,
    Number,
    Text,
    TimeZone,
    Url,
)
from app.jsonapi.resource_type import Attribute, Relation, ResourceType
from app.openapi.json_schema import (
    Json,
    array_schema,
    component_name,
    component_ref,
    enum_schema,
    nullable_schema,
    strict_object_schema,
)
from app.users.schemas import Email

INPUT_LIMITS = frozenset({"maxLength", "minLength", "pattern", "minimum", "maximum", "description"})
"""Keywords that limit input, which schemas of responses leave out."""


def build_enum_schemas(type_: ResourceType) -> dict[str, Json]:
    """Return the schemas of the enum attributes of a type."""
    fields = {each.key: each.field for each in type_.attributes.values()}
    return {component_name(type_, key): field_schema(field) for key, field in fields.items() if isinstance(field, Enum)}


def value_schema(type_: ResourceType, attribute: Attribute) -> Json:
    """Return the JSON Schema of the values of an attribute."""
    is_choice = isinstance(attribute.field, Enum)
    return component_ref(component_name(type_, attribute.key)) if is_choice else field_schema(attribute.field)


def request_schema(type_: ResourceType, attribute: Attribute) -> Json:
    """Return the JSON Schema of an attribute in a request: the recommended form if several are accepted."""
    field, schema = attribute.field, value_schema(type_, attribute)
    for rule in field.validators:
        if isinstance(rule, Length) and rule.min is not None:
            schema["minLength"] = rule.min
    return nullable_schema(schema) if field.allow_none else schema


def response_schema(resource_type: ResourceType, attribute: Attribute) -> Json:
    """Return the JSON Schema of an attribute in a response; its column, if any, decides if it may be null."""
    schema = {name: value for name, value in value_schema(resource_type, attribute).items() if name not in INPUT_LIMITS}
    column = resource_type.table.c.get(attribute.name)
    may_be_null = attribute.field.allow_none if column is None else column.nullable
    return nullable_schema(schema) if may_be_null else schema


def is_optional(resource_type: ResourceType, relation: Relation) -> bool:
    """Return whether a to-one relationship may be null in a response."""
    return relation.local is None or bool(resource_type.table.c[relation.local].nullable) or relation.field.guarded


@singledispatch
def field_schema(field: marshmallow.fields.Field[Any]) -> Json:
    """Return the JSON Schema of a field; each field class is registered below."""
    raise TypeError(f"{type(field).__name__} has no JSON Schema")


@field_schema.register
def _(field: Text) -> Json:
    shortest = {"minLength": 1} if field.required else {}
    return {"type": "string", **shortest, "maxLength": field.limit}


@field_schema.register
def _(field: Email) -> Json:
    return {"type": "string", "format": "email", "maxLength": field.limit}


@field_schema.register
def _(field: Html) -> Json:
    shortest = {"minLength": 1} if field.required else {}
    return {"type": "string", "contentMediaType": "text/html", **shortest, "maxLength": field.limit}


@field_schema.register
def _(field: Url) -> Json:
    return {"type": "string", "format": "uri", "pattern": "^https?://", "maxLength": field.limit}


@field_schema.register
def _(_field: ComputedUrl) -> Json:
    return {"type": "string", "format": "uri"}


@field_schema.register
def _(_field: OneTimeSecret) -> Json:
    return {"type": "string"}


@field_schema.register
def _(_field: ParameterNames) -> Json:
    return array_schema({"type": "string", "maxLength": MAX_SHORT_TEXT_LENGTH}, maxItems=MAX_ALLOWED_PARAMETERS)


@field_schema.register
def _(_field: JsonObject) -> Json:
    return {"type": "object"}


@field_schema.register
def _(field: Enum) -> Json:
    return enum_schema(field.words)


@field_schema.register
def _(_field: Boolean) -> Json:
    return {"type": "boolean"}


@field_schema.register
def _(_field: Integer) -> Json:
    return {"type": "integer", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER}


@field_schema.register
def _(field: Number) -> Json:
    return {"type": "number", "minimum": field.low, "maximum": field.high}


@field_schema.register
def _(field: TimeZone) -> Json:
    example = {"description": "An IANA time zone, such as Europe/Berlin."}
    return {"type": "string", "maxLength": field.limit, **example}


@field_schema.register
def _(_field: DateTime) -> Json:
    years = {"description": f"With an offset from UTC; from the year {MIN_YEAR} to {MAX_YEAR}."}
    return {"type": "string", "format": "date-time", **years}


@field_schema.register
def _(_field: DocumentLinks) -> Json:
    return array_schema(component_ref("DocumentLink"), maxItems=MAX_DOCUMENT_LINKS)


def document_link_schema() -> Json:
    """Return the schema of one of the links of an event."""
    text = {"type": "string", "minLength": 1, "maxLength": MAX_SHORT_TEXT_LENGTH}
    link = {"type": "string", "format": "uri", "maxLength": MAX_URL_LENGTH}
    return strict_object_schema({"name": text, "link": link}, ["name", "link"])
