"""Triggers: change signals submit jobs of the kinds that declare them, in the transaction of the change."""

from collections.abc import Callable
from functools import cache
from typing import Any

from flask import g, has_request_context

from app.jobs import shares, submission
from app.jobs.kinds import KINDS, Change
from app.jsonapi.current_user import ANONYMOUS_USER, CurrentUser
from app.signals import SIGNALS_BY_TOPIC, matches_change


@cache  # a second app in the process connects the same function again, and Blinker calls it only once
def _make_receiver(noun: str) -> Callable[..., None]:
    def start_jobs(_app: object, **signal: Any) -> None:
        change = Change(f"{noun}.{signal['verb']}", signal["id"], signal["event_id"], signal["changed"])
        for kind in list(KINDS.declared.values()):
            if matches_change(kind.triggers, change.topic, change.changed):
                parameters = kind.parameters_from_change(change)
                if parameters is not None:
                    origin: dict[str, Any] = {"owner_id": _get_owner_id(noun, change), "share": _get_share()}
                    submission.submit_job(kind.name, parameters, trigger="signal", **origin)

    return start_jobs


def _get_owner_id(noun: str, change: Change) -> int | None:
    """Return the id of the user who made the change, of a user who is signing up, or None in commands."""
    viewer: CurrentUser = g.get("viewer", ANONYMOUS_USER)
    if not viewer.is_anonymous:
        return viewer.id
    return change.id if noun == "user" else None


def _get_share() -> int | None:
    """Return the share of the client address for anonymous callers, also for a job of a new user; otherwise None."""
    viewer: CurrentUser = g.get("viewer", ANONYMOUS_USER)
    return shares.address_share() if viewer.is_anonymous and has_request_context() else None


def connect_signals() -> None:
    """Connect a receiver that submits jobs to every change signal; repeated calls have no further effect."""
    for noun, signal in SIGNALS_BY_TOPIC.items():
        signal.connect(_make_receiver(noun))
