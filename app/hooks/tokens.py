"""The token in the URL of a hook: shown once, known afterwards by its SHA-256 alone."""

import re

from flask import current_app

TOKEN_RE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


def signing_context(hook_id: int, token_hash: bytes) -> bytes:
    """What the secret of a hook is about: a new token brings a new secret."""
    return b"hooks.signature\n%d\n" % hook_id + token_hash


def build_hook_url(token: str) -> str:
    """The URL to be called."""
    return f"{current_app.config['PUBLIC_URL']}/v1/hooks/{token}"
