"""Operations on accounts: log-in, verification of an address, change and reset of a password.

The caller commits. No database connection is held while a password is hashed; afterwards the row is locked and what
was read before is checked again.
"""

import hmac
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, and_, func, select, update

from app import mail, outbox, throttle
from app.database import commit, get_connection, open_transaction
from app.derived_keys import derive_key
from app.errors import Unauthenticated
from app.extensions import db
from app.jsonapi.current_user import CurrentUser
from app.jsonapi.resource_type import TYPES
from app.logs import describe_request
from app.users import login_sessions
from app.users.emails import email_key
from app.users.models import User
from app.users.passwords import (
    find_verified_spelling,
    hash_password,
    is_normalized,
    needs_rehash,
    rehash_password,
    verify_password,
)
from app.users.tokens import RESET_PASSWORD, VERIFY_EMAIL, InvalidToken, get_user_id, read_mail_token

MAIL_VERIFICATION = "users.mail_verification"
MAIL_RESET = "users.mail_reset"
MAIL_EMAIL_CHANGED = "users.mail_email_changed"
MAIL_ACCOUNT_DELETED = "users.mail_account_deleted"
MAIL_PASSWORD_CHANGED = "users.mail_password_changed"  # noqa: S105  # the name of a consumer

LOG_IN = "log-in"
"""Action under which all password attempts are counted, also those of other routes."""

MAX_WRONG_PASSWORDS = 10
"""Wrong passwords in 30 days after which a session is revoked."""

log = structlog.get_logger(__name__)


def log_in(
    email: str, password: str, *, refresh_token: str | None = None, sign_in_id: UUID | None = None
) -> login_sessions.TokenPair | None:
    """Count an attempt and return tokens, None when the password is wrong; raise TooManyRequests.

    It takes the same time for accounts that do not exist. An earlier refresh token or session id of the account makes
    the device known: attempts from other addresses do not lock it out.
    """
    address = throttle.client_bucket()
    is_known_device = _count_log_in(email, refresh_token, sign_in_id)
    found = select(User.id, User.password_hash, login_sessions.has_known_address(address).label("is_known_address"))
    known = db.session.execute(found.where(_is_active(), has_email(email))).one_or_none()
    db.session.rollback()
    known_hash = known.password_hash if known else None
    is_known_device = is_known_device or (known is not None and known.is_known_address)
    spelling = find_verified_spelling(known_hash, password, is_known_device=is_known_device)
    if spelling is None or known is None:
        log.warning("log-in failed", account_id=known and known.id, **describe_request())
        return None
    is_stale = needs_rehash(known.password_hash) or not is_normalized(spelling)
    new_hash = rehash_password(password) if is_stale else None
    user = _lock_user(User.id == known.id, User.password_hash == known.password_hash)
    if user is None:
        return None
    if new_hash is not None:
        user.password_hash = new_hash
    return login_sessions.create_session(user.id, address)


def _count_log_in(email: str, refresh_token: str | None, sign_in_id: UUID | None) -> bool:
    """Count an attempt; return whether it names an earlier session of the account."""
    device = login_sessions.find_device(has_email(email), refresh_token=refresh_token, sign_in_id=sign_in_id)
    db.session.rollback()
    _count_anonymous(LOG_IN, email, device=None if device is None else str(device))
    return device is not None


def _count_anonymous(action: str, email: str, *, device: str | None = None) -> None:
    """Count an attempt of an anonymous caller for the account with this e-mail address."""
    criterion, address = has_email(email), throttle.client_bucket()
    throttle.count_account(
        action,
        email_key(email),
        device=device,
        is_known_address=lambda: login_sessions.is_known_address(criterion, address),
    )


def check_password(viewer: CurrentUser, password: str) -> str | None:
    """Count an attempt at the password of the current user with the log-ins; return its hash, None when it is wrong.

    Raise TooManyRequests after too many attempts, Unauthenticated after MAX_WRONG_PASSWORDS of a session, which is
    revoked. Call it outside of a transaction: no database connection is held while it hashes. The caller must compare
    the hash with that of the locked row, which may have changed since.
    """
    with open_transaction(is_read=True):
        owner = select(User.email, User.password_hash).where(User.id == viewer.id)
        found = get_connection().execute(owner).one_or_none()
    if found is None:
        return None
    # The device of a session is known: attempts of unknown devices do not lock it out.
    throttle.count_account(LOG_IN, email_key(found.email), device=str(viewer.sign_in_id))
    if verify_password(found.password_hash, password):
        return str(found.password_hash)
    log.warning("wrong password", account_id=viewer.id, **describe_request())
    if viewer.sign_in_id is not None:
        _count_wrong_password(viewer.id, viewer.sign_in_id)
    return None


