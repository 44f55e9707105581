"""Names for the schemas of bodies: generators call what has no name of its own `Body`, `Body1`, `Body2`."""

from itertools import chain, count

from app.openapi.json_schema import Json, component_ref, normalize_schema, nullable_schema, to_pascal_case

MULTIPART = "multipart/form-data"


def hoist_bodies(document: Json) -> None:
    """Make components of all object schemas that stand in the bodies of requests and answers.

    They are named `Form` and `Result`: generators use `Request` and `Response` for names of their own. Multipart forms
    stay where they are: openapi-generator makes arguments of their members, and no model of a component.
    """
    schemas = document["components"]["schemas"]
    for item in document["paths"].values():
        for operation in (value for name, value in item.items() if name != "parameters"):
            name = to_pascal_case(operation["operationId"])
            _hoist_content(operation.get("requestBody", {}), f"{name}Form", schemas)
            for answer in operation["responses"].values():
                _hoist_content(answer, f"{name}Result", schemas)


def _hoist_content(body: Json, name: str, schemas: Json) -> None:
    hoisted: list[tuple[Json, str]] = []
    for media_type, content in body.get("content", {}).items():
        if "schema" in content:
            content["schema"] = normalize_schema(content["schema"])
        if "schema" in content and media_type != MULTIPART:
            content["schema"] = _hoist_schema(content["schema"], name, schemas, hoisted)


def _hoist_schema(schema: Json, name: str, schemas: Json, hoisted: list[tuple[Json, str]]) -> Json:
    """Return the schema with references to components in place of objects; `hoisted` has those made for this body."""
    if "oneOf" in schema:
        return {**schema, "oneOf": [_hoist_schema(part, name, schemas, hoisted) for part in schema["oneOf"]]}
    if schema.get("items"):
        return {**schema, "items": _hoist_schema(schema["items"], f"{name}Item", schemas, hoisted)}
    if "properties" not in schema:
        return schema
    made = next((known for same, known in hoisted if same == schema), None) or _add_component(
        schema, name, schemas, hoisted
    )
    return nullable_schema(component_ref(made)) if "null" in schema["type"] else component_ref(made)


def _add_component(schema: Json, name: str, schemas: Json, hoisted: list[tuple[Json, str]]) -> str:
    """Make a component of an object, and return its name: this one, or with a number where it is taken."""
    names = chain([name], (f"{name}{number}" for number in count(2)))
    free = next(each for each in names if each not in schemas)
    members = schema["properties"].items()
    schemas[free] = {}  # taken before the names of its members are chosen
    longer = {key: name + to_pascal_case(key.replace("_", "-")) for key, _ in members}
    properties = {key: _hoist_schema(value, longer[key], schemas, hoisted) for key, value in members}
    schemas[free] = {**schema, "type": "object", "properties": properties}
    hoisted.append((schema, free))
    return free
