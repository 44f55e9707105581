"""Deletion of stored files that no row refers to: by outbox entries of changes, and by a daily sweep for orphans.

Several rows may refer to one file, because its name is the hash of its content. So a file is deleted under an advisory
lock of its name, if no registered finder reports it as used; a transaction that refers to a file takes the same lock.

The sweep deletes nothing from a storage that belongs to another database, and nothing if too large a part of all
files would be deleted: then rows were probably lost, and the files are needed to restore them.
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
"""Consumer of the outbox entries that delete files."""

MIN_ORPHAN_AGE = timedelta(days=1)
"""Minimum age of an orphan: the row of a newer file may not be committed yet."""

SWEEP_INTERVAL_SECONDS = 24 * 3600.0

START_DELAY_SECONDS = 15 * 60.0
"""Seconds after the start of a process before its first sweep; time to notice wrong settings."""

MAX_ORPHANS_PERCENT = 20
"""Maximum share of orphans among the files older than a day; a sweep that finds more deletes nothing."""

MIN_REFUSED_ORPHANS = 100
"""Number of orphans up to which MAX_ORPHANS_PERCENT is not checked."""

MAX_ORPHANS = 10_000
"""Maximum files that one sweep deletes; the next sweep deletes the others."""

MARKER = "database.txt"
"""Name of the file that contains the id of the database that the storage belongs to."""

FOLDERS = ("uploads", "images", "jobs", "calendars")
"""Folders that are swept; files in an inbox are not managed by this server."""

UsedFileFinder = Callable[[Collection[str]], Collection[str]]
"""Return those of the given names that rows of the package refer to."""

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
    """Register a function that returns which of some files are in use."""
    FINDERS.append(find)
    return find


def register_table(table: FromClause) -> None:
    """Register a table whose live rows each use one file, `storage_key`, of `size` bytes."""
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
    """Lock a file name until the transaction ends: others can neither delete the file nor begin to use it."""
    _lock_name.run({"name": name})


def enqueue_deletion(names: Sequence[str]) -> None:
    """Enqueue the deletion of files, in the transaction that removes the references to them."""
    outbox.enqueue_entry(DELETE_CONSUMER, "file.unused", {"names": list(names)})


@consumer_task(DELETE_CONSUMER)
def delete_unused(entry: OutboxEntry) -> None:
    """Delete the files of an outbox entry that no row refers to any more."""
    get_connection().execute(text("SET LOCAL statement_timeout = '60s'"))
    names = sorted(entry.payload["names"])  # in the same order everywhere, to avoid deadlocks
    for name in names:
        lock_file(name)
    for name in sorted(set(names) - _find_used(names)):
        current_storage().delete(name)


def select_last_segment(url: ColumnElement[str]) -> ColumnElement[str]:
    """Return SQL for the last path segment of a URL: the file name, independent of PUBLIC_URL."""
    path = func.split_part(func.split_part(url, "#", 1), "?", 1)
    return func.split_part(path, "/", -1)


def filter_by_segments(names: Collection[str], segments: Collection[str]) -> set[str]:
    """Return those of `names` whose last segment is one of `segments`."""
    known_segments = set(segments)
    return {name for name in names if get_segment(name) in known_segments}


def get_segment(name: str) -> str:
    """Return the last segment of a name."""
    return name.rpartition("/")[2]


def get_database_id() -> str:
    """Return the id of the database; a database restored from a dump has a new id."""
    with open_transaction(is_read=True):
        ((id_,),) = _select_database_id.fetch_rows({})
    return str(id_)


def sweep_orphans(_older_than: timedelta) -> int:
    """Delete orphans, such as files of a process that died, once a day; return 0, as the relay expects a number."""
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
    """Write the id of this database to the marker file of a storage that has no marker and no files."""
    storage = current_storage()
    stored = chain.from_iterable(storage.list_old_names(folder, timedelta(0)) for folder in FOLDERS)
    if not storage.exists(MARKER) and not any(stored):
        storage.put(MARKER, get_database_id().encode(), "text/plain")


def _is_own_storage() -> bool:
    """Return whether the marker in the storage has the id of this database; log a warning otherwise."""
    _claim_empty_storage()
    expected = get_database_id()
    try:
        actual = current_storage().read_file(MARKER).decode(errors="replace").strip()
    except FileNotFoundError:
        actual = None
    if actual == expected:
        return True
    # An operator who is sure that they belong together writes `expected` into the marker file.
    log.warning("orphan sweep refused: storage of another database", marker=MARKER, actual=actual, expected=expected)
    return False


def _find_orphans() -> list[str]:
    """Return the orphans, at most MAX_ORPHANS; none if they are more than MAX_ORPHANS_PERCENT of the old files."""
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
        log.warning("orphan sweep refused: too many orphans", orphans=orphans_count, files=count)
        return []
    return orphans


def _delete_orphan(name: str) -> None:
    with open_transaction(is_read=False):
        get_connection().execute(text("SET LOCAL statement_timeout = '60s'"))
        lock_file(name)
        # Check again under the lock: a row or the file may have been written meanwhile.
        if not _find_used([name]) and current_storage().is_older(name, MIN_ORPHAN_AGE):
            current_storage().delete(name)
            log.info("orphan deleted", name=name)


def _find_used(names: Collection[str]) -> set[str]:
    return {name for find in FINDERS for name in find(names)} if names else set()
