"""Parser of query strings: unknown, unreadable or malformed values raise InvalidParameter with the parameter's name."""

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
"""Type link of the error for a too large page[size] (cursor pagination profile)."""
INVALID_ESCAPE_RE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
PAGE_PARAMETERS = frozenset({"page[number]", "page[size]", "page[after]", "page[before]"})

LIST_FAMILIES = frozenset({"fields", "include", "sort", "filter", "page", "get_trashed"})
DETAIL_FAMILIES = frozenset({"fields", "include", "get_trashed"})
LINKAGE_FAMILIES = frozenset({"get_trashed"})
LINKAGE_LIST_FAMILIES = frozenset({"get_trashed", "page"})
NO_FAMILIES: frozenset[str] = frozenset()
WRITE_FAMILIES = frozenset({"fields", "include", "get_trashed"})

Includes = Mapping[str, "Includes"]
"""Tree of included relationships by Python name."""


@dataclass(frozen=True)
class SortKey:
    """One sort key: an attribute (None for the id) of the resource, or of the target of a to-one relationship."""

    attribute: Attribute | None
    descending: bool
    through: Relation | None = None

    @property
    def is_costly(self) -> bool:
        """Return whether no index has this order: the value is in a related row, or is a text without a sort index."""
        if self.through is not None:
            return True
        return self.attribute is not None and self.attribute.is_text and not self.attribute.has_sort_index


@dataclass(frozen=True)
class Page:
    """Requested page: a page number, or the cursors `after` and `before`."""

    number: int = 1
    size: int = DEFAULT_PAGE_SIZE
    after: str | None = None
    before: str | None = None

    @property
    def has_cursor(self) -> bool:
        """Return whether the request has a cursor."""
        return self.after is not None or self.before is not None

    @property
    def offset(self) -> int:
        """Return the number of rows before this page."""
        return (self.number - 1) * self.size


@dataclass(frozen=True)
class Query:
    """A parsed query string; `fields` has the Python names of the requested fields by type name."""

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
    """Parse the query string of a request about resources of this type.

    Page parameters are ignored, with any value, if the response is not a list.
    """
    parameters = parse_parameters(raw, allowed if is_list else allowed | {"page"})
    sent = dict(parameters)
    if not is_list:
        parameters = {name: value for name, value in parameters.items() if name not in PAGE_PARAMETERS}
    scope = VisibilityScope(viewer.role, _parse_get_trashed(parameters.pop("get_trashed", None), viewer))
    if not parameters:
        return Query(scope, parameters=sent)
    parser = _QueryParser(resource_type, scope, parameters)
    parser.reject_bracketed("get_trashed")
    filter_parser = FilterParser(scope)
    filters = parser.parse_filters(filter_parser)
    return Query(
        scope=scope,
        fields=parser.parse_fields(),
        includes=parser.parse_includes(),
        sort=parser.parse_sort(),
        filters=filters,
        has_costly_filters=filter_parser.is_costly,
        page=parser.parse_page(filters),
        includes_asked="include" in parameters,
        parameters=sent,
    )


def parse_parameters(raw: bytes, allowed: frozenset[str]) -> dict[str, str]:
    """Return the parameters of a query string; raise InvalidParameter for one of a family that is not allowed."""
    parameters = parse_query_string(raw)
    for name in parameters:
        if name.partition("[")[0] not in allowed:
            raise InvalidParameter("This request does not support this parameter.", parameter=name)
    return parameters


def parse_query_string(raw: bytes) -> dict[str, str]:
    """Return the parameters of a query string; raise InvalidParameter if it is malformed, too long or ambiguous."""
    pairs = [pair for pair in raw.split(b"&") if pair]
    if len(raw) > MAX_QUERY_BYTES:
        detail = f"The query string may have at most {MAX_QUERY_BYTES} bytes; this parameter is the longest."
        raise _invalid_parameter(detail, max(pairs, key=len, default=b""))
    if len(pairs) > MAX_PARAMETERS:
        raise _invalid_parameter(f"At most {MAX_PARAMETERS} parameters are allowed.", pairs[MAX_PARAMETERS])
    parameters: dict[str, str] = {}
    for pair in pairs:
        name, value = _decode_pair(pair)
        if "\0" in name or "\0" in value:
            raise _invalid_parameter("A NUL character is not allowed in a query string.", pair)
        if name in parameters:
            raise InvalidParameter("This parameter is sent twice.", parameter=name)
        parameters[name] = value
    return parameters


