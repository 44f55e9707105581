"""The Authorization header becomes a Viewer."""

from datetime import timedelta

import structlog
from flask import Response, after_this_request, request
from sqlalchemy import Engine, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from app.errors import Unauthenticated
from app.extensions import db
from app.jsonapi.viewer import ANONYMOUS, Viewer
from app.users.models import SignIn, User
from app.users.tokens import Access, ExpiredToken, InvalidToken, read_access_token

SCHEMES = ("jwt", "bearer")

log = structlog.get_logger(__name__)

_is_stale = or_(User.last_accessed_at.is_(None), User.last_accessed_at < func.now() - timedelta(hours=1))


def authenticate() -> Viewer:
    """The caller of this request, nobody without a token; 401 when the token is no good."""
    token = _token_in_header()
    return ANONYMOUS if token is None else _viewer(_read(token))


def get_identity() -> Viewer:
    """The caller even when the token has expired; all else that may be wrong with it is a 401 as ever."""
    token = _token_in_header()
    return ANONYMOUS if token is None else _viewer(_read(token, forgive_expiry=True))


def _token_in_header() -> str | None:
    header = request.headers.get("Authorization")
    if header is None:
        return None
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() not in SCHEMES:
        raise Unauthenticated("The Authorization header must be: JWT <access token>.", code="token-invalid")
    return token.strip()


def _read(token: str, *, forgive_expiry: bool = False) -> Access:
    try:
        return read_access_token(token, forgive_expiry=forgive_expiry)
    except ExpiredToken:
        raise Unauthenticated("The access token has expired: refresh it or log in.", code="token-expired") from None
    except InvalidToken:
        raise Unauthenticated("The access token is not valid.", code="token-invalid") from None


def _viewer(access: Access) -> Viewer:
    found = db.session.execute(
        select(User.id, User.is_admin, User.is_super_admin, User.is_verified, _is_stale.label("is_stale"))
        .join(SignIn, SignIn.user_id == User.id)
        .where(
            User.id == access.user_id,
            User.deleted_at.is_(None),
            User.is_blocked.is_(False),
            SignIn.id == access.sign_in_id,
            SignIn.revoked_at.is_(None),
        )
    ).one_or_none()
    if found is None:
        raise Unauthenticated("The session of this token has ended: log in again.", code="token-revoked")
    if found.is_stale:
        _note_access_later(found.id)
    return Viewer(
        id=found.id,
        is_admin=found.is_admin or found.is_super_admin,
        is_super_admin=found.is_super_admin,
        is_verified=found.is_verified,
        is_fresh=access.is_fresh,
        sign_in_id=access.sign_in_id,
    )


def _note_access_later(user_id: int) -> None:
    engine = db.engine

    @after_this_request
    def when_sent(response: Response) -> Response:
        response.call_on_close(lambda: note_access(engine, user_id))
        return response


def note_access(engine: Engine, user_id: int) -> None:
    """Write `last_accessed_at`, at most once an hour; whoever holds the row at the moment is not waited for."""
    free = select(User.id).where(User.id == user_id, _is_stale).with_for_update(skip_locked=True, key_share=True)
    try:
        with engine.begin() as connection:
            connection.execute(
                update(User).where(User.id == free.scalar_subquery()).values(last_accessed_at=func.now())
            )
    except SQLAlchemyError as error:
        # The answer has gone out; the next request of this user tries again.
        log.warning("last access not noted", user_id=user_id, error=type(error).__name__)
