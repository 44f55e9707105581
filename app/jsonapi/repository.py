"""Rows of a resource type: lock, insert and update them by prepared statements, and send change signals.

A row is a named tuple of all columns, as the database returned them. Writing one row by the ORM takes three times as
long (docs/decisions/0011-prepared-statements.md).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, Literal

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from app import change_signals, write_limits
from app.database import PreparedStatement
from app.encryption import build_associated_data, encrypt_text
from app.errors import Conflict
from app.jsonapi import select_statements
from app.jsonapi.permissions import AccessContext, VisibilityScope
from app.jsonapi.resource_type import Relation, ResourceType
from app.jsonapi.select_plan import decrypt_value
from app.jsonapi.validation import attribute_error

Lock = Literal["share", "update"]

_cached = lru_cache(maxsize=1024)  # clients choose the columns to update, so the number of statements is limited


def get_for_update(resource_type: ResourceType, named: tuple[str, Any], access: AccessContext) -> Any | None:
    """Lock and return the visible row whose column has this value; None if there is none."""
    column, key = named
    found = _lock_statement(resource_type, access.scope, column).fetch_rows({**access.sql_parameters(), "key": key})
    return resource_type.row(*found[0]) if found else None


def lock_related(relation: Relation, ids: Iterable[Any], access: AccessContext, *, lock: Lock = "share") -> list[Any]:
    """Lock and return the related rows that the current user may link; with "share" their id and foreign keys only.

    The locks, taken in id order, prevent that a row is deleted before this transaction has linked it.
    """
    target = relation.target
    found = _lock_related_statement(target, access.scope, lock).fetch_rows(
        {**access.sql_parameters(), "ids": sorted(ids)}
    )
    made = target.row if lock == "update" else target.keys
    return [made(*row) for row in found]


def insert_row(resource_type: ResourceType, values: Mapping[str, Any]) -> Any:
    """Insert a row and return it, with its id and column defaults; raise Conflict for a duplicate."""
    sealed = {name: values[name] for name in resource_type.sealed if values.get(name) is not None}
    given = {name: value for name, value in values.items() if name not in sealed}
    made = {name: default() for name, default in _column_defaults(resource_type).items() if name not in given}
    statement = _insert_statement(resource_type, frozenset((*made, *given)))
    with unique_violations_as_conflicts(resource_type):
        (inserted,) = statement.fetch_rows({**made, **given})
    write_limits.charge_row()
    row = resource_type.row(*inserted)
    if sealed:  # encrypted for the id of the row, which is known now
        row = _write_values(resource_type, row, sealed)
    change_signals.emit_created(resource_type.model, row, values.keys())
    return row


def update_row(resource_type: ResourceType, row: Any, values: Mapping[str, Any]) -> Any:
    """Write the values that differ from those of the row, and return the new row; raise Conflict for a duplicate."""
    new = {name: value for name, value in values.items() if get_column_value(resource_type, row, name) != value}
    if not new:
        return row
    with unique_violations_as_conflicts(resource_type):
        changed = _write_values(resource_type, row, new)
    write_limits.charge_row()
    change_signals.emit_updated(resource_type.model, changed, new.keys())
    return changed


def get_column_value(resource_type: ResourceType, row: Any, name: str) -> Any:
    """Return the value of a column, decrypted if it is stored encrypted."""
    stored = getattr(row, name)
    return decrypt_value(resource_type, name, row.id, stored) if name in resource_type.sealed else stored


def _write_values(resource_type: ResourceType, row: Any, values: Mapping[str, Any]) -> Any:
    """Write values of a row, encrypted where their attribute requires it, and return the new row."""
    table = resource_type.table.name
    new = {
        name: encrypt_text(value, build_associated_data(table, name, row.id))
        if name in resource_type.sealed and value is not None
        else value
        for name, value in values.items()
    }
    _update_statement(resource_type, frozenset(new)).run({**new, "key": row.id})
    return row._replace(**new)


@contextmanager
def unique_violations_as_conflicts(resource_type: ResourceType) -> Iterator[None]:
    """Convert a unique violation to the Conflict that the resource type declares for the constraint."""
    try:
        yield
    except IntegrityError as error:
        diagnostics = getattr(error.orig, "diag", None)
        declared = resource_type.conflicts.get(getattr(diagnostics, "constraint_name", None) or "")
        if declared is None:
            raise Conflict("Another request changed a related resource at the same time. Try again.") from None
        attribute, message = declared
        raise attribute_error(Conflict, resource_type.attributes[attribute], message) from None


@_cached
def _lock_statement(resource_type: ResourceType, scope: VisibilityScope, column: str) -> PreparedStatement:
    table = resource_type.table
    visible = resource_type.permissions.visibility_criterion(scope, table, related=False)
    return PreparedStatement(
        select(table).where(select_statements.column_is(table, column), visible).with_for_update(of=table)
    )


@_cached
def _lock_related_statement(target: ResourceType, scope: VisibilityScope, lock: Lock) -> PreparedStatement:
    table = target.table
    linkable = target.permissions.linkage_criterion(scope, table)
    columns = target.key_columns if lock == "share" else table.c
    statement = select(*columns).where(select_statements.id_in(table.c.id), linkable).order_by(table.c.id)
    return PreparedStatement(statement.with_for_update(of=table, read=lock == "share"))


@_cached
def _insert_statement(resource_type: ResourceType, names: Collection[str]) -> PreparedStatement:
    table = resource_type.table
    return PreparedStatement(insert(table).values({name: bindparam(name) for name in names}).returning(*table.c))


@_cached
def _update_statement(resource_type: ResourceType, names: Collection[str]) -> PreparedStatement:
    table = resource_type.table
    values: dict[str, Any] = {name: bindparam(name) for name in names}
    return PreparedStatement(update(table).where(table.c.id == bindparam("key")).values(values))


@_cached
def _column_defaults(resource_type: ResourceType) -> dict[str, Callable[[], Any]]:
    """Return a function for each column default that the model, not the database, provides; None is the last resort."""
    found: dict[str, Callable[[], Any]] = {}
    for column in resource_type.table.c:
        default: Any = column.default
        if default is not None:
            # SQLAlchemy calls defaults with a context, which ours ignore.
            found[column.name] = partial(default.arg, None) if default.is_callable else _make_constant(default.arg)
        elif column.server_default is None and not column.primary_key:
            found[column.name] = _make_constant(None)
    return found


def _make_constant(value: Any) -> Callable[[], Any]:
    return lambda: value
