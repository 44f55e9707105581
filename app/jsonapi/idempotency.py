"""`Idempotency-Key`: the same key and the same request give the same answer, for a day.

A view names the methods with which it takes a key in `keyed_methods`; all others refuse it, so that no client relies
on a header that does nothing.

The key is claimed by an INSERT in the transaction of the request: a second request with it waits there for the first,
and finds either its answer or, when the first was refused, nothing.

A replay runs nothing of the request again: it is answered to a signed-in caller who still sees each resource that the
answer shows, in the trash or not, and may still update it, where the type permits updates. An answer that shows no
resource needs no more than the caller. So what the request itself changed, such as the name of an account, the password
of the caller or the owner of an event, is no reason to refuse its replay.

Answers are sealed in the database, and the bytes that one user stores on one day are limited.
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
from app.jsonapi.permissions import AccessContext, VisibilityScope, nobody

IDEMPOTENCY_KEY_HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotent-Replayed"
"""The header of an answer that was given before."""
POST_ONLY = frozenset({"POST"})
"""The `keyed_methods` of a view that takes a key with POST."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
RETENTION = timedelta(hours=24)
MAX_STORED_BYTES = 256 * 2**10
"""Bytes of an answer that is stored to be replayed: any one resource fits. A larger one is refused, nothing written."""
ROW_OVERHEAD_BYTES = 256
"""Bytes of a stored answer besides its body, roughly: they count for the limit of the day as well."""

CheckRights = Callable[[Any], None]
"""Raise 403 or 404 unless the caller may have the stored answer, whose JSON value it gets, replayed."""

log = structlog.get_logger(__name__)


