"""Keys derived from SECRET_KEY, one for each purpose."""

import hmac

from flask import current_app


def derive_key(purpose: bytes) -> bytes:
    """Return the 32 bytes of HMAC-SHA-256 of a purpose; equal for equal purposes, until SECRET_KEY changes."""
    return hmac.digest(current_app.config["SECRET_KEY"].encode(), purpose, "sha256")
