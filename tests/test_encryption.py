"""Encrypted values can be decrypted only with the same key and for the same row."""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Iterator

import pytest
from cryptography.fernet import Fernet
from flask import Flask

from app.encryption import (
    DecryptionError,
    build_associated_data,
    decrypt_values,
    encrypt_text,
    encrypt_values,
    try_decrypt_text,
)

HERE, THERE = build_associated_data("jobs", "sealed", 1), build_associated_data("jobs", "sealed", 2)
SECRETS = {"token": "of a user"}


@pytest.fixture(autouse=True)
def _context(app: Flask) -> Iterator[None]:
    with app.app_context():
        yield


def test_sealed_values_open_in_their_place() -> None:
    stored = encrypt_values(SECRETS, HERE)

    assert stored is not None
    assert b"a user" not in stored
    assert decrypt_values(stored, HERE) == SECRETS
    assert encrypt_values(SECRETS, HERE) != stored  # a nonce of its own


@pytest.mark.parametrize(
    "there",
    [
        THERE,
        build_associated_data("jobs", "result", 1),
        build_associated_data("events", "sealed", 1),
        build_associated_data("jobs", "sealed", 11),
    ],
)
def test_sealed_values_open_in_no_other_place(there: bytes) -> None:
    stored = encrypt_values(SECRETS, HERE)

    with pytest.raises(DecryptionError):
        decrypt_values(stored, there)


def test_sealed_values_of_before_open(app: Flask) -> None:
    key = hmac.digest(app.config["SECRET_KEY"].encode(), b"sealed", "sha256")
    stored = Fernet(urlsafe_b64encode(key)).encrypt(b'{"token":"of a user"}')

    assert decrypt_values(stored, HERE) == SECRETS


def test_nothing_is_sealed_as_nothing() -> None:
    assert encrypt_values({}, HERE) is None
    assert decrypt_values(None, HERE) == {}


@pytest.mark.parametrize("at", [0, 5, 20, -1])
def test_a_changed_value_does_not_open(at: int) -> None:
    stored = bytearray(encrypt_values(SECRETS, HERE) or b"")
    stored[at] ^= 1

    with pytest.raises(DecryptionError):
        decrypt_values(bytes(stored), HERE)


@pytest.mark.parametrize("stored", [b"", b"\x02", b"\x02short", b"gAAAA", b"\x03" + b"x" * 40])
def test_decrypt_of_plaintext_raises(stored: bytes) -> None:
    with pytest.raises(DecryptionError):
        decrypt_values(stored, HERE)


def test_text_encryption_is_bound_to_context() -> None:
    stored = encrypt_text("DE02 \u00e9", HERE)

    assert try_decrypt_text(stored, HERE) == "DE02 \u00e9"
    assert try_decrypt_text(stored, THERE) is None
    assert try_decrypt_text(stored[:-4] + "AAAA", HERE) is None
    for text in ("sealed:", "sealed: envelope in the safe", "sealed:AAAA", "sealed:nonsense!"):
        assert try_decrypt_text(text, HERE) == text  # of before this column was sealed
        assert try_decrypt_text(encrypt_text(text, HERE), HERE) == text
    assert try_decrypt_text("from before", HERE) == "from before"
    assert try_decrypt_text(None, HERE) is None