class IdempotencyKey(Model):
    """One answered request of one user."""

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
    """Refuse the header where it is not supported."""
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

    `check_rights` is called before a replay, by default for the resources that the response shows.
    """
    key = get_idempotency_key()
    if key is not None and viewer.is_anonymous:
        raise BadRequest(
            f"Only requests of a signed-in user support {IDEMPOTENCY_KEY_HEADER}: send none.",
            header=IDEMPOTENCY_KEY_HEADER,
        )
    return run_idempotent_with_key(viewer.id, key, make, check_rights=check_rights or _make_rights_check(viewer))


def find_stored_response(viewer: CurrentUser) -> Response | None:
    """Return the replay for the key of this request; None where no answer is stored (yet).

    For views with slow work: it comes before that work, and `run_idempotent` after it all the same.
    """
    key = get_idempotency_key()
    if key is None or viewer.is_anonymous:
        return None
    kept = (
        get_connection()
        .execute(select(IdempotencyKey.__table__).where(_is_key(viewer.id, key), ~_is_expired))
        .one_or_none()
    )
    return (
        None
        if kept is None or kept.status is None
        else _replay_response(kept, IDEMPOTENCY_KEY_HEADER, _make_rights_check(viewer))
    )


def get_idempotency_key() -> str | None:
    """The key of this request; 400 for one that is none."""
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
    """Do the same for the key of any user, which came in this header; None is no key."""
    if key is None:
        response = make()
        commit()
        return response
    mine = _is_key(owner_id, key)
    kept = _claim_key(mine, {"owner_id": owner_id, "key": key, "fingerprint": _compute_fingerprint()})
    if kept.status is not None:
        return _replay_response(kept, header, check_rights)
    response = make()
    body = response.get_data()
    if len(body) > MAX_STORED_BYTES:
        detail = (
            f"With {header} the answer is stored and may have at most {MAX_STORED_BYTES} bytes: include less, "
            "choose fewer fields, or send fewer operations at once."
        )
        raise BadRequest(detail, header=header, code="too-large")
    quotas.charge_answer(owner_id, len(body) + len(key) + ROW_OVERHEAD_BYTES, header)
    answer = {
        "status": response.status_code,
        "content_type": response.content_type,
        "location": response.headers.get("Location"),
        "body": encrypt_bytes(body, _associated_data(owner_id, key)),
    }
    get_connection().execute(update(IdempotencyKey).where(mine).values(answer))
    commit()
    return response


_is_expired = IdempotencyKey.created_at < func.now() - RETENTION


def _is_key(owner_id: int, key: str) -> ColumnElement[bool]:
    return and_(IdempotencyKey.owner_id == owner_id, IdempotencyKey.key == key)


def _associated_data(owner_id: int, key: str) -> bytes:
    return build_associated_data("idempotency_keys", "body", f"{owner_id}.{key}")


def _claim_key(mine: ColumnElement[bool], values: dict[str, Any]) -> Row[Any]:
    """The row of this key, ours until the commit."""
    used = get_connection()
    used.execute(delete(IdempotencyKey).where(mine, _is_expired))
    used.execute(insert(IdempotencyKey).values(values).on_conflict_do_nothing())
    return used.execute(select(IdempotencyKey.__table__).where(mine).with_for_update()).one()


def _compute_fingerprint() -> bytes:
    parts = (request.method.encode(), request.path.rstrip("/").encode(), request.query_string, *_iterate_body_parts())
    hashed = blake2b(digest_size=32)
    for part in parts:
        hashed.update(len(part).to_bytes(8, "big") + part)
    return hashed.digest()


def _iterate_body_parts() -> Iterator[bytes]:
    """Yield what makes two bodies equal; of a multipart form its parts: clients choose another boundary each time."""
    body = request.get_data()
    if request.mimetype != "multipart/form-data":
        yield body
        return
    for name, value in request.form.items(multi=True):
        yield from (name.encode(), value.encode())
    for name, file in request.files.items(multi=True):
        yield from (name.encode(), (file.filename or "").encode(), file.mimetype.encode(), file.read())
        file.seek(0)


def _replay_response(kept: Row[Any], header: str, check_rights: CheckRights | None) -> Response:
    """Return the stored response; 422 for another request, 403 or 404 for a caller who lost the rights."""
    if kept.fingerprint != _compute_fingerprint():
        raise Unprocessable("This key was used for another request.", header=header)
    try:
        body = decrypt_bytes(kept.body, _associated_data(kept.owner_id, kept.key))
    except DecryptionError:
        log.warning("stored answer cannot be opened", owner_id=kept.owner_id)
        detail = "This request was answered before, and that answer cannot be read any more. Look for what it wrote."
        raise Conflict(detail, header=header, code="answer-lost") from None
    if check_rights is not None:
        check_rights(orjson.loads(body) if body else None)
    response = Response(body, status=kept.status, content_type=kept.content_type)
    response.headers[REPLAYED_HEADER] = "true"
    if kept.location is not None:
        set_location(response, kept.location)
    return response


def _make_rights_check(viewer: CurrentUser) -> CheckRights:
    """Return the default check: the caller sees each primary resource of the answer, and may update it."""

    def check(document: Any) -> None:
        access = AccessContext(viewer, VisibilityScope(viewer.role)).with_trash()
        for resource in _iterate_primary_resources(document):
            layer = DATA_LAYERS[resource["type"]]
            row = layer.get_object(layer.type.lookup(resource["id"]), access)
            if row is None:
                raise NotFound(f"There is no such {layer.type.name} here any more.")
            if layer.type.permissions.update is not nobody:
                access.require_permission(layer.type.permissions.update, row)

    return check


def _iterate_primary_resources(document: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the resource of a document, or the resources in the results of operations."""
    if isinstance(document, dict):
        for each in (document, *document.get("atomic:results", ())):
            if isinstance(each.get("data"), dict):
                yield each["data"]


def set_location(response: Response, location: str) -> Response:
    """Say where the new resource is; for one that is still in the making also that this is its present state."""
    response.headers["Location"] = location
    if response.status_code == HTTPStatus.ACCEPTED:
        response.headers["Content-Location"] = location
        response.headers["Retry-After"] = "1"
    return response


def prune_keys(_older_than: timedelta) -> int:
    """Delete the keys of yesterday; how many."""
    with db.session.begin():
        old = select(IdempotencyKey.owner_id, IdempotencyKey.key).where(_is_expired)
        rows = db.session.execute(old.limit(1000).with_for_update(skip_locked=True)).all()
        for owner_id, key in rows:
            db.session.execute(
                delete(IdempotencyKey).where(IdempotencyKey.owner_id == owner_id, IdempotencyKey.key == key)
            )
        return len(rows)
