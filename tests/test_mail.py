"""Delivery of mails to files and to real SMTP servers."""

import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session
from flask import Flask

from app import mail
from tests.conftest import find_free_port

ID = UUID("0192f0c1-2345-7000-8000-000000000001")
CERTIFICATES = Path(str(files("aiosmtpd") / "tests" / "certs"))
LONG_LINE = "t" * 900


class SmtpInbox:
    """Mails and credentials that an SMTP server has received."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.encrypted: list[bool] = []
        self.credentials: list[tuple[bytes, bytes]] = []

    async def handle_DATA(self, _server: object, session: Session, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd's name
        self.envelopes.append(envelope)
        self.encrypted.append(session.ssl is not None)
        return "250 OK"

    def authenticate(self, _server: object, _session: object, _envelope: object, _how: str, given: Any) -> AuthResult:
        """Accept the password of one user."""
        assert isinstance(given, LoginPassword)
        self.credentials.append((given.login, given.password))
        return AuthResult(success=given == LoginPassword(b"us er", b"p@ss"), handled=False)


@contextmanager
def smtp_server(**settings: Any) -> Iterator[tuple[SmtpInbox, int]]:
    """Run an SMTP server on a free port."""
    inbox, port = SmtpInbox(), find_free_port()
    controller = Controller(
        inbox, hostname="127.0.0.1", port=port, authenticator=inbox.authenticate, server_hostname="test", **settings
    )
    controller.start()
    try:
        yield inbox, port
    finally:
        controller.stop()


def server_tls() -> ssl.SSLContext:
    """Return a server context with a self-signed certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.crt", CERTIFICATES / "server.key")
    return context


@pytest.fixture
def trust_test_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the test certificate and resolve its host name to 127.0.0.1."""
    look_up = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *more, **how: look_up("127.0.0.1" if host == "aes" else host, *more, **how)
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATES / "server.crt"))


def compose_mail(to: str = "ada@example.com", body: str = f"Hello\n\n{LONG_LINE}\n") -> EmailMessage:
    return mail.build_message(
        id=ID,
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        to=to,
        subject="Verify your e-mail address",
        body=body,
        resource_type="user",
        resource_id=7,
    )


@pytest.fixture
def send(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that sends a mail to a MAIL_URL."""

    def run(url: str, **parts: str) -> None:
        monkeypatch.setitem(app.config, "MAIL_URL", url)
        with app.app_context():
            mail.send_message(compose_mail(**parts), kind="test", is_limited=False)

    return run


def test_a_mail_is_readable_as_it_is_and_the_same_each_time(app: Flask) -> None:
    with app.app_context():
        first, second = compose_mail().as_bytes(), compose_mail().as_bytes()

    assert first == second
    assert first.decode("ascii").split("\r\n") == [
        "From: no-reply@localhost",
        "To: ada@example.com",
        "Subject: Verify your e-mail address",
        "Date: Fri, 02 Jan 2026 03:04:05 +0000",
        f"Message-ID: <{ID}@localhost>",
        "Auto-Submitted: auto-generated",
        "X-Resource-Type: user",
        "X-Resource-Id: 7",
        'Content-Type: text/plain; charset="us-ascii"',
        "Content-Transfer-Encoding: 7bit",
        "MIME-Version: 1.0",
        "",
        "Hello",
        "",
        LONG_LINE,
        "",
    ]


def test_a_long_address_stays_on_its_line(app: Flask) -> None:
    address = "a" * 64 + "@" + ".".join(["b" * 60] * 3) + ".com"

    with app.app_context():
        assert f"\r\nTo: {address}\r\n" in compose_mail(to=address).as_bytes().decode()


@pytest.mark.parametrize("to", ["ada@example.com\nBcc: eve@example.com", "ada@example.com\r\n\r\nbody"])
def test_an_address_cannot_add_a_header(app: Flask, to: str) -> None:
    with app.app_context(), pytest.raises(ValueError, match="linefeed"):
        compose_mail(to=to)


def test_a_file_a_mail_and_a_repeat_replaces_it(
    app: Flask, send: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "VAR_DIR", tmp_path)

    send("file")
    send("file")

    (file,) = (tmp_path / "mail").iterdir()
    assert file.name == f"{ID}@localhost.eml"
    assert message_from_bytes(file.read_bytes(), policy=policy.default)["X-Resource-Id"] == "7"


def test_a_plain_server_gets_the_same_bytes(app: Flask, send: Any) -> None:
    with smtp_server() as (inbox, port):
        send(f"smtp://127.0.0.1:{port}")
        send(f"smtp://127.0.0.1:{port}")

    first, second = inbox.envelopes
    with app.app_context():
        assert first.content == second.content == compose_mail().as_bytes()
    assert (first.mail_from, first.rcpt_tos) == ("no-reply@localhost", ["ada@example.com"])
    assert inbox.encrypted == [False, False]


def test_encryption_is_used_where_it_is_offered(send: Any) -> None:
    with smtp_server(tls_context=server_tls()) as (inbox, port):
        send(f"smtp://127.0.0.1:{port}")

    assert inbox.encrypted == [True]


@pytest.mark.usefixtures("trust_test_certificate")
def test_credentials_are_said_once_the_server_is_known(send: Any) -> None:
    with smtp_server(tls_context=server_tls(), auth_require_tls=True) as (inbox, port):
        send(f"smtp://us%20er:p%40ss@aes:{port}")

    assert inbox.credentials == [(b"us er", b"p@ss")]
    assert inbox.encrypted == [True]


@pytest.mark.usefixtures("trust_test_certificate")
def test_wrong_credentials_are_an_error(send: Any) -> None:
    with (
        smtp_server(tls_context=server_tls(), auth_require_tls=True) as (inbox, port),
        pytest.raises(smtplib.SMTPAuthenticationError),
    ):
        send(f"smtp://us%20er:wrong@aes:{port}")

    assert inbox.envelopes == []


def test_credentials_are_not_said_to_a_server_nobody_vouches_for(send: Any) -> None:
    with smtp_server(tls_context=server_tls()) as (inbox, port), pytest.raises(ssl.SSLCertVerificationError):
        send(f"smtp://us%20er:p%40ss@127.0.0.1:{port}")

    assert inbox.credentials == []


def test_credentials_are_not_said_without_encryption(send: Any) -> None:
    with (
        smtp_server(auth_require_tls=False) as (inbox, port),
        pytest.raises(smtplib.SMTPNotSupportedError, match="STARTTLS"),
    ):
        send(f"smtp://us%20er:p%40ss@127.0.0.1:{port}")

    assert inbox.credentials == []


def test_smtps_speaks_tls_from_the_beginning(send: Any, trust_test_certificate: None) -> None:
    with smtp_server(ssl_context=server_tls(), auth_require_tls=False) as (inbox, port):
        send(f"smtps://us%20er:p%40ss@aes:{port}")

    assert inbox.credentials == [(b"us er", b"p@ss")]
    assert len(inbox.envelopes) == 1


def test_a_dead_server_is_an_error_and_so_tried_again(send: Any) -> None:
    with pytest.raises(OSError, match="refused"):
        send(f"smtp://127.0.0.1:{find_free_port()}")


def test_a_hung_server_is_given_up(send: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "SMTP_TIMEOUT_SECONDS", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(smtplib.SMTPServerDisconnected, match="timed out"),
    ):
        send(f"smtp://127.0.0.1:{silent.getsockname()[1]}")
