"""Query parameters and headers, family by family, from the tables that the server reads them with."""

from collections.abc import Iterator

from app.jsonapi.query import (
    BIGGEST_PAGE_NUMBER,
    BIGGEST_PAGE_SIZE,
    DEEPEST_INCLUDE,
    DEFAULT_PAGE_SIZE,
    MOST_INCLUDES,
    MOST_SORT_KEYS,
)
from app.jsonapi.resource_type import TYPES, ResourceType
from app.logs import REQUEST_ID
from app.openapi.filters import comparable_by_admins, filters_of
from app.openapi.json_schema import TEXT, Json, array_of, choice, component, reference


def parameters_of(family: str, type_: ResourceType) -> list[Json]:
    """Return references to the parameters of a family, in a request about resources of this type."""
    return [reference(name, "parameters") for name in _names(family, type_)]


def shared_parameters() -> dict[str, Json]:
    """Return the components that requests about all types share."""
    number = {"type": "integer", "minimum": 1, "maximum": BIGGEST_PAGE_NUMBER, "default": 1}
    size = {"type": "integer", "minimum": 1, "maximum": BIGGEST_PAGE_SIZE, "default": DEFAULT_PAGE_SIZE}
    key = {**TEXT, "pattern": "^[!-~]{1,255}$"}
    return {
        "PageNumber": _query("page[number]", number, "The page to return; not together with a cursor."),
        "PageSize": _query("page[size]", size, "Resources per page."),
        "PageAfter": _query("page[after]", TEXT, "Return the page after this cursor (cursor profile)."),
        "PageBefore": _query("page[before]", TEXT, "Return the page before this cursor (cursor profile)."),
        "Trashed": _query("get_trashed", {"type": "boolean"}, "Return deleted resources too; only for admins."),
        "IfMatch": _header("If-Match", TEXT, "The ETag of the state to change; 412 where it has changed."),
        "IfNoneMatch": _header(
            "If-None-Match", TEXT, "The ETag of a state that the client has; 304 where it has not changed."
        ),
        "IdempotencyKey": _header("Idempotency-Key", key, "The same key and body get the same answer for a day."),
        "RequestId": _header(REQUEST_ID, TEXT, "The id of this request, for the answer and the log."),
    }


def components_of(type_: ResourceType) -> dict[str, Json]:
    """Return the components of a type: its fields, includes, sort keys and filters."""
    fields = array_of(reference(component(type_, "field-name")))
    include = array_of(reference(component(type_, "include-path")), maxItems=MOST_INCLUDES)
    sort = array_of(reference(component(type_, "sort-key")), maxItems=MOST_SORT_KEYS)
    return {
        component(type_, "fields"): _query(
            f"fields[{type_.name}]", fields, f"Return only these fields of each {type_.name}."
        ),
        component(type_, "include"): _query("include", include, "Return these related resources in `included`."),
        component(type_, "sort"): _query("sort", sort, "Sort by these keys; `-` before a key sorts descending."),
        **filters_of(type_),
    }


def schemas_of(type_: ResourceType) -> dict[str, Json]:
    """Return the schemas of the names that the parameters of a type take."""
    keys = _sortable(type_)
    return {
        component(type_, "field-name"): choice(_fields(type_)),
        component(type_, "include-path"): choice(sorted(_paths(type_, DEEPEST_INCLUDE))),
        component(type_, "sort-key"): choice([*keys, *(f"-{key}" for key in keys)]),
    }


def _names(family: str, type_: ResourceType) -> list[str]:
    by_family = {
        "fields": [component(each, "fields") for each in _reachable(type_)],
        "include": [component(type_, "include")],
        "sort": [component(type_, "sort")],
        "filter": list(filters_of(type_)),
        "page": ["PageNumber", "PageSize", "PageAfter", "PageBefore"],
        "get_trashed": ["Trashed"],
    }
    return by_family[family]


def _fields(type_: ResourceType) -> list[str]:
    attributes = [each.key for each in type_.attributes.values() if each.is_readable]
    return [*attributes, *(each.key for each in type_.relations.values())]


def _paths(type_: ResourceType, depth: int) -> Iterator[str]:
    for relation in type_.relations.values() if depth else ():
        yield relation.key
        yield from (f"{relation.key}.{path}" for path in _paths(relation.target, depth - 1))


def _reachable(type_: ResourceType) -> list[ResourceType]:
    """Return the types that an answer about this type can hold: its own, and those that can be included."""
    nearest = found = {type_.name}
    for _ in range(DEEPEST_INCLUDE):
        nearest = {each.target.name for name in nearest for each in TYPES[name].relations.values()}
        found = found | nearest
    return [each for each in TYPES.values() if each.name in found]


def _sortable(type_: ResourceType) -> list[str]:
    def own(of: ResourceType) -> list[str]:
        return ["id", *(each.key for each in comparable_by_admins(of))]

    hops = [each for each in type_.relations.values() if not each.many]
    return [*own(type_), *(f"{hop.key}.{key}" for hop in hops for key in own(hop.target))]


def _query(name: str, schema: Json, description: str) -> Json:
    listed = {"explode": False} if schema.get("type") == "array" else {}
    return {"name": name, "in": "query", "description": description, "schema": schema, **listed}


def _header(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "header", "description": description, "schema": schema}
