"""Submission of jobs: validation, deduplication, queue limits, and the insert of a job with its outbox entry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import orjson
from flask import current_app
from sqlalchemy import BigInteger, Boolean, LargeBinary, Text, Uuid, bindparam, func, insert, select
from sqlalchemy.dialects.postgresql import JSONB
from uuid_utils.compat import uuid7

from app import outbox
from app.database import PreparedStatement
from app.encryption import build_associated_data, encrypt_values
from app.errors import TooManyRequests, Unprocessable
from app.jobs import lifecycle, shares
from app.jobs.kinds import KINDS, Kind
from app.jobs.models import ACTIVE_STATES, ANONYMOUS_SHARE, OPERATOR_SHARE, SUCCEEDED, Job
from app.jobs.records import JobRow

RUN_CONSUMER = "jobs.run"
"""Outbox consumer that wakes a worker."""

PARAMETERS_POINTER = "/data/attributes/parameters"

RETRY_AFTER_SECONDS = 10
"""Value of Retry-After with 429 if too many jobs are queued."""

MAX_QUEUED_JOBS_PER_UNVERIFIED_OWNER = 20
"""Queued jobs of an unverified account, from all its client addresses."""

_jobs = Job.__table__
_FINGERPRINT = bindparam("fingerprint", type_=LargeBinary)

_lock_fingerprint = PreparedStatement(select(func.pg_advisory_xact_lock(bindparam("lock", type_=BigInteger))))
_select_duplicate = (
    select(*_jobs.c).where(_jobs.c.fingerprint == _FINGERPRINT).order_by(_jobs.c.id.desc()).limit(1).with_for_update()
)
_select_active_duplicate = PreparedStatement(_select_duplicate.where(_jobs.c.state.in_(ACTIVE_STATES)))
_select_active_or_succeeded = PreparedStatement(_select_duplicate.where(_jobs.c.state.in_((*ACTIVE_STATES, SUCCEEDED))))
_select_succeeded = PreparedStatement(
    select(*_jobs.c)
    .where(_jobs.c.fingerprint == _FINGERPRINT, _jobs.c.state == SUCCEEDED)
    .order_by(_jobs.c.id.desc())
    .limit(1)
)
_COLUMN_TYPES = {
    "id": Uuid,
    "kind": Text,
    "parameters": JSONB,
    "trigger": Text,
    "fingerprint": LargeBinary,
    "max_attempts": BigInteger,
    "owner_id": BigInteger,
    "event_id": BigInteger,
    "retry_of_id": Uuid,
    "encrypted_secrets": LargeBinary,
    "retained": Boolean,
    "share": BigInteger,
    "hook_id": BigInteger,
    "input_bytes": BigInteger,
}
_insert_job = PreparedStatement(
    insert(Job)
    .values(
        {name: bindparam(name, type_=type_) for name, type_ in _COLUMN_TYPES.items()},
    )
    .values(state="queued", attempt=0, rerun_requested=False, last_seq=0)
    .returning(*_jobs.c, lifecycle.notify_change(_jobs.c))
)


@dataclass(frozen=True)
class SubmitResult:
    """A job, and whether the submission created it."""

    job: JobRow
    is_new: bool


def submit_job(
    kind_name: str,
    parameters: Mapping[str, Any],
    *,
    trigger: str,
    owner_id: int | None,
    retry_of_id: UUID | None = None,
    job_id: UUID | None = None,
    retained: bool = False,
    hook_id: int | None = None,
    input_bytes: int | None = None,
    is_limited: bool = True,
    share: int | None = None,
    pointer: str = PARAMETERS_POINTER,
    authorize: Callable[[Kind, Mapping[str, Any]], None] = lambda _kind, _parameters: None,
) -> SubmitResult:
    """Insert a job in the current transaction, or return the existing job that the dedupe policy of its kind selects.

    Raise Unprocessable with pointers for an unknown kind or invalid parameters, and TooManyRequests if the owner or the
    hook has too many queued jobs, unless `is_limited` is False. The default of `share` is that of the owner or the
    client address. `authorize` is called with validated parameters before any read or write, and may raise.
    """
    kind = get_kind(kind_name)
    parameters = kind.convert_ids(_normalize_numbers(parameters))
    kind.validate_parameters(parameters, pointer)
    authorize(kind, parameters)
    fingerprint = None if kind.dedupe == "none" else _compute_fingerprint(kind, parameters, owner_id)
    if fingerprint is not None and (existing := _find_duplicate(kind, fingerprint, is_retry=retry_of_id is not None)):
        return SubmitResult(existing, is_new=False)
    share = shares.get_share(owner_id, trigger) if share is None else share
    if is_limited:
        _check_limits(share, hook_id, owner_id)
    id_ = job_id or uuid7()
    secrets = {name: value for name, value in parameters.items() if name in kind.secrets}
    (row,) = _insert_job.fetch_rows(
        {
            "id": id_,
            "kind": kind.name,
            "parameters": {name: value for name, value in parameters.items() if name not in kind.secrets},
            "encrypted_secrets": encrypt_values(secrets, build_associated_data("jobs", "sealed", id_)),
            "retained": retained,
            "trigger": trigger,
            "fingerprint": fingerprint,
            "max_attempts": kind.max_attempts,
            "owner_id": owner_id,
            "event_id": parameters.get("event") if kind.belongs_to_event else None,
            "retry_of_id": retry_of_id,
            "share": share,
            "hook_id": hook_id,
            "input_bytes": input_bytes,
        }
    )
    job = JobRow(*row[:-1])
    enqueue_job(job)
    return SubmitResult(job, is_new=True)


def find_succeeded(kind_name: str, parameters: Mapping[str, Any], *, owner_id: int | None) -> JobRow | None:
    """Return the succeeded job with these parameters if its kind has the dedupe policy `once`, otherwise None."""
    kind = KINDS.get(kind_name)
    if kind is None or kind.dedupe != "once":
        return None
    rows = _select_succeeded.fetch_rows(
        {"fingerprint": _compute_fingerprint(kind, kind.convert_ids(_normalize_numbers(parameters)), owner_id)}
    )
    return JobRow(*rows[0]) if rows else None


def get_kind(name: str) -> Kind:
    """Return the kind of this name; raise Unprocessable if this server does not offer it."""
    kind = KINDS.get(name)
    if kind is None or not is_offered(kind):
        raise Unprocessable("There is no such kind of job.", pointer="/data/attributes/kind", code="unknown-kind")
    return kind


def is_offered(kind: Kind) -> bool:
    """Return whether jobs of this kind may be submitted to this server; some kinds are not for production."""
    return kind.is_available() and (kind.in_production or current_app.config["APP_ENV"] != "production")


def resubmit_job(job: JobRow) -> SubmitResult:
    """Submit a job once more without queue limits, because the request for it was already accepted."""
    origin: dict[str, Any] = {
        "trigger": job.trigger,
        "owner_id": job.owner_id,
        "hook_id": job.hook_id,
        "share": job.share,
    }
    return submit_job(job.kind, job.parameters, is_limited=False, **origin)


def _check_limits(share: int, hook_id: int | None, owner_id: int | None) -> None:
    """Raise TooManyRequests if the share, the unverified owner or the hook has too many queued jobs."""
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    most = current_app.config["MAX_QUEUED_JOBS_PER_OWNER"]
    if owner_id is None or share > ANONYMOUS_SHARE:
        queued = shares.count_queued(share, most)
        detail = f"At most {most} jobs of one owner may be queued. Wait until some of them have begun."
    else:
        most = min(most, MAX_QUEUED_JOBS_PER_UNVERIFIED_OWNER)
        queued = shares.count_queued_of_owner(owner_id, most)
        detail = (
            f"At most {most} jobs of an account whose e-mail address is not verified may be queued."
            " Verify the address, or wait until some of them have begun."
        )
    if share != OPERATOR_SHARE and queued >= most:
        raise TooManyRequests(detail, code="too-many-jobs", headers=headers)
    most = current_app.config["MAX_QUEUED_JOBS_PER_HOOK"]
    if hook_id is not None and shares.count_queued(share, most, hook_id) >= most:
        detail = f"At most {most} jobs of one hook may be queued. Wait until some of them have begun."
        raise TooManyRequests(detail, code="too-many-jobs", headers=headers)


def _normalize_numbers(value: Any) -> Any:
    """Return the value with integers in place of floats such as 1.0, which are equal in JSON Schema."""
    if isinstance(value, Mapping):
        return {name: _normalize_numbers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_normalize_numbers(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def enqueue_job(job: JobRow) -> None:
    """Enqueue the wake-up of a worker for a queued job, for the time at which it may start."""
    enqueue_run(job.id, delay=max(job.queued_at - datetime.now(UTC), timedelta(0)))


def enqueue_run(job_id: UUID, *, delay: timedelta = timedelta(0)) -> None:
    """Enqueue the wake-up of a worker; it runs the job whose turn it is, which may be another than this queued one."""
    outbox.enqueue_entry(RUN_CONSUMER, "job.queued", {"id": str(job_id)}, delay=delay)


def _compute_fingerprint(kind: Kind, parameters: Mapping[str, Any], owner_id: int | None) -> bytes:
    """Return the digest of kind, parameters, other input and owner, by which submissions are compared."""
    canonical = orjson.dumps(parameters, option=orjson.OPT_SORT_KEYS)
    digest = sha256()
    for part in (kind.name.encode(), canonical, kind.input_digest(parameters).encode(), str(owner_id).encode()):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


def _find_duplicate(kind: Kind, fingerprint: bytes, *, is_retry: bool) -> JobRow | None:
    """Return and lock the existing job for a fingerprint; simultaneous submissions wait for each other here."""
    _lock_fingerprint.run({"lock": int.from_bytes(fingerprint[:8], "big", signed=True)})
    statement = _select_active_duplicate if is_retry or kind.dedupe == "single-flight" else _select_active_or_succeeded
    rows = statement.fetch_rows({"fingerprint": fingerprint})
    if not rows:
        return None
    job = JobRow(*rows[0])
    if kind.dedupe == "single-flight" and job.state != "queued":
        lifecycle.mark_rerun(job.id)
    return job
