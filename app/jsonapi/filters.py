"""Filters: parse the JSON or parameter form into conditions that build SQL.

Operators come from the table below, attributes from the schema. Attributes that the current user cannot read in every
visible row are rejected as unknown.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import marshmallow
import orjson
from sqlalchemy import ColumnElement, FromClause, and_, exists, literal, not_, or_, select

from app.errors import InvalidParameter
from app.jsonapi.current_user import Role
from app.jsonapi.fields import Boolean, DateTime, Integer, Number, Text
from app.jsonapi.permissions import VisibilityScope
from app.jsonapi.resource_type import Attribute, Relation, ResourceType
from app.jsonapi.size_limits import LONG_TEXT_LENGTH

MAX_TERMS = 50
MAX_VALUES = 100
MAX_IDS = 1_000
"""Max ids in a list; ids cost less than other values."""
MAX_TERM_DEPTH = 5
MAX_PATTERN_LENGTH = 200
MAX_PATTERNS = 5

BuildCondition = Callable[[FromClause], ColumnElement[bool]]


@dataclass(frozen=True)
class Filter:
    """A validated condition; `build` returns its SQL for a table or alias."""

    build: BuildCondition
    named_ids: int | None = None
    """Number of ids if the condition selects resources by a list of ids, else None."""


def _is_equal(column: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    """Return the same as IS NOT DISTINCT FROM, which cannot use an index."""
    return column.is_(None) if value is None else and_(column == value, column.is_not(None))


def _is_null(column: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    return column.is_(None) if value else column.is_not(None)


OPERATORS: dict[str, Callable[[ColumnElement[Any], Any], ColumnElement[bool]]] = {
    "eq": _is_equal,
    "ne": lambda column, value: not_(_is_equal(column, value)),
    "gt": lambda column, value: and_(column > value, column.is_not(None)),
    "ge": lambda column, value: and_(column >= value, column.is_not(None)),
    "lt": lambda column, value: and_(column < value, column.is_not(None)),
    "le": lambda column, value: and_(column <= value, column.is_not(None)),
    "in": lambda column, value: and_(column.in_(value), column.is_not(None)),
    "like": lambda column, value: and_(column.like(value), column.is_not(None)),
    "ilike": lambda column, value: and_(column.ilike(value), column.is_not(None)),
    "is-null": _is_null,
}
"""SQL of each operator; the result is never NULL, so that `not` selects all other rows."""
OPERATOR_ALIASES = {"in_": "in", "is_null": "is-null"}
ORDERING_OPERATORS = {"gt", "ge", "lt", "le"}
PATTERN_OPERATORS = {"like", "ilike"}


def get_filterable_attribute(resource_type: ResourceType, spelled: str, scope: VisibilityScope) -> Attribute | None:
    """Return the attribute if it can be compared and the scope may read it in every visible row, else None."""
    attribute = resource_type.find_attribute(spelled)
    if attribute is None or not attribute.is_readable or attribute.is_sealed:
        return None
    if not isinstance(attribute.field, Text | Boolean | Integer | Number | DateTime):
        return None
    if attribute.name in resource_type.permissions.private and scope.role is not Role.ADMIN:
        return None
    return attribute


class FilterParser:
    """Parses the filter parameters of one request and counts their terms and patterns."""

    def __init__(self, scope: VisibilityScope) -> None:
        self.scope = scope
        self.parameter = "filter"
        self.terms = 0
        self.patterns = 0
        self.is_costly = False
        """True if a condition cannot use an index: it may read each row of a table, or other rows for each row."""

    def parse_parameter(self, parameter: str, value: str, resource_type: ResourceType) -> Filter:
        """Parse `filter[name]=x` or `filter[name][op]=x`; lists are comma-separated."""
        match = re.fullmatch(r"filter\[([\w-]+)\](?:\[([\w-]+)\])?", parameter)
        if match is None:
            raise InvalidParameter("This request does not support this parameter.", parameter=parameter)
        name = match[1]
        operator = match[2] or ("eq" if resource_type.find_attribute(name) else "in")  # one id, or several
        raw: Any = value.split(",") if operator in ("in", "in_") else value
        self.parameter = parameter
        return self.build_comparison(resource_type, name, operator, raw)

    def parse_list(self, text: str, resource_type: ResourceType) -> list[Filter]:
        """Parse `filter=[{"name": ..., "op": ..., "val": ...}, {"or": [...]}]`; terms are joined by AND."""
        self.parameter = "filter"
        try:
            terms = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise InvalidParameter("Must be a JSON array of terms.", parameter="filter") from None
        return [self.parse_term(term, resource_type, 1) for term in self.require_list(terms)]

    def make_error(self, detail: str) -> InvalidParameter:
        return InvalidParameter(detail, parameter=self.parameter, code="invalid-filter")

    def require_list(self, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise self.make_error("Must be an array.")
        return value

    def parse_term(self, term: Any, resource_type: ResourceType, depth: int) -> Filter:
        self.terms += 1
        if self.terms > MAX_TERMS or depth > MAX_TERM_DEPTH:
            raise self.make_error(f"At most {MAX_TERMS} terms, nested at most {MAX_TERM_DEPTH} deep, are allowed.")
        if not isinstance(term, dict):
            raise self.make_error("A term must be an object.")
        if set(term) in ({"and"}, {"or"}):
            ((connective, members),) = term.items()
            built = [self.parse_term(member, resource_type, depth + 1).build for member in self.require_list(members)]
            join = and_ if connective == "and" else or_
            return Filter(lambda table: join(literal(connective == "and"), *(build(table) for build in built)))
        if set(term) == {"not"}:
            inner = self.parse_term(term["not"], resource_type, depth + 1).build
            return Filter(lambda table: not_(inner(table)))
        return self._parse_operator_term(term, resource_type, depth)

    def _parse_operator_term(self, term: dict[str, Any], resource_type: ResourceType, depth: int) -> Filter:
        if not {"name", "op"} <= set(term) <= {"name", "op", "val"}:
            raise self.make_error(
                "A term must have the members name, op and, where the operator needs it, val, and no others."
            )
        name, operator = term["name"], term["op"]
        if not isinstance(name, str) or not isinstance(operator, str):
            raise self.make_error("The name and op of a term must be strings.")
        if operator in ("has", "any"):
            return self._parse_relationship_term(resource_type, name, operator, term.get("val"), depth)
        return self.build_comparison(resource_type, name, operator, term.get("val"))

    def _parse_relationship_term(
        self, resource_type: ResourceType, name: str, operator: str, value: Any, depth: int
    ) -> Filter:
        relation = resource_type.find_relation(name)
        if relation is None or relation.many != (operator == "any") or not is_searchable(relation, self.scope):
            raise self.make_error(f"The type {resource_type.name} has no relationship {name!r} for {operator}.")
        self.is_costly = True
        build = self.parse_term(value, relation.target, depth + 1).build
        return Filter(lambda table: exists_related_row(table, relation, self.scope, build))

    def build_comparison(self, resource_type: ResourceType, name: str, operator: str, raw: Any) -> Filter:
        operator = OPERATOR_ALIASES.get(operator, operator)
        compare = OPERATORS.get(operator)
        if compare is None:
            raise self.make_error(f"There is no operator {operator[:40]!r}.")
        if id_target := _resolve_id_target(resource_type, name, self.scope):
            target, relation = id_target
            if operator in PATTERN_OPERATORS:
                raise self.make_error(f"{operator} compares text, but {name} is an id.")
            ids = self._parse_operand(operator, raw, lambda item: self._parse_id(target, item), MAX_IDS)
            named_ids = len(set(ids)) if relation is None and operator == "in" else None
            return Filter(lambda table: _compare_ids(relation, table, self.scope, operator, ids), named_ids)
        attribute = get_filterable_attribute(resource_type, name, self.scope)
        if attribute is None:
            raise self.make_error(f"The type {resource_type.name} cannot be filtered by {name[:80]!r}.")
        self._check_operator(attribute, operator)
        value = self._parse_operand(operator, raw, lambda item: self._parse_value(attribute, item, operator))
        compared = attribute.comparison_expression if operator not in PATTERN_OPERATORS else attribute.expression
        return Filter(lambda table: compare(compared(table), value))

    def _check_operator(self, attribute: Attribute, operator: str) -> None:
        if operator in PATTERN_OPERATORS:
            self.patterns += 1
            if not isinstance(attribute.field, Text):
                raise self.make_error(f"{operator} compares text, but {attribute.key} is not a text.")
            if self.patterns > MAX_PATTERNS:
                raise self.make_error(f"At most {MAX_PATTERNS} patterns are allowed in one request.")
            if attribute.is_long and self.scope.role is Role.ANONYMOUS:
                raise self.make_error(
                    f"{attribute.key} may have more than {LONG_TEXT_LENGTH} characters: only signed-in users compare "
                    "it with patterns."
                )
        self.is_costly = (
            self.is_costly or operator in PATTERN_OPERATORS or (operator in ORDERING_OPERATORS and attribute.is_long)
        )
        if operator in ORDERING_OPERATORS and isinstance(attribute.field, Boolean):
            raise self.make_error(f"{attribute.key} is a boolean, which {operator} cannot compare.")

    def _parse_operand(
        self, operator: str, raw: Any, coerce: Callable[[Any], Any], max_values: int = MAX_VALUES
    ) -> Any:
        if operator == "is-null":
            return self._parse_boolean(raw)
        if operator == "in":
            values = self.require_list(raw)
            if len(values) > max_values or None in values:
                raise self.make_error(f"A list may have at most {max_values} values and no null; use is-null for null.")
            return [coerce(value) for value in values]
        if raw is None:
            if operator in ("eq", "ne"):
                return None
            raise self.make_error(f"{operator} needs a value other than null.")
        return coerce(raw)

    def _parse_boolean(self, raw: Any) -> bool:
        if raw in (True, "true"):
            return True
        if raw in (False, "false"):
            return False
        raise self.make_error("The value of is-null must be true or false.")

    def _parse_id(self, of: ResourceType, raw: Any) -> Any:
        id_ = None if isinstance(raw, bool) else of.parse_id(str(raw))
        if id_ is None:
            raise self.make_error(f"{str(raw)[:40]!r} is not an id.")
        return id_

    def _parse_value(self, attribute: Attribute, raw: Any, operator: str) -> Any:
        if isinstance(attribute.field, Text):
            if not isinstance(raw, str) or "\0" in raw:
                raise self.make_error(f"{attribute.key} must be compared with a text without NUL.")
            if operator in PATTERN_OPERATORS and (len(raw) > MAX_PATTERN_LENGTH or raw.endswith("\\")):
                raise self.make_error(
                    f"A pattern must have at most {MAX_PATTERN_LENGTH} characters and must not end with a backslash."
                )
            try:
                return attribute.field.to_comparison_form(raw, is_pattern=operator in PATTERN_OPERATORS)
            except ValueError as error:
                raise self.make_error(f"{attribute.key}: {error}") from None
        try:
            return attribute.field.deserialize(raw)
        except marshmallow.ValidationError as error:
            raise self.make_error(f"{attribute.key}: {error.messages[0]}") from None


def _resolve_id_target(
    resource_type: ResourceType, name: str, scope: VisibilityScope
) -> tuple[ResourceType, Relation | None] | None:
    """Return the type whose ids a name compares, and its relationship: `id`, or a to-one one readable in every row."""
    if name == "id":
        return resource_type, None
    relation = resource_type.find_relation(name)
    permissions = resource_type.permissions
    hides_links = permissions.private and not permissions.keeps_links and scope.role is not Role.ADMIN
    if relation is None or relation.many or hides_links:
        return None
    if relation.sees is not None and scope.role is Role.ANONYMOUS:
        return None
    return relation.target, relation


def is_searchable(relation: Relation, scope: VisibilityScope) -> bool:
    """Return whether the scope sees the relationship in every row, so that it may filter and sort by the linked row."""
    return relation.sees is None or scope.role is Role.ADMIN


def _compare_ids(
    relation: Relation | None, table: FromClause, scope: VisibilityScope, operator: str, ids: Any
) -> ColumnElement[bool]:
    """Return the comparison of the own id, or of the linkage of a to-one relationship, with these ids."""
    if relation is None:
        return OPERATORS[operator](table.c.id, ids)
    if relation.local is None or not relation.field.guarded or ids is None or operator not in ("eq", "ne", "in"):
        return OPERATORS[operator](linkage_key(relation, table, scope), ids)
    # Compare the column first, which has an index; the visible linkage of a guarded relationship has none.
    is_linked = OPERATORS["in" if operator == "in" else "eq"](table.c[relation.local], ids)
    is_visible = and_(is_linked, linkage_key(relation, table, scope).is_not(None))
    return not_(is_visible) if operator == "ne" else is_visible


def linkage_key(relation: Relation, table: FromClause, scope: VisibilityScope) -> ColumnElement[Any]:
    """Return the foreign key of a to-one relationship; null for a guarded one that the scope does not see."""
    if relation.local is None:
        raise TypeError(f"{relation.name} is a to-many relationship")
    key = table.c[relation.local]
    if not relation.field.guarded:
        return key
    other = relation.target.table.alias()
    criterion = relation.target.permissions.linkage_criterion(scope, other)
    if relation.sees is not None:
        criterion = and_(criterion, relation.sees(scope, table))
    return select(other.c.id).where(other.c.id == key, criterion).scalar_subquery()


def exists_related_row(
    table: FromClause, relation: Relation, scope: VisibilityScope, condition: BuildCondition
) -> ColumnElement[bool]:
    """Return the EXISTS condition for a visible related row that meets the condition."""
    target = relation.target
    other = target.table.alias()
    terms = [target.permissions.visibility_criterion(scope, other, related=True), condition(other)]
    if relation.local is not None:
        return exists(select(literal(1)).select_from(other).where(other.c.id == table.c[relation.local], *terms))
    near, between = relation_key(relation, other)
    return exists(select(literal(1)).select_from(between).where(near == table.c.id, *terms))


def relation_key(relation: Relation, target: FromClause) -> tuple[ColumnElement[Any], FromClause]:
    """Return the column with the id of the parent, and the FROM clause, of a to-many relationship."""
    if relation.remote is None:
        raise TypeError(f"{relation.name} is a to-one relationship")
    if relation.secondary is None or relation.secondary_target is None:
        return target.c[relation.remote], target
    between = relation.secondary.alias()
    return (
        between.c[relation.remote],
        target.join(between, between.c[relation.secondary_target] == target.c.id),
    )
