"""Mails: the same order always makes the same bytes, and MAIL_URL says where they go.

A mailbox gets few mails of one kind a day, however they were brought about. They are counted in the database, in the
transaction that sends the mail: no restart and no loss of Redis resets the counts. Some of them are kept for those who
are likely to own the mailbox, so that others cannot use them up: orders of known devices, and accounts whose address is
verified or has no `+tag`.
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
"""Seconds for each step of the talk with a mail server."""

MAX_MAILS_PER_DAY = 5
"""Mails of one kind about one account on one day (UTC).

Also to a mailbox about all unverified accounts without a `+tag`, one after the other, and about all those with one.
"""

MAX_MAILS_BY_UNKNOWN_DEVICES = 3
"""Of these five, those that are ordered by unknown devices, or caused by a change to an unverified address."""

MAX_MAILS_PER_ORIGIN = 2
"""Of those, the ones that are ordered from one client address."""

MAX_MAILS_TO_UNVERIFIED_PER_ORIGIN = 3
"""Mails of one kind to a mailbox about unverified accounts that one account or client address causes a day (UTC)."""

MAX_MAILS_PER_MAILBOX = 10
"""Mails of one kind that one mailbox gets on one day (UTC), of all accounts and devices."""

GMAIL_DOMAINS = frozenset({"gmail.com", "googlemail.com"})
"""Domains of the provider that ignores dots in local parts."""

PRUNE_BATCH_SIZE = 1000

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class MailOrder:
    """Who a mail is about and who has ordered it, as far as that decides whether it is sent."""

    account_id: int
    is_known: bool = True
    """Whether the owner of the mailbox is likely to have ordered it: a device that the account has logged in from.

    Not of an account that has changed to an address and not verified it: its devices say nothing about the mailbox.
    """
    is_verified: bool = False
    """Whether the account has shown that the mailbox is its own."""
    actor: int = SYSTEM_ACTOR
    """Who has caused it (`app.actors`): the account or the client address."""


class MailCount(Model):
    """How many mails of one kind went to one mailbox on one day; also those about one account or from one origin."""

    __tablename__ = "mail_counts"

    day: Mapped[date] = mapped_column(primary_key=True)
    mailbox: Mapped[bytes] = mapped_column(primary_key=True)
    """The keyed hash of its address, with the account or the client address where those are counted."""
    kind: Mapped[str] = mapped_column(primary_key=True)
    sent: Mapped[int]


def build_message(
    *, id: UUID, created_at: datetime, to: str, subject: str, body: str, resource_type: str, resource_id: int | UUID
) -> EmailMessage:
    """A mail named after the order it follows from, about one resource; its body is ASCII."""
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
    # Said, not chosen by the library: it would wrap a line as long as a token in base64.
    message.set_content(body, charset="us-ascii", cte="7bit")
    return message


def send_message(message: EmailMessage, *, kind: str, is_limited: bool = True, order: MailOrder | None = None) -> None:
    """Hand a mail over, unless its mailbox, or the account that the order names, had enough mails of this kind today.

    Whatever goes wrong is raised, and the order is tried again. `is_limited` is false where the mailbox is known to be
    that of the user who asks for the mails.
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
    """Delete a batch of counts of past days; the number deleted."""
    key = tuple_(MailCount.day, MailCount.mailbox, MailCount.kind)
    past = select(MailCount.day, MailCount.mailbox, MailCount.kind).where(MailCount.day < func.current_date())
    with db.session.begin():
        old = past.limit(PRUNE_BATCH_SIZE).with_for_update(skip_locked=True)
        return get_connection().execute(delete(MailCount).where(key.in_(old))).rowcount


def count_origin(address: str, kind: str, origin: str) -> bool:
    """Count an order of a mail by an unknown device at this client address; False if it had as many today as it may."""
    key = f"origin:{origin} {fold_address(address)}"
    return _increment_count(key, kind, MAX_MAILS_PER_ORIGIN)


def fold_address(address: str) -> str:
    """Return what all addresses of one mailbox have in common: most providers ignore `+tag`, one ignores dots."""
    local_part, _, domain = address.lower().rpartition("@")
    local_part = local_part.partition("+")[0]
    if domain in GMAIL_DOMAINS:
        return f"{local_part.replace('.', '')}@gmail.com"
    return f"{local_part}@{domain}"


def _count_mail(address: str, kind: str, order: MailOrder | None) -> bool:
    """Count one mail for its account and its mailbox, or return False if one of them had as many today as it may."""
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
    """Count one mail under all of these keys, or under none and return False if one had as many today as it may."""
    with db.session.begin_nested() as savepoint:
        if all(_increment_count(counted_for, kind, limit) for counted_for, limit in limits.items()):
            return True
        savepoint.rollback()
    return False


def _increment_count(counted_for: str, kind: str, limit: int) -> bool:
    """Count one mail under this key, or return False if it had as many today as it may."""
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
    """One file a mail, named after its Message-ID: sending it again replaces it, and no reader sees half of it."""
    directory.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w@.-]", "", str(message["Message-ID"]))
    draft = directory / f".{name}.{uuid4().hex}"
    draft.write_bytes(message.as_bytes())
    os.replace(draft, directory / f"{name}.eml")


def _send_smtp(message: EmailMessage, url: SplitResult) -> None:
    name = _get_domain(str(message["From"]))  # said in EHLO: smtplib would ask the DNS for our own name
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
    """STARTTLS where it is offered; before a password is said it must be, with a certificate that holds."""
    server.ehlo_or_helo_if_needed()
    if must:
        server.starttls(context=ssl.create_default_context())
    elif server.has_extn("starttls"):
        # Unauthenticated encryption is better than none (RFC 7435): relays on the same machine sign themselves.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        server.starttls(context=context)


def _get_domain(sender: str) -> str:
    return parseaddr(sender)[1].rpartition("@")[2] or "localhost"
