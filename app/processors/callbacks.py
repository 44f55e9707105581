"""POST /v1/jobs/{id}/callback: a processor reports on a run; the callback is stored, then applied by a consumer."""

import hmac
from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import UUID

from flask import Response, current_app, jsonify, request
from sqlalchemy import BigInteger, Text, Uuid, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import JSONB, insert

from app import webhook_signatures, write_limits
from app.actors import set_actor
from app.database import PreparedStatement, commit, open_transaction
from app.errors import NotFound, TooManyRequests, Unauthenticated, Unprocessable, raise_errors
from app.jobs.models import TERMINAL_STATES, Job
from app.jobs.records import JobRow
from app.jsonapi.json_parsing import parse_json
from app.jsonapi.resource_type import parse_uuid
from app.outbox import enqueue_entry
from app.processors import runs
from app.processors.callback_schema import find_callback_errors, select_known_members
from app.processors.models import Callback, RemoteRun
from app.url_tokens import hash_token

TOKEN_PARAMETER = "token"  # noqa: S105 - the name of a parameter
MAX_CALLBACKS = 10_000
"""Callbacks stored for one attempt."""
MAX_CALLBACK_BYTES = 50 * 2**20
"""Compressed bytes of the stored callbacks of one attempt; the last one may exceed them."""
FINAL_EVENT_RESERVE = 100
FINAL_EVENT_RESERVE_BYTES = 2**20
"""Further callbacks and bytes for callbacks whose event may end the run."""

DELETE_BATCH_SIZE = 100
CLEANUP_DELAY = timedelta(minutes=1)
"""Delay after the end of a job: requests that were storing a callback have committed by then."""

_jobs, _runs, _callbacks = Job.__table__, RemoteRun.__table__, Callback.__table__
_select_target = PreparedStatement(
    select(_jobs.c.id, _jobs.c.attempt, _jobs.c.state, _jobs.c.share, _runs.c.token_hash)
    .join_from(_jobs, _runs, (_runs.c.job_id == _jobs.c.id) & (_runs.c.attempt == _jobs.c.attempt))
    .where(_jobs.c.id == bindparam("id", type_=Uuid))
)
_RUN_CRITERIA = (
    _callbacks.c.job_id == bindparam("job_id", type_=Uuid),
    _callbacks.c.attempt == bindparam("attempt", type_=BigInteger),
)
_stored_bytes = func.coalesce(func.sum(func.pg_column_size(_callbacks.c.payload)), 0, type_=BigInteger)
_measure_callbacks = PreparedStatement(select(func.count(), _stored_bytes).where(*_RUN_CRITERIA))
_insert_callback = PreparedStatement(
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
_cleanup_batch = (
    select(_callbacks.c.id).where(_callbacks.c.job_id == bindparam("job_id", type_=Uuid)).limit(DELETE_BATCH_SIZE)
)
_delete_batch = PreparedStatement(
    delete(Callback).where(_callbacks.c.id.in_(_cleanup_batch)).returning(_callbacks.c.id)
)


class CallbackTarget(NamedTuple):
    """The job of a callback URL and the hash of the token it requires."""

    job_id: UUID
    attempt: int
    state: str
    share: int
    token_hash: bytes


class InvalidCallbackToken(Unauthenticated):
    """The token is missing or is not that of the current attempt."""

    def __init__(self) -> None:
        super().__init__("The token is not that of this run.", parameter=TOKEN_PARAMETER, code="invalid-token")
        self.headers = {"WWW-Authenticate": 'Callback-Token realm="open-event"'}


def handle_callback(id: str) -> Response:
    """Store a callback once and enqueue its application; ignore it when the job has ended."""
    write_limits.exempt_request()
    with open_transaction(is_read=False):
        called = _get_target(id)
        body = request.get_data()
        message_id = _get_message_id(called, body)
        said = _parse_callback(called, body)
        set_actor(called.share)  # not for the address of the processor, which all jobs have in common
        if called.state not in TERMINAL_STATES:
            _store_callback(called, message_id, said)
        commit()
    return jsonify(success=True, message="Update received")


handle_callback.permission = "the processor, by the token in its notify_url"  # type: ignore[attr-defined]  # read by `manage.py routes`


def _get_target(id: str) -> CallbackTarget:
    """Return the job of the URL; raise NotFound when it has no run, InvalidCallbackToken without its token."""
    job_id = parse_uuid(id)
    rows = _select_target.fetch_rows({"id": job_id}) if job_id is not None else ()
    for called in (CallbackTarget(*row) for row in rows):
        if not hmac.compare_digest(hash_token(request.args.get(TOKEN_PARAMETER, "")), called.token_hash):
            raise InvalidCallbackToken
        return called
    raise NotFound("There is no such job with a run at a processor.")


def _get_message_id(called: CallbackTarget, body: bytes) -> str:
    """Return the webhook-id, or a digest of an unsigned body; raise InvalidSignature when the signature is not valid.

    A callback that is sent again has the same id. With PROCESSOR_REQUIRE_SIGNATURE a missing signature is not valid.
    """
    if webhook_signatures.has_signature(request.headers) or current_app.config["PROCESSOR_REQUIRE_SIGNATURE"]:
        about = runs.signing_context(called.job_id, called.attempt, called.token_hash)
        return webhook_signatures.verify_message(about, request.headers, body)
    return f"sha256 {sha256(body).hexdigest()}"  # with a space, which no webhook-id has


def _parse_callback(called: CallbackTarget, body: bytes) -> dict[str, Any]:
    said = parse_json(body)
    raise_errors(find_callback_errors(said))
    if said.get("experiment_id") not in (None, str(called.job_id)):
        raise Unprocessable("Must be the id of the job in the URL.", pointer="/experiment_id")
    members: dict[str, Any] = select_known_members(said)
    return members


def _store_callback(called: CallbackTarget, message_id: str, said: Mapping[str, Any]) -> None:
    key = {"job_id": called.job_id, "attempt": called.attempt}
    ((count, size),) = _measure_callbacks.fetch_rows(key)
    may_end = said["event"] not in ("STARTED", "PROGRESS")
    if (
        count >= MAX_CALLBACKS + FINAL_EVENT_RESERVE * may_end
        or size >= MAX_CALLBACK_BYTES + FINAL_EVENT_RESERVE_BYTES * may_end
    ):
        raise TooManyRequests(
            f"A run may send at most {MAX_CALLBACKS} callbacks, and {MAX_CALLBACK_BYTES // 2**20} MiB of them."
        )
    if _insert_callback.fetch_rows({**key, "message_id": message_id, "event": said["event"], "payload": said}):
        enqueue_entry(runs.APPLY, "callback.received", {"job_id": str(called.job_id), "attempt": called.attempt})
    # Last: transactions that hold the job lock update this row after it. Repeated callbacks count as activity, too.
    runs.touch_run(called.job_id, called.attempt)


def schedule_cleanup(job: JobRow) -> None:
    """Enqueue the deletion of the callbacks of a job that has ended: they are not read again."""
    runs.enqueue_for_run(runs.CLEAR, job, delay=CLEANUP_DELAY)


def delete_callbacks(job_id: UUID) -> bool:
    """Delete a batch of the callbacks of a job; return whether there may be more."""
    return len(_delete_batch.fetch_rows({"job_id": job_id})) == DELETE_BATCH_SIZE
