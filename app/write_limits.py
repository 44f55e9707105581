"""Limits on what requests write: bytes of one user and one address a day, and the disk of the database.

They are counted in the process, without a statement of their own: each holder has a bucket that takes the bytes of one
day and empties evenly within a day. A process that starts anew has empty buckets. A request is checked before it takes
a connection, and counted when it commits: refused requests store nothing and do not count.
"""

import shutil
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from pathlib import Path
from urllib.parse import unquote

from flask import Flask, current_app, g, request

from app.errors import InsufficientStorage, TooManyRequests
from app.slots import is_user, network_factor

MIB = 2**20
DAY_SECONDS = 86_400.0

ROW_BYTES = 1024
"""Bytes that each request, and each row that it writes, counts for besides the body: indexes, outbox entries."""

ADDRESS_FACTOR = 10
"""How many times the limit of one user all callers of one address may write together: many may share it (NAT)."""

DISK_TTL_SECONDS = 3.0
"""How long a process believes how much of the disk is free."""

MIN_PRUNED_BUCKETS = 10_000
"""So many buckets are kept before the empty ones are looked for."""


class WriteMeter:
    """The buckets of all holders: for each the time at which its bucket will be empty."""

    def __init__(self, bytes_per_day: int) -> None:
        self._seconds_per_byte = DAY_SECONDS / bytes_per_day
        self._empty_at: dict[str, float] = {}
        self._prune_size = MIN_PRUNED_BUCKETS
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many buckets are kept."""
        return len(self._empty_at)

    def find_full(self, holders: tuple[str, ...]) -> tuple[str, float] | None:
        """Return a holder whose bucket is full and the seconds until it takes more; None where all take more."""
        full_at = time.monotonic() + DAY_SECONDS
        for holder in holders:
            empty_at = self._empty_at.get(holder)
            if empty_at is not None and empty_at > full_at:
                return holder, empty_at - full_at
        return None

    def add_bytes(self, holders: tuple[str, ...], size: int) -> None:
        """Put bytes into the buckets of these holders, also beyond their limit."""
        now = time.monotonic()
        seconds = size * self._seconds_per_byte
        with self._lock:
            buckets = self._empty_at
            for holder, factor in zip(holders, _get_limit_factors(holders), strict=True):
                buckets[holder] = max(buckets.get(holder, now), now) + seconds / factor
            if len(buckets) >= self._prune_size:
                self._empty_at = {holder: at for holder, at in buckets.items() if at > now}
                self._prune_size = max(MIN_PRUNED_BUCKETS, 2 * len(self._empty_at))


@dataclass(slots=True)
class _Charge:
    """The count of the open transaction of a request, besides the body: added when it commits."""

    meter: WriteMeter
    holders: tuple[str, ...]
    size: int = ROW_BYTES


def init_app(app: Flask) -> None:
    """Make the meter of this process, and find out where the database keeps its files."""
    limit: int = app.config["MAX_WRITE_MB_PER_DAY"] * MIB
    app.extensions["write_meter"] = WriteMeter(limit) if limit else None
    app.extensions["database_directory"] = _find_database_directory(app)


def set_body_bytes(size: int) -> None:
    """Let the body of this request count when it first commits."""
    g.body_bytes = size


def exempt_request() -> None:
    """Do not count this request: its sender is named by an operator, or writes nothing."""
    g.body_bytes = None


def check_request(holders: tuple[str, ...]) -> None:
    """Check a request that is about to write; raise 429 for a caller who has written too much, 507 for a full disk."""
    extensions = current_app.extensions
    if extensions["database_directory"] is not None and request.method != "DELETE" and not _has_free_disk():
        raise InsufficientStorage(
            "The server has no room for further data at the moment. Try again later.", headers={"Retry-After": "3600"}
        )
    meter: WriteMeter | None = extensions["write_meter"]
    if meter is None or g.get("body_bytes", 0) is None:
        return
    if (full := meter.find_full(holders)) is not None:
        raise _build_limit_error(*full)
    g.write_charge = _Charge(meter, holders)


def charge_row() -> None:
    """Let a row that the request has written count when it commits; in tasks and commands do nothing."""
    charge: _Charge | None = g.get("write_charge")
    if charge is not None:
        charge.size += ROW_BYTES


def charge_request() -> None:
    """Count what the request has committed: its body, once, and the rows since `check_request`."""
    charge: _Charge | None = g.pop("write_charge", None)
    if charge is not None:
        charge.meter.add_bytes(charge.holders, g.pop("body_bytes", 0) + charge.size)


@lru_cache(4096)
def _get_limit_factors(holders: tuple[str, ...]) -> tuple[int, ...]:
    """Return how many times the limit of one user each holder may write."""
    return tuple(1 if is_user(holder) else ADDRESS_FACTOR * network_factor(holder) for holder in holders)


def _build_limit_error(holder: str, seconds: float) -> TooManyRequests:
    limit = current_app.config["MAX_WRITE_MB_PER_DAY"]
    return TooManyRequests(
        f"Too much was written by {holder}: at most {limit} MiB a day by one user and {limit * ADDRESS_FACTOR} by one "
        f"address, where each request and each row counts as {ROW_BYTES} bytes more. What was written counts less as "
        "time passes: try again later.",
        code="too-many-bytes",
        headers={"Retry-After": str(ceil(seconds))},
    )


def _find_database_directory(app: Flask) -> Path | None:
    """Return the directory of the embedded PostgreSQL where this app uses it, by a Unix socket."""
    directory = Path(app.config["VAR_DIR"]) / "postgres"
    is_local = "host=/" in unquote(app.config["DATABASE_URL"])
    return directory if is_local and directory.is_dir() else None


def _has_free_disk() -> bool:
    """Return whether the disk of the embedded PostgreSQL has MIN_FREE_DISK_MB free."""
    checked_at, is_free = current_app.extensions.get("database_disk", (float("-inf"), True))
    if time.monotonic() - checked_at > DISK_TTL_SECONDS:
        free = shutil.disk_usage(current_app.extensions["database_directory"]).free
        is_free = free >= current_app.config["MIN_FREE_DISK_MB"] * MIB
        current_app.extensions["database_disk"] = (time.monotonic(), is_free)
    return bool(is_free)
