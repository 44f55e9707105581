"""The documents that are answered: resources, lists, linkage, errors."""

from collections.abc import Mapping

from app.jsonapi.operations import EXTENSION
from app.jsonapi.resource_type import TYPES, Relation, ResourceType
from app.openapi.fields import given, is_optional
from app.openapi.json_schema import LINK, TEXT, Json, component, id_of, nullable, object_of, reference


def shared_answers() -> dict[str, Json]:
    """What the documents of all types have in common."""
    pages = {name: nullable(LINK) for name in ("first", "last", "prev", "next")}
    source = object_of(dict.fromkeys(("pointer", "parameter", "header"), TEXT))
    kind = object_of({"type": LINK})
    error = dict.fromkeys(("id", "status", "code", "title", "detail"), TEXT)
    counted: dict[str, Json] = {
        "count": {"type": "integer", "minimum": 0},
        "count-is-exact": {"const": False},
        "page": object_of({"rangeTruncated": {"const": True}}),
    }
    return {
        "JsonApi": object_of({"version": {"const": "1.1"}}, ["version"]),
        "SelfLink": object_of({"self": LINK}, ["self"]),
        "RelationshipLinks": object_of({"self": LINK, "related": LINK}, ["self", "related"]),
        "PageLinks": object_of({"self": LINK, **pages}, ["self", *pages]),
        "LinkageLinks": object_of({"self": LINK, "related": LINK, **pages}, ["self", "related"]),
        "ListMeta": object_of(counted, ["count"]),
        "ItemMeta": object_of({"page": object_of({"cursor": TEXT}, ["cursor"])}),
        "Resource": {
            "oneOf": [reference(component(each)) for each in TYPES.values()],
            "discriminator": {
                "propertyName": "type",
                "mapping": {each.name: f"#/components/schemas/{component(each)}" for each in TYPES.values()},
            },
        },
        "Error": object_of({**error, "source": source, "links": kind, "meta": {"type": "object"}}, error),
        "ErrorDocument": document(errors={"type": "array", "items": reference("Error"), "minItems": 1}),
        "MetaDocument": document(meta=object_of({"message": TEXT}, ["message"])),
        "Results": _results(),
    }


def document(*, may: Mapping[str, Json] | None = None, **required: Json) -> Json:
    """A top-level document with these members, which it has, and others that it may have."""
    return object_of({**required, "jsonapi": reference("JsonApi"), **(may or {})}, [*required, "jsonapi"])


def answers_of(type_: ResourceType) -> dict[str, Json]:
    """The documents about resources of a type."""
    name = component(type_)
    itself, identifier = reference(name), reference(f"{name}Identifier")
    included: dict[str, Json] = {"included": {"type": "array", "items": reference("Resource")}}
    self_link, linkage_links = reference("SelfLink"), reference("LinkageLinks")
    page = {"links": reference("PageLinks"), "meta": reference("ListMeta")}
    listed = {"type": "array", "items": itself}
    identifiers = {"type": "array", "items": identifier}
    to_one = {
        f"{name}OrNothing": document(data=nullable(itself), links=self_link, may=included),
        f"{name}Linkage": document(data=nullable(identifier), links=linkage_links),
    }
    to_many = {f"{name}LinkageList": document(data=identifiers, links=linkage_links, meta=reference("ListMeta"))}
    ways = {each.many for other in TYPES.values() for each in other.relations.values() if each.target is type_}
    return {
        name: _resource(type_),
        f"{name}Identifier": _identifier(type_),
        f"{name}Document": document(data=itself, links=self_link, may=included),
        f"{name}List": document(data=listed, **page, may=included),
        **(to_one if False in ways else {}),
        **(to_many if True in ways else {}),
    }


def _identifier(type_: ResourceType) -> Json:
    return object_of({"type": {"const": type_.name}, "id": id_of(type_), "meta": reference("ItemMeta")}, ["type", "id"])


def _resource(type_: ResourceType) -> Json:
    attributes = {each.key: given(type_, each) for each in type_.attributes.values() if each.is_readable}
    relationships = {each.key: _relationship(type_, each) for each in type_.relations.values()}
    members: dict[str, Json] = {
        "type": {"const": type_.name},
        "id": id_of(type_),
        "attributes": object_of(attributes),
        "relationships": object_of(relationships),
        "links": reference("SelfLink"),
        "meta": reference("ItemMeta"),
    }
    return object_of(members, ["type", "id"])


def _relationship(type_: ResourceType, relation: Relation) -> Json:
    """To-many relationships have data where they are included."""
    identifier = reference(f"{component(relation.target)}Identifier")
    links = reference("RelationshipLinks")
    if relation.many:
        return object_of({"links": links, "data": {"type": "array", "items": identifier}}, ["links"])
    data = nullable(identifier) if is_optional(type_, relation) else identifier
    return object_of({"links": links, "data": data}, ["links", "data"])


def _results() -> Json:
    results = {"type": "array", "items": object_of({"data": reference("Resource")})}
    extended = object_of({"version": {"const": "1.1"}, "ext": {"const": [EXTENSION]}}, ["version", "ext"])
    return object_of({"atomic:results": results, "jsonapi": extended}, ["atomic:results", "jsonapi"])
