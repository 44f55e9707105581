"""What people do with their account: log in, verify an address, change or reset a password.

Nothing here commits. While a password is hashed no database connection is held; what was read before is checked again
under a lock afterwards.
"""

import hmac
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from flask import current_app
from sqlalchemy import ColumnElement, and_, func, select, update

from app import mail, outbox, throttle
from app.database import commit, get_connection, open_transaction
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
"""The action under which every try of a password is counted, wherever it is made."""

MAX_WRONG_PASSWORDS = 10
"""Wrong passwords of its owner that one sign-in may send in 30 days: with the last of them it ends."""

log = structlog.get_logger(__name__)


def log_in(
    email: str, password: str, *, refresh_token: str | None = None, sign_in_id: UUID | None = None
) -> login_sessions.TokenPair | None:
    """Count one try, and return tokens if the password is right, else None; maybe 429.

    It takes as long whether or not the account exists. A refresh token, or the id of a sign-in, that the account had
    before makes the device known: tries from other addresses do not lock it out.
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
    """Count one try, and return whether an earlier session of the account was named with it."""
    device = login_sessions.find_device(has_email(email), refresh_token=refresh_token, sign_in_id=sign_in_id)
    db.session.rollback()
    _count_anonymous(LOG_IN, email, device=None if device is None else str(device))
    return device is not None


def _count_anonymous(action: str, email: str, *, device: str | None = None) -> None:
    """Count a try of a caller who is not signed in, for the account with this address."""
    criterion, address = has_email(email), throttle.client_bucket()
    throttle.count_account(
        action,
        email_key(email),
        device=device,
        is_known_address=lambda: login_sessions.is_known_address(criterion, address),
    )


def check_password(viewer: CurrentUser, password: str) -> str | None:
    """Count one try of the viewer's own password with the log-ins, and return the hash it belongs to, else None.

    429 after too many tries; 401 after MAX_WRONG_PASSWORDS of one sign-in, which ends. Call it outside of a
    transaction: no database connection is held while it hashes. The caller compares the hash with that of the locked
    row, which may have changed meanwhile.
    """
    with open_transaction(is_read=True):
        owner = select(User.email, User.password_hash).where(User.id == viewer.id)
        found = get_connection().execute(owner).one_or_none()
    if found is None:
        return None
    # A signed-in device is known: many tries of unknown devices do not keep it from changing its own account.
    throttle.count_account(LOG_IN, email_key(found.email), device=str(viewer.sign_in_id))
    if verify_password(found.password_hash, password):
        return str(found.password_hash)
    log.warning("wrong password", account_id=viewer.id, **describe_request())
    if viewer.sign_in_id is not None:
        _count_wrong_password(viewer.id, viewer.sign_in_id)
    return None


def _count_wrong_password(user_id: int, sign_in_id: UUID) -> None:
    """Count a wrong password of a sign-in; end the sign-in and raise 401 at MAX_WRONG_PASSWORDS."""
    if not throttle.is_exceeded("wrong-password", str(sign_in_id), f"{MAX_WRONG_PASSWORDS - 1}/30 days"):
        return
    with open_transaction(is_read=False):
        login_sessions.revoke_session(sign_in_id)
        commit()
    log.warning("sign-in ended after wrong passwords", account_id=user_id, **describe_request())
    detail = f"This session has ended after {MAX_WRONG_PASSWORDS} wrong passwords: log in again."
    raise Unauthenticated(detail, code="token-revoked")


def change_password(viewer: CurrentUser, old: str, new: str) -> bool:
    """Set a new password, end all other sessions and disable all hooks; False when the old one is wrong.

    ValueError: unfit.
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
    """Return the criterion for the users who have this address in any spelling; it uses the unique index."""
    return func.lower(User.email) == email_key(email)


def is_email_taken(email: str) -> bool:
    """Whether somebody has an account with this address."""
    return db.session.scalar(select(User.id).where(User.deleted_at.is_(None), has_email(email))) is not None


