"""Outbox consumers that send mails about accounts."""

from datetime import UTC

from flask import current_app

from app import mail
from app.extensions import db
from app.mail import MailOrder
from app.outbox import OutboxEntry, consumer_task
from app.processes.worker_nodes import MAILS_QUEUE
from app.users.accounts import (
    MAIL_ACCOUNT_DELETED,
    MAIL_EMAIL_CHANGED,
    MAIL_PASSWORD_CHANGED,
    MAIL_RESET,
    MAIL_VERIFICATION,
    compute_fingerprint,
)
from app.users.emails import to_ascii_email
from app.users.models import User
from app.users.tokens import RESET_PASSWORD, VERIFY_EMAIL, new_mail_token

VERIFICATION_BODY = """\
An account was created with this address, or changed to it. If it was you, verify the address with this token:

{token}

It is valid for 24 hours and can be used once. If it was not you, do nothing.
"""

RESET_BODY = """\
A reset of the password of the account with this address was requested. If it was you, set a new one with this token:

{token}

It is valid for one hour and can be used once. If it was not you, do nothing: the password does not change.
"""

EMAIL_NOTICE = """\
The e-mail address of your account at {site} was changed on {time}. This mail goes to the old address.

If it was you, there is nothing to do. If it was not you, another person has access to your account: contact the
administrators of {site}.
"""

PASSWORD_NOTICE = """\
The password of your account at {site} was changed on {time}. All hooks of the account were disabled, and their URLs do
not work any more: request a new URL (rotate) for those that you need, and enable them.

If it was you, there is nothing else to do. If it was not you, another person has access to your account: reset the
password at once, and if that does not work, contact the administrators of {site}.
"""  # noqa: S105  # a text about passwords

DELETION_NOTICE = """\
Your account at {site} was deleted on {time}.

If it was you, there is nothing to do. If it was not you, contact the administrators of {site}: they can restore it.
"""


@consumer_task(MAIL_VERIFICATION, on=("user.created",), queue=MAILS_QUEUE, merge_by="id")
def mail_verification(entry: OutboxEntry) -> None:
    """Mail the token that verifies an address, unless it is verified already."""
    user = _get_recipient(entry)
    if user is not None and not user.is_verified:
        _mail_token(entry, user, "Verify your e-mail address", VERIFICATION_BODY, VERIFY_EMAIL)


@consumer_task(MAIL_RESET, queue=MAILS_QUEUE)
def mail_reset(entry: OutboxEntry) -> None:
    """Mail the token that resets a password, unless the password or the address has changed since the request."""
    user = _get_recipient(entry)
    if user is not None and compute_fingerprint(RESET_PASSWORD, user) == entry.payload["fingerprint"]:
        _mail_token(entry, user, "Reset your password", RESET_BODY, RESET_PASSWORD)


@consumer_task(MAIL_EMAIL_CHANGED, queue=MAILS_QUEUE)
def mail_email_changed(entry: OutboxEntry) -> None:
    """Mail a notice to the old address of an account after a change of the address."""
    _mail_notice(entry, "Your e-mail address was changed", EMAIL_NOTICE)


@consumer_task(MAIL_PASSWORD_CHANGED, queue=MAILS_QUEUE)
def mail_password_changed(entry: OutboxEntry) -> None:
    """Mail a notice after a change of the password."""
    _mail_notice(entry, "Your password was changed", PASSWORD_NOTICE)


@consumer_task(MAIL_ACCOUNT_DELETED, queue=MAILS_QUEUE)
def mail_account_deleted(entry: OutboxEntry) -> None:
    """Mail a notice after the deletion of an account."""
    _mail_notice(entry, "Your account was deleted", DELETION_NOTICE)


def _mail_notice(entry: OutboxEntry, subject: str, body: str) -> None:
    """Mail a notice to the address in the entry, which the account may not have any more."""
    time = entry.created_at.astimezone(UTC).strftime("%Y-%m-%d at %H:%M UTC")
    message = mail.build_message(
        id=entry.id,
        created_at=entry.created_at,
        to=to_ascii_email(entry.payload["to"]),
        subject=subject,
        body=body.format(time=time, site=current_app.config["PUBLIC_URL"]),
        resource_type="user",
        resource_id=entry.payload["id"],
    )
    # Entries of earlier versions have no `is_verified`.
    is_verified = bool(entry.payload.get("is_verified", False))
    order = MailOrder(entry.payload["id"], is_verified=is_verified, actor=entry.actor)
    mail.send_message(message, kind=entry.consumer, order=order)


def _get_recipient(entry: OutboxEntry) -> User | None:
    user = db.session.get(User, entry.payload["id"])
    return user if user and user.deleted_at is None and not user.is_blocked else None


def _mail_token(entry: OutboxEntry, user: User, subject: str, body: str, kind: str) -> None:
    token = new_mail_token(
        kind, user_id=user.id, sent_at=entry.created_at, jti=entry.id, fingerprint=compute_fingerprint(kind, user)
    )
    message = mail.build_message(
        id=entry.id,
        created_at=entry.created_at,
        to=to_ascii_email(user.email),
        subject=subject,
        body=body.format(token=token),
        resource_type="user",
        resource_id=user.id,
    )
    is_known = bool(entry.payload.get("is_known", True))  # not in entries of sign-ups and of earlier versions
    mail.send_message(message, kind=entry.consumer, order=MailOrder(user.id, is_known, user.is_verified, entry.actor))
