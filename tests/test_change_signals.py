"""Change signals of a flush, sent inside its transaction: actor, row and changed columns."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import update

from app.change_signals import emit_change
from app.events.models import Event
from app.extensions import db
from app.faqs.models import Faq, FaqType
from app.users.models import User

SIGNALS = {"user": User.__signal__, "event": Event.__signal__, "faq-type": FaqType.__signal__, "faq": Faq.__signal__}


@pytest.fixture
def emissions() -> Iterator[list[dict[str, Any]]]:
    """Return all signals that were sent."""
    said: list[dict[str, Any]] = []
    receivers = []
    for noun, signal in SIGNALS.items():

        def receive(app: Flask, noun: str = noun, **change: Any) -> None:
            said.append({"noun": noun, "app": app, **change})

        receivers.append((signal, receive))
        signal.connect(receive)
    yield said
    for signal, receive in receivers:
        signal.disconnect(receive)


@pytest.fixture
def event_id(app: Flask, emissions: list[dict[str, Any]]) -> int:
    """Create an event, clear its signals, and return its id."""
    with app.app_context(), db.session.begin():
        owner = User(email="owner@example.com", password_hash="!")
        db.session.add(owner)
        db.session.flush()
        event = Event(name="An event", timezone="UTC", owner_id=owner.id)
        db.session.add(event)
        db.session.flush()
        emissions.clear()
        return event.id


def test_a_new_row_is_announced_with_its_columns(app: Flask, event_id: int, emissions: list[dict[str, Any]]) -> None:
    with app.app_context(), db.session.begin():
        faq_type = FaqType(name="Access", event_id=event_id)
        db.session.add(faq_type)
        db.session.flush()
        db.session.add(Faq(question="Where?", answer="Here.", event_id=event_id, faq_type_id=faq_type.id))
        db.session.flush()

        first, second = emissions
        assert (first["noun"], first["verb"], first["id"], first["event_id"]) == (
            "faq-type",
            "created",
            faq_type.id,
            event_id,
        )
        assert first["app"] is app
        assert second["noun"] == "faq"
        assert {"question", "answer", "faq_type_id"} <= second["changed"]


def test_a_user_belongs_to_no_event(app: Flask, emissions: list[dict[str, Any]]) -> None:
    with app.app_context(), db.session.begin():
        db.session.add(User(email="ada@example.com", password_hash="!"))

    assert [(change["noun"], change["event_id"]) for change in emissions] == [("user", None)]


@pytest.mark.parametrize(
    ("before", "after", "verb", "changed"),
    [
        ({}, {"name": "Another"}, "updated", {"name"}),
        ({}, {"deleted_at": datetime.now(UTC)}, "deleted", {"deleted_at"}),
        ({"deleted_at": datetime.now(UTC)}, {"deleted_at": None}, "restored", {"deleted_at"}),
    ],
)
def test_a_change_is_announced_by_verb_and_columns(
    app: Flask,
    event_id: int,
    emissions: list[dict[str, Any]],
    before: dict[str, Any],
    after: dict[str, Any],
    verb: str,
    changed: set[str],
) -> None:
    with app.app_context(), db.session.begin():
        event = db.session.get_one(Event, event_id)
        for name, value in before.items():
            setattr(event, name, value)
        db.session.flush()
        emissions.clear()

        for name, value in after.items():
            setattr(event, name, value)

    assert [(change["verb"], change["id"], change["event_id"], change["changed"]) for change in emissions] == [
        (verb, event_id, event_id, changed)
    ]


def test_the_same_value_again_is_no_change(app: Flask, event_id: int, emissions: list[dict[str, Any]]) -> None:
    with app.app_context(), db.session.begin():
        event = db.session.get_one(Event, event_id)
        event.name = str(event.name)

    assert emissions == []


def test_a_bulk_update_wakes_nobody(app: Flask, event_id: int, emissions: list[dict[str, Any]]) -> None:
    with app.app_context(), db.session.begin():
        db.session.execute(update(Event).where(Event.id == event_id).values(ical_url="https://example.com/x.ics"))

    assert emissions == []


def test_emit_change_without_flush(app: Flask, emissions: list[dict[str, Any]]) -> None:
    with app.app_context():
        emit_change(Event.__signal__, verb="updated", id=7, event_id=7, changed=["organizers"])

    assert emissions[0]["changed"] == {"organizers"}
