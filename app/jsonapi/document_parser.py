"""Parser of JSON:API request documents: checks their structure before marshmallow validates the values."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from uuid import UUID

from app.errors import MAX_ERRORS, ApiError, BadRequest, Conflict, Forbidden, Unprocessable, raise_errors
from app.jsonapi.json_parsing import escape_pointer
from app.jsonapi.resource_type import Relation, ResourceType

MAX_LINKAGES = 100

IGNORED_ATTRIBUTES = frozenset({"links", "meta"})
"""Members that the client library jsona adds to attributes; no attribute has such a name."""

Id = int | UUID
Linkage = Id | list[Id] | None


@dataclass
class ResourceDocument:
    """A resource as sent: raw attributes and linkage by Python name."""

    id: str | None
    attributes: dict[str, Any] = field(default_factory=dict)
    relationships: dict[str, Linkage] = field(default_factory=dict)
    errors: list[ApiError] = field(default_factory=list)
    """Errors about unknown attributes, reported together with validation errors."""


def parse_create(document: Any, resource_type: ResourceType) -> ResourceDocument:
    """Parse the document of a POST; raise Forbidden for an id (JSON:API 1.1, "Client-Generated IDs")."""
    data = _get_resource_object(document, resource_type)
    if "id" in data:
        raise Forbidden("The server assigns the id: send none.", pointer="/data/id")
    if not isinstance(data.get("lid", ""), str):
        raise Unprocessable("The lid must be a string.", pointer="/data/lid")
    return _parse_members(data, resource_type, None)


def parse_update(document: Any, resource_type: ResourceType) -> ResourceDocument:
    """Parse the document of a PATCH; the caller compares its id with the one of the row."""
    data = _get_resource_object(document, resource_type)
    if "id" not in data:
        raise Unprocessable("The id is missing.", pointer="/data/id")
    id_ = data["id"]
    if isinstance(id_, bool) or not isinstance(id_, str | int):
        raise Unprocessable("The id must be a string.", pointer="/data/id")
    return _parse_members(data, resource_type, str(id_))


def parse_linkage_document(document: Any, relation: Relation) -> Linkage:
    """Parse the document of a request to a relationship URL."""
    if not isinstance(document, dict) or "data" not in document:
        raise BadRequest("The document must be an object with a member data.", pointer="/data")
    errors: list[ApiError] = []
    linkage = _parse_linkage(document["data"], relation, "/data", errors)
    raise_errors(errors)
    return linkage


def _get_resource_object(document: Any, resource_type: ResourceType) -> dict[str, Any]:
    if not isinstance(document, dict) or "data" not in document:
        raise BadRequest("The document must be an object with a member data.", pointer="/data")
    data = document["data"]
    if not isinstance(data, dict):
        raise BadRequest("The data must be one resource object.", pointer="/data")
    _check_type(data, resource_type, "/data")
    return data


def _check_type(item: dict[str, Any], expected: ResourceType, pointer: str) -> None:
    type_ = item.get("type")
    if not isinstance(type_, str):
        raise Unprocessable("The type is missing or is not a string.", pointer=f"{pointer}/type")
    if type_ not in expected.aliases:
        raise Conflict(f"The type must be {expected.name}.", pointer=f"{pointer}/type", code="type-conflict")


def _parse_members(data: dict[str, Any], resource_type: ResourceType, id_: str | None) -> ResourceDocument:
    for name in ("attributes", "relationships"):
        if not isinstance(data.get(name, {}), dict):
            raise BadRequest(f"The {name} must be an object.", pointer=f"/data/{name}")
    parsed = ResourceDocument(id_)
    parsed.errors.extend(islice(_parse_attributes(data.get("attributes", {}), resource_type, parsed), MAX_ERRORS))
    raise_errors(_parse_relationships(data.get("relationships", {}), resource_type, parsed))
    return parsed


def _without_at_members(sent: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Return the members without @-members, which are ignored (JSON:API 1.1, "@-Members")."""
    return ((name, value) for name, value in sent.items() if not name.startswith("@"))


def _parse_attributes(
    sent: dict[str, Any], resource_type: ResourceType, parsed: ResourceDocument
) -> Iterator[ApiError]:
    for spelled, value in _without_at_members(sent):
        attribute = resource_type.find_attribute(spelled)
        pointer = f"/data/attributes/{escape_pointer(spelled)}"
        if spelled in IGNORED_ATTRIBUTES:
            continue
        if attribute is None:
            yield Unprocessable(
                f"The type {resource_type.name} has no such attribute.", pointer=pointer, code="unknown-attribute"
            )
        elif attribute.name in parsed.attributes:
            yield Unprocessable("This attribute is sent twice, in two spellings.", pointer=pointer)
        else:
            parsed.attributes[attribute.name] = value


def _parse_relationships(
    sent: dict[str, Any], resource_type: ResourceType, parsed: ResourceDocument
) -> Iterator[ApiError]:
    for spelled, value in _without_at_members(sent):
        relation = resource_type.find_relation(spelled)
        pointer = f"/data/relationships/{escape_pointer(spelled)}"
        if relation is None:
            yield Unprocessable(
                f"The type {resource_type.name} has no such relationship.", pointer=pointer, code="unknown-relationship"
            )
        elif not isinstance(value, dict):
            yield BadRequest("A relationship must be an object.", pointer=pointer)
        elif "data" in value:
            errors: list[ApiError] = []
            parsed.relationships[relation.name] = _parse_linkage(value["data"], relation, f"{pointer}/data", errors)
            yield from errors
        elif not value.keys() & {"links", "meta"}:
            yield Unprocessable("A relationship must have a member data.", pointer=f"{pointer}/data")


def _parse_linkage(data: Any, relation: Relation, pointer: str, errors: list[ApiError]) -> Linkage:
    if not relation.many:
        if data is None:
            return None
        return _parse_identifier(data, relation, pointer, errors)
    if not isinstance(data, list):
        errors.append(BadRequest("The data of a to-many relationship must be an array.", pointer=pointer))
        return []
    if len(data) > MAX_LINKAGES:
        errors.append(
            Unprocessable(f"At most {MAX_LINKAGES} resource identifiers are allowed in one request.", pointer=pointer)
        )
        return []
    ids = [_parse_identifier(item, relation, f"{pointer}/{index}", errors) for index, item in enumerate(data)]
    return list(dict.fromkeys(ids))


def _parse_identifier(item: Any, relation: Relation, pointer: str, errors: list[ApiError]) -> Id:
    no_id: Id = relation.target.no_id
    if not isinstance(item, dict):
        errors.append(BadRequest("Must be a resource identifier object.", pointer=pointer))
        return no_id
    try:
        _check_type(item, relation.target, pointer)
    except ApiError as error:
        errors.append(error)
        return no_id
    id_ = item.get("id")
    if isinstance(id_, bool) or not isinstance(id_, str | int) or not _is_id_syntax(str(id_), relation.target):
        errors.append(Unprocessable(f"This is not an id of the type {relation.target.name}.", pointer=f"{pointer}/id"))
        return no_id
    return relation.target.parse_id(str(id_)) or no_id


def _is_id_syntax(text: str, resource_type: ResourceType) -> bool:
    """Return whether the text has the form of an id; a number that no row can have is accepted, and not found later."""
    if resource_type.has_uuids:
        return resource_type.parse_id(text) is not None
    return text.isascii() and text.isdigit()
