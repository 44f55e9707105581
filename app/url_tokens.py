"""Tokens that stand in URLs which call us: known afterwards by their SHA-256 alone."""

import secrets
from hashlib import sha256


def new_token() -> str:
    """32 random bytes, as they stand in a URL."""
    return secrets.token_urlsafe(32)


def hash_token(token: str) -> bytes:
    """What is kept of a token, whatever text it is."""
    return sha256(token.encode(errors="replace")).digest()
