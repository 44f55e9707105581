"""URL and signing context of a hook; only the SHA-256 of its token is stored."""

import re

from flask import current_app

TOKEN_RE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


def signing_context(hook_id: int, token_hash: bytes) -> bytes:
    """Return the context from which the signing secret of a hook is derived: a new token changes the secret."""
    return b"hooks.signature\n%d\n" % hook_id + token_hash


def build_hook_url(token: str) -> str:
    """Return the URL at which a hook is called."""
    return f"{current_app.config['PUBLIC_URL']}/v1/hooks/{token}"
