"""The actor that causes background work: actors take turns, so that one with much work does not delay the others."""

from flask import g, has_request_context, request

from app.derived_keys import derive_key
from app.slots import address_holders

SYSTEM_ACTOR = 0
"""The actor of commands and of what the server does by itself."""

_FIRST_ADDRESS_ACTOR = -2
"""Actors that are client addresses have numbers from here downwards; -1 is left to jobs without an address."""


def set_actor(actor: int) -> None:
    """Let what follows in this request or task count for an actor."""
    g.actor = actor


def current_actor() -> int:
    """Return who causes the current work: the id of a verified user, or a negative number for a client address.

    Accounts that are not verified count for their address, of IPv6 for the network /48: another one costs nothing.
    """
    actor: int | None = g.get("actor")
    if actor is None:
        actor = g.actor = _compute_address_actor() if has_request_context() else SYSTEM_ACTOR
    return actor


def _compute_address_actor() -> int:
    """Return the number of the client address: a keyed hash, so that stored rows do not tell the address."""
    holder = address_holders(request.remote_addr or "")[-1]
    digest = derive_key(f"actor:{holder}".encode())
    return _FIRST_ADDRESS_ACTOR - (int.from_bytes(digest[:8], "big") >> 2)
