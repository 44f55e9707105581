"""Idempotency-Key: a repeated request with the same key gets the stored response, for 24 hours.

A view lists the methods that support a key in `keyed_methods`; other requests with a key are rejected, so that no
client relies on a header without effect.

The transaction of the request inserts the key: a concurrent request with the same key waits for this transaction, then
finds the stored response or, if the first request failed, no row.

A replay does not run the request again. The user must be signed in, and must still see each resource in the response,
deleted or not, and be allowed to update it if the type permits updates. The other conditions of the request are not
checked, because the request itself may have changed them: a password, the name of an account, the owner of an event.

Stored responses are encrypted, and the bytes that one user stores per day are limited.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from hashlib import blake2b
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from flask import Flask, Response, current_app, request
from sqlalchemy import ColumnElement, ForeignKey, Row, and_, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from app import quotas
from app.database import commit, get_connection
from app.encryption import DecryptionError, build_associated_data, decrypt_bytes, encrypt_bytes
from app.errors import BadRequest, Conflict, NotFound, Unprocessable
from app.extensions import Model, db
from app.jsonapi.current_user import CurrentUser
from app.jsonapi.data_layer import DATA_LAYERS
from app.jsonapi.permissions import AccessContext, VisibilityScope, no_one

IDEMPOTENCY_KEY_HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotent-Replayed"
"""Header of a replayed response."""
POST_ONLY = frozenset({"POST"})
"""`keyed_methods` of views that support a key for POST."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
RETENTION = timedelta(hours=24)
MAX_STORED_BYTES = 256 * 2**10
"""Max bytes of a stored response, enough for any single resource; a larger one makes the request fail."""
ROW_OVERHEAD_BYTES = 256
"""Approximate bytes of a stored response besides its body, which count towards the daily limit too."""

CheckRights = Callable[[Any], None]
"""Function that gets the stored response as JSON, and raises Forbidden or NotFound unless it may be replayed."""

log = structlog.get_logger(__name__)


