"""The documents that are answered: resources, lists, linkage, errors."""

from collections.abc import Mapping

from app.jsonapi.operations import EXTENSION
from app.jsonapi.resource_type import TYPES, Relation, ResourceType
from app.openapi.fields import given, is_optional
from app.openapi.json_schema import (
    LINK,
    TEXT,
    Json,
    array_of,
    component,
    constant,
    id_of,
    nullable,
    object_of,
    reference,
)


def shared_answers() -> dict[str, Json]:
    """Return the schemas that the documents of all types share."""
    pages = {name: nullable(LINK) for name in ("first", "last", "prev", "next")}
    source = object_of(dict.fromkeys(("pointer", "parameter", "header"), TEXT))
    error = dict.fromkeys(("id", "status", "code", "title", "detail"), TEXT)
    truncated = {"description": "Present where the server lowered `page[size]` to its maximum."}
    inexact = {"description": "Present where `count` is an estimate."}
    shortened = {"description": "Present where the page has fewer resources as the answer would be too large."}
    omitted = {"description": "Present where what the one resource of the page includes would be too large."}
    counted: dict[str, Json] = {
        "count": {"type": "integer", "minimum": 0, "description": "Resources on all pages."},
        "count-is-exact": {**constant(value=False), **inexact},
        "page-is-shortened": {**constant(value=True), **shortened},
        "included-is-omitted": {**constant(value=True), **omitted},
        "page": reference("ListPageMeta"),
    }
    related = {
        "source": reference("ErrorSource"),
        "links": reference("ErrorLinks"),
        "meta": {"type": "object"},
    }
    return {
        "JsonApi": object_of({"version": constant("1.1")}, ["version"]),
        "JsonApiWithExtensions": object_of(
            {"version": constant("1.1"), "ext": array_of(constant(EXTENSION), minItems=1, maxItems=1)},
            ["version", "ext"],
        ),
        "SelfLink": object_of({"self": LINK}, ["self"]),
        "RelationshipLinks": object_of({"self": LINK, "related": LINK}, ["self", "related"]),
        "PageLinks": object_of({"self": LINK, **pages}, ["self", *pages]),
        "LinkageLinks": object_of({"self": LINK, "related": LINK, **pages}, ["self", "related"]),
        "ListMeta": object_of(counted, ["count"]),
        "ListPageMeta": object_of({"rangeTruncated": {**constant(value=True), **truncated}}),
        "ItemMeta": object_of({"page": reference("ItemPageMeta")}),
        "ItemPageMeta": object_of(
            {"cursor": {**TEXT, "description": "For `page[after]` and `page[before]`; sent with the cursor profile."}},
            ["cursor"],
        ),
        "Resource": {
            "oneOf": [reference(component(each)) for each in TYPES.values()],
            "discriminator": {
                "propertyName": "type",
                "mapping": {each.name: f"#/components/schemas/{component(each)}" for each in TYPES.values()},
            },
        },
        "Error": object_of({**error, **related}, error),
        "ErrorSource": source,
        "ErrorLinks": object_of({"type": LINK}),
        "ErrorDocument": document(errors=array_of(reference("Error"), minItems=1)),
        "MetaDocument": document(meta=reference("Message")),
        "Message": object_of({"message": TEXT}, ["message"]),
        "Results": object_of(
            {"atomic:results": array_of(reference("Result")), "jsonapi": reference("JsonApiWithExtensions")},
            ["atomic:results", "jsonapi"],
        ),
        "Result": object_of({"data": reference("Resource")}),
    }


def document(*, may: Mapping[str, Json] | None = None, **required: Json) -> Json:
    """Return the schema of a top-level document with these members, and others that it `may` have."""
    return object_of({**required, "jsonapi": reference("JsonApi"), **(may or {})}, [*required, "jsonapi"])


def answers_of(type_: ResourceType) -> dict[str, Json]:
    """Return the schemas of documents about resources of a type."""
    itself, identifier = reference(component(type_)), reference(component(type_, "identifier"))
    included: dict[str, Json] = {"included": array_of(reference("Resource"))}
    self_link, linkage_links = reference("SelfLink"), reference("LinkageLinks")
    page = {"links": reference("PageLinks"), "meta": reference("ListMeta")}
    links = reference("RelationshipLinks")
    schemas = {
        "": _resource(type_),
        "attributes": object_of(
            {each.key: given(type_, each) for each in type_.attributes.values() if each.is_readable}
        ),
        "relationships": object_of({each.key: _relationship(type_, each) for each in type_.relations.values()}),
        "identifier": _identifier(type_),
        "document": document(data=itself, links=self_link, may=included),
        "list": document(data=array_of(itself), **page, may=included),
        "or-null-document": document(data=nullable(itself), links=self_link, may=included),
        "linkage": document(data=nullable(identifier), links=linkage_links),
        "linkage-list": document(data=array_of(identifier), links=linkage_links, meta=reference("ListMeta")),
        "to-one": object_of({"links": links, "data": identifier}, ["links", "data"]),
        "to-one-or-null": object_of({"links": links, "data": nullable(identifier)}, ["links", "data"]),
        "to-many": object_of({"links": links, "data": array_of(identifier)}, ["links"]),
    }
    return {component(type_, part) if part else component(type_): schema for part, schema in schemas.items()}


def _identifier(type_: ResourceType) -> Json:
    members = {"type": constant(type_.name), "id": id_of(type_), "meta": reference("ItemMeta")}
    return object_of(members, ["type", "id"])


def _resource(type_: ResourceType) -> Json:
    members: dict[str, Json] = {
        "type": constant(type_.name),
        "id": id_of(type_),
        "attributes": reference(component(type_, "attributes")),
        "relationships": reference(component(type_, "relationships")),
        "links": reference("SelfLink"),
        "meta": reference("ItemMeta"),
    }
    return object_of(members, ["type", "id"])


def _relationship(type_: ResourceType, relation: Relation) -> Json:
    """To-many relationships have data where they are included."""
    to_one = "to-one-or-null" if not relation.many and is_optional(type_, relation) else "to-one"
    return reference(component(relation.target, "to-many" if relation.many else to_one))
