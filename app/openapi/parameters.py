"""Query parameters by family, and request headers, from the constants that the server parses them with."""

from collections.abc import Iterator

from app.jsonapi.query_params import (
    DEFAULT_PAGE_SIZE,
    MAX_INCLUDE_DEPTH,
    MAX_INCLUDE_PATHS,
    MAX_PAGE_NUMBER,
    MAX_PAGE_SIZE,
    MAX_SORT_KEYS,
)
from app.jsonapi.resource_type import TYPES, ResourceType
from app.logs import REQUEST_ID_HEADER
from app.openapi.filters import build_filter_parameters, list_filterable_attributes
from app.openapi.json_schema import TEXT, Json, array_schema, component_name, component_ref, enum_schema


def list_parameter_refs(family: str, type_: ResourceType) -> list[Json]:
    """Return references to the parameters of a family, in a request about resources of this type."""
    return [component_ref(name, "parameters") for name in _component_names(family, type_)]


def build_shared_parameters() -> dict[str, Json]:
    """Return the components that requests about all types share."""
    number = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_NUMBER, "default": 1}
    size = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE, "default": DEFAULT_PAGE_SIZE}
    key = {**TEXT, "pattern": "^[!-~]{1,255}$"}
    return {
        "PageNumber": _query_parameter("page[number]", number, "The page to return; not together with a cursor."),
        "PageSize": _query_parameter("page[size]", size, "Resources per page."),
        "PageAfter": _query_parameter("page[after]", TEXT, "Return the page after this cursor (cursor profile)."),
        "PageBefore": _query_parameter("page[before]", TEXT, "Return the page before this cursor (cursor profile)."),
        "Trashed": _query_parameter(
            "get_trashed", {"type": "boolean"}, "Return deleted resources too; only for admins."
        ),
        "IfMatch": _header_parameter("If-Match", TEXT, "The ETag of the state to change; 412 where it has changed."),
        "IfNoneMatch": _header_parameter(
            "If-None-Match", TEXT, "The ETag of a state that the client has; 304 where it has not changed."
        ),
        "IdempotencyKey": _header_parameter(
            "Idempotency-Key", key, "A request with the same key and body gets the same response for a day."
        ),
        "RequestId": _header_parameter(
            REQUEST_ID_HEADER, TEXT, "The id of this request, for the response and the log."
        ),
    }


def build_parameter_components(type_: ResourceType) -> dict[str, Json]:
    """Return the components of a type: its fields, includes, sort keys and filters."""
    fields = array_schema(component_ref(component_name(type_, "field-name")))
    include = array_schema(component_ref(component_name(type_, "include-path")), maxItems=MAX_INCLUDE_PATHS)
    sort = array_schema(component_ref(component_name(type_, "sort-key")), maxItems=MAX_SORT_KEYS)
    return {
        component_name(type_, "fields"): _query_parameter(
            f"fields[{type_.name}]", fields, f"Return only these fields of each {type_.name}."
        ),
        component_name(type_, "include"): _query_parameter(
            "include", include, "Return these related resources in `included`."
        ),
        component_name(type_, "sort"): _query_parameter(
            "sort", sort, "Sort by these keys; `-` before a key sorts descending."
        ),
        **build_filter_parameters(type_),
    }


def build_parameter_schemas(type_: ResourceType) -> dict[str, Json]:
    """Return the schemas of the names that the parameters of a type accept."""
    keys = _list_sort_keys(type_)
    return {
        component_name(type_, "field-name"): enum_schema(_list_fields(type_)),
        component_name(type_, "include-path"): enum_schema(sorted(_iterate_include_paths(type_, MAX_INCLUDE_DEPTH))),
        component_name(type_, "sort-key"): enum_schema([*keys, *(f"-{key}" for key in keys)]),
    }


def _component_names(family: str, type_: ResourceType) -> list[str]:
    by_family = {
        "fields": [component_name(each, "fields") for each in _list_reachable_types(type_)],
        "include": [component_name(type_, "include")],
        "sort": [component_name(type_, "sort")],
        "filter": list(build_filter_parameters(type_)),
        "page": ["PageNumber", "PageSize", "PageAfter", "PageBefore"],
        "get_trashed": ["Trashed"],
    }
    return by_family[family]


def _list_fields(type_: ResourceType) -> list[str]:
    attributes = [each.key for each in type_.attributes.values() if each.is_readable]
    return [*attributes, *(each.key for each in type_.relations.values())]


def _iterate_include_paths(type_: ResourceType, depth: int) -> Iterator[str]:
    for relation in type_.relations.values() if depth else ():
        yield relation.key
        yield from (f"{relation.key}.{path}" for path in _iterate_include_paths(relation.target, depth - 1))


def _list_reachable_types(type_: ResourceType) -> list[ResourceType]:
    """Return the types that a response about this type can contain: its own, and those that can be included."""
    nearest = found = {type_.name}
    for _ in range(MAX_INCLUDE_DEPTH):
        nearest = {each.target.name for name in nearest for each in TYPES[name].relations.values()}
        found = found | nearest
    return [each for each in TYPES.values() if each.name in found]


def _list_sort_keys(type_: ResourceType) -> list[str]:
    def own(of: ResourceType) -> list[str]:
        return ["id", *(each.key for each in list_filterable_attributes(of))]

    hops = [each for each in type_.relations.values() if not each.many]
    return [*own(type_), *(f"{hop.key}.{key}" for hop in hops for key in own(hop.target))]


def _query_parameter(name: str, schema: Json, description: str) -> Json:
    array_style = {"explode": False} if schema.get("type") == "array" else {}
    return {"name": name, "in": "query", "description": description, "schema": schema, **array_style}


def _header_parameter(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "header", "description": description, "schema": schema}
