"""Change signals: one for each model that inherits from `app.change_signals.EmitsChangeSignals`.

Each is sent inside the transaction of the change, with `(app, verb, id, event_id, changed)`: `verb` is created,
updated, deleted or restored; `changed` is the frozenset of column names. A receiver takes `(app, **kwargs)` and has no
effect outside this transaction, which may still roll back.
"""

from collections.abc import Collection, Iterable

from blinker import NamedSignal

SIGNALS_BY_TOPIC: dict[str, NamedSignal] = {}
"""Signals by the first part of their topics (`event` in `event.updated`); `EmitsChangeSignals` adds them."""


def matches_change(patterns: Iterable[str], topic: str, changed: Collection[str]) -> bool:
    """Return whether one of these patterns (`event.created`, `event.updated:name,state`) matches the change."""
    for pattern in patterns:
        wanted_topic, _, fields = pattern.partition(":")
        if wanted_topic == topic and (not fields or not set(fields.split(",")).isdisjoint(changed)):
            return True
    return False
