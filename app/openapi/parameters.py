"""Query parameters and headers, family by family, from the tables that the server reads them with."""

from collections.abc import Iterable, Iterator

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
from app.openapi.json_schema import TEXT, Json, component, reference


def parameters_of(family: str, type_: ResourceType) -> list[Json]:
    """References to the parameters of a family, in a request about resources of this type."""
    return [reference(name, "parameters") for name in _names(family, type_)]


def shared_parameters() -> dict[str, Json]:
    """The components that requests about all types have in common."""
    number = {"type": "integer", "minimum": 1, "maximum": BIGGEST_PAGE_NUMBER, "default": 1}
    size = {"type": "integer", "minimum": 1, "maximum": BIGGEST_PAGE_SIZE, "default": DEFAULT_PAGE_SIZE}
    key = {**TEXT, "pattern": "^[!-~]{1,255}$"}
    return {
        "PageNumber": _query("page[number]", number, "The page; not beside a cursor."),
        "PageSize": _query("page[size]", size, "Resources on a page."),
        "PageAfter": _query("page[after]", TEXT, "The page after this cursor of the profile `cursor-pagination`."),
        "PageBefore": _query("page[before]", TEXT, "The page before this cursor."),
        "Trashed": _query("get_trashed", {"type": "boolean"}, "What is in the trash too; for admins alone."),
        "IfMatch": _header("If-Match", TEXT, "The ETag of the state that is to be changed: 412 when it is another."),
        "IfNoneMatch": _header("If-None-Match", TEXT, "The ETag of the state that is known: 304 when it is the same."),
        "IdempotencyKey": _header("Idempotency-Key", key, "The same key and body give the same answer for a day."),
        "RequestId": _header(REQUEST_ID, TEXT, "Comes back in the answer and stands in the log."),
    }


def components_of(type_: ResourceType) -> dict[str, Json]:
    """The components of a type: its fields, includes, sort keys and filters."""
    name = component(type_)
    include = _listed(sorted(_paths(type_, DEEPEST_INCLUDE)), MOST_INCLUDES)
    keys = [*_sortable(type_), *(f"-{key}" for key in _sortable(type_))]
    return {
        f"Fields{name}": _query(f"fields[{type_.name}]", _listed(_fields(type_)), "The fields to print, no others."),
        f"Include{name}": _query("include", include, "Related resources to answer as well."),
        f"Sort{name}": _query("sort", _listed(keys, MOST_SORT_KEYS), "The order; `-` turns a key around."),
        **filters_of(type_),
    }


def _names(family: str, type_: ResourceType) -> list[str]:
    name = component(type_)
    by_family = {
        "fields": [f"Fields{component(each)}" for each in TYPES.values()],
        "include": [f"Include{name}"],
        "sort": [f"Sort{name}"],
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


def _sortable(type_: ResourceType) -> list[str]:
    def own(of: ResourceType) -> list[str]:
        return ["id", *(each.key for each in comparable_by_admins(of))]

    hops = [each for each in type_.relations.values() if not each.many]
    return [*own(type_), *(f"{hop.key}.{key}" for hop in hops for key in own(hop.target))]


def _listed(words: Iterable[str], most: int | None = None) -> Json:
    limit = {} if most is None else {"maxItems": most}
    return {"type": "array", "items": {"type": "string", "enum": list(words)}, **limit}


def _query(name: str, schema: Json, description: str) -> Json:
    listed = {"explode": False} if schema.get("type") == "array" else {}
    return {"name": name, "in": "query", "description": description, "schema": schema, **listed}


def _header(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "header", "description": description, "schema": schema}
