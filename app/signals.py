"""Every signal of the server, one sentence each.

All are sent inside the transaction that makes the change, as `(app, verb, id, event_id, changed)`: `verb` is
created, updated, deleted or restored; `changed` is the frozenset of column names. A receiver takes
`(app, **kwargs)`, writes to this transaction only and touches nothing outside: what was sent may still roll back.
"""

from collections.abc import Collection, Iterable

from blinker import Namespace

signals = Namespace()

user_changed = signals.signal("user-changed")
"""A user signed up, changed, was deleted or restored; `event_id` is None."""

event_changed = signals.signal("event-changed")
"""An event was created, changed, deleted or restored, its team included; `event_id` is its own id."""

faq_type_changed = signals.signal("faq-type-changed")
"""A FAQ type of the event `event_id` was created, changed, deleted or restored."""

faq_changed = signals.signal("faq-changed")
"""A FAQ of the event `event_id` was created, changed, deleted or restored."""

treatment_changed = signals.signal("treatment-changed")
"""A treatment was created, changed, deleted or restored; `id` is a UUID, `event_id` is None."""

NOUNS = {"user": user_changed, "event": event_changed, "faq-type": faq_type_changed, "faq": faq_changed}
"""What each signal is about, as topics name it: `event.updated`."""


def is_wanted(on: Iterable[str], topic: str, changed: Collection[str]) -> bool:
    """Whether one of these patterns (`event.created`, `event.updated:name,state`) means this change."""
    for pattern in on:
        wanted_topic, _, fields = pattern.partition(":")
        if wanted_topic == topic and (not fields or not set(fields.split(",")).isdisjoint(changed)):
            return True
    return False
