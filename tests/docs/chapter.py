"""Draft the chapter of a resource for the blueprint: `python -m tests.docs.chapter tracks`.

It has a table of the attributes and one example of each request. `pytest tests/docs --record` adds the responses.
"""

import json
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import manage
from app.jsonapi.fields import Boolean, DateTime, Integer, Number, Relationship
from app.jsonapi.inflection import dasherize
from app.jsonapi.resource_type import TYPES, ResourceType
from app.openapi.document import build_document
from tests.docs.blueprint_sources import DIRECTORY, SOURCE
from tests.samples import sample_required_attributes

MEDIA_TYPE = "application/vnd.api+json"
KINDS = {DateTime: "time", Boolean: "boolean", Integer: "number", Number: "number", Relationship: "relationship"}
LAST_CHAPTERS = "<!-- include(operations.apib) -->"
"""Chapter before which chapters of resources are inserted."""


def draft_chapter(type_: ResourceType, paths: dict[str, Any]) -> str:
    """Return the chapter of a type, whose requests are those of the OpenAPI document."""
    title = type_.plural.replace("-", " ").title()
    lines = [f"# Group {title}", "", type_.description, "", *_list_parameters(type_), ""]
    for path, item in paths.items():
        if path == type_.path or path.startswith(f"{type_.path}/"):
            lines += [f"## {path.removeprefix('/v1/').title()} [{path}]", ""]
            if "{id}" in path:
                lines += ["+ Parameters", "", f"    + id: `1` (required, string) - Id of {type_.noun}.", ""]
            for method, operation in item.items():
                if method != "parameters":
                    lines += _list_example(type_, path, method.upper(), operation)
    return "\n".join(lines).rstrip() + "\n"


def _list_parameters(type_: ResourceType) -> Iterator[str]:
    yield "| Parameter | Description | Type | Required |"
    yield "|:----------|-------------|------|----------|"
    for name, field in type_.loader.declared_fields.items():
        if name != "id":
            required = "read-only" if field.dump_only else "**yes**" if field.required else "-"
            kind = next((word for kind, word in KINDS.items() if isinstance(field, kind)), "string")
            yield f"| `{dasherize(name)}` | {dasherize(name).replace('-', ' ').capitalize()} | {kind} | {required} |"


def _list_example(type_: ResourceType, path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    body = _build_body(type_, path, method)
    media_type = f" ({MEDIA_TYPE})" if body else ""
    yield from (f"### {operation['summary']} [{method}]", "", operation["description"].splitlines()[-1], "")
    yield from (f"+ Request The owner{media_type}", "", "    + Headers", "", f"            Accept: {MEDIA_TYPE}", "")
    yield from ("            Authorization: JWT <access token of the owner>", "")
    if body:
        yield from ("    + Body", "", *textwrap.indent(json.dumps(body, indent=4), " " * 12).splitlines(), "")
    yield from (f"+ Response {min(operation['responses'])} ({MEDIA_TYPE})", "", "        {}", "")


def _build_body(type_: ResourceType, path: str, method: str) -> dict[str, Any] | None:
    relation = type_.find_relation(path.rpartition("/")[2])
    if method == "GET" or (method == "DELETE" and relation is None):
        return None
    if relation is not None:
        linkage = {"type": relation.target.name, "id": "1"}
        return {"data": [linkage] if relation.many else linkage}
    if method == "PATCH":
        return {"data": {"type": type_.name, "id": "1", "attributes": sample_required_attributes(type_)}}
    required = [each for each in type_.relations.values() if each.field.required]
    related = {each.key: {"data": {"type": each.target.name, "id": "1"}} for each in required}
    return {"data": {"type": type_.name, "attributes": sample_required_attributes(type_), "relationships": related}}


def main() -> None:
    """Write the chapter of the type whose plural is the argument, and include it in the blueprint."""
    paths = build_document(manage.app)["paths"]  # first: creating the app registers the types
    types = {type_.plural: type_ for type_ in TYPES.values()}
    if sys.argv[1:] not in [[plural] for plural in types]:
        sys.exit(f"Name one resource: {', '.join(sorted(types))}.")
    name = f"{sys.argv[1]}.apib"
    (DIRECTORY / name).write_text(draft_chapter(types[sys.argv[1]], paths))
    line = f"<!-- include({name}) -->"
    source = SOURCE.read_text()
    if line not in source:
        SOURCE.write_text(source.replace(LAST_CHAPTERS, f"{line}\n\n{LAST_CHAPTERS}"))


if __name__ == "__main__":
    main()
