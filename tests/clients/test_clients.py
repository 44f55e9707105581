"""Clients people use sign in, list, get with include, create, update, relate, delete and read an error."""

from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select

from app.events.models import Event
from app.extensions import db
from app.faqs.models import Faq
from tests.clients import programs
from tests.docs import blueprint_dataset


@pytest.fixture(autouse=True)
def _clean() -> None:
    """Fill a new dataset before each client; `base_url` leaves an empty one behind."""


@pytest.mark.usefixtures("declare_example_kinds")
@pytest.mark.parametrize("program", programs.list_program_params("*/with_*"))
def test_client(program: Path, app: Flask, base_url: str) -> None:
    blueprint_dataset.replace_dataset(app)

    programs.run_program(
        program, API_ROOT=f"{base_url}/v1", EMAIL="owner@example.org", PASSWORD=blueprint_dataset.PASSWORD
    )

    with app.app_context():
        assert db.session.scalar(select(Event.name).where(Event.id == 1)) == "Open Tech Summit 2099"
        assert [faq.id for faq in db.session.scalars(select(Faq).where(Faq.deleted_at.is_not(None)))] == [2]
        (made,) = db.session.scalars(select(Faq).where(Faq.id > 4))
        assert (made.question, made.answer) == ("May I bring my dog?", "On a lead")
        assert (made.event_id, made.faq_type_id) == (1, 2)
