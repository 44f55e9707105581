"""Schemas of response documents: resources, lists, linkage and errors."""

from collections.abc import Mapping

from app.jsonapi.atomic_operations import EXTENSION
from app.jsonapi.resource_type import TYPES, Relation, ResourceType
from app.openapi.field_schemas import is_optional, response_schema
from app.openapi.json_schema import (
    LINK,
    TEXT,
    Json,
    array_schema,
    component_name,
    component_ref,
    const_schema,
    id_schema,
    nullable_schema,
    object_schema,
)


def build_shared_schemas() -> dict[str, Json]:
    """Return the schemas that the documents of all types share."""
    pages = {name: nullable_schema(LINK) for name in ("first", "last", "prev", "next")}
    source = object_schema(dict.fromkeys(("pointer", "parameter", "header"), TEXT))
    error = dict.fromkeys(("id", "status", "code", "title", "detail"), TEXT)
    truncated = {"description": "Present where the server lowered `page[size]` to its maximum."}
    inexact = {"description": "Present where `count` is an estimate."}
    shortened = {"description": "Present where the page has fewer resources as the response would be too large."}
    omitted = {"description": "Present where what the one resource of the page includes would be too large."}
    counted: dict[str, Json] = {
        "count": {"type": "integer", "minimum": 0, "description": "Resources on all pages."},
        "count-is-exact": {**const_schema(value=False), **inexact},
        "page-is-shortened": {**const_schema(value=True), **shortened},
        "included-is-omitted": {**const_schema(value=True), **omitted},
        "page": component_ref("ListPageMeta"),
    }
    related = {
        "source": component_ref("ErrorSource"),
        "links": component_ref("ErrorLinks"),
        "meta": {"type": "object"},
    }
    return {
        "JsonApi": object_schema({"version": const_schema("1.1")}, ["version"]),
        "JsonApiWithExtensions": object_schema(
            {"version": const_schema("1.1"), "ext": array_schema(const_schema(EXTENSION), minItems=1, maxItems=1)},
            ["version", "ext"],
        ),
        "SelfLink": object_schema({"self": LINK}, ["self"]),
        "RelationshipLinks": object_schema({"self": LINK, "related": LINK}, ["self", "related"]),
        "PageLinks": object_schema({"self": LINK, **pages}, ["self", *pages]),
        "LinkageLinks": object_schema({"self": LINK, "related": LINK, **pages}, ["self", "related"]),
        "ListMeta": object_schema(counted, ["count"]),
        "ListPageMeta": object_schema({"rangeTruncated": {**const_schema(value=True), **truncated}}),
        "ItemMeta": object_schema({"page": component_ref("ItemPageMeta")}),
        "ItemPageMeta": object_schema(
            {"cursor": {**TEXT, "description": "For `page[after]` and `page[before]`; sent with the cursor profile."}},
            ["cursor"],
        ),
        "Resource": {
            "oneOf": [component_ref(component_name(each)) for each in TYPES.values()],
            "discriminator": {
                "propertyName": "type",
                "mapping": {each.name: f"#/components/schemas/{component_name(each)}" for each in TYPES.values()},
            },
        },
        "Error": object_schema({**error, **related}, error),
        "ErrorSource": source,
        "ErrorLinks": object_schema({"type": LINK}),
        "ErrorDocument": document_schema(errors=array_schema(component_ref("Error"), minItems=1)),
        "MetaDocument": document_schema(meta=component_ref("Message")),
        "Message": object_schema({"message": TEXT}, ["message"]),
        "Results": object_schema(
            {
                "atomic:results": array_schema(component_ref("Result")),
                "jsonapi": component_ref("JsonApiWithExtensions"),
            },
            ["atomic:results", "jsonapi"],
        ),
        "Result": object_schema({"data": component_ref("Resource")}),
    }


def document_schema(*, may: Mapping[str, Json] | None = None, **required: Json) -> Json:
    """Return the schema of a top-level document with these members, and others that it `may` have."""
    return object_schema({**required, "jsonapi": component_ref("JsonApi"), **(may or {})}, [*required, "jsonapi"])


def build_response_schemas(type_: ResourceType) -> dict[str, Json]:
    """Return the schemas of documents about resources of a type."""
    itself, identifier = component_ref(component_name(type_)), component_ref(component_name(type_, "identifier"))
    included: dict[str, Json] = {"included": array_schema(component_ref("Resource"))}
    self_link, linkage_links = component_ref("SelfLink"), component_ref("LinkageLinks")
    page = {"links": component_ref("PageLinks"), "meta": component_ref("ListMeta")}
    links = component_ref("RelationshipLinks")
    schemas = {
        "": _resource_schema(type_),
        "attributes": object_schema(
            {each.key: response_schema(type_, each) for each in type_.attributes.values() if each.is_readable}
        ),
        "relationships": object_schema(
            {each.key: _relationship_schema(type_, each) for each in type_.relations.values()}
        ),
        "identifier": _identifier_schema(type_),
        "document": document_schema(data=itself, links=self_link, may=included),
        "list": document_schema(data=array_schema(itself), **page, may=included),
        "or-null-document": document_schema(data=nullable_schema(itself), links=self_link, may=included),
        "linkage": document_schema(data=nullable_schema(identifier), links=linkage_links),
        "linkage-list": document_schema(
            data=array_schema(identifier), links=linkage_links, meta=component_ref("ListMeta")
        ),
        "to-one": object_schema({"links": links, "data": identifier}, ["links", "data"]),
        "to-one-or-null": object_schema({"links": links, "data": nullable_schema(identifier)}, ["links", "data"]),
        "to-many": object_schema({"links": links, "data": array_schema(identifier)}, ["links"]),
    }
    return {component_name(type_, part) if part else component_name(type_): schema for part, schema in schemas.items()}


def _identifier_schema(type_: ResourceType) -> Json:
    members = {"type": const_schema(type_.name), "id": id_schema(type_), "meta": component_ref("ItemMeta")}
    return object_schema(members, ["type", "id"])


def _resource_schema(type_: ResourceType) -> Json:
    members: dict[str, Json] = {
        "type": const_schema(type_.name),
        "id": id_schema(type_),
        "attributes": component_ref(component_name(type_, "attributes")),
        "relationships": component_ref(component_name(type_, "relationships")),
        "links": component_ref("SelfLink"),
        "meta": component_ref("ItemMeta"),
    }
    return object_schema(members, ["type", "id"])


def _relationship_schema(type_: ResourceType, relation: Relation) -> Json:
    """Return the schema of a relationship; a to-many one has data only where it is included."""
    to_one = "to-one-or-null" if not relation.many and is_optional(type_, relation) else "to-one"
    return component_ref(component_name(relation.target, "to-many" if relation.many else to_one))
