"""A query string, read against an allow-list: what is unknown, hidden or malformed is 400 with its parameter."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from app.errors import BadRequest, Forbidden, InvalidParameter
from app.jsonapi.filters import Filter, comparable, read_filter_list, read_filter_parameter
from app.jsonapi.permissions import Scope
from app.jsonapi.resource_type import Attribute, Relation, ResourceType, type_spelled
from app.jsonapi.viewer import Role, Viewer

LONGEST_QUERY = 16_384
MOST_PARAMETERS = 100
MOST_SORT_KEYS = 5
DEEPEST_INCLUDE = 3
MOST_INCLUDES = 6
DEFAULT_PAGE_SIZE = 20
BIGGEST_PAGE_SIZE = 100
BIGGEST_PAGE_NUMBER = 10**9
SIZE_EXCEEDED = "https://jsonapi.org/profiles/ethanresnick/cursor-pagination/max-size-exceeded"
"""The type of the error that the cursor profile asks for."""
PAGE_PARAMETERS = frozenset({"page[number]", "page[size]", "page[after]", "page[before]"})

LIST = frozenset({"fields", "include", "sort", "filter", "page", "get_trashed"})
DETAIL = frozenset({"fields", "include", "get_trashed"})
LINKAGE = frozenset({"get_trashed"})
PAGED_LINKAGE = frozenset({"get_trashed", "page"})
NOTHING: frozenset[str] = frozenset()
WRITE = frozenset({"fields", "include", "get_trashed"})

Includes = Mapping[str, "Includes"]
"""A tree of relationships by python name."""


@dataclass(frozen=True)
class SortKey:
    """One key of an order, with at most one to-one relationship on the way to it."""

    attribute: Attribute | None
    descending: bool
    through: Relation | None = None


@dataclass(frozen=True)
class Page:
    """Which part of a list: by number, or by the cursors `after` and `before`."""

    number: int = 1
    size: int = DEFAULT_PAGE_SIZE
    after: str | None = None
    before: str | None = None

    @property
    def by_cursor(self) -> bool:
        """Whether a cursor was sent."""
        return self.after is not None or self.before is not None

    @property
    def offset(self) -> int:
        """Rows before this page."""
        return (self.number - 1) * self.size


@dataclass(frozen=True)
class Query:
    """What a query string asks for; `fields` holds the python names asked of a type by its name."""

    scope: Scope
    fields: Mapping[str, frozenset[str]] = field(default_factory=dict)
    includes: Includes = field(default_factory=dict)
    sort: tuple[SortKey, ...] = ()
    filters: tuple[Filter, ...] = ()
    page: Page = Page()
    includes_asked: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)


def read_query(raw: bytes, resource_type: ResourceType, viewer: Viewer, allowed: frozenset[str]) -> Query:
    """Read the query string of a request about resources of this type."""
    parameters = check_names(raw, allowed)
    sent = dict(parameters)
    scope = Scope(viewer.role, _trashed(parameters.pop("get_trashed", None), viewer))
    if not parameters:
        return Query(scope, parameters=sent)
    reader = _Reader(resource_type, scope, parameters)
    reader.only("get_trashed")
    return Query(
        scope=scope,
        fields=reader.fields(),
        includes=reader.includes(),
        sort=reader.sort(),
        filters=reader.filters(),
        page=reader.page(),
        includes_asked="include" in parameters,
        parameters=sent,
    )


def check_names(raw: bytes, allowed: frozenset[str]) -> dict[str, str]:
    """The parameters of a query string; 400 for one of a family that is not allowed here."""
    parameters = split(raw)
    for name in parameters:
        if name.partition("[")[0] not in allowed:
            raise InvalidParameter("This parameter is not known here.", parameter=name)
    return parameters


def split(raw: bytes) -> dict[str, str]:
    """Names and values of a query string; 400 for bad percent-encoding, no UTF-8, NUL, too much or twice the same."""
    if len(raw) > LONGEST_QUERY:
        raise BadRequest(f"The query string is longer than {LONGEST_QUERY} bytes.", code="invalid-query")
    try:
        if re.search(rb"%(?![0-9A-Fa-f]{2})", raw):
            raise ValueError("not percent-encoded")  # noqa: TRY301  # one refusal for all that is wrong
        text = raw.decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_PARAMETERS)
    except ValueError:
        raise BadRequest("The query string is not percent-encoded UTF-8.", code="invalid-query") from None
    parameters: dict[str, str] = {}
    for name, value in pairs:
        if "\0" in name or "\0" in value:
            raise BadRequest("The query string holds a NUL.", code="invalid-query")
        if name in parameters:
            raise InvalidParameter("This parameter is here twice.", parameter=name)
        parameters[name] = value
    return parameters


def _trashed(value: str | None, viewer: Viewer) -> bool:
    if value in (None, "false"):
        return False
    if value != "true":
        raise InvalidParameter("Must be true or false.", parameter="get_trashed")
    if viewer.role is not Role.ADMIN:
        raise Forbidden("Only admins see the trash.", parameter="get_trashed")
    return True


class _Reader:
    """The parameters of one request, read one family at a time."""

    def __init__(self, resource_type: ResourceType, scope: Scope, parameters: dict[str, str]) -> None:
        self.type = resource_type
        self.scope = scope
        self.parameters = parameters

    def _family(self, name: str) -> dict[str, str]:
        return {
            parameter: value
            for parameter, value in self.parameters.items()
            if parameter == name or parameter.startswith(f"{name}[")
        }

    def fields(self) -> dict[str, frozenset[str]]:
        chosen: dict[str, frozenset[str]] = {}
        for parameter, value in self._family("fields").items():
            match = re.fullmatch(r"fields\[([\w-]+)\]", parameter)
            named = match and type_spelled(match[1])
            if not named:
                raise InvalidParameter("There is no such resource type.", parameter=parameter)
            if named.name in chosen:
                raise InvalidParameter("This type is here twice, in two spellings.", parameter=parameter)
            chosen[named.name] = frozenset(self._field(named, spelled, parameter) for spelled in _listed(value))
        return chosen

    def _field(self, named: ResourceType, spelled: str, parameter: str) -> str:
        attribute = named.attribute(spelled)
        if named.relation(spelled) is None and (attribute is None or not attribute.is_readable):
            raise InvalidParameter(f"The type {named.name} has no field {spelled!r}.", parameter=parameter)
        return str(named.python_name(spelled))

    def includes(self) -> Includes:
        self.only("include")
        paths = _listed(self.parameters.get("include", ""))
        if len(paths) > MOST_INCLUDES:
            raise InvalidParameter(f"More than {MOST_INCLUDES} paths.", parameter="include")
        tree: dict[str, Includes] = {}
        for path in paths:
            names = path.split(".")
            if len(names) > DEEPEST_INCLUDE:
                raise InvalidParameter(f"Deeper than {DEEPEST_INCLUDE} relationships.", parameter="include")
            branch, at = tree, self.type
            for name in names:
                relation = at.relation(name)
                if relation is None:
                    raise InvalidParameter(f"The type {at.name} has no relationship {name!r}.", parameter="include")
                branch = branch.setdefault(relation.name, {})  # type: ignore[assignment]  # built mutable, read as Mapping
                at = relation.target
        return tree

    def sort(self) -> tuple[SortKey, ...]:
        self.only("sort")
        keys = _listed(self.parameters.get("sort", ""))
        if len(keys) > MOST_SORT_KEYS:
            raise InvalidParameter(f"More than {MOST_SORT_KEYS} keys.", parameter="sort")
        return tuple(self._sort_key(key) for key in keys)

    def _sort_key(self, key: str) -> SortKey:
        descending, path = key.startswith("-"), key.removeprefix("-")
        first, _, second = path.partition(".")
        if not second:
            return SortKey(self._sortable(self.type, path), descending)
        relation = self.type.relation(first)
        if relation is None or relation.many:
            raise InvalidParameter(f"The type {self.type.name} has no to-one relationship {first!r}.", parameter="sort")
        return SortKey(self._sortable(relation.target, second), descending, relation)

    def _sortable(self, named: ResourceType, spelled: str) -> Attribute | None:
        if spelled == "id":
            return None
        attribute = comparable(named, spelled, self.scope)
        if attribute is None:
            raise InvalidParameter(f"The type {named.name} cannot be sorted by {spelled!r}.", parameter="sort")
        return attribute

    def filters(self) -> tuple[Filter, ...]:
        read: list[Filter] = []
        for parameter, value in self._family("filter").items():
            if parameter == "filter":
                read.extend(read_filter_list(value, self.type, self.scope))
            else:
                read.append(read_filter_parameter(parameter, value, self.type, self.scope))
        return tuple(read)

    def page(self) -> Page:
        for parameter in self._family("page"):
            if parameter not in PAGE_PARAMETERS:
                raise InvalidParameter("A page has a number, a size, after and before.", parameter=parameter)
        is_range = {"page[after]", "page[before]"} <= self.parameters.keys()
        page = Page(
            number=self._whole("page[number]", 1, BIGGEST_PAGE_NUMBER),
            size=self._page_size(BIGGEST_PAGE_SIZE if is_range else DEFAULT_PAGE_SIZE),
            after=self.parameters.get("page[after]"),
            before=self.parameters.get("page[before]"),
        )
        if page.by_cursor and "page[number]" in self.parameters:
            raise InvalidParameter("A page has a number or a cursor, not both.", parameter="page[number]")
        return page

    def _page_size(self, default: int) -> int:
        text = self.parameters.get("page[size]", "")
        if re.fullmatch("[0-9]+", text) and (len(text) > 10 or int(text) > BIGGEST_PAGE_SIZE):
            limit = {"page": {"maxSize": BIGGEST_PAGE_SIZE}}
            error = InvalidParameter(f"Must be at most {BIGGEST_PAGE_SIZE}.", parameter="page[size]", meta=limit)
            error.links = {"type": SIZE_EXCEEDED}
            raise error
        return self._whole("page[size]", default, BIGGEST_PAGE_SIZE)

    def _whole(self, parameter: str, default: int, biggest: int) -> int:
        text = self.parameters.get(parameter)
        if text is None:
            return default
        if not re.fullmatch(r"[0-9]{1,10}", text) or not 1 <= int(text) <= biggest:
            raise InvalidParameter(f"Must be a whole number from 1 to {biggest}.", parameter=parameter)
        return int(text)

    def only(self, name: str) -> None:
        for parameter in self._family(name):
            if parameter != name:
                raise InvalidParameter("This parameter is not known here.", parameter=parameter)


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",")] if value else []
