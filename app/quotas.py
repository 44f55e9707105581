"""Limits on what users store: bytes of one user and day, bytes of all, and the disk that must stay free.

Callers who are not signed in, whose user id is 0, are counted by their address; what their jobs make, all together.
"""

import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from time import monotonic
from urllib.parse import urlsplit
from urllib.request import url2pathname

from flask import current_app, request
from sqlalchemy import BigInteger, Date, bindparam, cast, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from app.database import PreparedStatement, commit, get_connection, open_transaction
from app.errors import InsufficientStorage, TooManyRequests
from app.extensions import Model
from app.slots import address_holder

MIB = 2**20

TOTAL_TTL_SECONDS = 30.0
"""How long a process believes the sum of all stored bytes."""

MAX_ANSWER_MIB_PER_DAY = 100
"""MiB of answers that are stored for the keys (Idempotency-Key, webhook-id) of one user and day."""

OUTPUT_SHARE = 2**61
"""Added to the id of a user for the share of what the jobs of that user make: no id is so large."""

ANONYMOUS_OUTPUT_FACTOR = 10
"""How many times the daily limit of one user the jobs of all callers without a log-in may make together."""

RESERVED_OUTPUT_DIVISOR = 4
"""This part of the daily limit is left to jobs that changes start, such as variants of the image of an event."""

ByteCounter = Callable[[], int]
"""Return how many bytes the rows of a package say that its files have."""

COUNTERS: list[ByteCounter] = []


class DailyBytes(Model):
    """What one user, or one address without a log-in, has sent on one day (UTC) to be stored."""

    __tablename__ = "daily_bytes"

    share: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """The id of the user; -id for the answers that the keys of a user store; OUTPUT_SHARE + id for what the jobs of a
    user make, OUTPUT_SHARE for those without an owner; for callers who are not signed in a large negative number made
    of their address."""
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    bytes: Mapped[int]


_table = DailyBytes.__table__
_SHARE = bindparam("share", type_=BigInteger)
_TODAY = cast(func.timezone("UTC", func.now()), Date)
_select_bytes_today = PreparedStatement(select(_table.c.bytes).where(_table.c.share == _SHARE, _table.c.day == _TODAY))
_insert_row = insert(DailyBytes).values(share=_SHARE, day=_TODAY, bytes=bindparam("size", type_=BigInteger))
_add_bytes = PreparedStatement(
    _insert_row.on_conflict_do_update(
        index_elements=["share", "day"], set_={"bytes": _table.c.bytes + _insert_row.excluded.bytes}
    ).returning(_table.c.bytes)
)


def register_counter(count: ByteCounter) -> ByteCounter:
    """Register a function that tells how many bytes are stored."""
    COUNTERS.append(count)
    return count


def require_quota(user_id: int) -> None:
    """Raise 429 when this user may store nothing more today, 507 when no user may. Called before a body is read."""
    require_storage()
    with open_transaction(is_read=True):
        sent = sum(size for (size,) in _select_bytes_today.fetch_rows({"share": _get_share(user_id)}))
    if sent >= _daily_limit():
        raise _make_upload_error(user_id)


def charge_upload(user_id: int, size: int) -> None:
    """Count bytes that a user stores in the transaction that stores them; 429 above the limit of the day."""
    ((sent,),) = _add_bytes.fetch_rows({"share": _get_share(user_id), "size": size})
    if sent > _daily_limit():
        raise _make_upload_error(user_id)


def charge_answer(owner_id: int, size: int, header: str) -> None:
    """Count bytes of an answer in the transaction that stores it for the key in this header; 429 above the limit."""
    ((sent,),) = _add_bytes.fetch_rows({"share": -owner_id, "size": size})
    if sent > MAX_ANSWER_MIB_PER_DAY * MIB:
        detail = (
            f"The answers to requests with {header} are stored, at most {MAX_ANSWER_MIB_PER_DAY} MiB a day for one "
            "user. The next day begins at 00:00 UTC. Include less, choose fewer fields, or send no key."
        )
        raise _make_quota_error(detail, header=header)


