"""Users for the tests of accounts, and their mails."""

from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, text

from app import outbox
from app.extensions import db
from app.users.models import User
from app.users.passwords import hash_password

PASSWORD = "correct horse battery"
EMAIL = "Ada@example.com"

Sql = Callable[..., list[tuple[object, ...]]]


@pytest.fixture
def make_user(app: Flask) -> Callable[..., int]:
    """Return a function that stores a user and returns the id."""

    def make(email: str = EMAIL, password: str = PASSWORD, **columns: object) -> int:
        with app.app_context():
            user = User(email=email, password_hash=hash_password(password), **columns)
            db.session.add(user)
            db.session.commit()
            return user.id

    return make


@pytest.fixture
def user_id(make_user: Callable[..., int]) -> int:
    """Create the user Ada, whose address is not verified, and return the id."""
    return make_user()


@pytest.fixture
def run_sql(app: Flask) -> Sql:
    """Return a function that executes a statement in a transaction and returns the rows."""

    def run(statement: str, **parameters: object) -> list[tuple[object, ...]]:
        with app.app_context(), db.engine.begin() as connection:
            result = connection.execute(text(statement), parameters)
            return [tuple(row) for row in result] if result.returns_rows else []

    return run


@pytest.fixture
def log_in(client: FlaskClient) -> Callable[..., dict[str, str]]:
    """Return a function that logs a user in, by default Ada, and returns the tokens."""

    def post(email: str = EMAIL, password: str = PASSWORD) -> dict[str, str]:
        response = client.post("/v1/auth/login", json={"email": email, "password": password})
        assert response.status_code == 200, response.text
        return response.get_json()

    return post


@pytest.fixture
def is_signed_in(client: FlaskClient) -> Callable[[dict[str, str]], bool]:
    """Return a function that checks whether an access token is accepted."""

    def ask(tokens: dict[str, str]) -> bool:
        return client.get("/v1/users/user-details/get-user-id", headers=bearer_header(tokens)).status_code == 200

    return ask


@pytest.fixture
def deliver_mails(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], list[EmailMessage]]]:
    """Return a function that consumes all pending outbox entries and returns the mails."""
    monkeypatch.setitem(app.config, "VAR_DIR", tmp_path)

    def run() -> list[EmailMessage]:
        with app.app_context():
            ids = db.session.scalars(select(outbox.OutboxEntry.id).where(outbox.OutboxEntry.done_at.is_(None))).all()
            db.session.rollback()
            for entry_id in ids:
                outbox.consume_entry(entry_id)
        files = [tmp_path / "mail" / f"{entry_id}@localhost.eml" for entry_id in ids]
        return [parse_mail(file.read_bytes()) for file in files if file.exists()]

    return run


def parse_mail(content: bytes) -> EmailMessage:
    """Return the parsed mail."""
    mail = message_from_bytes(content, policy=policy.default)
    assert isinstance(mail, EmailMessage)
    return mail


def bearer_header(tokens: dict[str, str]) -> dict[str, str]:
    """Return the Authorization header for these tokens."""
    return {"Authorization": f"JWT {tokens['access_token']}"}


def get_mailed_token(mail: EmailMessage) -> str:
    """Return the token in a mail, which is a line of its own."""
    (token,) = [line for line in mail.get_content().splitlines() if line.startswith("ey")]
    return str(token)
