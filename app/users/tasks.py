"""The mails about accounts, sent by the worker."""

from app import mail
from app.extensions import db
from app.outbox import OutboxEntry, consumer
from app.users.accounts import MAIL_RESET, MAIL_VERIFICATION, fingerprint
from app.users.emails import ascii_email
from app.users.models import User
from app.users.tokens import RESET_PASSWORD, VERIFY_EMAIL, new_mail_token

VERIFICATION = """\
Somebody signed up with this address, or changed to it. If it was you, verify it with this token:

{token}

It is good for 24 hours and for one use. If it was not you, do nothing.
"""

RESET = """\
Somebody asked to reset the password of the account with this address. If it was you, set a new one with this token:

{token}

It is good for one hour and for one use. If it was not you, do nothing: the password stays as it is.
"""


@consumer(MAIL_VERIFICATION, on=("user.created", "user.updated:email"))
def mail_verification(entry: OutboxEntry) -> None:
    """Mail the token that verifies an address, unless it is verified by now."""
    user = _recipient(entry)
    if user is None or user.is_verified:
        return
    token = new_mail_token(
        VERIFY_EMAIL, user_id=user.id, sent_at=entry.created_at, jti=entry.id, email=user.email.lower()
    )
    _mail(entry, user, "Verify your e-mail address", VERIFICATION.format(token=token))


@consumer(MAIL_RESET)
def mail_reset(entry: OutboxEntry) -> None:
    """Mail the token that resets a password, unless the password or the address has changed since it was asked for."""
    user = _recipient(entry)
    if user is None or fingerprint(user) != entry.payload["fingerprint"]:
        return
    token = new_mail_token(
        RESET_PASSWORD,
        user_id=user.id,
        sent_at=entry.created_at,
        jti=entry.id,
        fingerprint=entry.payload["fingerprint"],
    )
    _mail(entry, user, "Reset your password", RESET.format(token=token))


def _recipient(entry: OutboxEntry) -> User | None:
    user = db.session.get(User, entry.payload["id"])
    return user if user and user.deleted_at is None and not user.is_blocked else None


def _mail(entry: OutboxEntry, user: User, subject: str, body: str) -> None:
    message = mail.compose(
        id=entry.id,
        created_at=entry.created_at,
        to=ascii_email(user.email),
        subject=subject,
        body=body,
        resource_type="user",
        resource_id=user.id,
    )
    mail.send(message)
