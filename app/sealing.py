"""Secrets that have to be kept for a while: what lies in the database opens only with SECRET_KEY.

Fernet (AES-128-CBC and HMAC-SHA256, https://github.com/fernet/spec) of `cryptography`, which everybody looks after.
"""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

import orjson
from cryptography.fernet import Fernet, InvalidToken
from flask import current_app


class Lost(Exception):
    """It was sealed with another SECRET_KEY, or changed."""


def sealed(values: Mapping[str, Any]) -> bytes | None:
    """These values as they may be stored; None for none."""
    return _fernet().encrypt(orjson.dumps(values)) if values else None


def opened(stored: bytes | None) -> dict[str, Any]:
    """What was sealed; raises Lost."""
    if stored is None:
        return {}
    try:
        values: dict[str, Any] = orjson.loads(_fernet().decrypt(stored))
    except InvalidToken:
        raise Lost from None
    return values


def _fernet() -> Fernet:
    key = hmac.digest(current_app.config["SECRET_KEY"].encode(), b"sealed", "sha256")
    return Fernet(urlsafe_b64encode(key))
