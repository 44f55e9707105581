"""Schemas of request bodies that create, update and link resources."""

from app.jsonapi.atomic_operations import HREF_RE, MAX_OPERATIONS, MODE_BY_OP
from app.jsonapi.document_parser import MAX_LINKAGES
from app.jsonapi.permissions import anyone
from app.jsonapi.resource_type import TYPES, Attribute, Relation, ResourceType
from app.openapi.field_schemas import request_schema
from app.openapi.json_schema import (
    ANY_ID,
    LINK,
    TEXT,
    Json,
    array_schema,
    component_name,
    component_ref,
    const_schema,
    enum_schema,
    id_schema,
    nullable_schema,
    object_schema,
    strict_object_schema,
)

RESTORE_SCHEMA: Json = {
    "type": ["string", "null"],
    "enum": [None],
    "description": "Send null with `get_trashed=true` to restore a deleted resource.",
}


def build_request_schemas(type_: ResourceType) -> dict[str, Json]:
    """Return the schemas of the bodies that create, update and link resources of a type."""
    identifier = component_ref(component_name(type_, "identifier"))
    schemas = {
        "create": object_schema({"data": component_ref(component_name(type_, "create-data"))}, ["data"]),
        **_create_schemas(type_),
        "update": object_schema({"data": component_ref(component_name(type_, "update-data"))}, ["data"]),
        **_update_schemas(type_),
        "link": object_schema({"data": identifier}, ["data"]),
        "link-or-null": object_schema({"data": nullable_schema(identifier)}, ["data"]),
        "links": object_schema({"data": array_schema(identifier, maxItems=MAX_LINKAGES)}, ["data"]),
    }
    return {component_name(type_, part): schema for part, schema in schemas.items()}


def linkage_request_schema(relation: Relation) -> Json:
    """Return the schema of a relationship in a request, which is also the body at the relationship URL."""
    to_one = "link" if relation.field.required else "link-or-null"
    return component_ref(component_name(relation.target, "links" if relation.many else to_one))


def operations_request_schemas() -> dict[str, Json]:
    """Return the schemas of an atomic operations document; `lid` names a resource of an earlier operation."""
    named: dict[str, Json] = {"type": enum_schema(TYPES), "id": ANY_ID, "lid": TEXT}
    resource = {**named, "attributes": {"type": "object"}, "relationships": {"type": "object"}}
    identifiers = array_schema(component_ref("OperationIdentifier"), maxItems=MAX_LINKAGES)
    operation: dict[str, Json] = {
        "op": enum_schema(MODE_BY_OP),
        "ref": component_ref("OperationTarget"),
        "href": {**LINK, "pattern": f"^{HREF_RE.pattern}$"},
        "data": {"oneOf": [component_ref("OperationResource"), identifiers, {"type": "null"}]},
    }
    operations = array_schema(component_ref("Operation"), minItems=1, maxItems=MAX_OPERATIONS)
    return {
        "Operations": object_schema({"atomic:operations": operations}, ["atomic:operations"]),
        "Operation": {
            **object_schema(operation, ["op"]),
            "description": "Has `ref` or `href` or, where it adds a resource, `data` alone; not `ref` and `href`.",
            "if": _require_member("ref"),
            "then": {"not": _require_member("href")},
            "else": {"anyOf": [_require_member("href"), _require_member("data")]},
        },
        "OperationTarget": object_schema({**named, "relationship": TEXT}, ["type"]),
        "OperationResource": object_schema(resource, ["type"]),
        "OperationIdentifier": object_schema(named, ["type"]),
    }


def _require_member(member: str) -> Json:
    return {"properties": {member: {}}, "required": [member]}


def _create_schemas(type_: ResourceType) -> dict[str, Json]:
    fields: list[Attribute | Relation] = [*type_.attributes.values(), *type_.relations.values()]
    required = {each.key for each in fields if each.field.required and not each.field.dump_only}
    attributes, relationships = _attributes_request_schemas(type_), _relationships_request_schemas(type_)
    parts = {
        "attributes": strict_object_schema(attributes, required & attributes.keys()),
        "relationships": strict_object_schema(relationships, required & relationships.keys()),
    }
    members = {
        "type": const_schema(type_.name),
        **{name: component_ref(component_name(type_, "create", name)) for name in parts},
    }
    return {
        "create-data": object_schema(members, ["type", *(name for name in parts if "required" in parts[name])]),
        **{f"create-{name}": part for name, part in parts.items()},
    }


def _update_schemas(type_: ResourceType) -> dict[str, Json]:
    attributes = _attributes_request_schemas(type_)
    if "deleted_at" in type_.attributes:
        attributes["deleted-at"] = RESTORE_SCHEMA
    parts = {
        "attributes": strict_object_schema(attributes),
        "relationships": strict_object_schema(_relationships_request_schemas(type_)),
    }
    members: dict[str, Json] = {
        "type": const_schema(type_.name),
        "id": id_schema(type_),
        **{name: component_ref(component_name(type_, "update", name)) for name in parts},
    }
    return {
        "update-data": object_schema(members, ["type", "id"]),
        **{f"update-{name}": part for name, part in parts.items()},
    }


def _attributes_request_schemas(type_: ResourceType) -> dict[str, Json]:
    schemas = {}
    for name, attribute in type_.attributes.items():
        if not attribute.field.dump_only:
            rule = type_.permissions.attribute_predicate(name)
            who = {} if rule is anyone else {"description": f"Can be set by: {rule.__doc__}"}
            schemas[attribute.key] = {**request_schema(type_, attribute), **who}
    return schemas


def _relationships_request_schemas(type_: ResourceType) -> dict[str, Json]:
    return {each.key: linkage_request_schema(each) for each in type_.relations.values() if not each.field.dump_only}
