"""Artifacts: files that a job stores, and the rows that publish them."""

import re
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import IO, Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Boolean, Text, Uuid, any_, bindparam, cast, func, select
from sqlalchemy.dialects.postgresql import insert
from uuid_utils.compat import uuid7

from app import quotas, stored_files
from app.database import PreparedStatement, commit, open_transaction
from app.jobs.lifecycle import OWNED_STATES
from app.jobs.models import ACTIVE_STATES, Artifact, Job
from app.jobs.records import JobRow
from app.storage import current_storage

NAME_RE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)

_COLUMN_TYPES = {
    "id": Uuid,
    "name": Text,
    "media_type": Text,
    "size": BigInteger,
    "sha256": Text,
    "storage_key": Text,
    "partial": Boolean,
}
_jobs = Job.__table__
_insert_artifact = insert(Artifact).from_select(
    ["job_id", *_COLUMN_TYPES],
    select(_jobs.c.id, *(bindparam(name, type_=type_) for name, type_ in _COLUMN_TYPES.items())).where(
        _jobs.c.id == bindparam("job_id", type_=Uuid),
        _jobs.c.attempt == bindparam("attempt", type_=BigInteger),
        _jobs.c.state.in_(OWNED_STATES),
    ),
    include_defaults=False,
)
_upsert_artifact = PreparedStatement(
    _insert_artifact.on_conflict_do_update(
        index_elements=["job_id", "name"],
        set_={name: _insert_artifact.excluded[name] for name in _COLUMN_TYPES if name not in ("id", "name")},
    ).returning(Artifact.id)
)

JOB_FOLDER_RE = re.compile(r"jobs/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/")
"""Prefix of the storage keys of all files of a job."""

_artifacts = Artifact.__table__
_IDS = bindparam("ids", type_=ARRAY(Uuid))
_select_storage_keys = PreparedStatement(select(_artifacts.c.storage_key).where(_artifacts.c.job_id == any_(_IDS)))
_select_active_jobs = PreparedStatement(
    select(_jobs.c.id).where(_jobs.c.id == any_(_IDS), _jobs.c.state.in_(ACTIVE_STATES))
)
_sum_artifact_bytes = PreparedStatement(select(cast(func.coalesce(func.sum(_artifacts.c.size), 0), BigInteger)))
_sum_input_bytes = PreparedStatement(
    select(cast(func.coalesce(func.sum(_jobs.c.input_bytes), 0), BigInteger)).where(_jobs.c.state.in_(ACTIVE_STATES))
)


@stored_files.register_finder
def find_used_files(names: Collection[str]) -> Collection[str]:
    """Return the storage keys among `names` that are artifacts or belong to active jobs."""
    ids = {name: UUID(match[1]) for name in names if (match := JOB_FOLDER_RE.match(name))}
    if not ids:
        return ()
    values = {"ids": list(set(ids.values()))}
    active_ids = {id_ for (id_,) in _select_active_jobs.fetch_rows(values)}
    artifacts = {name for (name,) in _select_storage_keys.fetch_rows(values)}
    return [name for name, id_ in ids.items() if id_ in active_ids or name in artifacts]


@quotas.register_counter
def count_stored_bytes() -> int:
    """Return the total bytes of all artifacts and of the input files of active jobs."""
    return sum(
        int(size) for statement in (_sum_artifact_bytes, _sum_input_bytes) for (size,) in statement.fetch_rows({})
    )


def publish_file(job: JobRow, name: str, content: bytes | IO[bytes], media_type: str, *, partial: bool) -> bool:
    """Store a file and publish it as an artifact, replacing one of the same name.

    Return False if the attempt no longer owns the job.
    """
    values = store_file(job, name, content, media_type, partial=partial)
    with open_transaction(is_read=False):
        is_attached = attach_file(job, values)
        commit()
    return is_attached


def store_file(
    job: JobRow, name: str, content: bytes | IO[bytes], media_type: str, *, partial: bool = False
) -> dict[str, Any]:
    """Store a file under the hash of its content; return its column values for `attach_file`, which publishes it."""
    if not NAME_RE.fullmatch(name):
        raise ValueError(f"invalid artifact name: {name!r}")
    storage = current_storage()
    suffix = PurePosixPath(name).suffix.removeprefix(".").lower() or "bin"
    stored = storage.stat(storage.put_content_addressed(f"jobs/{job.id}", content, suffix, media_type))
    return {
        "id": uuid7(),
        "name": name,
        "media_type": media_type,
        "size": stored.size,
        "sha256": PurePosixPath(stored.name).stem,
        "storage_key": stored.name,
        "partial": partial,
    }


def attach_file(job: JobRow, values: Mapping[str, Any]) -> bool:
    """Publish a stored file as an artifact, replacing one of the same name.

    Return False if the attempt no longer owns the job.
    """
    return bool(_upsert_artifact.fetch_rows({**values, "job_id": job.id, "attempt": job.attempt}))
