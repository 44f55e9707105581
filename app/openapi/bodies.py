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
    closed_object_of,
    component,
    id_of,
    nullable,
    object_of,
    reference,
)


def bodies_of(type_: ResourceType) -> dict[str, Json]:
    """The bodies that create and change resources of a type."""
    name = component(type_)
    return {
        f"{name}Create": object_of({"data": _created(type_)}, ["data"]),
        f"{name}Update": object_of({"data": _changed(type_)}, ["data"]),
    }


def linkage_taken(relation: Relation) -> Json:
    """The body of a request to a relationship URL, and the relationship in the body of a resource."""
    identifier = reference(f"{component(relation.target)}Identifier")
    data = {"type": "array", "items": identifier, "maxItems": MOST_LINKAGES} if relation.many else identifier
    return object_of({"data": data if relation.many or relation.field.required else nullable(data)}, ["data"])


def operations_taken() -> Json:
    """A body with the atomic extension; `lid` stands for an id that an earlier operation made."""
    named: dict[str, Json] = {"type": {"enum": list(TYPES)}, "id": ANY_ID, "lid": TEXT}
    resource = {**named, "attributes": {"type": "object"}, "relationships": {"type": "object"}}
    identifiers = {"type": "array", "items": object_of(named, ["type"]), "maxItems": MOST_LINKAGES}
    operation: dict[str, Json] = {
        "op": {"enum": list(MODES)},
        "ref": object_of({**named, "relationship": TEXT}, ["type"]),
        "href": {**LINK, "pattern": f"^{HREF.pattern}$"},
        "data": {"anyOf": [object_of(resource, ["type"]), identifiers, {"type": "null"}]},
    }
    about = [{"required": [member]} for member in ("ref", "href", "data")]
    listed = {
        "type": "array",
        "items": {**object_of(operation, ["op"]), "anyOf": about, "not": {"required": ["ref", "href"]}},
        "minItems": 1,
        "maxItems": MOST_OPERATIONS,
    }
    return object_of({"atomic:operations": listed}, ["atomic:operations"])


def _created(type_: ResourceType) -> Json:
    fields: list[Attribute | Relation] = [*type_.attributes.values(), *type_.relations.values()]
    required = {each.key for each in fields if each.field.required and not each.field.dump_only}
    attributes, relationships = _attributes_taken(type_), _relationships_taken(type_)
    members: dict[str, Json] = {
        "type": {"const": type_.name},
        "attributes": closed_object_of(attributes, required & attributes.keys()),
        "relationships": closed_object_of(relationships, required & relationships.keys()),
    }
    return object_of(members, [name for name in members if name == "type" or "required" in members[name]])


def _changed(type_: ResourceType) -> Json:
    attributes = _attributes_taken(type_)
    if "deleted_at" in type_.attributes:
        attributes["deleted-at"] = {"type": "null", "description": "Out of the trash again, beside get_trashed=true."}
    members: dict[str, Json] = {
        "type": {"const": type_.name},
        "id": id_of(type_),
        "attributes": closed_object_of(attributes),
        "relationships": closed_object_of(_relationships_taken(type_)),
    }
    return object_of(members, ["type", "id"])


def _attributes_taken(type_: ResourceType) -> dict[str, Json]:
    taken_here = {}
    for name, attribute in type_.attributes.items():
        if not attribute.field.dump_only:
            rule = type_.permissions.may_write(name)
            who = {} if rule is anyone else {"description": f"Who may set it: {rule.__doc__}"}
            taken_here[attribute.key] = {**taken(attribute.field), **who}
    return taken_here


def _relationships_taken(type_: ResourceType) -> dict[str, Json]:
    return {each.key: linkage_taken(each) for each in type_.relations.values() if not each.field.dump_only}
