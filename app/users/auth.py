"""Authentication of requests by the Authorization header."""

from datetime import timedelta

import structlog
from flask import Response, after_this_request, request
from sqlalchemy import Engine, bindparam, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from app.actors import set_actor
from app.database import PreparedStatement, set_slot_user
from app.errors import Unauthenticated
from app.extensions import db
from app.jsonapi.current_user import ANONYMOUS_USER, CurrentUser
from app.users.models import LoginSession, User
from app.users.tokens import AccessClaims, ExpiredToken, InvalidToken, read_access_token

AUTH_SCHEMES = ("jwt", "bearer")

_users, _sign_ins = User.__table__, LoginSession.__table__
_is_stale = or_(_users.c.last_accessed_at.is_(None), _users.c.last_accessed_at < func.now() - timedelta(hours=1))
_select_user = PreparedStatement(
    select(_users.c.id, _users.c.is_admin, _users.c.is_super_admin, _users.c.is_verified, _is_stale.label("is_stale"))
    .join_from(_users, _sign_ins, _sign_ins.c.user_id == _users.c.id)
    .where(
        _users.c.id == bindparam("user_id"),
        _users.c.deleted_at.is_(None),
        _users.c.is_blocked.is_(False),
        _sign_ins.c.id == bindparam("sign_in_id"),
        _sign_ins.c.revoked_at.is_(None),
    )
)
"""Executed first in every authenticated request."""

log = structlog.get_logger(__name__)


def authenticate_request() -> CurrentUser:
    """Return the current user, anonymous without a token; raise Unauthenticated when the token is not valid."""
    token = _get_header_token()
    return ANONYMOUS_USER if token is None else load_user(_read_token(token))


def load_user_ignoring_expiry() -> CurrentUser:
    """Return the current user like `authenticate_request`, but accept expired tokens."""
    token = _get_header_token()
    return ANONYMOUS_USER if token is None else load_user(_read_token(token, forgive_expiry=True))


def _get_header_token() -> str | None:
    header = request.headers.get("Authorization")
    if header is None:
        return None
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() not in AUTH_SCHEMES:
        raise Unauthenticated("The Authorization header must be: JWT <access token>.", code="token-invalid")
    return token.strip()


def _read_token(token: str, *, forgive_expiry: bool = False) -> AccessClaims:
    try:
        return read_access_token(token, forgive_expiry=forgive_expiry)
    except ExpiredToken:
        raise Unauthenticated("The access token has expired: refresh it or log in.", code="token-expired") from None
    except InvalidToken:
        raise Unauthenticated("The access token is not valid.", code="token-invalid") from None


def load_user(access: AccessClaims) -> CurrentUser:
    """Return the user of a token; raise Unauthenticated when the session has ended or the user may not use it."""
    parameters = {"user_id": access.user_id, "sign_in_id": access.sign_in_id}
    set_slot_user(access.user_id)  # before the first statement, which takes a connection
    rows = _select_user.fetch_rows(parameters)
    if not rows:
        raise Unauthenticated("The session of this token has ended: log in again.", code="token-revoked")
    ((id_, is_admin, is_super_admin, is_verified, is_stale),) = rows
    if is_stale:
        _touch_last_access_later(id_)
    if is_verified or is_admin:
        set_actor(id_)
    return CurrentUser(
        id=id_,
        is_admin=is_admin or is_super_admin,
        is_super_admin=is_super_admin,
        is_verified=is_verified,
        is_recently_authenticated=access.is_recently_authenticated,
        sign_in_id=access.sign_in_id,
    )


def is_session_valid(viewer: CurrentUser) -> bool:
    """Return whether an authenticated user still has the session and is neither blocked nor deleted."""
    return bool(_select_user.fetch_rows({"user_id": viewer.id, "sign_in_id": viewer.sign_in_id}))


def _touch_last_access_later(user_id: int) -> None:
    engine = db.engine

    @after_this_request
    def when_sent(response: Response) -> Response:
        response.call_on_close(lambda: touch_last_access(engine, user_id))
        return response


def touch_last_access(engine: Engine, user_id: int) -> None:
    """Set `last_accessed_at`, at most once an hour; skip a locked row."""
    free = select(User.id).where(User.id == user_id, _is_stale).with_for_update(skip_locked=True, key_share=True)
    try:
        with engine.begin() as connection:
            connection.execute(
                update(User).where(User.id == free.scalar_subquery()).values(last_accessed_at=func.now())
            )
    except SQLAlchemyError as error:
        # The response is sent; the next request of this user tries again.
        log.warning("last access time not stored", user_id=user_id, error=type(error).__name__)