def request_verification(email: str, *, viewer: CurrentUser, refresh_token: str | None = None) -> None:
    """Count one try, and mail a verification token to this address if an account has it that is not verified."""
    is_known = _count_mail_order("verification", email, viewer, refresh_token)
    user = _lock_user(has_email(email), User.is_verified.is_(False))
    if user is None:
        return
    is_known = is_known and _is_own_mailbox(user)
    if not _can_order_mail(MAIL_VERIFICATION, user, is_known):
        return
    # Two topics: an order of another person is not merged with that of a known device.
    topic = "user.verification-requested" if is_known else "user.verification-requested-by-unknown-device"
    outbox.enqueue_entry(MAIL_VERIFICATION, topic, {"id": user.id, "is_known": is_known})


def verify_email(token: str, viewer: CurrentUser) -> bool:
    """Mark the address as verified; False when the token is not, or no longer, good for that.

    The first time, all that was made before stops working but the caller's own session: the account may have been
    made by another person than the one who reads the mails.
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
    """Count one try, and mail a reset token to this address if an account has it."""
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
    """Count one try, and return whether the account with this address knows the device that orders the mail."""
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
    """Return whether the address is verified or the one that the account was made with."""
    return user.is_verified or user.email_changed_at is None


def _can_order_mail(kind: str, user: User, is_known: bool) -> bool:
    """Count an order by an unknown device; False after as many as its address may order a day for this mailbox."""
    if is_known or mail.count_origin(user.email, kind, throttle.client_bucket()):
        return True
    log.warning("mail not ordered, daily limit of its client address reached", kind=kind, account_id=user.id)
    return False


def reset_password(token: str, password: str) -> bool:
    """Set a new password, end all sessions and disable all hooks; False when the token is not good for that.

    ValueError: unfit.
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
        # The token went to this address and nowhere else.
        _mark_verified(user)
    revoke_credentials(user.id)
    # The owner gets in here, while tries from many other addresses lock out unknown devices.
    login_sessions.remember_address(user.id, throttle.client_bucket())
    notify_password_changed(user.id, user.email, is_verified=user.is_verified)
    return True


def notify_email_changed(user_id: int, old: str, *, is_verified: bool) -> None:
    """Mail the new address a verification token, and the old one that it has changed, if it was verified.

    A mailbox whose owner has not shown that the account is theirs gets no notices about it.
    """
    outbox.enqueue_entry(MAIL_VERIFICATION, "user.email-changed", {"id": user_id, "is_known": False})
    _enqueue_notice(MAIL_EMAIL_CHANGED, "user.email-changed", user_id, old, is_verified=is_verified)


def notify_password_changed(user_id: int, address: str, *, is_verified: bool) -> None:
    """Mail the address that the account had that its password has changed, if it was verified."""
    _enqueue_notice(MAIL_PASSWORD_CHANGED, "user.password-changed", user_id, address, is_verified=is_verified)


def notify_account_deleted(user_id: int, address: str, *, is_verified: bool) -> None:
    """Mail the address that the account had that it was deleted, if it was verified."""
    _enqueue_notice(MAIL_ACCOUNT_DELETED, "user.account-deleted", user_id, address, is_verified=is_verified)


def _enqueue_notice(kind: str, topic: str, user_id: int, address: str, *, is_verified: bool) -> None:
    if is_verified:
        outbox.enqueue_entry(kind, topic, {"id": user_id, "to": address, "is_verified": True})


def revoke_credentials(user_id: int, except_sign_in_id: UUID | None = None) -> None:
    """End all sign-ins of a user but the one named, forget their devices, and make the URLs of all hooks void."""
    login_sessions.revoke_all_sessions(user_id, except_sign_in_id)
    login_sessions.forget_devices(user_id, except_sign_in_id)
    # By type: hooks stand above users.
    hooks = TYPES["hook"].table
    get_connection().execute(update(hooks).where(hooks.c.owner_id == user_id).values(enabled=False, token_hash=None))


def compute_fingerprint(kind: str, user: User) -> str:
    """What a mail's token is bound to: it is void once the address or, for a reset, the password is another one."""
    bound_to = [kind, email_key(user.email)]
    if kind == RESET_PASSWORD:
        bound_to.append(user.password_hash)
    key = current_app.config["SECRET_KEY"].encode()
    return hmac.digest(key, "\n".join(bound_to).encode(), "sha256").hex()


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