class IdempotencyKey(Model):
    """One request of one user and its stored response."""

    __tablename__ = "idempotency_keys"

    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes]
    status: Mapped[int | None]
    content_type: Mapped[str | None]
    location: Mapped[str | None]
    body: Mapped[bytes | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


def init_app(app: Flask) -> None:
    """Register the check that rejects the header where it is not supported."""
    app.before_request(_refuse_unsupported_key)


def _refuse_unsupported_key() -> None:
    if IDEMPOTENCY_KEY_HEADER not in request.headers or request.method in SAFE_METHODS or request.endpoint is None:
        return
    view = current_app.view_functions[request.endpoint]
    if request.method not in getattr(getattr(view, "view_class", view), "keyed_methods", ()):
        raise BadRequest(
            f"{request.method} of this URL does not support {IDEMPOTENCY_KEY_HEADER}: send none.",
            header=IDEMPOTENCY_KEY_HEADER,
        )


def run_idempotent(
    viewer: CurrentUser, make: Callable[[], Response], *, check_rights: CheckRights | None = None
) -> Response:
    """Run `make` and commit, or replay the response that is stored under the Idempotency-Key of this request.

    `check_rights` is called before a replay; by default it checks the resources in the response.
    """
    key = get_idempotency_key()
    if key is not None and viewer.is_anonymous:
        raise BadRequest(
            f"Only requests of a signed-in user support {IDEMPOTENCY_KEY_HEADER}: send none.",
            header=IDEMPOTENCY_KEY_HEADER,
        )
    return run_idempotent_with_key(viewer.id, key, make, check_rights=check_rights or _make_rights_check(viewer))


def find_stored_response(viewer: CurrentUser) -> Response | None:
    """Return the replay for the key of this request, or None if no response is stored.

    Views call it before slow work, and `run_idempotent` after it.
    """
    key = get_idempotency_key()
    if key is None or viewer.is_anonymous:
        return None
    stored = (
        get_connection()
        .execute(select(IdempotencyKey.__table__).where(_is_key(viewer.id, key), ~_is_expired))
        .one_or_none()
    )
    return (
        None
        if stored is None or stored.status is None
        else _replay_response(stored, IDEMPOTENCY_KEY_HEADER, _make_rights_check(viewer))
    )


def get_idempotency_key() -> str | None:
    """Return the key of this request, or None; raise BadRequest if it is invalid."""
    key = request.headers.get(IDEMPOTENCY_KEY_HEADER)
    if key is not None and not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        raise BadRequest(
            f"{IDEMPOTENCY_KEY_HEADER} must have 1 to 255 visible ASCII characters.", header=IDEMPOTENCY_KEY_HEADER
        )
    return key


def run_idempotent_with_key(
    owner_id: int,
    key: str | None,
    make: Callable[[], Response],
    *,
    header: str = IDEMPOTENCY_KEY_HEADER,
    check_rights: CheckRights | None = None,
) -> Response:
    """Run `make` and commit, or replay the response stored under this key of this user; `header` is named in errors."""
    if key is None:
        response = make()
        commit()
        return response
    mine = _is_key(owner_id, key)
    stored = _claim_key(mine, {"owner_id": owner_id, "key": key, "fingerprint": _compute_fingerprint()})
    if stored.status is not None:
        return _replay_response(stored, header, check_rights)
    response = make()
    body = response.get_data()
    if len(body) > MAX_STORED_BYTES:
        detail = (
            f"With {header} the response is stored and may have at most {MAX_STORED_BYTES} bytes: include less, "
            "choose fewer fields, or send fewer operations at once."
        )
        raise BadRequest(detail, header=header, code="too-large")
    quotas.charge_answer(owner_id, len(body) + len(key) + ROW_OVERHEAD_BYTES, header)
    stored_response = {
        "status": response.status_code,
        "content_type": response.content_type,
        "location": response.headers.get("Location"),
        "body": encrypt_bytes(body, _make_associated_data(owner_id, key)),
    }
    get_connection().execute(update(IdempotencyKey).where(mine).values(stored_response))
    commit()
    return response


_is_expired = IdempotencyKey.created_at < func.now() - RETENTION


def _is_key(owner_id: int, key: str) -> ColumnElement[bool]:
    return and_(IdempotencyKey.owner_id == owner_id, IdempotencyKey.key == key)


def _make_associated_data(owner_id: int, key: str) -> bytes:
    return build_associated_data("idempotency_keys", "body", f"{owner_id}.{key}")


def _claim_key(mine: ColumnElement[bool], values: dict[str, Any]) -> Row[Any]:
    """Insert the row of this key unless it exists, and return it, locked until the commit."""
    connection = get_connection()
    connection.execute(delete(IdempotencyKey).where(mine, _is_expired))
    connection.execute(insert(IdempotencyKey).values(values).on_conflict_do_nothing())
    return connection.execute(select(IdempotencyKey.__table__).where(mine).with_for_update()).one()


def _compute_fingerprint() -> bytes:
    parts = (request.method.encode(), request.path.rstrip("/").encode(), request.query_string, *_iterate_body_parts())
    hashed = blake2b(digest_size=32)
    for part in parts:
        hashed.update(len(part).to_bytes(8, "big") + part)
    return hashed.digest()


def _iterate_body_parts() -> Iterator[bytes]:
    """Yield the parts of the body to compare: those of a multipart form, as its boundary differs in each request."""
    body = request.get_data()
    if request.mimetype != "multipart/form-data":
        yield body
        return
    for name, value in request.form.items(multi=True):
        yield from (name.encode(), value.encode())
    for name, file in request.files.items(multi=True):
        yield from (name.encode(), (file.filename or "").encode(), file.mimetype.encode(), file.read())
        file.seek(0)


def _replay_response(stored: Row[Any], header: str, check_rights: CheckRights | None) -> Response:
    """Return the stored response; raise Unprocessable for another request, Forbidden or NotFound by `check_rights`."""
    if stored.fingerprint != _compute_fingerprint():
        raise Unprocessable("This key was used for a different request.", header=header)
    try:
        body = decrypt_bytes(stored.body, _make_associated_data(stored.owner_id, stored.key))
    except DecryptionError:
        log.warning("stored response decryption failed", owner_id=stored.owner_id)
        detail = (
            "This request has succeeded before, but its stored response cannot be decrypted. Check what it has created."
        )
        raise Conflict(detail, header=header, code="answer-lost") from None
    if check_rights is not None:
        check_rights(orjson.loads(body) if body else None)
    response = Response(body, status=stored.status, content_type=stored.content_type)
    response.headers[REPLAYED_HEADER] = "true"
    if stored.location is not None:
        set_location(response, stored.location)
    return response


def _make_rights_check(viewer: CurrentUser) -> CheckRights:
    """Return the default check: the user can see each primary resource of the response, and may update it."""

    def check(document: Any) -> None:
        access = AccessContext(viewer, VisibilityScope(viewer.role)).with_trash()
        for resource in _iterate_primary_resources(document):
            layer = DATA_LAYERS[resource["type"]]
            row = layer.get_object(layer.type.lookup(resource["id"]), access)
            if row is None:
                raise NotFound(f"There is no such {layer.type.name} any more.")
            if layer.type.permissions.update is not no_one:
                access.require_permission(layer.type.permissions.update, row)

    return check


def _iterate_primary_resources(document: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the primary resource of a document, or those in the results of atomic operations."""
    if isinstance(document, dict):
        for each in (document, *document.get("atomic:results", ())):
            if isinstance(each.get("data"), dict):
                yield each["data"]


def set_location(response: Response, location: str) -> Response:
    """Set Location; for a 202 response also Content-Location and Retry-After."""
    response.headers["Location"] = location
    if response.status_code == HTTPStatus.ACCEPTED:
        response.headers["Content-Location"] = location
        response.headers["Retry-After"] = "1"
    return response


def prune_keys(_older_than: timedelta) -> int:
    """Delete up to 1000 expired keys, and return their number."""
    with db.session.begin():
        old = select(IdempotencyKey.owner_id, IdempotencyKey.key).where(_is_expired)
        rows = db.session.execute(old.limit(1000).with_for_update(skip_locked=True)).all()
        for owner_id, key in rows:
            db.session.execute(
                delete(IdempotencyKey).where(IdempotencyKey.owner_id == owner_id, IdempotencyKey.key == key)
            )
        return len(rows)
