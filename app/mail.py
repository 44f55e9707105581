"""Mails: composition, daily limits, and delivery by SMTP or to files (MAIL_URL).

The same outbox entry gives the same bytes. A mailbox gets a limited number of mails of one kind per day. Mails are
counted in the database, in the transaction that sends them, so that no restart and no loss of Redis resets the counts.
Orders of known devices, and accounts whose address is verified or has no `+tag`, have limits of their own: other people
cannot use up the mails of the owner of a mailbox.
"""

import os
import re
import smtplib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit
from uuid import UUID, uuid4

import structlog
from flask import current_app
from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from app.actors import SYSTEM_ACTOR
from app.database import get_connection
from app.derived_keys import derive_key
from app.extensions import Model, db

SMTP_TIMEOUT_SECONDS = 10
"""Seconds for each operation on the connection to a mail server."""

MAX_MAILS_PER_DAY = 5
"""Mails of one kind about one verified account per day (UTC).

All unverified accounts of a mailbox without a `+tag` share this limit, and so do all those with a `+tag`.
"""

MAX_MAILS_BY_UNKNOWN_DEVICES = 3
"""Of MAX_MAILS_PER_DAY, mails ordered by unknown devices or caused by a change to an unverified address."""

MAX_MAILS_PER_ORIGIN = 2
"""Of MAX_MAILS_BY_UNKNOWN_DEVICES, mails ordered from one client address."""

MAX_MAILS_TO_UNVERIFIED_PER_ORIGIN = 3
"""Mails of one kind to a mailbox about unverified accounts that one account or client address causes per day (UTC)."""

MAX_MAILS_PER_MAILBOX = 10
"""Mails of one kind to one mailbox per day (UTC), about all accounts."""

GMAIL_DOMAINS = frozenset({"gmail.com", "googlemail.com"})
"""Domains of the provider that ignores dots in local parts of addresses."""

PRUNE_BATCH_SIZE = 1000

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class MailOrder:
    """The account of a mail and the origin of its order, which decide the limits that apply."""

    account_id: int
    is_known: bool = True
    """True for an order from a device that the account has logged in from.

    False for an account that has changed to an address without verifying it: its devices prove nothing.
    """
    is_verified: bool = False
    """True when the address of the account is verified."""
    actor: int = SYSTEM_ACTOR
    """Actor (`app.actors`) that caused the mail: an account or a client address."""


class MailCount(Model):
    """Mails of one kind to one mailbox on one day, about one account or ordered by one origin."""

    __tablename__ = "mail_counts"

    day: Mapped[date] = mapped_column(primary_key=True)
    mailbox: Mapped[bytes] = mapped_column(primary_key=True)
    """HMAC of the counted key: the mailbox, where needed with the account, actor or client address."""
    kind: Mapped[str] = mapped_column(primary_key=True)
    sent: Mapped[int]


def build_message(
    *, id: UUID, created_at: datetime, to: str, subject: str, body: str, resource_type: str, resource_id: int | UUID
) -> EmailMessage:
    """Return a mail about a resource; its Message-ID is made of the id of the outbox entry, its body must be ASCII."""
    sender = current_app.config["MAIL_FROM"]
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = to
    message["Subject"] = subject
    message["Date"] = format_datetime(created_at)
    message["Message-ID"] = f"<{id}@{_get_domain(sender)}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Resource-Type"] = resource_type
    message["X-Resource-Id"] = str(resource_id)
    # Explicit: the library would encode lines as long as a token in base64.
    message.set_content(body, charset="us-ascii", cte="7bit")
    return message


def send_message(message: EmailMessage, *, kind: str, is_limited: bool = True, order: MailOrder | None = None) -> None:
    """Send a mail, unless a daily limit of its mailbox or its order is reached.

    Raise every error, so that the outbox entry is retried. `is_limited` is false when the user who requested the mail
    has verified the address.
    """
    if is_limited and not _count_mail(str(message["To"]), kind, order):
        about = {"resource_type": message["X-Resource-Type"], "resource_id": message["X-Resource-Id"]}
        log.warning("mail not sent, daily limit reached", kind=kind, **about)
        return
    url = current_app.config["MAIL_URL"]
    if url == "file":
        _write_file(message, current_app.config["VAR_DIR"] / "mail")
    else:
        _send_smtp(message, urlsplit(url))


def prune_counts(_older_than: timedelta) -> int:
    """Delete a batch of counts of past days; return the number of rows."""
    key = tuple_(MailCount.day, MailCount.mailbox, MailCount.kind)
    past = select(MailCount.day, MailCount.mailbox, MailCount.kind).where(MailCount.day < func.current_date())
    with db.session.begin():
        batch = past.limit(PRUNE_BATCH_SIZE).with_for_update(skip_locked=True)
        return get_connection().execute(delete(MailCount).where(key.in_(batch))).rowcount


