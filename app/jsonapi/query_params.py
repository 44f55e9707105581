"""A query string, read against an allow-list: what is unknown, hidden or malformed is 400 with its parameter."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from app.errors import Forbidden, InvalidParameter
from app.jsonapi.current_user import CurrentUser, Role
from app.jsonapi.filters import Filter, FilterParser, get_filterable_attribute, is_searchable
from app.jsonapi.permissions import VisibilityScope
from app.jsonapi.resource_type import Attribute, Relation, ResourceType, find_type

MAX_QUERY_BYTES = 16_384
MAX_PARAMETERS = 100
MAX_SORT_KEYS = 5
MAX_INCLUDE_DEPTH = 3
MAX_INCLUDE_PATHS = 6
DEFAULT_PAGE_SIZE = 20
MAX_PAGE_SIZE = 100
MAX_PAGE_NUMBER = 10**9
MAX_SIZE_EXCEEDED_TYPE = "https://jsonapi.org/profiles/ethanresnick/cursor-pagination/max-size-exceeded"
"""The type of the error that the cursor profile asks for."""
INVALID_ESCAPE_RE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
PAGE_PARAMETERS = frozenset({"page[number]", "page[size]", "page[after]", "page[before]"})

LIST_FAMILIES = frozenset({"fields", "include", "sort", "filter", "page", "get_trashed"})
DETAIL_FAMILIES = frozenset({"fields", "include", "get_trashed"})
LINKAGE_FAMILIES = frozenset({"get_trashed"})
LINKAGE_LIST_FAMILIES = frozenset({"get_trashed", "page"})
NO_FAMILIES: frozenset[str] = frozenset()
WRITE_FAMILIES = frozenset({"fields", "include", "get_trashed"})

Includes = Mapping[str, "Includes"]
"""A tree of relationships by python name."""


@dataclass(frozen=True)
class SortKey:
    """One key of an order, with at most one to-one relationship on the way to it."""

    attribute: Attribute | None
    descending: bool
    through: Relation | None = None

    @property
    def is_costly(self) -> bool:
        """Whether the place of each row has to be computed: of what a related row holds, or of a text without index."""
        if self.through is not None:
            return True
        return self.attribute is not None and self.attribute.is_text and not self.attribute.has_sort_index


@dataclass(frozen=True)
class Page:
    """Which part of a list: by number, or by the cursors `after` and `before`."""

    number: int = 1
    size: int = DEFAULT_PAGE_SIZE
    after: str | None = None
    before: str | None = None

    @property
    def has_cursor(self) -> bool:
        """Whether a cursor was sent."""
        return self.after is not None or self.before is not None

    @property
    def offset(self) -> int:
        """Rows before this page."""
        return (self.number - 1) * self.size


@dataclass(frozen=True)
class Query:
    """What a query string asks for; `fields` holds the python names asked of a type by its name."""

    scope: VisibilityScope
    fields: Mapping[str, frozenset[str]] = field(default_factory=dict)
    includes: Includes = field(default_factory=dict)
    sort: tuple[SortKey, ...] = ()
    filters: tuple[Filter, ...] = ()
    has_costly_filters: bool = False
    page: Page = Page()
    includes_asked: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_query(
    raw: bytes, resource_type: ResourceType, viewer: CurrentUser, allowed: frozenset[str], *, is_list: bool = True
) -> Query:
    """Read the query string of a request about resources of this type.

    Page parameters are ignored, whatever their values are, where the answer is not a list.
    """
    parameters = parse_parameters(raw, allowed if is_list else allowed | {"page"})
    sent = dict(parameters)
    if not is_list:
        parameters = {name: value for name, value in parameters.items() if name not in PAGE_PARAMETERS}
    scope = VisibilityScope(viewer.role, _parse_get_trashed(parameters.pop("get_trashed", None), viewer))
    if not parameters:
        return Query(scope, parameters=sent)
    reader = _QueryParser(resource_type, scope, parameters)
    reader.reject_bracketed("get_trashed")
    filter_reader = FilterParser(scope)
    filters = reader.parse_filters(filter_reader)
    return Query(
        scope=scope,
        fields=reader.parse_fields(),
        includes=reader.parse_includes(),
        sort=reader.parse_sort(),
        filters=filters,
        has_costly_filters=filter_reader.is_costly,
        page=reader.parse_page(filters),
        includes_asked="include" in parameters,
        parameters=sent,
    )


def parse_parameters(raw: bytes, allowed: frozenset[str]) -> dict[str, str]:
    """The parameters of a query string; 400 for one of a family that is not allowed here."""
    parameters = parse_query_string(raw)
    for name in parameters:
        if name.partition("[")[0] not in allowed:
            raise InvalidParameter("This parameter is not known here.", parameter=name)
    return parameters


def parse_query_string(raw: bytes) -> dict[str, str]:
    """Names and values of a query string; 400 for bad percent-encoding, no UTF-8, NUL, too much or twice the same."""
    pairs = [pair for pair in raw.split(b"&") if pair]
    if len(raw) > MAX_QUERY_BYTES:
        detail = f"The query string is longer than {MAX_QUERY_BYTES} bytes; this parameter is the longest."
        raise _invalid_parameter(detail, max(pairs, key=len, default=b""))
    if len(pairs) > MAX_PARAMETERS:
        raise _invalid_parameter(f"There are more than {MAX_PARAMETERS} parameters.", pairs[MAX_PARAMETERS])
    parameters: dict[str, str] = {}
    for pair in pairs:
        name, value = _decode_pair(pair)
        if "\0" in name or "\0" in value:
            raise _invalid_parameter("A NUL character is not allowed in a query string.", pair)
        if name in parameters:
            raise InvalidParameter("This parameter is here twice.", parameter=name)
        parameters[name] = value
    return parameters


def _decode_pair(pair: bytes) -> tuple[str, str]:
    """The name and the value of one parameter; 400 unless it is percent-encoded UTF-8."""
    name, _, value = pair.partition(b"=")
    try:
        if INVALID_ESCAPE_RE.search(pair):
            raise ValueError("not percent-encoded")  # noqa: TRY301  # one refusal for all that is wrong
        return _decode_percent(name), _decode_percent(value)
    except ValueError:
        raise _invalid_parameter("This is not percent-encoded UTF-8.", pair) from None


def _invalid_parameter(detail: str, pair: bytes) -> InvalidParameter:
    """The refusal of a parameter that may not be decodable."""
    name = unquote_plus(pair.partition(b"=")[0].decode(errors="replace"))
    return InvalidParameter(detail, parameter=name, code="invalid-query")


def _decode_percent(text: bytes) -> str:
    return unquote_plus(text.decode("ascii"), errors="strict")


def _parse_get_trashed(value: str | None, viewer: CurrentUser) -> bool:
    if value in (None, "false"):
        return False
    if value != "true":
        raise InvalidParameter("Must be true or false.", parameter="get_trashed")
    if viewer.role is not Role.ADMIN:
        raise Forbidden("Only admins see the trash.", parameter="get_trashed")
    return True


class _QueryParser:
    """The parameters of one request, read one family at a time."""

    def __init__(self, resource_type: ResourceType, scope: VisibilityScope, parameters: dict[str, str]) -> None:
        self.type = resource_type
        self.scope = scope
        self.parameters = parameters

    def _get_family(self, name: str) -> dict[str, str]:
        return {
            parameter: value
            for parameter, value in self.parameters.items()
            if parameter == name or parameter.startswith(f"{name}[")
        }

    def parse_fields(self) -> dict[str, frozenset[str]]:
        chosen: dict[str, frozenset[str]] = {}
        for parameter, value in self._get_family("fields").items():
            match = re.fullmatch(r"fields\[([\w-]+)\]", parameter)
            named = match and find_type(match[1])
            if not named:
                raise InvalidParameter("There is no such resource type.", parameter=parameter)
            if named.name in chosen:
                raise InvalidParameter("This type is here twice, in two spellings.", parameter=parameter)
            chosen[named.name] = frozenset(
                self._parse_field(named, spelled, parameter) for spelled in _split_list(value)
            )
        return chosen

    def _parse_field(self, named: ResourceType, spelled: str, parameter: str) -> str:
        attribute = named.find_attribute(spelled)
        if named.find_relation(spelled) is None and (attribute is None or not attribute.is_readable):
            raise InvalidParameter(f"The type {named.name} has no field {spelled!r}.", parameter=parameter)
        return str(named.field_name(spelled))

    def parse_includes(self) -> Includes:
        self.reject_bracketed("include")
        paths = _split_list(self.parameters.get("include", ""))
        if len(paths) > MAX_INCLUDE_PATHS:
            raise InvalidParameter(f"More than {MAX_INCLUDE_PATHS} paths.", parameter="include")
        tree: dict[str, Includes] = {}
        for path in paths:
            names = path.split(".")
            if len(names) > MAX_INCLUDE_DEPTH:
                raise InvalidParameter(f"Deeper than {MAX_INCLUDE_DEPTH} relationships.", parameter="include")
            branch, at = tree, self.type
            for name in names:
                relation = at.find_relation(name)
                if relation is None:
                    raise InvalidParameter(f"The type {at.name} has no relationship {name!r}.", parameter="include")
                branch = branch.setdefault(relation.name, {})  # type: ignore[assignment]  # built mutable, read as Mapping
                at = relation.target
        return tree

    def parse_sort(self) -> tuple[SortKey, ...]:
        self.reject_bracketed("sort")
        keys = _split_list(self.parameters.get("sort", ""))
        if len(keys) > MAX_SORT_KEYS:
            raise InvalidParameter(f"More than {MAX_SORT_KEYS} keys.", parameter="sort")
        return tuple(self._parse_sort_key(key) for key in keys)

    def _parse_sort_key(self, key: str) -> SortKey:
        descending, path = key.startswith("-"), key.removeprefix("-")
        first, _, second = path.partition(".")
        if not second:
            return SortKey(self._get_sortable_attribute(self.type, path), descending)
        relation = self.type.find_relation(first)
        if relation is None or relation.many or not is_searchable(relation, self.scope):
            raise InvalidParameter(f"The type {self.type.name} has no to-one relationship {first!r}.", parameter="sort")
        return SortKey(self._get_sortable_attribute(relation.target, second), descending, relation)

    def _get_sortable_attribute(self, named: ResourceType, spelled: str) -> Attribute | None:
        if spelled == "id":
            return None
        attribute = get_filterable_attribute(named, spelled, self.scope)
        if attribute is None:
            raise InvalidParameter(f"The type {named.name} cannot be sorted by {spelled!r}.", parameter="sort")
        return attribute

    def parse_filters(self, reader: FilterParser) -> tuple[Filter, ...]:
        read: list[Filter] = []
        for parameter, value in self._get_family("filter").items():
            if parameter == "filter":
                read.extend(reader.parse_list(value, self.type))
            else:
                read.append(reader.parse_parameter(parameter, value, self.type))
        return tuple(read)

    def parse_page(self, filters: Iterable[Filter]) -> Page:
        for parameter in self._get_family("page"):
            if parameter not in PAGE_PARAMETERS:
                raise InvalidParameter("A page has a number, a size, after and before.", parameter=parameter)
        is_range = {"page[after]", "page[before]"} <= self.parameters.keys()
        page = Page(
            number=self._parse_integer("page[number]", 1, MAX_PAGE_NUMBER),
            size=self._parse_page_size(MAX_PAGE_SIZE if is_range else _default_page_size(filters)),
            after=self.parameters.get("page[after]"),
            before=self.parameters.get("page[before]"),
        )
        if page.has_cursor and "page[number]" in self.parameters:
            raise InvalidParameter("A page has a number or a cursor, not both.", parameter="page[number]")
        return page

    def _parse_page_size(self, default: int) -> int:
        text = self.parameters.get("page[size]", "")
        if re.fullmatch("[0-9]+", text) and (len(text) > 10 or int(text) > MAX_PAGE_SIZE):
            limit = {"page": {"maxSize": MAX_PAGE_SIZE}}
            error = InvalidParameter(f"Must be at most {MAX_PAGE_SIZE}.", parameter="page[size]", meta=limit)
            error.links = {"type": MAX_SIZE_EXCEEDED_TYPE}
            raise error
        return self._parse_integer("page[size]", default, MAX_PAGE_SIZE)

    def _parse_integer(self, parameter: str, default: int, biggest: int) -> int:
        text = self.parameters.get(parameter)
        if text is None:
            return default
        if not re.fullmatch(r"[0-9]{1,10}", text) or not 1 <= int(text) <= biggest:
            raise InvalidParameter(f"Must be a whole number from 1 to {biggest}.", parameter=parameter)
        return int(text)

    def reject_bracketed(self, name: str) -> None:
        for parameter in self._get_family(name):
            if parameter != name:
                raise InvalidParameter("This parameter is not known here.", parameter=parameter)


def _default_page_size(filters: Iterable[Filter]) -> int:
    """Enough for all resources that a filter names by their ids, up to the largest page."""
    named = [each.named_ids for each in filters if each.named_ids is not None]
    return max(DEFAULT_PAGE_SIZE, min(MAX_PAGE_SIZE, *named)) if named else DEFAULT_PAGE_SIZE


def _split_list(value: str) -> list[str]:
    return [part.strip() for part in value.split(",")] if value else []
