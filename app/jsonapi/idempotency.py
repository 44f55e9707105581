"""`Idempotency-Key` on POST: the same key and the same request give the same answer, for a day.

The key is claimed by an INSERT in the transaction of the request: a second request with it waits there for the first,
and finds either its answer or, when the first was refused, nothing.
"""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import blake2b

from flask import Response, request
from sqlalchemy import ForeignKey, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from app.errors import BadRequest, Unprocessable
from app.extensions import Model, db
from app.jsonapi.viewer import Viewer

KEPT = timedelta(hours=24)


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


def answered_once(viewer: Viewer, make: Callable[[], Response]) -> Response:
    """Make the answer and commit; with a key that was used before, give the answer of then."""
    key = request.headers.get("Idempotency-Key")
    if key is None or viewer.is_anonymous:
        response = make()
        db.session.commit()
        return response
    if not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        raise BadRequest("An Idempotency-Key has 1 to 255 visible ASCII characters.", header="Idempotency-Key")
    kept = _claim(viewer.id, key)
    if kept.status is not None:
        return _replay(kept)
    response = make()
    kept.status, kept.content_type = response.status_code, response.content_type
    kept.location, kept.body = response.headers.get("Location"), response.get_data()
    db.session.commit()
    return response


def _claim(owner_id: int, key: str) -> IdempotencyKey:
    """The row of this key, ours until the commit."""
    mine = (IdempotencyKey.owner_id == owner_id, IdempotencyKey.key == key)
    db.session.execute(delete(IdempotencyKey).where(*mine, IdempotencyKey.created_at < func.now() - KEPT))
    values = {"owner_id": owner_id, "key": key, "fingerprint": _fingerprint()}
    db.session.execute(insert(IdempotencyKey).values(values).on_conflict_do_nothing())
    return db.session.scalars(select(IdempotencyKey).where(*mine).with_for_update()).one()


def _fingerprint() -> bytes:
    parts = (request.method.encode(), request.path.rstrip("/").encode(), request.query_string, request.get_data())
    hashed = blake2b(digest_size=32)
    for part in parts:
        hashed.update(len(part).to_bytes(8, "big") + part)
    return hashed.digest()


def _replay(kept: IdempotencyKey) -> Response:
    if kept.fingerprint != _fingerprint():
        raise Unprocessable("This key was used for another request.", header="Idempotency-Key")
    response = Response(kept.body, status=kept.status, content_type=kept.content_type)
    response.headers["Idempotent-Replayed"] = "true"
    if kept.location is not None:
        response.headers["Location"] = kept.location
    db.session.rollback()
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
