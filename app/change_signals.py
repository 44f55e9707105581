"""Emission of change signals, inside the transaction of the change.

The JSON:API layer emits signals for its own writes; the session emits them for writes of the ORM at each flush.
"""

import re
from collections.abc import Collection
from typing import Any, ClassVar
from uuid import UUID

from blinker import NamedSignal
from flask import current_app
from sqlalchemy import event, inspect
from sqlalchemy.orm import Session, UOWTransaction, scoped_session

from app.signals import SIGNALS_BY_TOPIC


class EmitsChangeSignals:
    """Mixin for models whose changes are sent as `__signal__`; the topics of `FaqType` begin with `faq-type`."""

    __signal__: ClassVar[NamedSignal]
    __event_key__: ClassVar[str] = "event_id"
    """Name of the column with the id of the event of a row, if the table has one."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        topic = re.sub("(?<!^)(?=[A-Z])", "-", cls.__name__).lower()
        cls.__signal__ = SIGNALS_BY_TOPIC[topic] = NamedSignal(f"{topic}-changed")


def emit_change(
    signal: NamedSignal, *, verb: str, id: int | UUID, event_id: int | None, changed: Collection[str]
) -> None:
    """Send a signal; call this directly for changes that are not in a row of the model, such as team members."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # the documented way to a sender (Flask, "Sending Signals")
    signal.send(app, verb=verb, id=id, event_id=event_id, changed=frozenset(changed))


def emit_created(model: type[Any], row: Any, changed: Collection[str]) -> None:
    """Send the signal for a new row, if its model emits change signals."""
    _emit_model_change(model, row, "created", changed)


def emit_updated(model: type[Any], row: Any, changed: Collection[str]) -> None:
    """Send the signal for changed columns of a row, if its model emits change signals."""
    verb = "updated"
    if "deleted_at" in changed:
        verb = "restored" if row.deleted_at is None else "deleted"
    _emit_model_change(model, row, verb, changed)


def _emit_model_change(model: type[Any], row: Any, verb: str, changed: Collection[str]) -> None:
    if issubclass(model, EmitsChangeSignals):
        event_id = getattr(row, model.__event_key__, None)
        emit_change(model.__signal__, verb=verb, id=row.id, event_id=event_id, changed=changed)


def init_app(session: scoped_session[Any]) -> None:
    """Emit change signals at every flush of this session."""
    if not event.contains(session, "after_flush", _emit_flushed_changes):
        event.listen(session, "after_flush", _emit_flushed_changes)


def _emit_flushed_changes(session: Session, _context: UOWTransaction) -> None:
    for row in session.new:
        emit_created(type(row), row, _find_changed_columns(row))
    for row in session.dirty:
        if names := _find_changed_columns(row):
            emit_updated(type(row), row, names)


def _find_changed_columns(row: object) -> frozenset[str]:
    """Return the columns whose value has changed; for a new row, those that have a value."""
    state = inspect(row, raiseerr=True)
    candidates = state.dict if state.key is None else state.committed_state
    names = state.mapper.column_attrs.keys() & candidates.keys()
    return frozenset(name for name in names if state.attrs[name].history.has_changes())
