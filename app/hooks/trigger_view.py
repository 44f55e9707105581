"""POST /v1/hooks/{token}: submission of a job of the kind of a hook."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import structlog
from flask import Response, after_this_request, current_app, jsonify, request
from sqlalchemy import Engine, LargeBinary, bindparam, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from app import throttle, webhook_signatures
from app.database import PreparedStatement, open_transaction
from app.errors import ApiError, ApiErrorGroup, BadRequest, Forbidden, NotFound, Unprocessable, raise_errors
from app.extensions import db
from app.hooks.models import Hook
from app.hooks.tokens import TOKEN_RE, signing_context
from app.jobs.kinds import KINDS, MAX_PARAMETERS_BYTES, Kind
from app.jobs.models import SUCCEEDED
from app.jobs.resources import submit_for
from app.jobs.submission import PARAMETERS_POINTER, is_offered
from app.jsonapi.current_user import CurrentUser
from app.jsonapi.idempotency import (
    IDEMPOTENCY_KEY_HEADER,
    POST_ONLY,
    get_idempotency_key,
    run_idempotent_with_key,
    set_location,
)
from app.jsonapi.json_parsing import escape_pointer, parse_json
from app.jsonapi.negotiation import JSON_TYPES, check_content_type, require_media_type
from app.jsonapi.permissions import AccessContext, VisibilityScope
from app.jsonapi.query_params import NO_FAMILIES, parse_parameters
from app.url_tokens import hash_token
from app.users.models import User

FORM_TYPE = "application/x-www-form-urlencoded"
MEDIA_TYPES = (*JSON_TYPES, FORM_TYPE)
PAYLOAD_FIELD = "payload"
MAX_FORM_FIELDS = 100

_hooks, _users = Hook.__table__, User.__table__
_is_stale = or_(_hooks.c.last_called_at.is_(None), _hooks.c.last_called_at < func.now() - timedelta(minutes=1))
_select_target = PreparedStatement(
    select(
        *(
            _hooks.c[name]
            for name in ("id", "kind", "parameters", "allowed_parameters", "signed", "token_hash", "owner_id")
        ),
        *(_users.c[name] for name in ("is_admin", "is_super_admin", "is_verified")),
        _is_stale.label("is_stale"),
    )
    .join_from(_hooks, _users, _users.c.id == _hooks.c.owner_id)
    .where(
        _hooks.c.token_hash == bindparam("token_hash", type_=LargeBinary),
        _hooks.c.enabled.is_(True),
        _hooks.c.deleted_at.is_(None),
        _users.c.deleted_at.is_(None),
        _users.c.is_blocked.is_(False),
    )
)
"""Enabled hook with this token whose owner is not blocked or deleted."""

log = structlog.get_logger(__name__)


class HookTarget(NamedTuple):
    """A called hook and the current rights of its owner."""

    id: int
    kind: str
    parameters: dict[str, Any]
    allowed_parameters: list[str] | None
    signed: bool
    token_hash: bytes
    owner_id: int
    is_admin: bool
    is_super_admin: bool
    is_verified: bool
    is_stale: bool
    """True when `last_called_at` is empty or more than a minute ago."""

    @property
    def access(self) -> AccessContext:
        """Return the access of the owner."""
        is_admin = self.is_admin or self.is_super_admin
        viewer = CurrentUser(self.owner_id, is_admin, self.is_super_admin, self.is_verified)
        return AccessContext(viewer, VisibilityScope(viewer.role))


def handle_call(id: str) -> Response:
    """Start a job with the fixed parameters of the hook and the allowed ones of the body."""
    with open_transaction(is_read=False):
        hook = _get_target(id)
        parse_parameters(request.query_string, NO_FAMILIES)
        header, name = _identify_call(hook)
        # After the signature: calls without the secret do not use up the limit of a signed hook.
        throttle.count_subject("hook", str(hook.id), f"{current_app.config['MAX_HOOK_CALLS_PER_MINUTE']}/minute")
        key = name and f"hook {hook.id} {name}"  # with spaces, which the owner's own keys cannot contain
        response = run_idempotent_with_key(hook.owner_id, key, lambda: _start_job(hook), header=header)
    if hook.is_stale:
        _touch_last_call_later(hook.id)
    return response


def _get_max_body_bytes() -> int:
    """Return the largest body in bytes: MAX_PARAMETERS_BYTES, three times as many percent-encoded in a form."""
    return MAX_PARAMETERS_BYTES * (3 if request.mimetype == FORM_TYPE else 1)


handle_call.permission = "anyone with the token"  # type: ignore[attr-defined]  # read by `manage.py routes`
handle_call.keyed_methods = POST_ONLY  # type: ignore[attr-defined]  # read by app/jsonapi/idempotency.py
handle_call.largest_body = _get_max_body_bytes  # type: ignore[attr-defined]  # read by app/request_bodies.py


def _get_target(token: str) -> HookTarget:
    """Return the hook with this token; raise the same NotFound for every reason why it cannot be called."""
    rows = _select_target.fetch_rows({"token_hash": hash_token(token)}) if TOKEN_RE.fullmatch(token) else ()
    for hook in (HookTarget(*row) for row in rows):
        if hook.kind in KINDS and is_offered(KINDS[hook.kind]):
            return hook
    raise _build_not_found()


def _build_not_found() -> NotFound:
    return NotFound("There is no such hook here.")


def _identify_call(hook: HookTarget) -> tuple[str, str | None]:
    """Return the name of the header that identifies a call, and its value: a repeated call has the same.

    It is `webhook-id` only in signed calls: elsewhere some senders put the id of the subscription there.
    """
    if not hook.signed:
        return IDEMPOTENCY_KEY_HEADER, get_idempotency_key()
    if IDEMPOTENCY_KEY_HEADER in request.headers:
        raise BadRequest(
            f"Calls of a signed hook are identified by {webhook_signatures.ID}: send no {IDEMPOTENCY_KEY_HEADER}.",
            header=IDEMPOTENCY_KEY_HEADER,
        )
    return webhook_signatures.ID, webhook_signatures.verify_message(
        signing_context(hook.id, hook.token_hash), request.headers, request.get_data()
    )


def _start_job(hook: HookTarget) -> Response:
    """Submit the job and return its id, state and URL only: callers may not read the job."""
    with _translate_errors():
        parameters = {**_check_parameters(hook, _parse_body()), **hook.parameters}
        job = submit_for(hook.kind, parameters, hook.access, trigger="hook", hook_id=hook.id).job
    url = f"{current_app.config['PUBLIC_URL']}/v1/jobs/{job.id}"
    response = jsonify(job={"id": str(job.id), "state": job.state, "url": url})
    response.status_code = HTTPStatus.OK if job.state == SUCCEEDED else HTTPStatus.ACCEPTED
    return set_location(response, url)


def _check_parameters(hook: HookTarget, members: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a call; raise an error for each that has another fixed value or is not allowed."""
    raise_errors(_find_parameter_errors(hook, members, KINDS[hook.kind]))
    return members


