"""Encryption of values in the database with a key derived from SECRET_KEY.

AES-256-GCM with the table, the column and the row as associated data, so that a value that was copied to another row
cannot be decrypted there. Values of earlier versions (Fernet, without associated data) can still be decrypted.
"""

import os
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson
import structlog
from cryptography.exceptions import InvalidTag
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.derived_keys import derive_key

VERSION = b"\x02"
"""First byte of an encrypted value; that of a Fernet token is `g`."""

TEXT_PREFIX = "sealed:"
"""Prefix of an encrypted text in a text column."""

NONCE_BYTES = 12
TAG_BYTES = 16
"""Bytes of the authentication tag of AES-GCM."""

log = structlog.get_logger(__name__)


class DecryptionError(Exception):
    """The value was encrypted with another SECRET_KEY or other associated data, or was changed."""


def build_associated_data(table: str, column: str, row_id: int | UUID | str) -> bytes:
    """Return the associated data of a value: its table, column and row."""
    return f"{table}.{column}.{row_id}".encode()


def encrypt_values(values: Mapping[str, Any], about: bytes) -> bytes | None:
    """Return the encrypted JSON of these values; None when there are none."""
    return _encrypt_value(orjson.dumps(values), about) if values else None


def decrypt_values(stored: bytes | None, about: bytes) -> dict[str, Any]:
    """Return the decrypted values, none for None; raise DecryptionError."""
    if stored is None:
        return {}
    values: dict[str, Any] = orjson.loads(_decrypt_value(stored, about))
    return values


def encrypt_bytes(plain: bytes, about: bytes) -> bytes:
    """Return the encrypted bytes."""
    return _encrypt_value(plain, about)


def decrypt_bytes(stored: bytes, about: bytes) -> bytes:
    """Return the decrypted bytes; raise DecryptionError.

    Return bytes without VERSION unchanged: they were stored before the column was encrypted.
    """
    return _decrypt_value(stored, about) if stored.startswith(VERSION) else stored


def encrypt_text(text: str, about: bytes) -> str:
    """Return the encrypted text: TEXT_PREFIX and base64."""
    return TEXT_PREFIX + b64encode(_encrypt_value(text.encode(), about)).decode()


def try_decrypt_text(stored: str | None, about: bytes) -> str | None:
    """Return the decrypted text; log a warning and return None when it cannot be decrypted.

    Return a text that is not encrypted unchanged: it was stored before the column was encrypted.
    """
    if stored is None or not is_encrypted_text(stored):
        return stored
    try:
        return decrypt_text(stored, about)
    except DecryptionError:
        log.warning("decryption failed", place=about.decode())
        return None


def decrypt_text(stored: str, about: bytes) -> str:
    """Return the decrypted text; raise DecryptionError."""
    return _decrypt_value(b64decode(stored.removeprefix(TEXT_PREFIX)), about).decode()


def is_encrypted_text(stored: str) -> bool:
    """Return whether a stored text has the format of an encrypted one; the prefix alone may also be user input."""
    if not stored.startswith(TEXT_PREFIX):
        return False
    try:
        encrypted = b64decode(stored.removeprefix(TEXT_PREFIX), validate=True)
    except ValueError:
        return False
    return encrypted[:1] == VERSION and len(encrypted) >= len(VERSION) + NONCE_BYTES + TAG_BYTES


def _encrypt_value(plain: bytes, about: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return VERSION + nonce + AESGCM(derive_key(b"sealed.2")).encrypt(nonce, plain, about)


def _decrypt_value(stored: bytes, about: bytes) -> bytes:
    try:
        if stored[:1] != VERSION:
            return Fernet(urlsafe_b64encode(derive_key(b"sealed"))).decrypt(stored)
        nonce, encrypted = stored[1 : 1 + NONCE_BYTES], stored[1 + NONCE_BYTES :]
        return AESGCM(derive_key(b"sealed.2")).decrypt(nonce, encrypted, about)
    except (InvalidToken, InvalidTag, ValueError):
        raise DecryptionError from None
