"""A flush becomes signals, inside the transaction: what rolls back was never announced."""

from collections.abc import Collection
from typing import Any, ClassVar

from blinker import NamedSignal
from flask import current_app
from sqlalchemy import event, inspect
from sqlalchemy.orm import Session, UOWTransaction, scoped_session


class Announced:
    """A model whose changes are sent as `__signal__`."""

    __signal__: ClassVar[NamedSignal]
    id: object

    @property
    def announced_event_id(self) -> int | None:
        """The event this row belongs to."""
        return None


def announce(signal: NamedSignal, *, verb: str, id: int, event_id: int | None, changed: Collection[str]) -> None:
    """Send one change; for what no flush of an announced row shows, like the members of a team."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # the documented way to a sender (Flask, "Sending Signals")
    signal.send(app, verb=verb, id=id, event_id=event_id, changed=frozenset(changed))


def install(session: scoped_session[Any]) -> None:
    """Announce every flush of this session."""
    if not event.contains(session, "after_flush", _after_flush):
        event.listen(session, "after_flush", _after_flush)


def _after_flush(session: Session, _context: UOWTransaction) -> None:
    for row in session.new:
        if isinstance(row, Announced):
            _send(row, "created", _changed_names(row))
    for row in session.dirty:
        if isinstance(row, Announced) and (changed := _changed_names(row)):
            _send(row, _verb(row, changed), changed)


def _send(row: Announced, verb: str, changed: frozenset[str]) -> None:
    announce(row.__signal__, verb=verb, id=int(str(row.id)), event_id=row.announced_event_id, changed=changed)


def _changed_names(row: object) -> frozenset[str]:
    """The columns given a value, or another than before: only what was touched is looked at."""
    state = inspect(row, raiseerr=True)
    touched = state.dict if state.key is None else state.committed_state
    names = state.mapper.column_attrs.keys() & touched.keys()
    return frozenset(name for name in names if state.attrs[name].history.has_changes())


def _verb(row: Announced, changed: frozenset[str]) -> str:
    if "deleted_at" not in changed:
        return "updated"
    return "restored" if getattr(row, "deleted_at", None) is None else "deleted"
