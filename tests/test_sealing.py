"""What is sealed opens with the same key and in its own place only."""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Iterator

import pytest
from cryptography.fernet import Fernet
from flask import Flask

from app.sealing import Lost, open_text, opened, place, seal_text, sealed

HERE, THERE = place("jobs", "sealed", 1), place("jobs", "sealed", 2)
SECRETS = {"token": "of somebody"}


@pytest.fixture(autouse=True)
def _context(app: Flask) -> Iterator[None]:
    with app.app_context():
        yield


def test_sealed_values_open_in_their_place() -> None:
    stored = sealed(SECRETS, HERE)

    assert stored is not None
    assert b"somebody" not in stored
    assert opened(stored, HERE) == SECRETS
    assert sealed(SECRETS, HERE) != stored  # a nonce of its own


@pytest.mark.parametrize(
    "there", [THERE, place("jobs", "result", 1), place("events", "sealed", 1), place("jobs", "sealed", 11)]
)
def test_sealed_values_open_in_no_other_place(there: bytes) -> None:
    stored = sealed(SECRETS, HERE)

    with pytest.raises(Lost):
        opened(stored, there)


def test_sealed_values_of_before_open(app: Flask) -> None:
    key = hmac.digest(app.config["SECRET_KEY"].encode(), b"sealed", "sha256")
    stored = Fernet(urlsafe_b64encode(key)).encrypt(b'{"token":"of somebody"}')

    assert opened(stored, HERE) == SECRETS


def test_nothing_is_sealed_as_nothing() -> None:
    assert sealed({}, HERE) is None
    assert opened(None, HERE) == {}


@pytest.mark.parametrize("at", [0, 5, 20, -1])
def test_a_changed_value_does_not_open(at: int) -> None:
    stored = bytearray(sealed(SECRETS, HERE) or b"")
    stored[at] ^= 1

    with pytest.raises(Lost):
        opened(bytes(stored), HERE)


@pytest.mark.parametrize("stored", [b"", b"\x02", b"\x02short", b"gAAAA", b"\x03" + b"x" * 40])
def test_what_is_not_sealed_does_not_open(stored: bytes) -> None:
    with pytest.raises(Lost):
        opened(stored, HERE)


def test_texts() -> None:
    stored = seal_text("DE02 \u00e9", HERE)

    assert open_text(stored, HERE) == "DE02 \u00e9"
    assert open_text(stored, THERE) is None
    assert open_text(stored[:-4] + "AAAA", HERE) is None
    for text in ("sealed:", "sealed: envelope in the safe", "sealed:AAAA", "sealed:nonsense!"):
        assert open_text(text, HERE) == text  # of before this column was sealed
        assert open_text(seal_text(text, HERE), HERE) == text
    assert open_text("from before", HERE) == "from before"
    assert open_text(None, HERE) is None
