"""JSON Schema in short: the few shapes that everything here is made of."""

from collections.abc import Iterable, Mapping
from typing import Any

from app.jsonapi.naming import camelize
from app.jsonapi.resource_type import UUID_TEXT, ResourceType

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
NUMBER, UUID = "[1-9][0-9]{0,18}", UUID_TEXT.pattern
ANY_ID: Json = {"type": "string", "pattern": f"^({NUMBER}|{UUID})$"}
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


def id_of(type_: ResourceType) -> Json:
    """An id of this type."""
    return {"type": "string", "pattern": f"^{UUID if type_.has_uuids else NUMBER}$"}


def component(type_: ResourceType) -> str:
    """`faq-type` as `FaqType`."""
    name = camelize(type_.name)
    return name[:1].upper() + name[1:]
