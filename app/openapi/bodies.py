"""Bodies of requests: what creates, changes and links resources."""

from app.jsonapi.documents import MOST_LINKAGES
from app.jsonapi.operations import HREF, MODES, MOST_OPERATIONS
from app.jsonapi.permissions import anyone
from app.jsonapi.resource_type import TYPES, Attribute, Relation, ResourceType
from app.openapi.fields import taken
from app.openapi.json_schema import (
    ANY_ID,
    LINK,
    TEXT,
    Json,
    array_of,
    choice,
    closed_object_of,
    component,
    constant,
    id_of,
    nullable,
    object_of,
    reference,
)

RESTORED: Json = {
    "type": ["string", "null"],
    "enum": [None],
    "description": "Send null with `get_trashed=true` to restore a deleted resource.",
}


def bodies_of(type_: ResourceType) -> dict[str, Json]:
    """Return the schemas of the bodies that create, change and link resources of a type."""
    identifier = reference(component(type_, "identifier"))
    schemas = {
        "create": object_of({"data": reference(component(type_, "create-data"))}, ["data"]),
        **_created(type_),
        "update": object_of({"data": reference(component(type_, "update-data"))}, ["data"]),
        **_changed(type_),
        "link": object_of({"data": identifier}, ["data"]),
        "link-or-null": object_of({"data": nullable(identifier)}, ["data"]),
        "links": object_of({"data": array_of(identifier, maxItems=MOST_LINKAGES)}, ["data"]),
    }
    return {component(type_, part): schema for part, schema in schemas.items()}


def linkage_taken(relation: Relation) -> Json:
    """Return the body of a request to a relationship URL, and the relationship in the body of a resource."""
    to_one = "link" if relation.field.required else "link-or-null"
    return reference(component(relation.target, "links" if relation.many else to_one))


def operations_taken() -> dict[str, Json]:
    """Return the schemas of a body with the atomic extension; `lid` names a resource that an earlier operation made."""
    named: dict[str, Json] = {"type": choice(TYPES), "id": ANY_ID, "lid": TEXT}
    resource = {**named, "attributes": {"type": "object"}, "relationships": {"type": "object"}}
    identifiers = array_of(reference("OperationIdentifier"), maxItems=MOST_LINKAGES)
    operation: dict[str, Json] = {
        "op": choice(MODES),
        "ref": reference("OperationTarget"),
        "href": {**LINK, "pattern": f"^{HREF.pattern}$"},
        "data": {"oneOf": [reference("OperationResource"), identifiers, {"type": "null"}]},
    }
    listed = array_of(reference("Operation"), minItems=1, maxItems=MOST_OPERATIONS)
    return {
        "Operations": object_of({"atomic:operations": listed}, ["atomic:operations"]),
        "Operation": {
            **object_of(operation, ["op"]),
            "description": "Has `ref` or `href` or, where it adds a resource, `data` alone; not `ref` and `href`.",
            "if": _having("ref"),
            "then": {"not": _having("href")},
            "else": {"anyOf": [_having("href"), _having("data")]},
        },
        "OperationTarget": object_of({**named, "relationship": TEXT}, ["type"]),
        "OperationResource": object_of(resource, ["type"]),
        "OperationIdentifier": object_of(named, ["type"]),
    }


def _having(member: str) -> Json:
    return {"properties": {member: {}}, "required": [member]}


def _created(type_: ResourceType) -> dict[str, Json]:
    fields: list[Attribute | Relation] = [*type_.attributes.values(), *type_.relations.values()]
    required = {each.key for each in fields if each.field.required and not each.field.dump_only}
    attributes, relationships = _attributes_taken(type_), _relationships_taken(type_)
    parts = {
        "attributes": closed_object_of(attributes, required & attributes.keys()),
        "relationships": closed_object_of(relationships, required & relationships.keys()),
    }
    members = {"type": constant(type_.name), **{name: reference(component(type_, "create", name)) for name in parts}}
    return {
        "create-data": object_of(members, ["type", *(name for name in parts if "required" in parts[name])]),
        **{f"create-{name}": part for name, part in parts.items()},
    }


def _changed(type_: ResourceType) -> dict[str, Json]:
    attributes = _attributes_taken(type_)
    if "deleted_at" in type_.attributes:
        attributes["deleted-at"] = RESTORED
    parts = {
        "attributes": closed_object_of(attributes),
        "relationships": closed_object_of(_relationships_taken(type_)),
    }
    members: dict[str, Json] = {
        "type": constant(type_.name),
        "id": id_of(type_),
        **{name: reference(component(type_, "update", name)) for name in parts},
    }
    return {
        "update-data": object_of(members, ["type", "id"]),
        **{f"update-{name}": part for name, part in parts.items()},
    }


def _attributes_taken(type_: ResourceType) -> dict[str, Json]:
    taken_here = {}
    for name, attribute in type_.attributes.items():
        if not attribute.field.dump_only:
            rule = type_.permissions.may_write(name)
            who = {} if rule is anyone else {"description": f"Can be set by: {rule.__doc__}"}
            taken_here[attribute.key] = {**taken(type_, attribute), **who}
    return taken_here


def _relationships_taken(type_: ResourceType) -> dict[str, Json]:
    return {each.key: linkage_taken(each) for each in type_.relations.values() if not each.field.dump_only}
