"""Statements that every request of a kind shares, prepared once: values go in as parameters."""

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

from app.database import Prepared
from app.jsonapi.filters import Build, linkage_key, relation_key
from app.jsonapi.permissions import Scope
from app.jsonapi.plan import Plan, default_order
from app.jsonapi.resource_type import Relation, ResourceType
from app.jsonapi.sizes import MAX_ANSWER_BYTES

COUNT_CAP = 10_000
MOST_INCLUDED = 1_000


_kept = lru_cache(maxsize=1024)  # clients choose the sparse fieldsets, so there is a limit


def among(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Rows whose column is one of `ids`."""
    return column == any_(bindparam("ids", type_=ARRAY(column.type)))


def of(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Rows whose column is `parent_id`."""
    return column == bindparam("parent_id", type_=column.type)


def keyed(table: FromClause, column: str) -> ColumnElement[bool]:
    """The row whose column is `key`."""
    return table.c[column] == bindparam("key", type_=table.c[column].type)


@_kept
def one(plan: Plan, column: str) -> Prepared:
    """The row whose column is `key`."""
    return Prepared(plan.statement.where(keyed(plan.type.table, column)))


@_kept
def found(resource_type: ResourceType, scope: Scope, column: str) -> Prepared:
    """The id of the visible row whose column is `key`."""
    table = resource_type.table
    criterion = resource_type.permissions.criterion(scope, table, related=False)
    return Prepared(select(table.c.id).where(keyed(table, column), criterion))


@_kept
def listed(plan: Plan, narrowing: Build | None) -> Select[Any]:
    """The rows of a list, in no order."""
    return plan.statement if narrowing is None else plan.statement.where(narrowing(plan.type.table))


@_kept
def first_page(plan: Plan, narrowing: Build | None, order: tuple[str, ...], size: int) -> Prepared:
    """The first page of a list in its default order."""
    keys = default_order(plan.type, plan.scope, order)
    return Prepared(listed(plan, narrowing).order_by(*keys).limit(size))


@_kept
def counted(plan: Plan, narrowing: Build | None, exact: bool) -> Prepared:
    """How many rows a list has, or COUNT_CAP + 1 when there are more."""
    table = plan.type.table
    terms = [plan.criterion] if narrowing is None else [plan.criterion, narrowing(table)]
    return Prepared(count_of(select(literal_column("1")).select_from(table).where(*terms), exact))


def count_of(statement: Select[Any], exact: bool) -> Select[Any]:
    """Counts the rows of a statement, all or as far as the cap."""
    capped = statement if exact else statement.limit(COUNT_CAP + 1)
    return select(func.count()).select_from(capped.subquery())


def cut_to_answer(statement: Select[Any], plan: Plan) -> Select[Any]:
    """Return only the first rows of a statement, until the texts of one do not fit into an answer any more."""
    if not plan.has_long_texts:
        return statement
    rows = statement.subquery()
    text_bytes = rows.c.text_bytes
    before = func.sum(text_bytes).over(rows=(None, 0)) - text_bytes
    summed = select(*rows.c, before.label("bytes_before")).subquery()
    *columns, bytes_before = summed.c
    return select(*columns).where(bytes_before <= MAX_ANSWER_BYTES)


@_kept
def among_ids(plan: Plan) -> Prepared:
    """The rows with these `ids`, as far as they fit into an answer."""
    found = plan.statement.where(among(plan.type.table.c.id)).limit(MOST_INCLUDED + 1)
    return Prepared(cut_to_answer(found, plan))


@_kept
def children(plan: Plan, relation: Relation) -> Prepared:
    """The rows that a to-many relationship of the parents `ids` holds, as far as they fit into an answer.

    The last column is the parent.
    """
    near, source = relation_key(relation, plan.type.table)
    statement = select(*plan.columns, near).select_from(source).where(plan.criterion, among(near))
    found = statement.order_by(*default_order(plan.type, plan.scope)).limit(MOST_INCLUDED + 1)
    return Prepared(cut_to_answer(found, plan))


@_kept
def pairs(relation: Relation, scope: Scope) -> Prepared:
    """Child and parent ids of a to-many relationship of the parents `ids`, as far as they may be known."""
    target = relation.target
    near, source = relation_key(relation, target.table)
    known = target.permissions.linkage(scope, target.table)
    statement = select(target.table.c.id, near).select_from(source).where(known, among(near))
    return Prepared(statement.order_by(*default_order(target, scope)).limit(MOST_INCLUDED + 1))


@_kept
def linked_one(resource_type: ResourceType, relation: Relation, scope: Scope) -> Prepared:
    """What the to-one relationship of the row `parent_id` names."""
    table = resource_type.table
    return Prepared(select(linkage_key(relation, table, scope)).where(of(table.c.id)))


@_kept
def linked_many(relation: Relation, scope: Scope) -> Select[Any]:
    """The ids that the to-many relationship of `parent_id` holds, in no order."""
    target = relation.target
    near, source = relation_key(relation, target.table)
    known = target.permissions.linkage(scope, target.table)
    return select(target.table.c.id).select_from(source).where(of(near), known)


@_kept
def of_parent(relation: Relation) -> Build:
    """Narrows a list to what a to-many relationship of the row `parent_id` holds."""

    def build(table: FromClause) -> ColumnElement[bool]:
        if relation.remote is None:
            raise TypeError(f"{relation.name} is a to-one relationship")
        if relation.secondary is None or relation.secondary_target is None:
            return of(table.c[relation.remote])
        between = relation.secondary.alias()
        near, far = between.c[relation.remote], between.c[relation.secondary_target]
        return table.c.id.in_(select(far).where(of(near)))

    return build
