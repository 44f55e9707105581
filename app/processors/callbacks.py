"""POST /v1/jobs/{id}/callback: a processor says what has become of a run; it is stored, and applied a moment later."""

import hmac
from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import UUID

from flask import Response, current_app, jsonify, request
from sqlalchemy import BigInteger, Text, Uuid, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import JSONB, insert

from app import signatures, write_limits
from app.database import Prepared, commit, transaction
from app.errors import NotFound, TooManyRequests, Unauthenticated, Unprocessable, raise_all
from app.jobs.models import ENDED, Job
from app.jobs.records import JobRow
from app.jsonapi.body import read_json
from app.jsonapi.resource_type import parse_uuid
from app.outbox import order
from app.processors import remote
from app.processors.models import Callback, RemoteRun
from app.processors.words import callback_faults
from app.url_tokens import token_hash

TOKEN = "token"  # noqa: S105 - the name of a parameter
MOST_CALLBACKS = 10_000
"""Of one attempt."""
ROOM_FOR_THE_END = 100
"""More, for words that may end it."""

CLEARED_AT_ONCE = 100
LATE = timedelta(minutes=1)
"""After the end: whoever was just storing one has done so by then."""

_jobs, _runs, _callbacks = Job.__table__, RemoteRun.__table__, Callback.__table__
_called = Prepared(
    select(_jobs.c.id, _jobs.c.attempt, _jobs.c.state, _runs.c.token_hash)
    .join_from(_jobs, _runs, (_runs.c.job_id == _jobs.c.id) & (_runs.c.attempt == _jobs.c.attempt))
    .where(_jobs.c.id == bindparam("id", type_=Uuid))
)
_OF_RUN = (
    _callbacks.c.job_id == bindparam("job_id", type_=Uuid),
    _callbacks.c.attempt == bindparam("attempt", type_=BigInteger),
)
_count = Prepared(select(func.count()).select_from(Callback).where(*_OF_RUN))
_store = Prepared(
    insert(Callback)
    .values(
        {
            "job_id": bindparam("job_id", type_=Uuid),
            "attempt": bindparam("attempt", type_=BigInteger),
            "message_id": bindparam("message_id", type_=Text),
            "event": bindparam("event", type_=Text),
            "payload": bindparam("payload", type_=JSONB),
        }
    )
    .on_conflict_do_nothing()
    .returning(_callbacks.c.id)
)
_some = select(_callbacks.c.id).where(_callbacks.c.job_id == bindparam("job_id", type_=Uuid)).limit(CLEARED_AT_ONCE)
_clear = Prepared(delete(Callback).where(_callbacks.c.id.in_(_some)).returning(_callbacks.c.id))


class Called(NamedTuple):
    """The job that is called back, and the hash of the token that may."""

    job_id: UUID
    attempt: int
    state: str
    token_hash: bytes


class Forged(Unauthenticated):
    """The callback has no token, or not that of the present attempt."""

    def __init__(self) -> None:
        super().__init__("The token is not the one of this run.", parameter=TOKEN, code="invalid-token")
        self.headers = {"WWW-Authenticate": 'Callback-Token realm="open-event"'}


def receive(id: str) -> Response:
    """Store what a processor says, once, and order it to be applied; after the end it means nothing any more."""
    write_limits.exempt_request()
    with transaction(is_read=False):
        called = _found(id)
        body = request.get_data()
        message_id = _message_id(called, body)
        said = _members(called, body)
        if called.state not in ENDED:
            _take(called, message_id, said)
        commit()
    return jsonify(success=True, message="Update received")


receive.permission = "the processor, by the token in its notify_url"  # type: ignore[attr-defined]  # read by `manage.py routes`


def _found(id: str) -> Called:
    """The job of the URL; 404 for one that no processor has, 401 without its token."""
    job_id = parse_uuid(id)
    rows = _called.rows({"id": job_id}) if job_id is not None else ()
    for called in (Called(*row) for row in rows):
        if not hmac.compare_digest(token_hash(request.args.get(TOKEN, "")), called.token_hash):
            raise Forged
        return called
    raise NotFound("There is no such job at a processor.")


def _message_id(called: Called, body: bytes) -> str:
    """What tells a callback sent twice from two; 401 for a signature that does not hold, or is missing and must not."""
    if signatures.is_signed(request.headers) or current_app.config["PROCESSOR_REQUIRE_SIGNATURE"]:
        about = remote.signing(called.job_id, called.attempt, called.token_hash)
        return signatures.verified_id(about, request.headers, body)
    return f"sha256 {sha256(body).hexdigest()}"  # with a space, which no webhook-id has


def _members(called: Called, body: bytes) -> dict[str, Any]:
    said = read_json(body)
    raise_all(callback_faults(said))
    if said.get("experiment_id") not in (None, str(called.job_id)):
        raise Unprocessable("This is another job.", pointer="/experiment_id")
    members: dict[str, Any] = said
    return members


def _take(called: Called, message_id: str, said: Mapping[str, Any]) -> None:
    key = {"job_id": called.job_id, "attempt": called.attempt}
    ((count,),) = _count.rows(key)
    may_end = said["event"] not in ("STARTED", "PROGRESS")
    if count >= MOST_CALLBACKS + ROOM_FOR_THE_END * may_end:
        raise TooManyRequests(f"More than {MOST_CALLBACKS} callbacks of one run.")
    if _store.rows({**key, "message_id": message_id, "event": said["event"], "payload": said}):
        order(remote.APPLY, "callback.received", {"job_id": str(called.job_id), "attempt": called.attempt})
    # Last, as whoever holds the job comes here after it; also by what was said before.
    remote.hear_alive(called.job_id, called.attempt)


def order_clearing(job: JobRow) -> None:
    """Have what was called back about a job that has ended deleted: nobody reads it, and the job may stay for years."""
    remote.order(remote.CLEAR, job, delay=LATE)


def clear(job_id: UUID) -> bool:
    """Delete some of it, in the time that a statement has; whether there may be more."""
    return len(_clear.rows({"job_id": job_id})) == CLEARED_AT_ONCE
