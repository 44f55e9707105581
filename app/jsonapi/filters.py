"""The filter language: JSON or parameters -> a tree of checked terms -> SQL.

Operators come from the table below and attributes from the schema; only what the viewer may read in every row he can
see can be compared, in his own words "unknown" otherwise.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import marshmallow
import orjson
from sqlalchemy import ColumnElement, FromClause, and_, exists, literal, not_, or_, select

from app.errors import InvalidParameter
from app.jsonapi.permissions import Scope
from app.jsonapi.resource_type import Attribute, Relation, ResourceType
from app.jsonapi.schema import Flag, Instant, Number, Text, Whole
from app.jsonapi.sizes import LONG_TEXT
from app.jsonapi.viewer import Role

MOST_TERMS = 50
MOST_VALUES = 100
MAX_IDS = 1_000
"""Of a list of ids, which costs less than other values."""
DEEPEST = 5
LONGEST_PATTERN = 200
MOST_PATTERNS = 5

Build = Callable[[FromClause], ColumnElement[bool]]


@dataclass(frozen=True)
class Filter:
    """A checked condition; `build` makes its SQL for a table or alias."""

    build: Build
    named_ids: int | None = None
    """How many ids it lists, where it finds the resources with these ids and no others."""


def _equal(column: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    """As IS NOT DISTINCT FROM, which uses no index."""
    return column.is_(None) if value is None else and_(column == value, column.is_not(None))


def _is_null(column: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    return column.is_(None) if value else column.is_not(None)


OPERATORS: dict[str, Callable[[ColumnElement[Any], Any], ColumnElement[bool]]] = {
    "eq": _equal,
    "ne": lambda column, value: not_(_equal(column, value)),
    "gt": lambda column, value: and_(column > value, column.is_not(None)),
    "ge": lambda column, value: and_(column >= value, column.is_not(None)),
    "lt": lambda column, value: and_(column < value, column.is_not(None)),
    "le": lambda column, value: and_(column <= value, column.is_not(None)),
    "in": lambda column, value: and_(column.in_(value), column.is_not(None)),
    "like": lambda column, value: and_(column.like(value), column.is_not(None)),
    "ilike": lambda column, value: and_(column.ilike(value), column.is_not(None)),
    "is-null": _is_null,
}
"""None is ever unknown, so that `not` finds all the rest."""
ALIASES = {"in_": "in", "is_null": "is-null"}
ORDERED = {"gt", "ge", "lt", "le"}
PATTERNS = {"like", "ilike"}


def comparable(resource_type: ResourceType, spelled: str, scope: Scope) -> Attribute | None:
    """The attribute, where it can be compared and this scope may read it in every row it sees."""
    attribute = resource_type.attribute(spelled)
    if attribute is None or not attribute.is_readable or attribute.is_sealed:
        return None
    if not isinstance(attribute.field, Text | Flag | Whole | Number | Instant):
        return None
    if attribute.name in resource_type.permissions.private and scope.role is not Role.ADMIN:
        return None
    return attribute


class FilterReader:
    """Reads the filter parameters of one request and counts their patterns; terms count for each parameter."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.parameter = "filter"
        self.terms = 0
        self.patterns = 0
        self.is_costly = False
        """Whether a condition may look at each row of a table, or at others for each row, which no index helps."""

    def read_parameter(self, parameter: str, value: str, resource_type: ResourceType) -> Filter:
        """`filter[name]=x` and `filter[name][op]=x`; lists are comma-separated."""
        match = re.fullmatch(r"filter\[([\w-]+)\](?:\[([\w-]+)\])?", parameter)
        if match is None:
            raise InvalidParameter("This parameter is not known here.", parameter=parameter)
        name = match[1]
        operator = match[2] or ("eq" if resource_type.attribute(name) else "in")  # one id, or several
        raw: Any = value.split(",") if operator in ("in", "in_") else value
        self.parameter = parameter
        return self.comparison(resource_type, name, operator, raw)

    def read_list(self, text: str, resource_type: ResourceType) -> list[Filter]:
        """`filter=[{"name": ..., "op": ..., "val": ...}, {"or": [...]}]`, joined by and."""
        self.parameter = "filter"
        try:
            terms = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise InvalidParameter("Must be a JSON list of terms.", parameter="filter") from None
        return [self.term(term, resource_type, 1) for term in self.listed(terms)]

    def refuse(self, detail: str) -> InvalidParameter:
        return InvalidParameter(detail, parameter=self.parameter, code="invalid-filter")

    def listed(self, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise self.refuse("Terms come as a list.")
        return value

    def term(self, term: Any, resource_type: ResourceType, depth: int) -> Filter:
        self.terms += 1
        if self.terms > MOST_TERMS or depth > DEEPEST:
            raise self.refuse(f"More than {MOST_TERMS} terms, or nested deeper than {DEEPEST}.")
        if not isinstance(term, dict):
            raise self.refuse("A term is an object.")
        if set(term) in ({"and"}, {"or"}):
            ((word, members),) = term.items()
            built = [self.term(member, resource_type, depth + 1).build for member in self.listed(members)]
            join = and_ if word == "and" else or_
            return Filter(lambda table: join(literal(word == "and"), *(build(table) for build in built)))
        if set(term) == {"not"}:
            inner = self.term(term["not"], resource_type, depth + 1).build
            return Filter(lambda table: not_(inner(table)))
        return self._named(term, resource_type, depth)

    def _named(self, term: dict[str, Any], resource_type: ResourceType, depth: int) -> Filter:
        if not {"name", "op"} <= set(term) <= {"name", "op", "val"}:
            raise self.refuse("A term has name, op and val.")
        name, operator = term["name"], term["op"]
        if not isinstance(name, str) or not isinstance(operator, str):
            raise self.refuse("name and op are texts.")
        if operator in ("has", "any"):
            return self._related(resource_type, name, operator, term.get("val"), depth)
        return self.comparison(resource_type, name, operator, term.get("val"))

    def _related(self, resource_type: ResourceType, name: str, operator: str, value: Any, depth: int) -> Filter:
        relation = resource_type.relation(name)
        if relation is None or relation.many != (operator == "any") or not is_searchable(relation, self.scope):
            raise self.refuse(f"The type {resource_type.name} has no relationship {name!r} for {operator}.")
        self.is_costly = True
        build = self.term(value, relation.target, depth + 1).build
        return Filter(lambda table: related_exists(table, relation, self.scope, build))

    def comparison(self, resource_type: ResourceType, name: str, operator: str, raw: Any) -> Filter:
        operator = ALIASES.get(operator, operator)
        compare = OPERATORS.get(operator)
        if compare is None:
            raise self.refuse(f"There is no operator {operator[:40]!r}.")
        if named := _of_ids(resource_type, name, self.scope):
            target, relation = named
            if operator in PATTERNS:
                raise self.refuse(f"{operator} compares text, {name} is none.")
            ids = self._value(operator, raw, lambda item: self._id(target, item), MAX_IDS)
            named_ids = len(set(ids)) if relation is None and operator == "in" else None
            return Filter(lambda table: _compared(relation, table, self.scope, operator, ids), named_ids)
        attribute = comparable(resource_type, name, self.scope)
        if attribute is None:
            raise self.refuse(f"The type {resource_type.name} cannot be filtered by {name[:80]!r}.")
        self._check_kind(attribute, operator)
        value = self._value(operator, raw, lambda item: self._coerced(attribute, item, operator))
        compared = attribute.compared_expression if operator not in PATTERNS else attribute.expression
        return Filter(lambda table: compare(compared(table), value))

    def _check_kind(self, attribute: Attribute, operator: str) -> None:
        if operator in PATTERNS:
            self.patterns += 1
            if not isinstance(attribute.field, Text):
                raise self.refuse(f"{operator} compares text, {attribute.key} is none.")
            if self.patterns > MOST_PATTERNS:
                raise self.refuse(f"More than {MOST_PATTERNS} patterns in one request.")
            if attribute.is_long and self.scope.role is Role.ANONYMOUS:
                raise self.refuse(
                    f"{attribute.key} may hold more than {LONG_TEXT} characters: only signed-in users compare it with "
                    "patterns."
                )
        self.is_costly = self.is_costly or operator in PATTERNS or (operator in ORDERED and attribute.is_long)
        if operator in ORDERED and isinstance(attribute.field, Flag):
            raise self.refuse(f"{attribute.key} is true or false, {operator} means nothing there.")

    def _value(self, operator: str, raw: Any, coerce: Callable[[Any], Any], max_values: int = MOST_VALUES) -> Any:
        if operator == "is-null":
            return self._flag(raw)
        if operator == "in":
            values = self.listed(raw)
            if len(values) > max_values or None in values:
                raise self.refuse(f"A list has at most {max_values} values; null is asked for by is-null.")
            return [coerce(value) for value in values]
        if raw is None:
            if operator in ("eq", "ne"):
                return None
            raise self.refuse(f"{operator} needs a value.")
        return coerce(raw)

    def _flag(self, raw: Any) -> bool:
        if raw in (True, "true"):
            return True
        if raw in (False, "false"):
            return False
        raise self.refuse("is-null takes true or false.")

    def _id(self, of: ResourceType, raw: Any) -> Any:
        id_ = None if isinstance(raw, bool) else of.parse_id(str(raw))
        if id_ is None:
            raise self.refuse(f"{str(raw)[:40]!r} is not an id.")
        return id_

    def _coerced(self, attribute: Attribute, raw: Any, operator: str) -> Any:
        if isinstance(attribute.field, Text):
            if not isinstance(raw, str) or "\0" in raw:
                raise self.refuse(f"{attribute.key} is compared with text.")
            if operator in PATTERNS and (len(raw) > LONGEST_PATTERN or raw.endswith("\\")):
                raise self.refuse(
                    f"A pattern has at most {LONGEST_PATTERN} characters and does not end with a backslash."
                )
            try:
                return attribute.field.to_compared(raw, is_pattern=operator in PATTERNS)
            except ValueError as error:
                raise self.refuse(f"{attribute.key}: {error}") from None
        try:
            return attribute.field.deserialize(raw)
        except marshmallow.ValidationError as error:
            raise self.refuse(f"{attribute.key}: {error.messages[0]}") from None


def _of_ids(resource_type: ResourceType, name: str, scope: Scope) -> tuple[ResourceType, Relation | None] | None:
    """Whose ids a name means: its own, or those that a to-one relationship prints in every row this scope sees."""
    if name == "id":
        return resource_type, None
    relation = resource_type.relation(name)
    permissions = resource_type.permissions
    hides_links = permissions.private and not permissions.keeps_links and scope.role is not Role.ADMIN
    if relation is None or relation.many or hides_links:
        return None
    if relation.sees is not None and scope.role is Role.ANONYMOUS:
        return None
    return relation.target, relation


def is_searchable(relation: Relation, scope: Scope) -> bool:
    """Return whether this scope sees a relationship in every row, so that it may search and sort by what it names."""
    return relation.sees is None or scope.role is Role.ADMIN


def _compared(
    relation: Relation | None, table: FromClause, scope: Scope, operator: str, ids: Any
) -> ColumnElement[bool]:
    """The own id, or what is printed as linkage, compared."""
    if relation is None:
        return OPERATORS[operator](table.c.id, ids)
    if relation.local is None or not relation.field.guarded or ids is None or operator not in ("eq", "ne", "in"):
        return OPERATORS[operator](linkage_key(relation, table, scope), ids)
    # The column itself first: it has an index, what becomes of a guarded one has none.
    is_named = OPERATORS["in" if operator == "in" else "eq"](table.c[relation.local], ids)
    is_shown = and_(is_named, linkage_key(relation, table, scope).is_not(None))
    return not_(is_shown) if operator == "ne" else is_shown


def linkage_key(relation: Relation, table: FromClause, scope: Scope) -> ColumnElement[Any]:
    """Return the foreign key of a to-one relationship; null for a guarded one that this scope does not see."""
    if relation.local is None:
        raise TypeError(f"{relation.name} is a to-many relationship")
    key = table.c[relation.local]
    if not relation.field.guarded:
        return key
    other = relation.target.table.alias()
    criterion = relation.target.permissions.linkage(scope, other)
    if relation.sees is not None:
        criterion = and_(criterion, relation.sees(scope, table))
    return select(other.c.id).where(other.c.id == key, criterion).scalar_subquery()


def related_exists(table: FromClause, relation: Relation, scope: Scope, condition: Build) -> ColumnElement[bool]:
    """Whether some related row that the scope may see meets the condition."""
    target = relation.target
    other = target.table.alias()
    terms = [target.permissions.criterion(scope, other, related=True), condition(other)]
    if relation.local is not None:
        return exists(select(literal(1)).select_from(other).where(other.c.id == table.c[relation.local], *terms))
    near, between = relation_key(relation, other)
    return exists(select(literal(1)).select_from(between).where(near == table.c.id, *terms))


def relation_key(relation: Relation, target: FromClause) -> tuple[ColumnElement[Any], FromClause]:
    """For a to-many relationship: the column that holds this side's id, and what to select from to get both."""
    if relation.remote is None:
        raise TypeError(f"{relation.name} is a to-one relationship")
    if relation.secondary is None or relation.secondary_target is None:
        return target.c[relation.remote], target
    between = relation.secondary.alias()
    return (
        between.c[relation.remote],
        target.join(between, between.c[relation.secondary_target] == target.c.id),
    )
