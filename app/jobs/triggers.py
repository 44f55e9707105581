"""A change starts the jobs of the kinds that wait for it, in the transaction that makes the change."""

from collections.abc import Callable
from functools import cache
from typing import Any

from flask import g, has_request_context

from app.jobs import shares, submission
from app.jobs.kinds import KINDS, Change
from app.jsonapi.current_user import ANONYMOUS_USER, CurrentUser
from app.signals import SIGNALS_BY_TOPIC, matches_change


@cache  # a second app in one process connects the same functions, which Blinker does not call twice
def _make_receiver(noun: str) -> Callable[..., None]:
    def start_jobs(_app: object, **sent: Any) -> None:
        change = Change(f"{noun}.{sent['verb']}", sent["id"], sent["event_id"], sent["changed"])
        for kind in list(KINDS.declared.values()):
            if matches_change(kind.triggers, change.topic, change.changed):
                parameters = kind.parameters_from_change(change)
                if parameters is not None:
                    origin: dict[str, Any] = {"owner_id": _get_owner_id(noun, change), "share": _get_share()}
                    submission.submit_job(kind.name, parameters, trigger="signal", **origin)

    return start_jobs


def _get_owner_id(noun: str, change: Change) -> int | None:
    """Who made the change; a user who signs up is not signed in yet, and commands have nobody."""
    viewer: CurrentUser = g.get("viewer", ANONYMOUS_USER)
    if not viewer.is_anonymous:
        return viewer.id
    return change.id if noun == "user" else None


def _get_share() -> int | None:
    """Return the share of a caller who is not signed in, also for a job of a new user: an account costs nothing."""
    viewer: CurrentUser = g.get("viewer", ANONYMOUS_USER)
    return shares.address_share() if viewer.is_anonymous and has_request_context() else None


def connect_signals() -> None:
    """Turn every signal into jobs of the kinds that want it; once, however many apps a process makes."""
    for noun, signal in SIGNALS_BY_TOPIC.items():
        signal.connect(_make_receiver(noun))
