"""What a job made: files in storage that appear whole, and rows that name them."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import IO, Any

from sqlalchemy import BigInteger, Boolean, Text, Uuid, bindparam, select
from sqlalchemy.dialects.postgresql import insert
from uuid_utils.compat import uuid7

from app.database import Prepared, commit, transaction
from app.jobs.lifecycle import HELD
from app.jobs.models import Artifact, Job
from app.jobs.records import JobRow
from app.storage import current_storage

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)

_VALUES = {
    "id": Uuid,
    "name": Text,
    "media_type": Text,
    "size": BigInteger,
    "sha256": Text,
    "stored_as": Text,
    "partial": Boolean,
}
_jobs = Job.__table__
_rows = insert(Artifact).from_select(
    ["job_id", *_VALUES],
    select(_jobs.c.id, *(bindparam(name, type_=type_) for name, type_ in _VALUES.items())).where(
        _jobs.c.id == bindparam("job_id", type_=Uuid),
        _jobs.c.attempt == bindparam("attempt", type_=BigInteger),
        _jobs.c.state.in_(HELD),
    ),
    include_defaults=False,
)
_named = Prepared(
    _rows.on_conflict_do_update(
        index_elements=["job_id", "name"],
        set_={name: _rows.excluded[name] for name in _VALUES if name not in ("id", "name")},
    ).returning(Artifact.id)
)


def publish(job: JobRow, name: str, content: bytes | IO[bytes], media_type: str, *, partial: bool) -> bool:
    """Store a file under its content, then name it, in place of another of this name; False when the job moved on."""
    values = store(job, name, content, media_type, partial=partial)
    with transaction(is_read=False):
        is_named = show(job, values)
        commit()
    return is_named


def store(
    job: JobRow, name: str, content: bytes | IO[bytes], media_type: str, *, partial: bool = False
) -> dict[str, Any]:
    """Store a file under its content, where nobody sees it; what `show` wants to know of it."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of an artifact")
    storage = current_storage()
    suffix = PurePosixPath(name).suffix.removeprefix(".").lower() or "bin"
    stored = storage.stat(storage.put_by_content(f"jobs/{job.id}", content, suffix, media_type))
    return {
        "id": uuid7(),
        "name": name,
        "media_type": media_type,
        "size": stored.size,
        "sha256": PurePosixPath(stored.name).stem,
        "stored_as": stored.name,
        "partial": partial,
    }


def show(job: JobRow, values: Mapping[str, Any]) -> bool:
    """Name a stored file, in place of another of this name; False when the job moved on."""
    return bool(_named.rows({**values, "job_id": job.id, "attempt": job.attempt}))