def _decode_pair(pair: bytes) -> tuple[str, str]:
    """Return the name and value of one parameter; raise InvalidParameter unless it is percent-encoded UTF-8."""
    name, _, value = pair.partition(b"=")
    try:
        if INVALID_ESCAPE_RE.search(pair):
            raise ValueError("not percent-encoded")  # noqa: TRY301  # one error for all causes
        return _decode_percent(name), _decode_percent(value)
    except ValueError:
        raise _invalid_parameter("This is not percent-encoded UTF-8.", pair) from None


def _invalid_parameter(detail: str, pair: bytes) -> InvalidParameter:
    """Return the error for a parameter that may not be decodable."""
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
        raise Forbidden("Only admins can read deleted resources.", parameter="get_trashed")
    return True


class _QueryParser:
    """Parses the parameters of one request, one family at a time."""

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
                raise InvalidParameter("The fields of this type are sent twice, in two spellings.", parameter=parameter)
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
            raise InvalidParameter(f"At most {MAX_INCLUDE_PATHS} paths are allowed.", parameter="include")
        tree: dict[str, Includes] = {}
        for path in paths:
            names = path.split(".")
            if len(names) > MAX_INCLUDE_DEPTH:
                raise InvalidParameter(
                    f"A path may have at most {MAX_INCLUDE_DEPTH} relationships.", parameter="include"
                )
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
            raise InvalidParameter(f"At most {MAX_SORT_KEYS} sort keys are allowed.", parameter="sort")
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

    def parse_filters(self, parser: FilterParser) -> tuple[Filter, ...]:
        parsed: list[Filter] = []
        for parameter, value in self._get_family("filter").items():
            if parameter == "filter":
                parsed.extend(parser.parse_list(value, self.type))
            else:
                parsed.append(parser.parse_parameter(parameter, value, self.type))
        return tuple(parsed)

    def parse_page(self, filters: Iterable[Filter]) -> Page:
        for parameter in self._get_family("page"):
            if parameter not in PAGE_PARAMETERS:
                raise InvalidParameter(
                    "Unknown page parameter; use page[number], page[size], page[after] or page[before].",
                    parameter=parameter,
                )
        is_range = {"page[after]", "page[before]"} <= self.parameters.keys()
        page = Page(
            number=self._parse_integer("page[number]", 1, MAX_PAGE_NUMBER),
            size=self._parse_page_size(MAX_PAGE_SIZE if is_range else _default_page_size(filters)),
            after=self.parameters.get("page[after]"),
            before=self.parameters.get("page[before]"),
        )
        if page.has_cursor and "page[number]" in self.parameters:
            raise InvalidParameter("Send either page[number] or a cursor, not both.", parameter="page[number]")
        return page

    def _parse_page_size(self, default: int) -> int:
        text = self.parameters.get("page[size]", "")
        if re.fullmatch("[0-9]+", text) and (len(text) > 10 or int(text) > MAX_PAGE_SIZE):
            limit = {"page": {"maxSize": MAX_PAGE_SIZE}}
            error = InvalidParameter(f"Must be at most {MAX_PAGE_SIZE}.", parameter="page[size]", meta=limit)
            error.links = {"type": MAX_SIZE_EXCEEDED_TYPE}
            raise error
        return self._parse_integer("page[size]", default, MAX_PAGE_SIZE)

    def _parse_integer(self, parameter: str, default: int, max_value: int) -> int:
        text = self.parameters.get(parameter)
        if text is None:
            return default
        if not re.fullmatch(r"[0-9]{1,10}", text) or not 1 <= int(text) <= max_value:
            raise InvalidParameter(f"Must be a whole number from 1 to {max_value}.", parameter=parameter)
        return int(text)

    def reject_bracketed(self, name: str) -> None:
        for parameter in self._get_family(name):
            if parameter != name:
                raise InvalidParameter("This request does not support this parameter.", parameter=parameter)


def _default_page_size(filters: Iterable[Filter]) -> int:
    """Return the default page size, raised to the number of ids in an id filter, at most MAX_PAGE_SIZE."""
    named = [each.named_ids for each in filters if each.named_ids is not None]
    return max(DEFAULT_PAGE_SIZE, min(MAX_PAGE_SIZE, *named)) if named else DEFAULT_PAGE_SIZE


def _split_list(value: str) -> list[str]:
    return [part.strip() for part in value.split(",")] if value else []
