"""Sessions: a log-in, the chain of its refresh tokens, and revocation."""

import base64
import secrets
import time
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, Executable, delete, exists, func, insert, or_, select, update
from uuid_utils.compat import uuid7

from app import throttle
from app.database import get_connection
from app.derived_keys import derive_key
from app.extensions import db
from app.users.models import LoginSession, RefreshToken, User
from app.users.tokens import ACCESS_TOKEN_LIFETIME, AccessClaims, new_access_token

REFRESH_TOKEN_LIFETIME = timedelta(days=30)

REUSE_GRACE_PERIOD = timedelta(seconds=10)
"""Time in which a used refresh token returns the same successor: the response may be lost, or two tabs may refresh."""

REFRESH_LIMIT = "1000/day"
"""Limit of refreshes of one session: each stores a token until it expires."""

PRUNE_BATCH_SIZE = 1000

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class TokenPair:
    """An access token, and the refresh token for the next pair."""

    access_token: str
    refresh_token: str


def create_session(user_id: int, address: str | None = None) -> TokenPair:
    """Create a session of a user and return its first tokens; `address` is the client address of the log-in."""
    sign_in_id, refresh_token = uuid7(), secrets.token_urlsafe(32)
    address_key = address and _derive_address_key(address)
    db.session.execute(insert(LoginSession).values(id=sign_in_id, user_id=user_id, address_key=address_key))
    _store_refresh_token(refresh_token, sign_in_id)
    access = AccessClaims(user_id, sign_in_id, is_fresh=True, authenticated_at=int(time.time()))
    return TokenPair(new_access_token(access), refresh_token)


def rotate_refresh_token(presented: str) -> TokenPair | None:
    """Use a refresh token and return the next pair; return None when it is not valid.

    Reuse after REUSE_GRACE_PERIOD means that the token has two holders: the session is revoked. The caller must commit
    in every case. Raise TooManyRequests above REFRESH_LIMIT.
    """
    link = db.session.execute(
        select(
            RefreshToken.sign_in_id,
            RefreshToken.used_at,
            (RefreshToken.used_at > func.now() - REUSE_GRACE_PERIOD).label("in_grace"),
            LoginSession.user_id,
            LoginSession.created_at,
        )
        .join(LoginSession, LoginSession.id == RefreshToken.sign_in_id)
        .join(User, User.id == LoginSession.user_id)
        .where(
            RefreshToken.token_hash == _hash_token(presented),
            RefreshToken.expires_at > func.now(),
            LoginSession.revoked_at.is_(None),
            User.deleted_at.is_(None),
            User.is_blocked.is_(False),
        )
        # Requests with the same token wait for each other here.
        .with_for_update(of=RefreshToken)
    ).one_or_none()
    if link is None:
        return None
    successor = _derive_next_token(presented)
    if link.used_at is None:
        throttle.count_subject("refresh-sign-in", str(link.sign_in_id), REFRESH_LIMIT)
        _mark_used(presented)
        _store_refresh_token(successor, link.sign_in_id)
    elif not link.in_grace:
        log.warning("refresh token reused", sign_in_id=str(link.sign_in_id), user_id=link.user_id)
        revoke_session(link.sign_in_id)
        return None
    authenticated_at = int(link.created_at.timestamp())
    return TokenPair(new_access_token(AccessClaims(link.user_id, link.sign_in_id, False, authenticated_at)), successor)


def remember_address(user_id: int, address: str) -> None:
    """Make a client address known for a user, by inserting a session that is revoked already."""
    values = {"id": uuid7(), "user_id": user_id, "address_key": _derive_address_key(address), "revoked_at": func.now()}
    get_connection().execute(insert(LoginSession).values(values))


def find_device(criterion: ColumnElement[bool], *, refresh_token: str | None, sign_in_id: UUID | None) -> UUID | None:
    """Return the id of the session, which may have ended, of a refresh token or an id, if it is of this user.

    Return None when the device of the session was forgotten.
    """
    matches = [LoginSession.id == sign_in_id] if sign_in_id is not None else []
    if refresh_token is not None:
        of_token = select(RefreshToken.sign_in_id).where(RefreshToken.token_hash == _hash_token(refresh_token))
        matches.append(LoginSession.id == of_token.scalar_subquery())
    if not matches:
        return None
    statement = select(LoginSession.id).join(User, User.id == LoginSession.user_id).where(criterion, or_(*matches))
    return db.session.scalar(statement.where(LoginSession.address_key.is_not(None)).limit(1))


