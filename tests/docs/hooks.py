"""Hooks in the dataset of the blueprint's examples, and the tokens in their URLs."""

from datetime import datetime
from typing import Any

from sqlalchemy import insert

from app.extensions import db
from app.hooks.models import Hook
from app.url_tokens import hash_token

OWNER, ORGANIZER = 2, 3
IMPORTS, ARCHIVES, DISABLED = (
    "PicturesForEvent11234567890abcdefghijklmnop",
    "ArchivesOfEvent11234567890abcdefghijklmnopq",
    "WasForEvent21234567890abcdefghijklmnopqrstu",
)


def add_hooks(then: datetime) -> None:
    """Insert three hooks: the second accepts only signed calls, the last one is disabled."""
    shared = {"name": None, "enabled": True, "signed": False, "created_at": then}
    hooks: list[dict[str, Any]] = [
        _build_hook(IMPORTS, "import-images", OWNER, {"event": 1}) | {"name": "The photographer's uploads"},
        _build_hook(ARCHIVES, "event-archive", OWNER, {"event": 1}) | {"signed": True},
        _build_hook(DISABLED, "import-images", ORGANIZER, {"event": 2}) | {"enabled": False},
    ]
    db.session.execute(insert(Hook), [shared | hook for hook in hooks])


def _build_hook(token: str, kind: str, owner_id: int, parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "token_hash": hash_token(token),
        "kind": kind,
        "owner_id": owner_id,
        "parameters": parameters,
        "event_id": parameters["event"],
    }