def charge_output(owner_id: int | None, size: int, *, is_triggered: bool) -> bool:
    """Count bytes that a job makes, in the transaction of the caller; return False above the limit of the day.

    A job that a change has started, `is_triggered`, may use the whole limit; others leave a part of it.
    """
    ((made,),) = _add_bytes.fetch_rows({"share": OUTPUT_SHARE + (owner_id or 0), "size": size})
    limit = _output_limit(owner_id)
    is_reserved = owner_id is not None and not is_triggered
    return bool(made <= limit - is_reserved * (limit // RESERVED_OUTPUT_DIVISOR))


def describe_output_limit(owner_id: int | None) -> str:
    """Return the detail of the error of a job that makes more than its owner may make in a day."""
    limit = _output_limit(owner_id) // MIB
    if owner_id is None:
        makers, reserve = "all callers without a log-in", ""
    else:
        makers, reserve = (
            "one user",
            f", the last {limit // RESERVED_OUTPUT_DIVISOR} of them by jobs that changes start",
        )
    return f"The jobs of {makers} make at most {limit} MiB a day{reserve}. The next day begins at 00:00 UTC."


def require_storage() -> None:
    """Raise 507 when all files together, or the disk that they lie on, leave no room."""
    if is_storage_full():
        raise InsufficientStorage(headers={"Retry-After": "3600"})


def is_storage_full() -> bool:
    """Return whether MAX_STORAGE_MB is reached, or less than MIN_FREE_DISK_MB is free."""
    most: int = current_app.config["MAX_STORAGE_MB"] * MIB
    min_free: int = current_app.config["MIN_FREE_DISK_MB"] * MIB
    return (bool(most) and _count_stored_bytes() >= most) or _count_free_bytes() < min_free


def prune_counts(_older_than: timedelta) -> int:
    """Delete the counts of earlier days, all at once: 0 for the relay."""
    with open_transaction(is_read=False):
        get_connection().execute(delete(DailyBytes).where(_table.c.day < _TODAY))
        commit()
    return 0


def _daily_limit() -> int:
    return int(current_app.config["MAX_UPLOAD_MB_PER_DAY"]) * MIB


def _output_limit(owner_id: int | None) -> int:
    factor = ANONYMOUS_OUTPUT_FACTOR if owner_id is None else 1
    return int(current_app.config["MAX_JOB_OUTPUT_MB_PER_DAY"]) * MIB * factor


def _get_share(user_id: int) -> int:
    """Return what a user is counted as, or the address of the caller for 0, which is no user."""
    if user_id:
        return user_id
    digest = sha256(address_holder(request.remote_addr or "").encode()).digest()
    return -1 - int.from_bytes(digest[:8], "big") // 2


def _make_upload_error(user_id: int) -> TooManyRequests:
    sender = "one user" if user_id else "one address without a log-in"
    return _make_quota_error(
        f"At most {current_app.config['MAX_UPLOAD_MB_PER_DAY']} MiB a day are taken from {sender}. "
        "The next day begins at 00:00 UTC."
    )


def _make_quota_error(detail: str, header: str | None = None) -> TooManyRequests:
    now = datetime.now(UTC)
    tomorrow = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
    seconds = int((tomorrow - now).total_seconds()) + 1
    return TooManyRequests(detail, code="too-many-bytes", header=header, headers={"Retry-After": str(seconds)})


def _count_stored_bytes() -> int:
    counted_at, total = current_app.extensions.get("stored_bytes", (float("-inf"), 0))
    if monotonic() - counted_at > TOTAL_TTL_SECONDS:
        with open_transaction(is_read=True):
            total = sum(count() for count in COUNTERS)
        current_app.extensions["stored_bytes"] = (monotonic(), total)
    return int(total)


def _count_free_bytes() -> float:
    url = current_app.config["STORAGE_URL"]
    if not url.startswith("file:"):
        return float("inf")  # a bucket does not say
    try:
        return shutil.disk_usage(url2pathname(urlsplit(url).path)).free
    except FileNotFoundError:  # it is made with the first file
        return float("inf")
