"""Limits on writes: bytes per day of each user and address, and free space on the disk of the database.

Bytes are counted in the memory of the process: each holder has a leaky bucket with the bytes of one day that drains
within a day; after a restart all buckets are empty. A request is checked before it takes a connection, and counted when
it commits, so refused requests do not count.
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
"""Bytes added for each request and each row it writes, for indexes and outbox entries."""

ADDRESS_FACTOR = 10
"""Limit of an address, relative to that of a user: many users may share it (NAT)."""

DISK_TTL_SECONDS = 3.0
"""Time for which the free disk space is cached."""

MIN_PRUNED_BUCKETS = 10_000
"""Number of buckets from which empty ones are removed."""


class WriteMeter:
    """Buckets of all holders, stored as the time at which each bucket will be empty."""

    def __init__(self, bytes_per_day: int) -> None:
        self._seconds_per_byte = DAY_SECONDS / bytes_per_day
        self._empty_at: dict[str, float] = {}
        self._prune_size = MIN_PRUNED_BUCKETS
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of buckets."""
        return len(self._empty_at)

    def find_full(self, holders: tuple[str, ...]) -> tuple[str, float] | None:
        """Return a holder with a full bucket and the seconds until it accepts more; None if no bucket is full."""
        full_at = time.monotonic() + DAY_SECONDS
        for holder in holders:
            empty_at = self._empty_at.get(holder)
            if empty_at is not None and empty_at > full_at:
                return holder, empty_at - full_at
        return None

    def add_bytes(self, holders: tuple[str, ...], size: int) -> None:
        """Add bytes to the buckets of these holders, even above their limit."""
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
    """Bytes of the open transaction of a request, without the body; added to the buckets when it commits."""

    meter: WriteMeter
    holders: tuple[str, ...]
    size: int = ROW_BYTES


def init_app(app: Flask) -> None:
    """Create the meter of this process, and find the data directory of the database."""
    limit: int = app.config["MAX_WRITE_MB_PER_DAY"] * MIB
    app.extensions["write_meter"] = WriteMeter(limit) if limit else None
    app.extensions["database_directory"] = _find_database_directory(app)


def set_body_bytes(size: int) -> None:
    """Count the body of this request at its first commit."""
    g.body_bytes = size


def exempt_request() -> None:
    """Do not count this request: an operator configured its sender, or it writes nothing."""
    g.body_bytes = None


def check_request(holders: tuple[str, ...]) -> None:
    """Check the limits of a writing request; raise 429 if a holder has written too much, 507 if the disk is full."""
    extensions = current_app.extensions
    if extensions["database_directory"] is not None and request.method != "DELETE" and not _has_free_disk():
        raise InsufficientStorage(
            "The server has no space for further data. Try again later.", headers={"Retry-After": "3600"}
        )
    meter: WriteMeter | None = extensions["write_meter"]
    if meter is None or g.get("body_bytes", 0) is None:
        return
    if (full := meter.find_full(holders)) is not None:
        raise _build_limit_error(*full)
    g.write_charge = _Charge(meter, holders)


def charge_row() -> None:
    """Count a row that the request has written when it commits; in tasks and commands do nothing."""
    charge: _Charge | None = g.get("write_charge")
    if charge is not None:
        charge.size += ROW_BYTES


def charge_request() -> None:
    """Count the body of a committed request, once, and the rows since `check_request`."""
    charge: _Charge | None = g.pop("write_charge", None)
    if charge is not None:
        charge.meter.add_bytes(charge.holders, g.pop("body_bytes", 0) + charge.size)


@lru_cache(4096)
def _get_limit_factors(holders: tuple[str, ...]) -> tuple[int, ...]:
    """Return the limit of each holder relative to that of one user."""
    return tuple(1 if is_user(holder) else ADDRESS_FACTOR * network_factor(holder) for holder in holders)


def _build_limit_error(holder: str, seconds: float) -> TooManyRequests:
    limit = current_app.config["MAX_WRITE_MB_PER_DAY"]
    return TooManyRequests(
        f"Too much was written by {holder}: at most {limit} MiB a day by one user and {limit * ADDRESS_FACTOR} MiB by "
        f"one address; each request and each row counts as {ROW_BYTES} bytes more. Try again later.",
        code="too-many-bytes",
        headers={"Retry-After": str(ceil(seconds))},
    )


def _find_database_directory(app: Flask) -> Path | None:
    """Return the directory of the embedded PostgreSQL; None if the app uses another database."""
    directory = Path(app.config["VAR_DIR"]) / "postgres"
    is_local = "host=/" in unquote(app.config["DATABASE_URL"])
    return directory if is_local and directory.is_dir() else None


def _has_free_disk() -> bool:
    """Return whether the disk of the embedded PostgreSQL has at least MIN_FREE_DISK_MB free."""
    checked_at, is_free = current_app.extensions.get("database_disk", (float("-inf"), True))
    if time.monotonic() - checked_at > DISK_TTL_SECONDS:
        free = shutil.disk_usage(current_app.extensions["database_directory"]).free
        is_free = free >= current_app.config["MIN_FREE_DISK_MB"] * MIB
        current_app.extensions["database_disk"] = (time.monotonic(), is_free)
    return bool(is_free)
