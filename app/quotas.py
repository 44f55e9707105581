"""Storage limits: bytes of one user in one day, bytes of all users, and free disk space.

Anonymous callers (user id 0) are counted by client address; the output of their jobs is counted together.
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
"""Seconds for which a process caches the sum of all stored bytes."""

MAX_ANSWER_MIB_PER_DAY = 100
"""MiB of responses stored for the keys (Idempotency-Key, webhook-id) of one user in one day."""

OUTPUT_SHARE = 2**61
"""Offset added to a user id for the share of the output of that user's jobs; larger than any id."""

ANONYMOUS_OUTPUT_FACTOR = 10
"""Multiple of the daily limit of one user that the jobs of all anonymous callers may write together."""

RESERVED_OUTPUT_DIVISOR = 4
"""Divisor of the daily limit: this part is reserved for jobs that triggers start, such as variants of event images."""

ByteCounter = Callable[[], int]
"""Return the sum of the file sizes in the rows of a package, in bytes."""

COUNTERS: list[ByteCounter] = []


class DailyBytes(Model):
    """Bytes that one user or one anonymous client address has stored on one day (UTC)."""

    __tablename__ = "daily_bytes"

    share: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """The user id for uploads; -id for responses stored under the keys of a user; OUTPUT_SHARE + id for the output of
    the jobs of a user, OUTPUT_SHARE for jobs without an owner; a large negative number, computed from the client
    address, for uploads of anonymous callers."""
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
    """Register a function that returns how many bytes a package has stored."""
    COUNTERS.append(count)
    return count


def require_quota(user_id: int) -> None:
    """Raise TooManyRequests if this user may store no more bytes today, InsufficientStorage if no user may.

    Call this before the request body is read.
    """
    require_storage()
    with open_transaction(is_read=True):
        total = sum(size for (size,) in _select_bytes_today.fetch_rows({"share": _get_share(user_id)}))
    if total >= _daily_limit():
        raise _make_upload_error(user_id)


def charge_upload(user_id: int, size: int) -> None:
    """Count bytes of an upload, in the transaction that stores it; raise TooManyRequests above the daily limit."""
    ((total,),) = _add_bytes.fetch_rows({"share": _get_share(user_id), "size": size})
    if total > _daily_limit():
        raise _make_upload_error(user_id)


def charge_answer(owner_id: int, size: int, header: str) -> None:
    """Count bytes of a response, in the transaction that stores it for the key in `header`.

    Raise TooManyRequests above the daily limit.
    """
    ((total,),) = _add_bytes.fetch_rows({"share": -owner_id, "size": size})
    if total > MAX_ANSWER_MIB_PER_DAY * MIB:
        detail = (
            f"Responses to requests with {header} are stored, at most {MAX_ANSWER_MIB_PER_DAY} MiB a day for one user. "
            "The next day begins at 00:00 UTC. Include fewer resources, request fewer fields, or omit the header."
        )
        raise _make_quota_error(detail, header=header)


def charge_output(owner_id: int | None, size: int, *, is_triggered: bool) -> bool:
    """Count bytes that a job writes, in the current transaction; return False above the daily limit.

    A job started by a trigger (`is_triggered`) may use the whole limit; other jobs leave the reserved part.
    """
    ((total,),) = _add_bytes.fetch_rows({"share": OUTPUT_SHARE + (owner_id or 0), "size": size})
    limit = _output_limit(owner_id)
    is_reserved = owner_id is not None and not is_triggered
    return bool(total <= limit - is_reserved * (limit // RESERVED_OUTPUT_DIVISOR))


def describe_output_limit(owner_id: int | None) -> str:
    """Return the error detail for a job whose owner has reached the daily output limit."""
    limit = _output_limit(owner_id) // MIB
    if owner_id is None:
        owners, reserve = "all anonymous callers together", ""
    else:
        owners, reserve = (
            "one user",
            f"; the last {limit // RESERVED_OUTPUT_DIVISOR} MiB are reserved for jobs that triggers start",
        )
    return f"The jobs of {owners} may write at most {limit} MiB a day{reserve}. The next day begins at 00:00 UTC."


def require_storage() -> None:
    """Raise InsufficientStorage if the storage limit is reached or too little disk space is free."""
    if is_storage_full():
        raise InsufficientStorage(headers={"Retry-After": "3600"})


def is_storage_full() -> bool:
    """Return whether MAX_STORAGE_MB is reached, or less than MIN_FREE_DISK_MB is free."""
    most: int = current_app.config["MAX_STORAGE_MB"] * MIB
    min_free: int = current_app.config["MIN_FREE_DISK_MB"] * MIB
    return (bool(most) and _count_stored_bytes() >= most) or _count_free_bytes() < min_free


def prune_counts(_older_than: timedelta) -> int:
    """Delete the counts of all earlier days; return 0, because nothing is left for a further batch."""
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
    """Return the share of a user, or of the client address if `user_id` is 0."""
    if user_id:
        return user_id
    digest = sha256(address_holder(request.remote_addr or "").encode()).digest()
    return -1 - int.from_bytes(digest[:8], "big") // 2


def _make_upload_error(user_id: int) -> TooManyRequests:
    sender = "One user" if user_id else "An anonymous client address"
    return _make_quota_error(
        f"{sender} may upload at most {current_app.config['MAX_UPLOAD_MB_PER_DAY']} MiB a day. "
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
        return float("inf")  # an S3 bucket does not report free space
    try:
        return shutil.disk_usage(url2pathname(urlsplit(url).path)).free
    except FileNotFoundError:  # the directory is created with the first file
        return float("inf")
