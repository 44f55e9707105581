"""The trash: rows that were deleted long ago are deleted for good, with what belongs to them.

What belongs to a row is read from the foreign keys: rows that must name it go with it, rows that may name it lose the
name. Files of such rows are deleted by `stored_files`.
"""

from collections.abc import Collection, Iterator
from datetime import timedelta
from time import monotonic
from typing import Any

import structlog
from flask import current_app
from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    ForeignKey,
    Table,
    any_,
    bindparam,
    delete,
    exists,
    func,
    select,
    text,
    update,
)

from app import stored_files
from app.database import commit, get_connection, open_transaction
from app.extensions import Model
from app.jsonapi.resource_type import TYPES

EXCLUDED_TABLES = frozenset({"users", "event_images", "treatments"})
"""Users stay, because of what they did for others; images, so that the next import does not bring them back;
treatments, because they go with their jobs. They belong to other rows all the same, except treatments: a document set
stays as long as it has some."""

BATCH_SIZE = 50
"""Rows that one transaction purges at most, besides what belongs to them."""

PURGE_INTERVAL_SECONDS = 3600.0

log = structlog.get_logger(__name__)


def purge_trash(_older_than: timedelta) -> int:
    """Purge a batch of rows that were deleted more than TRASH_RETENTION_DAYS ago; return how many, once an hour."""
    days: int = current_app.config["TRASH_RETENTION_DAYS"]
    if not days or monotonic() < current_app.extensions.get("next_trash_purge", 0.0):
        return 0
    for table in _list_tables():
        if count := _purge_batch(table, timedelta(days=days)):
            log.info("trash purged", table=table.name, rows=count)
            return count
    current_app.extensions["next_trash_purge"] = monotonic() + PURGE_INTERVAL_SECONDS
    return 0


def _list_tables() -> list[Table]:
    tables = [type_.table for type_ in TYPES.values() if "deleted_at" in type_.table.c]
    return [table for table in tables if table.name not in EXCLUDED_TABLES]


def _purge_batch(table: Table, older_than: timedelta) -> int:
    is_old = table.c.deleted_at < func.now() - older_than
    old = (
        select(table.c.id)
        .where(is_old, *_list_unused_criteria(table))
        .limit(BATCH_SIZE)
        .with_for_update(skip_locked=True)
    )
    with open_transaction(is_read=False):
        get_connection().execute(text("SET LOCAL statement_timeout = '60s'"))
        ids = get_connection().scalars(old).all()
        if ids:
            _delete_rows(table, ids)
        commit()
    return len(ids)


def _list_unused_criteria(table: Table) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions under which no treatment names a row."""
    for key in _referring_keys(table):
        if key.parent.table.name == "treatments":
            yield ~exists().where(key.parent == table.c.id)


def _delete_rows(table: Table, ids: Collection[Any]) -> None:
    """Delete rows, and before them what belongs to them."""
    for key in _referring_keys(table):
        column = key.parent
        refers = _is_one_of(column, ids)
        if column.nullable and not column.info.get("is_part"):
            get_connection().execute(update(column.table).where(refers).values({column.name: None}))
        elif "id" in column.table.c:
            parts = get_connection().scalars(select(column.table.c.id).where(refers)).all()
            if parts:
                _delete_rows(column.table, parts)
        else:
            get_connection().execute(delete(column.table).where(refers))
    is_purged = _is_one_of(table.c.id, ids)
    if "storage_key" in table.c:
        names = get_connection().scalars(select(table.c.storage_key).where(is_purged).distinct()).all()
        stored_files.enqueue_deletion(names)
    get_connection().execute(delete(table).where(is_purged))


def _referring_keys(table: Table) -> Iterator[ForeignKey]:
    """Yield the foreign keys to a table that the database does not follow by itself."""
    for referring in Model.metadata.sorted_tables:
        for key in referring.foreign_keys:
            if key.column.table is table and key.ondelete is None:
                yield key


def _is_one_of(column: Column[Any], ids: Collection[Any]) -> ColumnElement[bool]:
    return column == any_(bindparam(None, list(ids), type_=ARRAY(column.type)))
