"""A change starts the jobs of the kinds that wait for it, in the transaction that makes the change."""

from collections.abc import Callable
from functools import cache
from typing import Any

from flask import g, has_request_context

from app.jobs import shares, submission
from app.jobs.kinds import KINDS, Change
from app.jsonapi.viewer import ANONYMOUS, Viewer
from app.signals import SIGNALS_BY_TOPIC, is_wanted


@cache  # a second app in one process connects the same functions, which Blinker does not call twice
def _receiver(noun: str) -> Callable[..., None]:
    def start_jobs(_app: object, **sent: Any) -> None:
        change = Change(f"{noun}.{sent['verb']}", sent["id"], sent["event_id"], sent["changed"])
        for kind in list(KINDS.declared.values()):
            if is_wanted(kind.on, change.topic, change.changed):
                parameters = kind.ordered(change)
                if parameters is not None:
                    origin: dict[str, Any] = {"owner_id": _owner_id(noun, change), "share": _share()}
                    submission.submit(kind.name, parameters, trigger="signal", **origin)

    return start_jobs


def _owner_id(noun: str, change: Change) -> int | None:
    """Who made the change; a user who signs up is not signed in yet, and commands have nobody."""
    viewer: Viewer = g.get("viewer", ANONYMOUS)
    if not viewer.is_anonymous:
        return viewer.id
    return change.id if noun == "user" else None


def _share() -> int | None:
    """Return the share of a caller who is not signed in, also for a job of a new user: an account costs nothing."""
    viewer: Viewer = g.get("viewer", ANONYMOUS)
    return shares.address_share() if viewer.is_anonymous and has_request_context() else None


def subscribe() -> None:
    """Turn every signal into jobs of the kinds that want it; once, however many apps a process makes."""
    for noun, signal in SIGNALS_BY_TOPIC.items():
        signal.connect(_receiver(noun))
