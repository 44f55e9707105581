"""Actors: the users or client addresses that cause background work.

Actors take turns, so that one with much work does not delay the others.
"""

from flask import g, has_request_context, request

from app.derived_keys import derive_key
from app.slots import address_holders

SYSTEM_ACTOR = 0
"""Actor of commands and of work that the server starts itself."""

_FIRST_ADDRESS_ACTOR = -2
"""Largest number of a client address as an actor; -1 is for jobs without an address."""


def set_actor(actor: int) -> None:
    """Set the actor of all further work in this request or task."""
    g.actor = actor


def current_actor() -> int:
    """Return the actor of the current work: the id of a verified user, or a negative number for a client address.

    Unverified accounts count for their address (for IPv6 the /48 network), because a further account costs nothing.
    """
    actor: int | None = g.get("actor")
    if actor is None:
        actor = g.actor = _compute_address_actor() if has_request_context() else SYSTEM_ACTOR
    return actor


def _compute_address_actor() -> int:
    """Return the number of the client address: a keyed hash, so that stored rows do not reveal the address."""
    holder = address_holders(request.remote_addr or "")[-1]
    digest = derive_key(f"actor:{holder}".encode())
    return _FIRST_ADDRESS_ACTOR - (int.from_bytes(digest[:8], "big") >> 2)
