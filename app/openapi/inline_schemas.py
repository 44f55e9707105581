"""Named schemas of bodies: client generators name inline schemas `Body`, `Body1`, `Body2`."""

from itertools import chain, count

from app.openapi.json_schema import Json, component_ref, normalize_schema, nullable_schema, to_pascal_case

MULTIPART = "multipart/form-data"


def hoist_bodies(document: Json) -> None:
    """Move all object schemas in the bodies of requests and responses to components.

    Their names end with `Form` and `Result`: client generators use `Request` and `Response` themselves. Multipart forms
    stay inline: openapi-generator turns their members into arguments, but does not support a component there.
    """
    schemas = document["components"]["schemas"]
    for item in document["paths"].values():
        for operation in (value for name, value in item.items() if name != "parameters"):
            name = to_pascal_case(operation["operationId"])
            _hoist_content(operation.get("requestBody", {}), f"{name}Form", schemas)
            for response in operation["responses"].values():
                _hoist_content(response, f"{name}Result", schemas)


def _hoist_content(body: Json, name: str, schemas: Json) -> None:
    hoisted: list[tuple[Json, str]] = []
    for media_type, content in body.get("content", {}).items():
        if "schema" in content:
            content["schema"] = normalize_schema(content["schema"])
        if "schema" in content and media_type != MULTIPART:
            content["schema"] = _hoist_schema(content["schema"], name, schemas, hoisted)


def _hoist_schema(schema: Json, name: str, schemas: Json, hoisted: list[tuple[Json, str]]) -> Json:
    """Return the schema with objects replaced by references; `hoisted` has the components of this body so far."""
    if "oneOf" in schema:
        return {**schema, "oneOf": [_hoist_schema(part, name, schemas, hoisted) for part in schema["oneOf"]]}
    if schema.get("items"):
        return {**schema, "items": _hoist_schema(schema["items"], f"{name}Item", schemas, hoisted)}
    if "properties" not in schema:
        return schema
    component = next((other_name for other, other_name in hoisted if other == schema), None) or _add_component(
        schema, name, schemas, hoisted
    )
    return nullable_schema(component_ref(component)) if "null" in schema["type"] else component_ref(component)


def _add_component(schema: Json, name: str, schemas: Json, hoisted: list[tuple[Json, str]]) -> str:
    """Add an object schema to the components, and return its name: `name`, with a number if it is in use."""
    names = chain([name], (f"{name}{number}" for number in count(2)))
    free = next(each for each in names if each not in schemas)
    members = schema["properties"].items()
    schemas[free] = {}  # reserves the name before those of its members are chosen
    longer = {key: name + to_pascal_case(key.replace("_", "-")) for key, _ in members}
    properties = {key: _hoist_schema(value, longer[key], schemas, hoisted) for key, value in members}
    schemas[free] = {**schema, "type": "object", "properties": properties}
    hoisted.append((schema, free))
    return free
