"""Leaks: a change of a hidden value does not change any response to users who may not see it."""

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from sqlalchemy import update

from app.events.models import Event
from app.extensions import db
from app.users.models import User
from tests.dataset import Dataset, get_ids

pytestmark = pytest.mark.long


def list_hidden_paths(dataset: Dataset) -> Iterator[str]:
    """Return URLs of every kind that could read a hidden row."""
    events = [dataset.events[name] for name in ("draft", "private", "trashed", "published")]
    includes = "owner,organizers,coorganizers,faqs.faq-type,faq-types,images.event"
    yield from ("/v1/users", "/v1/users?sort=email", "/v1/faq-types?include=event", "/v1/events/upcoming")
    for kind in ("events", "faqs", "faq-types", "event-images", "hooks", "document-sets"):
        yield f"/v1/{kind}"
        yield f"/v1/{kind}?sort=id&page[size]=1"
    yield f"/v1/events?include={includes}"
    yield "/v1/events?sort=name"
    yield "/v1/faqs?sort=event.name"
    yield "/v1/faqs?sort=-event.name,id&include=event.owner"
    yield "/v1/events?filter[name][like]=secret%"
    for condition in (
        {"name": "event", "op": "has", "val": {"name": "name", "op": "like", "val": "secret%"}},
        {"not": {"name": "event", "op": "has", "val": {"name": "name", "op": "like", "val": "secret%"}}},
        {
            "name": "faq-type",
            "op": "has",
            "val": {"name": "event", "op": "has", "val": {"name": "name", "op": "like", "val": "secret%"}},
        },
    ):
        yield f"/v1/faqs?filter={quote(json.dumps([condition]))}"
    for field in ("email", "contact", "details", "password", "password_hash"):
        condition = {"name": "owner", "op": "has", "val": {"name": field, "op": "like", "val": "secret%"}}
        yield f"/v1/events?filter={quote(json.dumps([condition]))}"
        yield f"/v1/events?sort=owner.{field}"
    for event in events:
        for rest in (
            "",
            "/owner",
            "/pending-owner",
            "/organizers",
            "/faqs",
            "/images",
            "/relationships/owner",
            f"?include={includes}",
        ):
            yield f"/v1/events/{event}{rest}"
    for name in ("draft", "private", "trashed", "published"):
        yield f"/v1/faqs/{dataset.faqs[name]}/event"
        yield f"/v1/faqs/{dataset.faqs[name]}?include=event.owner"
        yield f"/v1/faq-types/{dataset.types[name]}/event"
        yield f"/v1/event-images/{dataset.images[name]}?include=event"
    yield f"/v1/users/{dataset.owner.id}"
    yield f"/v1/users/{dataset.owner.id}/events?sort=name"
    yield from list_document_set_paths(dataset)


def list_document_set_paths(dataset: Dataset) -> Iterator[str]:
    """Return the same URLs by document sets, which may contain rows that their owners can no longer see."""
    named = {"name": "name", "op": "like", "val": "secret%"}
    for condition in (
        {"name": "events", "op": "any", "val": named},
        {"not": {"name": "faqs", "op": "any", "val": {"name": "event", "op": "has", "val": named}}},
    ):
        yield f"/v1/document-sets?filter={quote(json.dumps([condition]))}"
    for set_id in get_ids(dataset.admin.get("/v1/document-sets")):
        yield f"/v1/document-sets/{set_id}?include=owner,events.images,faqs.event"
        for rest in ("events?sort=name", "faqs?sort=event.name", "relationships/events", "relationships/faqs"):
            yield f"/v1/document-sets/{set_id}/{rest}"


HIDDEN_FROM = {
    "draft": ("anonymous", "stranger", "other"),
    "private": ("anonymous", "stranger", "other"),
    "trashed": ("anonymous", "stranger", "other", "owner"),
}


@pytest.mark.parametrize("state", HIDDEN_FROM)
def test_the_name_of_a_hidden_event(dataset: Dataset, state: str) -> None:
    for role in HIDDEN_FROM[state][1:]:  # who could see it once
        dataset.create_document_set(role)

    def answers() -> dict[tuple[str, str], tuple[int, str]]:
        return {
            (role, path): normalize_response(dataset, role, path)
            for role in HIDDEN_FROM[state]
            for path in list_hidden_paths(dataset)
        }

    before = answers()
    with dataset.app.app_context():
        db.session.execute(update(Event).where(Event.id == dataset.events[state]).values(name="secret name"))
        db.session.commit()

    assert answers() == before
    assert "secret name" in dataset.admin.get(f"/v1/events/{dataset.events[state]}?get_trashed=true").text


@pytest.mark.parametrize("column", ["email", "password_hash", "contact", "details"])
def test_private_user_values_do_not_change_answers(dataset: Dataset, column: str) -> None:
    roles = ("anonymous", "stranger", "other")
    for role in roles[1:]:
        dataset.create_document_set(role)

    def answers() -> dict[tuple[str, str], tuple[int, str]]:
        return {
            (role, path): normalize_response(dataset, role, path)
            for role in roles
            for path in list_hidden_paths(dataset)
        }

    before = answers()
    with dataset.app.app_context():
        db.session.execute(update(User).where(User.id == dataset.owner.id).values({column: "secret value"}))
        db.session.commit()

    assert answers() == before


def normalize_response(dataset: Dataset, role: str, path: str) -> tuple[int, str]:
    """Return a response without the unique ids of its errors."""
    answer = dataset.callers[role].get(path)
    document = answer.get_json(force=True)
    for error in document.get("errors", []):
        del error["id"]
    return answer.status_code, json.dumps(document)
