"""Files in storage that no row names any more: they are deleted, at once where a change says so, else by a daily sweep.

A file may be named by several rows, because its name is made of its content. So a file is deleted under a lock of its
name, after every package has said that it does not use it; a row that names a file takes the same lock.

The sweep deletes nothing from a storage that belongs to another database, and nothing when a large part of all files
would go: then the rows are missing, not the reason for the files.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from itertools import chain
from time import monotonic

import structlog
from flask import current_app
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    FromClause,
    Text,
    any_,
    bindparam,
    cast,
    column,
    func,
    select,
    table,
    text,
)

from app import outbox, quotas
from app.database import PreparedStatement, get_connection, open_transaction
from app.outbox import OutboxEntry, consumer_task
from app.storage import current_storage

DELETE_CONSUMER = "files.delete_unused"
"""The consumer of the entries that delete files."""

MIN_ORPHAN_AGE = timedelta(days=1)
"""A file without a row is left alone for so long: its row may be about to be written."""

SWEEP_INTERVAL_SECONDS = 24 * 3600.0

START_DELAY_SECONDS = 15 * 60.0
"""A process does not sweep earlier: an operator may notice meanwhile that it has the wrong settings."""

MAX_ORPHANS_PERCENT = 20
"""A sweep that would delete more than this part of the files older than a day deletes nothing."""

MIN_REFUSED_ORPHANS = 100
"""A sweep that would delete no more files than this is not refused for its part of all files."""

MAX_ORPHANS = 10_000
"""Files that one sweep deletes at most; the next sweep deletes others."""

MARKER = "database.txt"
"""A file in the storage with the id of the database that the storage belongs to."""

FOLDERS = ("uploads", "images", "jobs", "calendars")
"""Folders of files that are named by rows; what lies in an inbox belongs to those who put it there."""

UsedFileFinder = Callable[[Collection[str]], Collection[str]]
"""Return those of these names that a row of the package names."""

FINDERS: list[UsedFileFinder] = []

_lock_name = PreparedStatement(
    select(func.pg_advisory_xact_lock(func.hashtextextended(bindparam("name", type_=Text), 1)))
)

_select_database_id = PreparedStatement(
    select(func.concat(column("system_identifier"), "-", column("oid")))
    .select_from(func.pg_control_system().table_valued("system_identifier"), table("pg_database"))
    .where(column("datname") == func.current_database())
)

log = structlog.get_logger(__name__)


def register_finder(find: UsedFileFinder) -> UsedFileFinder:
    """Register a function that tells which files are in use."""
    FINDERS.append(find)
    return find


def register_table(table: FromClause) -> None:
    """Register a table whose rows outside the trash each use one file, `storage_key`, of `size` bytes."""
    is_live = table.c.deleted_at.is_(None)
    names = bindparam("names", type_=ARRAY(Text))
    used = PreparedStatement(select(table.c.storage_key).where(table.c.storage_key == any_(names), is_live))
    size = PreparedStatement(select(cast(func.coalesce(func.sum(table.c.size), 0), BigInteger)).where(is_live))

    def find_used(names: Collection[str]) -> Collection[str]:
        return [name for (name,) in used.fetch_rows({"names": list(names)})]

    def count_bytes() -> int:
        ((total,),) = size.fetch_rows({})
        return int(total)

    register_finder(find_used)
    quotas.register_counter(count_bytes)


def lock_file(name: str) -> None:
    """Let no other transaction delete this file, or begin to use it, until this one ends."""
    _lock_name.run({"name": name})


def enqueue_deletion(names: Sequence[str]) -> None:
    """Order the deletion of files in the transaction that ceases to use them."""
    outbox.enqueue_entry(DELETE_CONSUMER, "file.unused", {"names": list(names)})


@consumer_task(DELETE_CONSUMER)
def delete_unused(entry: OutboxEntry) -> None:
    """Delete the files of an entry that no row names any more."""
    get_connection().execute(text("SET LOCAL statement_timeout = '60s'"))
    names = sorted(entry.payload["names"])  # in one order: two of these do not wait for each other
    for name in names:
        lock_file(name)
    for name in sorted(set(names) - _find_used(names)):
        current_storage().delete(name)


def select_last_segment(url: ColumnElement[str]) -> ColumnElement[str]:
    """Return the last segment of the path of a URL, in SQL: the file that it names, whatever PUBLIC_URL was then."""
    path = func.split_part(func.split_part(url, "#", 1), "?", 1)
    return func.split_part(path, "/", -1)


def filter_by_segments(names: Collection[str], segments: Collection[str]) -> set[str]:
    """Return those of these names whose last segment is one of `segments`."""
    found = set(segments)
    return {name for name in names if get_segment(name) in found}


def get_segment(name: str) -> str:
    """Return the last segment of a name."""
    return name.rpartition("/")[2]


def get_database_id() -> str:
    """Return the id of the database: another one has another id, and so has one that a dump was restored to."""
    with open_transaction(is_read=True):
        ((id_,),) = _select_database_id.fetch_rows({})
    return str(id_)


def sweep_orphans(_older_than: timedelta) -> int:
    """Delete old files that no row names: what was written by a process that died. Once a day; 0 for the relay."""
    now = monotonic()
    next_sweep = current_app.extensions.get("next_orphan_sweep")
    if next_sweep is None:
        _claim_empty_storage()
        current_app.extensions["next_orphan_sweep"] = now + START_DELAY_SECONDS
    elif now >= next_sweep:
        if _is_own_storage():
            for name in _find_orphans():
                _delete_orphan(name)
        current_app.extensions["next_orphan_sweep"] = now + SWEEP_INTERVAL_SECONDS
    return 0


def _claim_empty_storage() -> None:
    """Write the marker of this database into a storage without a marker and without files."""
    storage = current_storage()
    stored = chain.from_iterable(storage.list_old_names(folder, timedelta(0)) for folder in FOLDERS)
    if not storage.exists(MARKER) and not any(stored):
        storage.put(MARKER, get_database_id().encode(), "text/plain")


def _is_own_storage() -> bool:
    """Return whether the marker in the storage has the id of this database; log a warning otherwise."""
    _claim_empty_storage()
    expected = get_database_id()
    try:
        found = current_storage().read_file(MARKER).decode(errors="replace").strip()
    except FileNotFoundError:
        found = None
    if found == expected:
        return True
    # The operator who is sure that both belong together writes `expected` into the file.
    log.warning("orphan sweep refused: not the storage of this database", marker=MARKER, found=found, expected=expected)
    return False


def _find_orphans() -> list[str]:
    """Return old files that no row names, at most MAX_ORPHANS; none when they are too large a part of all old files."""
    count, orphans_count = 0, 0
    orphans: list[str] = []
    for names in chain.from_iterable(current_storage().list_old_names(folder, MIN_ORPHAN_AGE) for folder in FOLDERS):
        with open_transaction(is_read=False):
            get_connection().execute(text("SET LOCAL statement_timeout = '60s'"))
            unused = sorted(set(names) - _find_used(names))
        count += len(names)
        orphans_count += len(unused)
        orphans += unused[: MAX_ORPHANS - len(orphans)]
    if orphans_count > MIN_REFUSED_ORPHANS and orphans_count * 100 > count * MAX_ORPHANS_PERCENT:
        log.warning("orphan sweep refused: too many files without a row", orphans=orphans_count, files=count)
        return []
    return orphans


def _delete_orphan(name: str) -> None:
    with open_transaction(is_read=False):
        get_connection().execute(text("SET LOCAL statement_timeout = '60s'"))
        lock_file(name)
        # Again: its row may have been written meanwhile, or the file itself.
        if not _find_used([name]) and current_storage().is_older(name, MIN_ORPHAN_AGE):
            current_storage().delete(name)
            log.info("file without a row deleted", name=name)


def _find_used(names: Collection[str]) -> set[str]:
    return {name for find in FINDERS for name in find(names)} if names else set()
