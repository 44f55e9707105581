"""Files in storage that no row names any more: they are deleted, at once where a change says so, else by a daily sweep.

A file may be named by several rows, because its name is made of its content. So a file is deleted under a lock of its
name, after every package has said that it does not use it; a row that names a file takes the same lock.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from time import monotonic

import structlog
from flask import current_app
from sqlalchemy import Text, bindparam, func, select, text

from app import outbox
from app.database import Prepared, connection, transaction
from app.outbox import OutboxEntry, consumer
from app.storage import current_storage

DELETE = "files.delete_unused"
"""The consumer of the entries that delete files."""

ORPHAN_AGE = timedelta(days=1)
"""A file without a row is left alone for so long: its row may be about to be written."""

SWEEP_INTERVAL_SECONDS = 24 * 3600.0

FOLDERS = ("uploads", "images", "jobs", "calendars")
"""Folders of files that are named by rows; what lies in an inbox belongs to those who put it there."""

FindUsed = Callable[[Collection[str]], Collection[str]]
"""Return those of these names that a row of the package names."""

FINDERS: list[FindUsed] = []

_lock = Prepared(select(func.pg_advisory_xact_lock(func.hashtextextended(bindparam("name", type_=Text), 1))))

log = structlog.get_logger(__name__)


def finds_used_files(find: FindUsed) -> FindUsed:
    """Register a function that tells which files are in use."""
    FINDERS.append(find)
    return find


def lock(name: str) -> None:
    """Let no other transaction delete this file, or begin to use it, until this one ends."""
    _lock.run({"name": name})


def order_deletion(names: Sequence[str]) -> None:
    """Order the deletion of files in the transaction that ceases to use them."""
    outbox.order(DELETE, "file.unused", {"names": list(names)})


@consumer(DELETE)
def delete_unused(entry: OutboxEntry) -> None:
    """Delete the files of an entry that no row names any more."""
    connection().execute(text("SET LOCAL statement_timeout = '60s'"))
    names = sorted(entry.payload["names"])  # in one order: two of these do not wait for each other
    for name in names:
        lock(name)
    for name in sorted(set(names) - _used(names)):
        current_storage().delete(name)


def sweep_orphans(_older_than: timedelta) -> int:
    """Delete old files that no row names: what was written by a process that died. Once a day; 0 for the relay."""
    now = monotonic()
    if now < current_app.extensions.get("next_orphan_sweep", 0.0):
        return 0
    for folder in FOLDERS:
        for names in current_storage().old_names(folder, ORPHAN_AGE):
            with transaction(is_read=False):
                connection().execute(text("SET LOCAL statement_timeout = '60s'"))
                orphans = sorted(set(names) - _used(names))
            for name in orphans:
                _delete_orphan(name)
    current_app.extensions["next_orphan_sweep"] = now + SWEEP_INTERVAL_SECONDS
    return 0


def _delete_orphan(name: str) -> None:
    with transaction(is_read=False):
        connection().execute(text("SET LOCAL statement_timeout = '60s'"))
        lock(name)
        # Again: its row may have been written meanwhile, or the file itself.
        if not _used([name]) and current_storage().is_older(name, ORPHAN_AGE):
            current_storage().delete(name)
            log.info("file without a row deleted", name=name)


def _used(names: Collection[str]) -> set[str]:
    return {name for find in FINDERS for name in find(names)} if names else set()