def has_known_address(address: str) -> ColumnElement[bool]:
    """Return the criterion for users with a session, not pruned yet, from this client address."""
    return exists().where(LoginSession.user_id == User.id, LoginSession.address_key == _derive_address_key(address))


def is_known_address(criterion: ColumnElement[bool], address: str) -> bool:
    """Return whether this user has a session, not pruned yet, from this client address."""
    return db.session.scalar(select(User.id).where(criterion, has_known_address(address)).limit(1)) is not None


def forget_devices(user_id: int, except_sign_in_id: UUID | None = None) -> None:
    """Forget the devices and client addresses of all sessions of a user, except one."""
    statement = update(LoginSession).where(LoginSession.user_id == user_id, LoginSession.address_key.is_not(None))
    if except_sign_in_id is not None:
        statement = statement.where(LoginSession.id != except_sign_in_id)
    _execute_bulk(statement.values(address_key=None))


def revoke_session(sign_in_id: UUID) -> None:
    """Revoke a session: its refresh and access tokens stop working at once."""
    _execute_bulk(
        update(LoginSession)
        .where(LoginSession.id == sign_in_id, LoginSession.revoked_at.is_(None))
        .values(revoked_at=func.now())
    )


def revoke_all_sessions(user_id: int, except_sign_in_id: UUID | None = None) -> None:
    """Revoke all sessions of a user, except one."""
    statement = update(LoginSession).where(LoginSession.user_id == user_id, LoginSession.revoked_at.is_(None))
    if except_sign_in_id is not None:
        statement = statement.where(LoginSession.id != except_sign_in_id)
    _execute_bulk(statement.values(revoked_at=func.now()))


def prune_sessions(older_than: timedelta) -> int:
    """Delete a batch of refresh tokens and sessions that ended longer ago than this; return the number of rows.

    Used tokens are deleted when they expire: until then they show that a token was stolen. The last token of a
    session still makes its device known.
    """
    past = func.now() - older_than
    is_useless = (RefreshToken.expires_at < past) | RefreshToken.used_at.is_not(None)
    expired = (
        select(RefreshToken.token_hash).where(RefreshToken.expires_at < func.now(), is_useless).limit(PRUNE_BATCH_SIZE)
    )
    is_over = ~exists().where(RefreshToken.sign_in_id == LoginSession.id) & (
        LoginSession.created_at < past - ACCESS_TOKEN_LIFETIME
    )
    ended = select(LoginSession.id).where((LoginSession.revoked_at < past) | is_over).limit(PRUNE_BATCH_SIZE)
    with db.session.begin():
        return _execute_bulk(
            delete(RefreshToken).where(RefreshToken.token_hash.in_(expired.with_for_update(skip_locked=True)))
        ) + _execute_bulk(delete(LoginSession).where(LoginSession.id.in_(ended.with_for_update(skip_locked=True))))


def _store_refresh_token(token: str, sign_in_id: UUID) -> None:
    expires_at = func.now() + REFRESH_TOKEN_LIFETIME
    db.session.execute(
        insert(RefreshToken).values(token_hash=_hash_token(token), sign_in_id=sign_in_id, expires_at=expires_at)
    )


def _mark_used(token: str) -> None:
    _execute_bulk(update(RefreshToken).where(RefreshToken.token_hash == _hash_token(token)).values(used_at=func.now()))


def _execute_bulk(statement: Executable) -> int:
    """Execute a bulk statement; return the number of rows."""
    return get_connection().execute(statement).rowcount


def _hash_token(token: str) -> bytes:
    return sha256(token.encode()).digest()


def _derive_address_key(address: str) -> bytes:
    return derive_key(f"address:{address}".encode())


def _derive_next_token(token: str) -> str:
    """Return the successor of a token: derived, so that it can be returned again without being stored."""
    digest = derive_key(b"refresh-token:" + token.encode())
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