def _count_wrong_password(user_id: int, sign_in_id: UUID) -> None:
    """Count a wrong password of a session; at MAX_WRONG_PASSWORDS revoke the session and raise Unauthenticated."""
    if not throttle.is_exceeded("wrong-password", str(sign_in_id), f"{MAX_WRONG_PASSWORDS - 1}/30 days"):
        return
    with open_transaction(is_read=False):
        login_sessions.revoke_session(sign_in_id)
        commit()
    log.warning("session revoked after wrong passwords", account_id=user_id, **describe_request())
    detail = f"This session has ended after {MAX_WRONG_PASSWORDS} wrong passwords: log in again."
    raise Unauthenticated(detail, code="token-revoked")


def change_password(viewer: CurrentUser, old: str, new: str) -> bool:
    """Set a new password, revoke all other sessions and disable all hooks; return False when the old one is wrong.

    Raise ValueError when the length of the new password is not allowed.
    """
    old_hash = check_password(viewer, old)
    if old_hash is None:
        return False
    new_hash = hash_password(new)
    user = _lock_user(User.id == viewer.id, User.password_hash == old_hash)
    if user is None:
        return False
    user.password_hash = new_hash
    revoke_credentials(user.id, except_sign_in_id=viewer.sign_in_id)
    notify_password_changed(user.id, user.email, is_verified=user.is_verified)
    return True


def has_email(email: str) -> ColumnElement[bool]:
    """Return the criterion for users with this address in any spelling; it uses the unique index."""
    return func.lower(User.email) == email_key(email)


def is_email_taken(email: str) -> bool:
    """Return whether an account has this e-mail address."""
    return db.session.scalar(select(User.id).where(User.deleted_at.is_(None), has_email(email))) is not None


def request_verification(email: str, *, viewer: CurrentUser, refresh_token: str | None = None) -> None:
    """Count an attempt, and mail a verification token if an unverified account has this address."""
    is_known = _count_mail_order("verification", email, viewer, refresh_token)
    user = _lock_user(has_email(email), User.is_verified.is_(False))
    if user is None:
        return
    is_known = is_known and _is_own_mailbox(user)
    if not _can_order_mail(MAIL_VERIFICATION, user, is_known):
        return
    # Two topics, so that the order of an unknown device is not merged with that of a known one.
    topic = "user.verification-requested" if is_known else "user.verification-requested-by-unknown-device"
    outbox.enqueue_entry(MAIL_VERIFICATION, topic, {"id": user.id, "is_known": is_known})


def verify_email(token: str, viewer: CurrentUser) -> bool:
    """Mark the address as verified; return False when the token is invalid, expired or used.

    The first verification revokes all other sessions and hooks: the account may have been created by a person who
    does not own the mailbox.
    """
    claims = _read_valid_token(VERIFY_EMAIL, token)
    if claims is None:
        return False
    user = _lock_user(User.id == get_user_id(claims), User.is_verified.is_(False))
    if (
        user is None
        or not _fingerprint_matches(claims, VERIFY_EMAIL, user)
        or not _is_newer(claims["iat"], user.email_verified_at)
    ):
        return False
    if user.email_verified_at is None:
        revoke_credentials(user.id, except_sign_in_id=viewer.sign_in_id if viewer.id == user.id else None)
    _mark_verified(user)
    return True


def request_reset(email: str, *, viewer: CurrentUser, refresh_token: str | None = None) -> None:
    """Count an attempt, and mail a reset token if an account has this address."""
    is_known = _count_mail_order("reset", email, viewer, refresh_token)
    user = _lock_user(has_email(email))
    if user is None:
        return
    is_known = is_known and _is_own_mailbox(user)
    if not _can_order_mail(MAIL_RESET, user, is_known):
        return
    payload = {"id": user.id, "fingerprint": compute_fingerprint(RESET_PASSWORD, user), "is_known": is_known}
    outbox.enqueue_entry(MAIL_RESET, "user.reset-requested", payload)


def _count_mail_order(action: str, email: str, viewer: CurrentUser, refresh_token: str | None) -> bool:
    """Count an attempt; return whether the device of the request is known to the account with this address."""
    criterion, address = has_email(email), throttle.client_bucket()
    device = login_sessions.find_device(criterion, refresh_token=refresh_token, sign_in_id=viewer.sign_in_id)
    is_known_address = login_sessions.is_known_address(criterion, address)
    db.session.rollback()
    _count_anonymous(action, email, device=None if device is None else str(device))
    is_known = device is not None or is_known_address
    if not is_known:
        throttle.count_mail_order()
    return is_known


def _is_own_mailbox(user: User) -> bool:
    """Return whether the address is verified or has not changed since the account was created."""
    return user.is_verified or user.email_changed_at is None


