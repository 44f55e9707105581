"""JSON Schemas in forms that validators, linters and client generators support alike."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from app.jsonapi.inflection import camelize
from app.jsonapi.resource_type import UUID_RE, ResourceType

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
INTEGER_ID_PATTERN, UUID_PATTERN = "[1-9][0-9]{0,18}", UUID_RE.pattern
ANY_ID: Json = {"type": "string", "pattern": f"^({INTEGER_ID_PATTERN}|{UUID_PATTERN})$"}
LINK: Json = {"type": "string", "format": "uri-reference"}


def component_ref(name: str, section: str = "schemas") -> Json:
    """Return a reference to a component."""
    return {"$ref": f"#/components/{section}/{name}"}


def object_schema(properties: Mapping[str, Json], required: Iterable[str] = ()) -> Json:
    """Return the schema of an object that may have further members, as responses may in later versions."""
    needed = {"required": sorted(required)} if required else {}
    return {"type": "object", "properties": dict(properties), **needed}


def strict_object_schema(properties: Mapping[str, Json], required: Iterable[str] = ()) -> Json:
    """Return the schema of an object with these members only: the server rejects others."""
    return {**object_schema(properties, required), "additionalProperties": False}


def array_schema(items: Json, **limits: int) -> Json:
    """Return the schema of an array; `limits` are `minItems` and `maxItems`."""
    return {"type": "array", "items": items, **limits}


def const_schema(value: str | bool) -> Json:
    """Return the schema of one value with its type, which client generators need in addition to `const`.

    A boolean is an `enum` of one value: generators copy `const` to source code, where `true` is not valid Python.
    """
    return {"type": "boolean", "enum": [value]} if isinstance(value, bool) else {"type": "string", "const": value}


def enum_schema(values: Iterable[str]) -> Json:
    """Return the schema of one of these strings."""
    return {"type": "string", "enum": list(values)}


def nullable_schema(schema: Json) -> Json:
    """Return the schema of the same value, or null."""
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    values = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [schema["type"], "null"], **values}


def normalize_schema(schema: Any) -> Any:
    """Return a schema that was written for validation in the forms that client generators support.

    Enums get their type, and `anyOf` replaces a list of several types, except one type and null.
    """
    if isinstance(schema, list):
        return [normalize_schema(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: normalize_schema(value) for name, value in schema.items()}
    if isinstance(made.get("enum"), list) and "type" not in made:
        return {"type": "string", **made}
    types = made.get("type")
    if not isinstance(types, list) or len(set(types) - {"null"}) < 2:
        return made
    del made["type"]
    return {**made, "anyOf": [{"type": each, **({"items": {}} if each == "array" else {})} for each in types]}


def id_schema(type_: ResourceType) -> Json:
    """Return the schema of an id of this type."""
    return {"type": "string", "pattern": f"^{UUID_PATTERN if type_.has_uuids else INTEGER_ID_PATTERN}$"}


def component_name(type_: ResourceType, *parts: str) -> str:
    """Return the name of a component of this type: `faq-type` and `Document` make `FaqTypeDocument`."""
    return "".join(to_pascal_case(each) for each in (type_.name, *parts))


def to_pascal_case(dashed: str) -> str:
    """Return a dashed name without dashes: `faq-type` is `FaqType`."""
    name = camelize(dashed)
    return name[:1].upper() + name[1:]


def check_component_names(names: Iterable[str]) -> None:
    """Raise ValueError if two names differ in case or in other characters than letters and digits only."""
    counted = Counter(re.sub(r"[^0-9a-z]", "", name.lower()) for name in names)
    if doubled := sorted(name for name, count in counted.items() if count > 1):
        raise ValueError(f"Names of components must differ in letters and digits: {', '.join(doubled)}.")
