"""The token in the URL of a hook: shown once, known afterwards by its SHA-256 alone."""

import re
import secrets
from hashlib import sha256

from flask import current_app

SHAPE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


def new_token() -> str:
    """32 random bytes, as they stand in a URL."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes:
    """What is kept of a token."""
    return sha256(token.encode()).digest()


def signing(hook_id: int, token_hash: bytes) -> bytes:
    """What the secret of a hook is about: a new token brings a new secret."""
    return b"hooks.signature\n%d\n" % hook_id + token_hash


def hook_url(token: str) -> str:
    """The URL to be called."""
    return f"{current_app.config['PUBLIC_URL']}/v1/hooks/{token}"
