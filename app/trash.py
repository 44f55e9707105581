"""Purge of the trash: rows that were deleted long ago are removed, with the rows and files that belong to them.

Foreign keys define what belongs to a row: rows with a key that is not nullable are removed with it, nullable keys are
set to NULL. `stored_files` deletes the files of removed rows.
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
"""Tables that are not purged: users, because resources of others refer to them; images, so that the next import does
not bring them back; treatments, because they are pruned with their jobs. Images are removed with their event; a
document set is kept while it has treatments."""

BATCH_SIZE = 50
"""Rows that one transaction removes, not counting the rows that belong to them."""

PURGE_INTERVAL_SECONDS = 3600.0

log = structlog.get_logger(__name__)


def purge_trash(_older_than: timedelta) -> int:
    """Remove a batch of rows that were deleted more than TRASH_RETENTION_DAYS ago; return their number.

    When no rows are left, do nothing for PURGE_INTERVAL_SECONDS.
    """
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
    expired = (
        select(table.c.id)
        .where(is_old, *_list_unused_criteria(table))
        .limit(BATCH_SIZE)
        .with_for_update(skip_locked=True)
    )
    with open_transaction(is_read=False):
        get_connection().execute(text("SET LOCAL statement_timeout = '60s'"))
        ids = get_connection().scalars(expired).all()
        if ids:
            _delete_rows(table, ids)
        commit()
    return len(ids)


def _list_unused_criteria(table: Table) -> Iterator[ColumnElement[bool]]:
    """Yield the criteria for rows that no treatment refers to."""
    for key in _referring_keys(table):
        if key.parent.table.name == "treatments":
            yield ~exists().where(key.parent == table.c.id)


def _delete_rows(table: Table, ids: Collection[Any]) -> None:
    """Delete rows after the rows that belong to them."""
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
    """Yield the foreign keys to a table that have no ON DELETE action."""
    for referring in Model.metadata.sorted_tables:
        for key in referring.foreign_keys:
            if key.column.table is table and key.ondelete is None:
                yield key


def _is_one_of(column: Column[Any], ids: Collection[Any]) -> ColumnElement[bool]:
    return column == any_(bindparam(None, list(ids), type_=ARRAY(column.type)))
