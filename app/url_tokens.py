"""Tokens in the URLs of hooks and callbacks; only their SHA-256 is stored."""

import secrets
from hashlib import sha256


def new_token() -> str:
    """Return 32 random bytes in URL-safe base64."""
    return secrets.token_urlsafe(32)


def hash_token(token: str) -> bytes:
    """Return the SHA-256 of a token; any text is accepted."""
    return sha256(token.encode(errors="replace")).digest()