def _can_order_mail(kind: str, user: User, is_known: bool) -> bool:
    """Count an order by an unknown device; return False when its client address has reached the daily limit."""
    if is_known or mail.count_origin(user.email, kind, throttle.client_bucket()):
        return True
    log.warning("mail order refused, daily limit of client address reached", kind=kind, account_id=user.id)
    return False


def reset_password(token: str, password: str) -> bool:
    """Set a new password, revoke all sessions and disable all hooks; return False when the token is not valid.

    Raise ValueError when the length of the password is not allowed.
    """
    claims = _read_valid_token(RESET_PASSWORD, token)
    if claims is None:
        return False
    user_id = get_user_id(claims)
    throttle.count_account("reset-with-token", str(user_id))
    new_hash = hash_password(password)
    user = _lock_user(User.id == user_id)
    if user is None or not _fingerprint_matches(claims, RESET_PASSWORD, user):
        return False
    user.password_hash = new_hash
    if not user.is_verified:
        # The token proves that the user reads the mails to this address.
        _mark_verified(user)
    revoke_credentials(user.id)
    # So that the owner can log in from here while attempts from other addresses lock out unknown devices.
    login_sessions.remember_address(user.id, throttle.client_bucket())
    notify_password_changed(user.id, user.email, is_verified=user.is_verified)
    return True


def notify_email_changed(user_id: int, old: str, *, is_verified: bool) -> None:
    """Enqueue a verification mail to the new address and, if the old one was verified, a notice to the old one.

    Addresses that are not verified get no notices: the account may not belong to the owner of the mailbox.
    """
    outbox.enqueue_entry(MAIL_VERIFICATION, "user.email-changed", {"id": user_id, "is_known": False})
    _enqueue_notice(MAIL_EMAIL_CHANGED, "user.email-changed", user_id, old, is_verified=is_verified)


def notify_password_changed(user_id: int, address: str, *, is_verified: bool) -> None:
    """Enqueue a notice of the new password to the address of the account, if it was verified."""
    _enqueue_notice(MAIL_PASSWORD_CHANGED, "user.password-changed", user_id, address, is_verified=is_verified)


def notify_account_deleted(user_id: int, address: str, *, is_verified: bool) -> None:
    """Enqueue a notice of the deletion to the address of the account, if it was verified."""
    _enqueue_notice(MAIL_ACCOUNT_DELETED, "user.account-deleted", user_id, address, is_verified=is_verified)


def _enqueue_notice(kind: str, topic: str, user_id: int, address: str, *, is_verified: bool) -> None:
    if is_verified:
        outbox.enqueue_entry(kind, topic, {"id": user_id, "to": address, "is_verified": True})


def revoke_credentials(user_id: int, except_sign_in_id: UUID | None = None) -> None:
    """Revoke all sessions of a user except one, forget their devices, and invalidate the URLs of all hooks."""
    login_sessions.revoke_all_sessions(user_id, except_sign_in_id)
    login_sessions.forget_devices(user_id, except_sign_in_id)
    # Not imported: the package `hooks` imports `users`.
    hooks = TYPES["hook"].table
    get_connection().execute(update(hooks).where(hooks.c.owner_id == user_id).values(enabled=False, token_hash=None))


def compute_fingerprint(kind: str, user: User) -> str:
    """Return the HMAC, in hex, that invalidates a mail token when the address or, for a reset, the password changes."""
    bound_to = [kind, email_key(user.email)]
    if kind == RESET_PASSWORD:
        bound_to.append(user.password_hash)
    return derive_key("\n".join(bound_to).encode()).hex()


def _read_valid_token(kind: str, token: str) -> dict[str, Any] | None:
    """Return the claims of a mail's token that fits its account now, else None; no row is locked, nor waited for."""
    try:
        claims = read_mail_token(kind, token)
        user = db.session.get(User, get_user_id(claims))
    except (InvalidToken, ValueError):
        return None
    is_valid = user is not None and _fingerprint_matches(claims, kind, user)
    db.session.rollback()
    return claims if is_valid else None


def _fingerprint_matches(claims: dict[str, Any], kind: str, user: User) -> bool:
    return hmac.compare_digest(compute_fingerprint(kind, user), str(claims["fingerprint"]))


def _mark_verified(user: User) -> None:
    user.is_verified = True
    user.email_verified_at = db.session.scalar(select(func.now()))
    user.email_changed_at = None


def _is_active() -> ColumnElement[bool]:
    return and_(User.deleted_at.is_(None), User.is_blocked.is_(False))


def _lock_user(*criteria: ColumnElement[bool]) -> User | None:
    statement = select(User).where(_is_active(), *criteria).with_for_update(key_share=True)
    return db.session.scalar(statement.execution_options(populate_existing=True))


def _is_newer(issued: float, used_up: datetime | None) -> bool:
    return used_up is None or datetime.fromtimestamp(issued, UTC) > used_up
