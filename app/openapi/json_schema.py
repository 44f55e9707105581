"""JSON Schema in short: the few shapes that everything here is made of."""

from collections.abc import Iterable, Mapping
from typing import Any

from app.jsonapi.naming import camelize
from app.jsonapi.resource_type import ResourceType

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
ID: Json = {"type": "string", "pattern": "^[1-9][0-9]{0,18}$"}
LINK: Json = {"type": "string", "format": "uri-reference"}


def reference(name: str, section: str = "schemas") -> Json:
    """A reference to a component."""
    return {"$ref": f"#/components/{section}/{name}"}


def object_of(properties: Mapping[str, Json], required: Iterable[str] = ()) -> Json:
    """An object with these members; answers may grow, so others are not forbidden."""
    needed = {"required": sorted(required)} if required else {}
    return {"type": "object", "properties": dict(properties), **needed}


def closed_object_of(properties: Mapping[str, Json], required: Iterable[str] = ()) -> Json:
    """An object with these members and no others: the server refuses them."""
    return {**object_of(properties, required), "additionalProperties": False}


def nullable(schema: Json) -> Json:
    """The same, or null."""
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    return {**schema, "type": [schema["type"], "null"]}


def component(type_: ResourceType) -> str:
    """`faq-type` as `FaqType`."""
    name = camelize(type_.name)
    return name[:1].upper() + name[1:]
