"""SELECT statements, prepared once per plan and shared by all requests; values are parameters."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    FromClause,
    Select,
    any_,
    bindparam,
    func,
    literal_column,
    select,
)

from app.database import PreparedStatement
from app.jsonapi.filters import BuildCondition, linkage_key, relation_key
from app.jsonapi.permissions import VisibilityScope
from app.jsonapi.resource_type import Relation, ResourceType
from app.jsonapi.select_plan import SelectPlan, default_order_by
from app.jsonapi.size_limits import MAX_ANSWER_BYTES

MAX_COUNT = 10_000
MAX_INCLUDED = 1_000


_cached = lru_cache(maxsize=1024)  # clients choose the sparse fieldsets, so the number of statements is limited


def id_in(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that the column is in the parameter `ids`."""
    return column == any_(bindparam("ids", type_=ARRAY(column.type)))


def parent_is(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that the column equals the parameter `parent_id`."""
    return column == bindparam("parent_id", type_=column.type)


def column_is(table: FromClause, column: str) -> ColumnElement[bool]:
    """Return the condition that the column equals the parameter `key`."""
    return table.c[column] == bindparam("key", type_=table.c[column].type)


@_cached
def select_one(plan: SelectPlan, column: str) -> PreparedStatement:
    """Select the visible row whose column is `key`."""
    return PreparedStatement(plan.statement.where(column_is(plan.type.table, column)))


@_cached
def select_id(resource_type: ResourceType, scope: VisibilityScope, column: str) -> PreparedStatement:
    """Select the id of the visible row whose column is `key`."""
    table = resource_type.table
    criterion = resource_type.permissions.visibility_criterion(scope, table, related=False)
    return PreparedStatement(select(table.c.id).where(column_is(table, column), criterion))


@_cached
def select_list(plan: SelectPlan, narrowing: BuildCondition | None) -> Select[Any]:
    """Select the rows of a list, without an order."""
    return plan.statement if narrowing is None else plan.statement.where(narrowing(plan.type.table))


@_cached
def select_first_page(
    plan: SelectPlan, narrowing: BuildCondition | None, order: tuple[str, ...], size: int
) -> PreparedStatement:
    """Select the first page of a list in its default order."""
    keys = default_order_by(plan.type, plan.scope, order)
    return PreparedStatement(select_list(plan, narrowing).order_by(*keys).limit(size))


@_cached
def select_list_count(plan: SelectPlan, narrowing: BuildCondition | None, exact: bool) -> PreparedStatement:
    """Select the number of rows of a list, counted up to MAX_COUNT + 1 unless `exact`."""
    table = plan.type.table
    terms = [plan.criterion] if narrowing is None else [plan.criterion, narrowing(table)]
    return PreparedStatement(select_count(select(literal_column("1")).select_from(table).where(*terms), exact))


def select_count(statement: Select[Any], exact: bool) -> Select[Any]:
    """Select the number of rows of a statement, counted up to MAX_COUNT + 1 unless `exact`."""
    capped = statement if exact else statement.limit(MAX_COUNT + 1)
    return select(func.count()).select_from(capped.subquery())


def limit_text_bytes(statement: Select[Any], plan: SelectPlan) -> Select[Any]:
    """Limit a statement to its first rows until their long texts exceed MAX_ANSWER_BYTES."""
    if not plan.has_long_texts:
        return statement
    rows = statement.subquery()
    text_bytes = rows.c.text_bytes
    before = func.sum(text_bytes).over(rows=(None, 0)) - text_bytes
    summed = select(*rows.c, before.label("bytes_before")).subquery()
    *columns, bytes_before = summed.c
    return select(*columns).where(bytes_before <= MAX_ANSWER_BYTES)


@_cached
def select_by_ids(plan: SelectPlan) -> PreparedStatement:
    """Select the visible rows with these `ids`, limited by limit_text_bytes.

    They are in order of their ids: the order in which rows are stored depends on values that the caller may not see.
    """
    id_column = plan.type.table.c.id
    found = plan.statement.where(id_in(id_column)).order_by(id_column).limit(MAX_INCLUDED + 1)
    return PreparedStatement(limit_text_bytes(found, plan))


@_cached
def select_children(plan: SelectPlan, relation: Relation) -> PreparedStatement:
    """Select the related rows of the parents `ids` of a to-many relationship, limited by limit_text_bytes.

    The last column is the id of the parent.
    """
    near, source = relation_key(relation, plan.type.table)
    statement = select(*plan.columns, near).select_from(source).where(plan.criterion, id_in(near))
    found = statement.order_by(*default_order_by(plan.type, plan.scope)).limit(MAX_INCLUDED + 1)
    return PreparedStatement(limit_text_bytes(found, plan))


@_cached
def select_linkage(relation: Relation, scope: VisibilityScope) -> PreparedStatement:
    """Select the ids of linkable rows and of their parents `ids`, of a to-many relationship."""
    target = relation.target
    near, source = relation_key(relation, target.table)
    linkable = target.permissions.linkage_criterion(scope, target.table)
    statement = select(target.table.c.id, near).select_from(source).where(linkable, id_in(near))
    return PreparedStatement(statement.order_by(*default_order_by(target, scope)).limit(MAX_INCLUDED + 1))


@_cached
def select_to_one(resource_type: ResourceType, relation: Relation, scope: VisibilityScope) -> PreparedStatement:
    """Select the id that the to-one relationship of the row `parent_id` links to."""
    table = resource_type.table
    return PreparedStatement(select(linkage_key(relation, table, scope)).where(parent_is(table.c.id)))


@_cached
def select_to_many(relation: Relation, scope: VisibilityScope) -> Select[Any]:
    """Select the ids of linkable rows in the to-many relationship of `parent_id`, without an order."""
    target = relation.target
    near, source = relation_key(relation, target.table)
    linkable = target.permissions.linkage_criterion(scope, target.table)
    return select(target.table.c.id).select_from(source).where(parent_is(near), linkable)


@_cached
def narrow_to_parent(relation: Relation) -> BuildCondition:
    """Return a condition that limits a list to the rows in a to-many relationship of the row `parent_id`."""

    def build(table: FromClause) -> ColumnElement[bool]:
        if relation.remote is None:
            raise TypeError(f"{relation.name} is a to-one relationship")
        if relation.secondary is None or relation.secondary_target is None:
            return parent_is(table.c[relation.remote])
        between = relation.secondary.alias()
        near, far = between.c[relation.remote], between.c[relation.secondary_target]
        return table.c.id.in_(select(far).where(parent_is(near)))

    return build
