"""Every signal of the server, one sentence each.

All are sent inside the transaction that makes the change, as `(app, verb, id, event_id, changed)`: `verb` is
created, updated, deleted or restored; `changed` is the frozenset of column names. A receiver takes
`(app, **kwargs)`, writes to this transaction only and touches nothing outside: what was sent may still roll back.
"""

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
