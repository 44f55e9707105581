"""`Idempotency-Key`: the same key and the same request give the same answer, for a day.

A view names the methods with which it takes a key in `keyed_methods`; all others refuse it, so that no client relies
on a header that does nothing.

The key is claimed by an INSERT in the transaction of the request: a second request with it waits there for the first,
and finds either its answer or, when the first was refused, nothing.

An answer is replayed to a caller who may still do the same: the request is run once more and undone, and refused if
that is forbidden or finds nothing. What the first run wrote, or has deleted, is no reason to refuse it.
"""

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from hashlib import blake2b
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, current_app, request
from sqlalchemy import ColumnElement, ForeignKey, Row, and_, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from app.database import commit, connection
from app.errors import ApiError, BadRequest, Errors, Forbidden, NotFound, Unauthenticated, Unprocessable
from app.extensions import Model, db
from app.jsonapi.viewer import Viewer

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
"""The header of an answer that was given before."""
TAKES_KEY = frozenset({"POST"})
"""The `keyed_methods` of a view that takes a key with POST."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
KEPT = timedelta(hours=24)
MAX_STORED_BYTES = 256 * 2**10
"""Bytes of an answer that is stored to be replayed: any one resource fits. A larger one is refused, nothing written."""


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


def install(app: Flask) -> None:
    """Refuse the header where it is not supported."""
    app.before_request(_refuse_unsupported_key)


def _refuse_unsupported_key() -> None:
    if HEADER not in request.headers or request.method in SAFE_METHODS or request.endpoint is None:
        return
    view = current_app.view_functions[request.endpoint]
    if request.method not in getattr(getattr(view, "view_class", view), "keyed_methods", ()):
        raise BadRequest(f"{request.method} of this URL does not support {HEADER}: send none.", header=HEADER)


def answered_once(
    viewer: Viewer, make: Callable[[], Response], *, dry_run: Callable[[], Response] | None = None
) -> Response:
    """Run `make` and commit, or replay the response that is stored under the Idempotency-Key of this request.

    Before a replay `dry_run`, by default `make`, is run and undone: it finds out whether the caller still has the
    rights. It may see what is in the trash by now.
    """
    key = sent_key()
    if key is not None and viewer.is_anonymous:
        raise BadRequest(f"Only requests of a signed-in user support {HEADER}: send none.", header=HEADER)
    return answered_by_key(viewer.id, key, make, dry_run=dry_run)


def sent_key() -> str | None:
    """The key of this request; 400 for one that is none."""
    key = request.headers.get(HEADER)
    if key is not None and not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        raise BadRequest(f"{HEADER} must have 1 to 255 visible ASCII characters.", header=HEADER)
    return key


def answered_by_key(
    owner_id: int,
    key: str | None,
    make: Callable[[], Response],
    *,
    header: str = HEADER,
    dry_run: Callable[[], Response] | None = None,
) -> Response:
    """The same for somebody's key, which came in this header; None is no key."""
    if key is None:
        response = make()
        commit()
        return response
    mine = and_(IdempotencyKey.owner_id == owner_id, IdempotencyKey.key == key)
    kept = _claim(mine, {"owner_id": owner_id, "key": key, "fingerprint": _fingerprint()})
    if kept.status is not None:
        if kept.fingerprint != _fingerprint():
            raise Unprocessable("This key was used for another request.", header=header)
        _require_rights(dry_run or make)
        return _replay(kept)
    response = make()
    if len(response.get_data()) > MAX_STORED_BYTES:
        detail = (
            f"With {header} the answer is stored and may have at most {MAX_STORED_BYTES} bytes: include less, "
            "choose fewer fields, or send fewer operations at once."
        )
        raise BadRequest(detail, header=header, code="too-large")
    answer = {
        "status": response.status_code,
        "content_type": response.content_type,
        "location": response.headers.get("Location"),
        "body": response.get_data(),
    }
    connection().execute(update(IdempotencyKey).where(mine).values(answer))
    commit()
    return response


def _claim(mine: ColumnElement[bool], values: dict[str, Any]) -> Row[Any]:
    """The row of this key, ours until the commit."""
    used = connection()
    used.execute(delete(IdempotencyKey).where(mine, IdempotencyKey.created_at < func.now() - KEPT))
    used.execute(insert(IdempotencyKey).values(values).on_conflict_do_nothing())
    return used.execute(select(IdempotencyKey.__table__).where(mine).with_for_update()).one()


def _fingerprint() -> bytes:
    parts = (request.method.encode(), request.path.rstrip("/").encode(), request.query_string, *_body_parts())
    hashed = blake2b(digest_size=32)
    for part in parts:
        hashed.update(len(part).to_bytes(8, "big") + part)
    return hashed.digest()


def _body_parts() -> Iterator[bytes]:
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


def _require_rights(dry_run: Callable[[], Response]) -> None:
    """Raise the 401, 403 or 404 that a new request would get; all that running it writes is undone.

    Other refusals are ignored: they come of what the first request wrote, such as a name that is taken now.
    """
    savepoint = connection().begin_nested()
    try:
        dry_run()
    except (ApiError, Errors) as error:
        refused = error.errors if isinstance(error, Errors) else [error]
        if any(isinstance(each, (Unauthenticated, Forbidden, NotFound)) for each in refused):
            raise
    finally:
        savepoint.rollback()


def _replay(kept: Row[Any]) -> Response:
    response = Response(kept.body, status=kept.status, content_type=kept.content_type)
    response.headers[REPLAYED] = "true"
    if kept.location is not None:
        locate(response, kept.location)
    return response


def locate(response: Response, location: str) -> Response:
    """Say where the new resource is; for one that is still in the making also that this is its present state."""
    response.headers["Location"] = location
    if response.status_code == HTTPStatus.ACCEPTED:
        response.headers["Content-Location"] = location
        response.headers["Retry-After"] = "1"
    return response


def prune(_older_than: timedelta) -> int:
    """Delete the keys of yesterday; how many."""
    with db.session.begin():
        old = select(IdempotencyKey.owner_id, IdempotencyKey.key).where(IdempotencyKey.created_at < func.now() - KEPT)
        rows = db.session.execute(old.limit(1000).with_for_update(skip_locked=True)).all()
        for owner_id, key in rows:
            db.session.execute(
                delete(IdempotencyKey).where(IdempotencyKey.owner_id == owner_id, IdempotencyKey.key == key)
            )
        return len(rows)
