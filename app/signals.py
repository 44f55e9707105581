"""Signals: one for each model that is `app.change_signals.EmitsChangeSignals`.

All are sent inside the transaction that makes the change, as `(app, verb, id, event_id, changed)`: `verb` is
created, updated, deleted or restored; `changed` is the frozenset of column names. A receiver takes
`(app, **kwargs)`, writes to this transaction only and touches nothing outside: what was sent may still roll back.
"""

from collections.abc import Collection, Iterable

from blinker import NamedSignal

SIGNALS_BY_TOPIC: dict[str, NamedSignal] = {}
"""The signals by the first part of their topics: `event.updated`. A model that is `EmitsChangeSignals` adds its own."""


def matches_change(on: Iterable[str], topic: str, changed: Collection[str]) -> bool:
    """Whether one of these patterns (`event.created`, `event.updated:name,state`) means this change."""
    for pattern in on:
        wanted_topic, _, fields = pattern.partition(":")
        if wanted_topic == topic and (not fields or not set(fields.split(",")).isdisjoint(changed)):
            return True
    return False
