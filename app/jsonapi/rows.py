"""Rows of a type, found and locked, inserted and changed by statements prepared once; every change is announced.

A row is a named tuple of all columns: what it says is what the database said. The ORM's way to write one row was
measured to cost three times as much (docs/decisions/0011-prepared-statements.md).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, Literal

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from app import changes, write_limits
from app.database import Prepared
from app.errors import Conflict
from app.jsonapi import statements
from app.jsonapi.permissions import Access, Scope
from app.jsonapi.plan import open_sealed
from app.jsonapi.resource_type import Relation, ResourceType
from app.jsonapi.values import attribute_error
from app.sealing import place, seal_text

Lock = Literal["share", "update"]

_kept = lru_cache(maxsize=1024)  # clients choose which columns they change, so there is a limit


def find(resource_type: ResourceType, named: tuple[str, Any], access: Access) -> Any | None:
    """The visible row whose column has this value, locked until the transaction ends."""
    column, key = named
    found = _locking(resource_type, access.scope, column).rows({**access.parameters(), "key": key})
    return resource_type.row(*found[0]) if found else None


def related(relation: Relation, ids: Iterable[Any], access: Access, *, lock: Lock = "share") -> list[Any]:
    """The rows with these ids on the other side that the caller may know of; for "share" their keys only.

    They are locked, in the order of their ids, so that nobody trashes one before this transaction has linked it.
    """
    target = relation.target
    found = _locking_related(target, access.scope, lock).rows({**access.parameters(), "ids": sorted(ids)})
    made = target.row if lock == "update" else target.keys
    return [made(*row) for row in found]


def create(resource_type: ResourceType, values: Mapping[str, Any]) -> Any:
    """Insert a row; it comes back with its id and what the columns' defaults made."""
    sealed = {name: values[name] for name in resource_type.sealed if values.get(name) is not None}
    given = {name: value for name, value in values.items() if name not in sealed}
    made = {name: default() for name, default in _defaults(resource_type).items() if name not in given}
    statement = _inserting(resource_type, frozenset((*made, *given)))
    with broken_rules_refused(resource_type):
        (inserted,) = statement.rows({**made, **given})
    write_limits.charge_row()
    row = resource_type.row(*inserted)
    if sealed:  # for the id of the row, which is known now
        row = _stored(resource_type, row, sealed)
    changes.created(resource_type.model, row, values.keys())
    return row


def change(resource_type: ResourceType, row: Any, values: Mapping[str, Any]) -> Any:
    """Write the values that differ from the row's; the row as it is now."""
    new = {name: value for name, value in values.items() if open_column(resource_type, row, name) != value}
    if not new:
        return row
    with broken_rules_refused(resource_type):
        changed = _stored(resource_type, row, new)
    write_limits.charge_row()
    changes.changed(resource_type.model, changed, new.keys())
    return changed


def open_column(resource_type: ResourceType, row: Any, name: str) -> Any:
    """Return the value of a column, opened where it is sealed."""
    stored = getattr(row, name)
    return open_sealed(resource_type, name, row.id, stored) if name in resource_type.sealed else stored


def _stored(resource_type: ResourceType, row: Any, values: Mapping[str, Any]) -> Any:
    """Write values of a row, sealed where they have to be; the row as it is now."""
    table = resource_type.table.name
    new = {
        name: seal_text(value, place(table, name, row.id))
        if name in resource_type.sealed and value is not None
        else value
        for name, value in values.items()
    }
    _changing(resource_type, frozenset(new)).run({**new, "key": row.id})
    return row._replace(**new)


@contextmanager
def broken_rules_refused(resource_type: ResourceType) -> Iterator[None]:
    """A broken unique rule becomes the 409 its type declares."""
    try:
        yield
    except IntegrityError as error:
        diagnostics = getattr(error.orig, "diag", None)
        declared = resource_type.conflicts.get(getattr(diagnostics, "constraint_name", None) or "")
        if declared is None:
            raise Conflict("Something changed at the same moment. Try again.") from None
        attribute, message = declared
        raise attribute_error(Conflict, resource_type.attributes[attribute], message) from None


@_kept
def _locking(resource_type: ResourceType, scope: Scope, column: str) -> Prepared:
    table = resource_type.table
    visible = resource_type.permissions.criterion(scope, table, related=False)
    return Prepared(select(table).where(statements.keyed(table, column), visible).with_for_update(of=table))


@_kept
def _locking_related(target: ResourceType, scope: Scope, lock: Lock) -> Prepared:
    table = target.table
    known = target.permissions.linkage(scope, table)
    columns = target.key_columns if lock == "share" else table.c
    statement = select(*columns).where(statements.among(table.c.id), known).order_by(table.c.id)
    return Prepared(statement.with_for_update(of=table, read=lock == "share"))


@_kept
def _inserting(resource_type: ResourceType, names: Collection[str]) -> Prepared:
    table = resource_type.table
    return Prepared(insert(table).values({name: bindparam(name) for name in names}).returning(*table.c))


@_kept
def _changing(resource_type: ResourceType, names: Collection[str]) -> Prepared:
    table = resource_type.table
    values: dict[str, Any] = {name: bindparam(name) for name in names}
    return Prepared(update(table).where(table.c.id == bindparam("key")).values(values))


@_kept
def _defaults(resource_type: ResourceType) -> dict[str, Callable[[], Any]]:
    """What the model, not the database, puts into a column that is not named: nothing, where it says nothing."""
    found: dict[str, Callable[[], Any]] = {}
    for column in resource_type.table.c:
        default: Any = column.default
        if default is not None:
            # SQLAlchemy hands a context over, which none of ours looks at.
            found[column.name] = partial(default.arg, None) if default.is_callable else _always(default.arg)
        elif column.server_default is None and not column.primary_key:
            found[column.name] = _always(None)
    return found


def _always(value: Any) -> Callable[[], Any]:
    return lambda: value
