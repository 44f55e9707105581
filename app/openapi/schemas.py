"""The documents of a resource type as JSON Schema: what is answered, and what creates, changes and links."""

from collections.abc import Iterable, Mapping

from app.jsonapi.documents import MOST_LINKAGES
from app.jsonapi.naming import camelize
from app.jsonapi.operations import EXTENSION, MODES, MOST_OPERATIONS
from app.jsonapi.permissions import anyone
from app.jsonapi.resource_type import TYPES, Relation, ResourceType
from app.openapi.fields import Json, given, is_optional, nullable, taken

ID: Json = {"type": "string", "minLength": 1}
LINK: Json = {"type": "string", "format": "uri-reference"}


def reference(name: str, section: str = "schemas") -> Json:
    """A reference to a component."""
    return {"$ref": f"#/components/{section}/{name}"}


def object_of(properties: Mapping[str, Json], required: Iterable[str] = ()) -> Json:
    """An object with these members; members that are not named are not forbidden, so that documents may grow."""
    needed = {"required": sorted(required)} if required else {}
    return {"type": "object", "properties": dict(properties), **needed}


def component(type_: ResourceType) -> str:
    """`faq-type` as `FaqType`."""
    name = camelize(type_.name)
    return name[:1].upper() + name[1:]


def shared_schemas() -> dict[str, Json]:
    """What the documents of all types have in common."""
    pages = {name: nullable(LINK) for name in ("first", "last", "prev", "next")}
    source = object_of({name: {"type": "string"} for name in ("pointer", "parameter", "header")})
    kind = object_of({"type": LINK})
    error = {name: {"type": "string"} for name in ("id", "status", "code", "title", "detail")}
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
        "ItemMeta": object_of({"page": object_of({"cursor": {"type": "string"}}, ["cursor"])}),
        "Resource": {
            "oneOf": [reference(component(each)) for each in TYPES.values()],
            "discriminator": {
                "propertyName": "type",
                "mapping": {each.name: f"#/components/schemas/{component(each)}" for each in TYPES.values()},
            },
        },
        "Error": object_of({**error, "source": source, "links": kind, "meta": {"type": "object"}}, error),
        "ErrorDocument": document(errors={"type": "array", "items": reference("Error"), "minItems": 1}),
        "MetaDocument": document(meta=object_of({"message": {"type": "string"}}, ["message"])),
        "Operations": _operations(),
        "Results": _results(),
    }


def document(*, may: Mapping[str, Json] | None = None, **required: Json) -> Json:
    """A top-level document with these members, which it has, and others that it may have."""
    return object_of({**required, "jsonapi": reference("JsonApi"), **(may or {})}, [*required, "jsonapi"])


def schemas_of(type_: ResourceType) -> dict[str, Json]:
    """Every schema that a type brings along."""
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
        f"{name}Create": object_of({"data": _created(type_)}, ["data"]),
        f"{name}Update": object_of({"data": _changed(type_)}, ["data"]),
    }


def linkage_taken(relation: Relation) -> Json:
    """The body of a request to a relationship URL, and the relationship in the body of a resource."""
    identifier = reference(f"{component(relation.target)}Identifier")
    data = {"type": "array", "items": identifier, "maxItems": MOST_LINKAGES} if relation.many else identifier
    return object_of({"data": data if relation.many or relation.field.required else nullable(data)}, ["data"])


def _identifier(type_: ResourceType) -> Json:
    return object_of({"type": {"const": type_.name}, "id": ID, "meta": reference("ItemMeta")}, ["type", "id"])


def _resource(type_: ResourceType) -> Json:
    attributes = {each.key: given(type_, each) for each in type_.attributes.values() if each.is_readable}
    relationships = {each.key: _relationship(type_, each) for each in type_.relations.values()}
    members: dict[str, Json] = {
        "type": {"const": type_.name},
        "id": ID,
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


def _created(type_: ResourceType) -> Json:
    fields = [each for each in type_.attributes.values() if not each.field.dump_only]
    attributes = object_of(_attributes_taken(type_), [each.key for each in fields if each.field.required])
    relations = [each for each in type_.relations.values() if each.field.required]
    relationships = object_of(_relationships_taken(type_), [each.key for each in relations])
    members: dict[str, Json] = {
        "type": {"const": type_.name},
        "attributes": attributes,
        "relationships": relationships,
    }
    return object_of(members, ["type", *(name for name in members if members[name].get("required"))])


def _changed(type_: ResourceType) -> Json:
    members: dict[str, Json] = {
        "type": {"const": type_.name},
        "id": ID,
        "attributes": object_of(_attributes_taken(type_)),
        "relationships": object_of(_relationships_taken(type_)),
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


def _operations() -> Json:
    """A body with the atomic extension; `lid` stands for an id that an earlier operation made."""
    named: dict[str, Json] = {"type": {"enum": list(TYPES)}, "id": ID, "lid": {"type": "string"}}
    resource = {**named, "attributes": {"type": "object"}, "relationships": {"type": "object"}}
    identifiers = {"type": "array", "items": object_of(named, ["type"]), "maxItems": MOST_LINKAGES}
    operation: dict[str, Json] = {
        "op": {"enum": list(MODES)},
        "ref": object_of({**named, "relationship": {"type": "string"}}, ["type"]),
        "href": LINK,
        "data": {"anyOf": [object_of(resource, ["type"]), identifiers, {"type": "null"}]},
    }
    listed = {
        "type": "array",
        "items": object_of(operation, ["op"]),
        "minItems": 1,
        "maxItems": MOST_OPERATIONS,
    }
    return object_of({"atomic:operations": listed}, ["atomic:operations"])


def _results() -> Json:
    results = {"type": "array", "items": object_of({"data": reference("Resource")})}
    extended = object_of({"version": {"const": "1.1"}, "ext": {"const": [EXTENSION]}}, ["version", "ext"])
    return object_of({"atomic:results": results, "jsonapi": extended}, ["atomic:results", "jsonapi"])
