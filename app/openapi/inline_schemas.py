"""Names for the schemas of bodies: generators call what has no name of its own `Body`, `Body1`, `Body2`."""

from itertools import chain, count

from app.openapi.json_schema import Json, capitalize, reference

MULTIPART = "multipart/form-data"


def hoist_bodies(document: Json) -> None:
    """Make components of all object schemas that stand in the bodies of requests and answers.

    They are named `Form` and `Result`: generators use `Request` and `Response` for names of their own. Multipart forms
    stay where they are: openapi-generator makes arguments of their members, and no model of a component.
    """
    schemas = document["components"]["schemas"]
    for item in document["paths"].values():
        for operation in (value for name, value in item.items() if name != "parameters"):
            name = capitalize(operation["operationId"])
            _hoist_content(operation.get("requestBody", {}), f"{name}Form", schemas)
            for answer in operation["responses"].values():
                _hoist_content(answer, f"{name}Result", schemas)


def _hoist_content(body: Json, name: str, schemas: Json) -> None:
    hoisted: dict[int, str] = {}
    for media_type, content in body.get("content", {}).items():
        if "schema" in content and media_type != MULTIPART:
            content["schema"] = _hoist(content["schema"], name, schemas, hoisted)


def _hoist(schema: Json, name: str, schemas: Json, hoisted: dict[int, str]) -> Json:
    """Return the schema with references to components in place of objects; `hoisted` has the names of those made."""
    if "oneOf" in schema:
        return {**schema, "oneOf": [_hoist(part, name, schemas, hoisted) for part in schema["oneOf"]]}
    if "properties" not in schema:
        return schema
    if id(schema) in hoisted:
        return reference(hoisted[id(schema)])
    members = schema["properties"].items()
    properties = {key: _hoist(value, name + capitalize(key), schemas, hoisted) for key, value in members}
    names = chain([name], (f"{name}{number}" for number in count(2)))
    free = hoisted[id(schema)] = next(each for each in names if each not in schemas)
    schemas[free] = {**schema, "properties": properties}
    return reference(free)
