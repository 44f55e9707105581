"""Secrets that have to be kept for a while: what lies in the database opens only with SECRET_KEY, and in its own place.

AES-256-GCM of `cryptography`, with the table, the column and the row as associated data: a value that was copied to
another row does not open there. Values of earlier versions (Fernet, bound to no place) open as before.
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
"""The first byte of a sealed value; that of a Fernet token is `g`."""

TEXT_PREFIX = "sealed:"
"""What a sealed text begins with in a column of texts."""

NONCE_BYTES = 12
TAG_BYTES = 16
"""Bytes that AES-GCM adds."""

log = structlog.get_logger(__name__)


class DecryptionError(Exception):
    """It was sealed with another SECRET_KEY or for another place, or changed."""


def build_associated_data(table: str, column: str, row_id: int | UUID | str) -> bytes:
    """Return the name of the place that a value is sealed for."""
    return f"{table}.{column}.{row_id}".encode()


def encrypt_values(values: Mapping[str, Any], about: bytes) -> bytes | None:
    """These values as they may be stored in this place; None for none."""
    return _encrypt_value(orjson.dumps(values), about) if values else None


def decrypt_values(stored: bytes | None, about: bytes) -> dict[str, Any]:
    """What was sealed for this place; raises Lost."""
    if stored is None:
        return {}
    values: dict[str, Any] = orjson.loads(_decrypt_value(stored, about))
    return values


def encrypt_bytes(plain: bytes, about: bytes) -> bytes:
    """Return bytes as they may be stored in this place."""
    return _encrypt_value(plain, about)


def decrypt_bytes(stored: bytes, about: bytes) -> bytes:
    """Return the bytes that were sealed for this place; raises Lost.

    Bytes of before this column was sealed, none of which began with VERSION, stand there as they are.
    """
    return _decrypt_value(stored, about) if stored.startswith(VERSION) else stored


def encrypt_text(text: str, about: bytes) -> str:
    """Return a text as it may be stored in this place."""
    return TEXT_PREFIX + b64encode(_encrypt_value(text.encode(), about)).decode()


def try_decrypt_text(stored: str | None, about: bytes) -> str | None:
    """Return the text that was sealed for this place; None, which is logged, for one that does not open.

    A text of before this column was sealed stands there as it is.
    """
    if stored is None or not is_encrypted_text(stored):
        return stored
    try:
        return decrypt_text(stored, about)
    except DecryptionError:
        log.warning("sealed value cannot be opened", place=about.decode())
        return None


def decrypt_text(stored: str, about: bytes) -> str:
    """Return the text that was sealed for this place; raise Lost for one that does not open."""
    return _decrypt_value(b64decode(stored.removeprefix(TEXT_PREFIX)), about).decode()


def is_encrypted_text(stored: str) -> bool:
    """Return whether a stored text has the form of a sealed one: people may begin a text with the same word."""
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
