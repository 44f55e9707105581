"""Mails: the same order always makes the same bytes, and MAIL_URL says where they go."""

import os
import re
import smtplib
import ssl
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit
from uuid import UUID, uuid4

from flask import current_app

TIMEOUT = 10
"""Seconds for each step of the talk with a mail server."""


def compose(
    *, id: UUID, created_at: datetime, to: str, subject: str, body: str, resource_type: str, resource_id: int | UUID
) -> EmailMessage:
    """A mail named after the order it follows from, about one resource; its body is ASCII."""
    sender = current_app.config["MAIL_FROM"]
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = to
    message["Subject"] = subject
    message["Date"] = format_datetime(created_at)
    message["Message-ID"] = f"<{id}@{_domain(sender)}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Resource-Type"] = resource_type
    message["X-Resource-Id"] = str(resource_id)
    # Said, not chosen by the library: it would wrap a line as long as a token in base64.
    message.set_content(body, charset="us-ascii", cte="7bit")
    return message


def send(message: EmailMessage) -> None:
    """Hand a mail over; whatever goes wrong is raised, and the order is tried again."""
    url = current_app.config["MAIL_URL"]
    if url == "file":
        _write(message, current_app.config["VAR_DIR"] / "mail")
    else:
        _hand_over(message, urlsplit(url))


def _write(message: EmailMessage, directory: Path) -> None:
    """One file a mail, named after its Message-ID: sending it again replaces it, and no reader sees half of it."""
    directory.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w@.-]", "", str(message["Message-ID"]))
    draft = directory / f".{name}.{uuid4().hex}"
    draft.write_bytes(message.as_bytes())
    os.replace(draft, directory / f"{name}.eml")


def _hand_over(message: EmailMessage, url: SplitResult) -> None:
    name = _domain(str(message["From"]))  # said in EHLO: smtplib would ask the DNS for our own name
    host = url.hostname or "localhost"
    with (
        smtplib.SMTP_SSL(host, url.port or 465, name, timeout=TIMEOUT, context=ssl.create_default_context())
        if url.scheme == "smtps"
        else smtplib.SMTP(host, url.port or 25, name, timeout=TIMEOUT)
    ) as server:
        if url.scheme == "smtp":
            _encrypt(server, must=url.username is not None)
        if url.username is not None:
            server.login(unquote(url.username), unquote(url.password or ""))
        server.send_message(message)


def _encrypt(server: smtplib.SMTP, *, must: bool) -> None:
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


def _domain(sender: str) -> str:
    return parseaddr(sender)[1].rpartition("@")[2] or "localhost"