def _find_parameter_errors(hook: HookTarget, members: dict[str, Any], kind: Kind) -> Iterator[ApiError]:
    sent, fixed = kind.convert_ids(members), kind.convert_ids(hook.parameters)
    for name, value in sent.items():
        pointer = f"{PARAMETERS_POINTER}/{escape_pointer(name)}"
        if name in fixed:
            if value != fixed[name]:
                yield Unprocessable("The hook fixes this parameter.", pointer=pointer, code="fixed-parameter")
        elif hook.allowed_parameters is not None and name not in hook.allowed_parameters:
            detail = "The hook does not allow a call to set this parameter."
            yield Unprocessable(detail, pointer=pointer, code="parameter-not-allowed")


def _parse_body() -> dict[str, Any]:
    """Return the parameters in the body; an empty body is an empty object."""
    body = request.get_data()
    if not body:
        return {}
    if "Content-Type" in request.headers:
        if require_media_type(request.headers, MEDIA_TYPES) == FORM_TYPE:
            body = _read_payload(body)
        else:
            check_content_type(request.headers)
    members = parse_json(body)
    if not isinstance(members, dict):
        raise Unprocessable("The body must be a JSON object.", pointer="")
    return members


def _read_payload(form: bytes) -> bytes:
    """Return the JSON in the field `payload` of a form, the default content type of GitHub webhooks."""
    try:
        fields = parse_qsl(
            form.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FORM_FIELDS
        )
    except ValueError:
        detail = f"The form must be percent-encoded UTF-8, with at most {MAX_FORM_FIELDS} fields."
        raise BadRequest(detail, code="invalid-form") from None
    payloads = [value for name, value in fields if name == PAYLOAD_FIELD]
    if len(payloads) != 1:
        raise Unprocessable(f"The form must have one field {PAYLOAD_FIELD}, with a JSON object in it.", pointer="")
    return payloads[0].encode()


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Make pointers relative to the body; raise NotFound when the owner may not start the job."""
    try:
        yield
    except (Forbidden, NotFound):
        raise _build_not_found() from None
    except ApiError as error:
        raise _rebase_pointer(error) from None
    except ApiErrorGroup as errors:
        raise ApiErrorGroup(map(_rebase_pointer, errors.errors)) from None


def _rebase_pointer(error: ApiError) -> ApiError:
    if pointer := (error.source or {}).get("pointer"):
        error.source = {"pointer": pointer.removeprefix(PARAMETERS_POINTER)}
        error.meta = {}  # it names an attribute of a resource, which this body is not
    return error


def _touch_last_call_later(hook_id: int) -> None:
    engine = db.engine

    @after_this_request
    def when_sent(response: Response) -> Response:
        response.call_on_close(lambda: touch_last_call(engine, hook_id))
        return response


def touch_last_call(engine: Engine, hook_id: int) -> None:
    """Set `last_called_at`, at most once a minute; skip a locked row."""
    free = select(Hook.id).where(Hook.id == hook_id, _is_stale).with_for_update(skip_locked=True, key_share=True)
    try:
        with engine.begin() as connection:
            connection.execute(update(Hook).where(Hook.id == free.scalar_subquery()).values(last_called_at=func.now()))
    except SQLAlchemyError as error:
        # The response is sent; the next call tries again.
        log.warning("hook call time not stored", hook_id=hook_id, error=type(error).__name__)