def count_origin(address: str, kind: str, origin: str) -> bool:
    """Count an order of an unknown device from this client address; return False at the daily limit."""
    key = f"origin:{origin} {fold_address(address)}"
    return _increment_count(key, kind, MAX_MAILS_PER_ORIGIN)


def fold_address(address: str) -> str:
    """Return the key that all addresses of a mailbox share: most providers ignore `+tag`, one ignores dots."""
    local_part, _, domain = address.lower().rpartition("@")
    local_part = local_part.partition("+")[0]
    if domain in GMAIL_DOMAINS:
        return f"{local_part.replace('.', '')}@gmail.com"
    return f"{local_part}@{domain}"


def _count_mail(address: str, kind: str, order: MailOrder | None) -> bool:
    """Count a mail for its account, mailbox and origin; return False when one of them is at its daily limit."""
    mailbox = fold_address(address)
    if order is None:
        return _increment_count(f"mailbox:{mailbox}", kind, MAX_MAILS_PER_DAY)
    counted_for = f"account:{order.account_id} {mailbox}"
    limits = {}
    if not order.is_verified:
        is_plain = address.lower().rpartition("@")[0] == mailbox.rpartition("@")[0]
        counted_for = f"{'plain' if is_plain else 'tagged'}:{mailbox}"
        limits[f"actor:{order.actor} {mailbox}"] = (
            MAX_MAILS_TO_UNVERIFIED_PER_ORIGIN if order.is_known else MAX_MAILS_PER_ORIGIN
        )
    if not order.is_known:
        limits[f"unknown {counted_for}"] = MAX_MAILS_BY_UNKNOWN_DEVICES
    limits |= {counted_for: MAX_MAILS_PER_DAY, f"mailbox:{mailbox}": MAX_MAILS_PER_MAILBOX}
    return _increment_counts(limits, kind)


def _increment_counts(limits: Mapping[str, int], kind: str) -> bool:
    """Count a mail under all keys; return False, and count it under none, when one is at its daily limit."""
    with db.session.begin_nested() as savepoint:
        if all(_increment_count(counted_for, kind, limit) for counted_for, limit in limits.items()):
            return True
        savepoint.rollback()
    return False


def _increment_count(counted_for: str, kind: str, limit: int) -> bool:
    """Count a mail under a key; return False when the key is at its daily limit."""
    values = {"day": func.current_date(), "mailbox": _hash_key(counted_for), "kind": kind, "sent": 1}
    counted = (
        insert(MailCount)
        .values(values)
        .on_conflict_do_update(
            index_elements=["day", "mailbox", "kind"],
            set_={"sent": MailCount.sent + 1},
            where=MailCount.sent < limit,
        )
        .returning(MailCount.sent)
    )
    return get_connection().scalar(counted) is not None


def _hash_key(counted_for: str) -> bytes:
    return derive_key(counted_for.encode())


def _write_file(message: EmailMessage, directory: Path) -> None:
    """Write a mail to a file named by its Message-ID, atomically; a repeated mail replaces its file."""
    directory.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w@.-]", "", str(message["Message-ID"]))
    draft = directory / f".{name}.{uuid4().hex}"
    draft.write_bytes(message.as_bytes())
    os.replace(draft, directory / f"{name}.eml")


def _send_smtp(message: EmailMessage, url: SplitResult) -> None:
    name = _get_domain(str(message["From"]))  # for EHLO: the default of smtplib needs a DNS look-up
    host = url.hostname or "localhost"
    with (
        smtplib.SMTP_SSL(
            host, url.port or 465, name, timeout=SMTP_TIMEOUT_SECONDS, context=ssl.create_default_context()
        )
        if url.scheme == "smtps"
        else smtplib.SMTP(host, url.port or 25, name, timeout=SMTP_TIMEOUT_SECONDS)
    ) as server:
        if url.scheme == "smtp":
            _start_tls(server, must=url.username is not None)
        if url.username is not None:
            server.login(unquote(url.username), unquote(url.password or ""))
        server.send_message(message)


def _start_tls(server: smtplib.SMTP, *, must: bool) -> None:
    """Start TLS when the server offers it; with `must` require it, with a valid certificate, to protect a password."""
    server.ehlo_or_helo_if_needed()
    if must:
        server.starttls(context=ssl.create_default_context())
    elif server.has_extn("starttls"):
        # Unauthenticated encryption is better than none (RFC 7435): local relays have self-signed certificates.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        server.starttls(context=context)


def _get_domain(sender: str) -> str:
    return parseaddr(sender)[1].rpartition("@")[2] or "localhost"
