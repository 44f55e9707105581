"""Statements that every request of a kind shares, built once: values go in as parameters.

SQLAlchemy keeps what it compiled by the statement object; one built anew for each request costs more than running it.
"""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    FromClause,
    Integer,
    Select,
    any_,
    bindparam,
    func,
    literal_column,
    select,
)

from app.jsonapi.filters import Build, relation_key
from app.jsonapi.permissions import Scope
from app.jsonapi.plan import Plan, default_order, linkage_key
from app.jsonapi.resource_type import Relation, ResourceType

COUNT_CAP = 10_000
MOST_INCLUDED = 1_000

IDS = bindparam("ids", type_=ARRAY(BigInteger))
PARENT_ID = bindparam("parent_id", type_=BigInteger)
LIMIT, OFFSET = bindparam("limit", type_=Integer), bindparam("offset", type_=BigInteger)

_kept = lru_cache(maxsize=1024)  # clients choose the sparse fieldsets, so there is a limit


def keyed(table: FromClause, column: str) -> ColumnElement[bool]:
    """The row whose column is `key`."""
    return table.c[column] == bindparam("key", type_=table.c[column].type)


@_kept
def one(plan: Plan, column: str) -> Select[Any]:
    """The row whose column is `key`."""
    return plan.statement.where(keyed(plan.type.table, column))


@_kept
def found(resource_type: ResourceType, scope: Scope, column: str) -> Select[Any]:
    """The id of the visible row whose column is `key`."""
    table = resource_type.table
    criterion = resource_type.permissions.criterion(scope, table, related=False)
    return select(table.c.id).where(keyed(table, column), criterion)


@_kept
def listed(plan: Plan, narrowing: Build | None) -> Select[Any]:
    """The rows of a list, in no order."""
    return plan.statement if narrowing is None else plan.statement.where(narrowing(plan.type.table))


@_kept
def first_pages(plan: Plan, narrowing: Build | None, order: tuple[str, ...]) -> Select[Any]:
    """A numbered page of a list in its default order: `limit` rows after `offset`."""
    keys = default_order(plan.type, plan.scope, order)
    return listed(plan, narrowing).order_by(*keys).limit(LIMIT).offset(OFFSET)


@_kept
def counted(plan: Plan, narrowing: Build | None, exact: bool) -> Select[Any]:
    """How many rows a list has, or COUNT_CAP + 1 when there are more."""
    table = plan.type.table
    terms = [plan.criterion] if narrowing is None else [plan.criterion, narrowing(table)]
    return count_of(select(literal_column("1")).select_from(table).where(*terms), exact)


def count_of(statement: Select[Any], exact: bool) -> Select[Any]:
    """Counts the rows of a statement, all or as far as the cap."""
    capped = statement if exact else statement.limit(COUNT_CAP + 1)
    return select(func.count()).select_from(capped.subquery())


@_kept
def among_ids(plan: Plan) -> Select[Any]:
    """The rows with these `ids`."""
    return plan.statement.where(plan.type.table.c.id == any_(IDS)).limit(MOST_INCLUDED + 1)


@_kept
def children(plan: Plan, relation: Relation) -> Select[Any]:
    """The rows that a to-many relationship of the parents `ids` holds; the last column is the parent."""
    near, source = relation_key(relation, plan.type.table)
    statement = select(*plan.columns, near).select_from(source).where(plan.criterion, near == any_(IDS))
    return statement.order_by(*default_order(plan.type, plan.scope)).limit(MOST_INCLUDED + 1)


@_kept
def pairs(relation: Relation, scope: Scope) -> Select[Any]:
    """Child and parent ids of a to-many relationship of the parents `ids`, as far as they may be known."""
    target = relation.target
    near, source = relation_key(relation, target.table)
    known = target.permissions.linkage(scope, target.table)
    statement = select(target.table.c.id, near).select_from(source).where(known, near == any_(IDS))
    return statement.order_by(*default_order(target, scope)).limit(MOST_INCLUDED + 1)


@_kept
def linked_one(resource_type: ResourceType, relation: Relation, scope: Scope) -> Select[Any]:
    """What the to-one relationship of the row `parent_id` names."""
    table = resource_type.table
    return select(linkage_key(relation, table, scope)).where(table.c.id == PARENT_ID)


@_kept
def linked_many(relation: Relation, scope: Scope) -> Select[Any]:
    """The ids that the to-many relationship of `parent_id` holds, in no order."""
    target = relation.target
    near, source = relation_key(relation, target.table)
    known = target.permissions.linkage(scope, target.table)
    return select(target.table.c.id).select_from(source).where(near == PARENT_ID, known)


@_kept
def of_parent(relation: Relation) -> Build:
    """Narrows a list to what a to-many relationship of the row `parent_id` holds."""

    def build(table: FromClause) -> ColumnElement[bool]:
        if relation.remote is None:
            raise TypeError(f"{relation.name} is a to-one relationship")
        if relation.secondary is None or relation.secondary_target is None:
            return table.c[relation.remote] == PARENT_ID
        between = relation.secondary.alias()
        near, far = between.c[relation.remote], between.c[relation.secondary_target]
        return table.c.id.in_(select(far).where(near == PARENT_ID))

    return build
