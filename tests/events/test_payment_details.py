"""Where money goes: read and changed by the owner and admins, and sealed in the database."""

import io
import json
import zipfile
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.events.permissions import PAYMENT_DETAILS
from app.extensions import db
from app.jobs import running
from tests.world import ROLES, World, data, errors, pointers

DETAILS = {
    "paypal-email": "pay@example.com",
    "cheque-details": "To Ada",
    "bank-details": "DE02 1203 0000 0000 2020 51",
    "onsite-details": "Cash",
    "invoice-details": "Ada Ltd.",
}


@pytest.fixture
def paid(world: World) -> str:
    """The path of a published event that has them all."""
    path = f"/v1/events/{world.events['published']}"
    assert world.owner.update(path, "event", DETAILS).status_code == 200
    return path


def columns(world: World, event: str = "published") -> dict[str, str | None]:
    """What the database holds."""
    with world.app.app_context():
        statement = f"SELECT {', '.join(sorted(PAYMENT_DETAILS))} FROM events WHERE id = :id"  # noqa: S608  # our own names
        return dict(db.session.execute(text(statement), {"id": world.events[event]}).mappings().one())


def execute(world: World, statement: str, **values: Any) -> None:
    """Run a statement beside the server."""
    with world.app.app_context():
        db.session.execute(text(statement), values)
        db.session.commit()


def test_the_names_are_those_that_are_kept_to_the_owner() -> None:
    assert {name.replace("-", "_") for name in DETAILS} == PAYMENT_DETAILS


@pytest.mark.parametrize("role", ROLES)
def test_the_owner_and_admins_read_them(world: World, paid: str, role: str) -> None:
    caller, may = world.callers[role], role in ("owner", "admin", "super_admin")

    for path in (paid, "/v1/events", f"/v1/faqs/{world.faqs['published']}?include=event", "/v1/events/upcoming"):
        answer = caller.get(path)
        assert answer.status_code == 200
        for value in DETAILS.values():
            assert (value in answer.text) == may, (path, value)
    event = data(caller.get(paid))
    assert (DETAILS.keys() <= event["attributes"].keys()) == may
    assert {"owner", "faqs"} <= event["relationships"].keys()
    assert event["links"]["self"] == paid


@pytest.mark.parametrize("role", ["organizer", "coorganizer"])
def test_a_team_does_not_change_them(world: World, paid: str, role: str) -> None:
    caller = world.callers[role]

    for name, value in (("bank-details", "mine"), ("paypal-email", "mine@example.com"), ("bank-details", None)):
        refused = caller.update(paid, "event", {name: value, "name": "x"})
        expected = (200, None) if value is None else (403, {f"/data/attributes/{name}"})
        assert (refused.status_code, pointers(refused) if value else None) == expected
    everything = data(caller.get(paid))
    everything["attributes"]["location-name"] = "Hall"
    assert caller.send("PATCH", paid, {"data": everything}).status_code == 200
    assert {name: data(world.owner.get(paid))["attributes"][name] for name in DETAILS} == DETAILS


def test_they_are_created_changed_and_emptied(world: World) -> None:
    made = data(world.stranger.create("/v1/events", "event", {"name": "x", "timezone": "UTC", **DETAILS}))
    path = f"/v1/events/{made['id']}"

    assert {name: made["attributes"][name] for name in DETAILS} == DETAILS
    changed = data(world.stranger.update(path, "event", {"bank-details": "other", "paypal-email": None}))["attributes"]
    assert (changed["bank-details"], changed["paypal-email"], changed["cheque-details"]) == ("other", None, "To Ada")


def test_they_are_sealed_each_for_its_place(world: World, paid: str) -> None:
    held = columns(world)

    assert all(value and value.startswith("sealed:") for value in held.values())
    assert not any(value in repr(held) for value in DETAILS.values())
    others = f"/v1/events/{world.events['others']}"
    execute(
        world,
        "UPDATE events SET bank_details = :bank, onsite_details = :cheque WHERE id = :id",
        bank=held["bank_details"],
        cheque=held["cheque_details"],
        id=world.events["others"],
    )
    copied = data(world.admin.get(others))["attributes"]
    assert (copied["bank-details"], copied["onsite-details"]) == (None, None)


def test_what_was_stored_before_is_read_and_sealed_on_write(world: World) -> None:
    path = f"/v1/events/{world.events['published']}"
    execute(world, "UPDATE events SET bank_details = 'plain' WHERE id = :id", id=world.events["published"])

    assert data(world.owner.get(path))["attributes"]["bank-details"] == "plain"
    assert "plain" not in world.organizer.get(path).text
    world.owner.update(path, "event", {"bank-details": "other"})
    assert (columns(world)["bank_details"] or "").startswith("sealed:")


def test_the_same_again_writes_nothing(world: World, paid: str) -> None:
    before = columns(world)

    assert world.owner.send("PATCH", paid, {"data": data(world.owner.get(paid))}).status_code == 200
    assert columns(world) == before


def test_a_text_that_looks_sealed_is_a_text(world: World, paid: str) -> None:
    changed = world.owner.update(paid, "event", {"bank-details": "sealed:AAAA"})

    assert data(changed)["attributes"]["bank-details"] == "sealed:AAAA"


def test_another_secret_key_loses_them_and_nothing_else(
    world: World, paid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(world.app.config, "SECRET_KEY", "another one")

    event = data(world.owner.get(paid))["attributes"]

    assert (event["name"], event["bank-details"]) == ("published event", None)


@pytest.mark.parametrize("name", DETAILS)
@pytest.mark.parametrize("role", ["anonymous", "coorganizer", "owner", "admin"])
def test_they_cannot_be_searched(world: World, paid: str, role: str, name: str) -> None:
    for query in (f"filter[{name}]=x", f"filter[{name}][like]=%25a%25", f"sort={name}"):
        refused = world.callers[role].get(f"/v1/events?{query}")
        assert (refused.status_code, errors(refused)[0]["code"] in ("invalid-filter", "invalid-parameter")) == (
            400,
            True,
        )


def test_an_archive_does_not_hold_them(world: World, paid: str) -> None:
    asked = {"type": "user", "id": str(world.stranger.id)}
    world.owner.send("PATCH", f"{paid}/relationships/pending-owner", {"data": asked})
    job = data(world.coorganizer.send("POST", f"{paid}/archive"))
    with world.app.app_context():
        running.run(UUID(job["id"]), "tests")
    (artifact,) = data(world.coorganizer.get(f"/v1/jobs/{job['id']}/artifacts"))
    path = artifact["attributes"]["url"].removeprefix(world.app.config["PUBLIC_URL"])

    archive = zipfile.ZipFile(io.BytesIO(world.coorganizer.get(path).data))

    event = json.loads(archive.read("event.json"))["data"]
    assert "pending-owner" not in event["relationships"]
    attributes = event["attributes"]
    assert attributes["name"] == "published event"
    assert not DETAILS.keys() & attributes.keys()


def test_a_coorganizer_deletes_no_event(world: World) -> None:
    path = f"/v1/events/{world.events['published']}"

    assert world.coorganizer.delete(path).status_code == 403
    assert world.organizer.delete(path).status_code == 200


@pytest.mark.parametrize("name", ["is-featured", "is-promoted", "is-demoted"])
def test_only_admins_feature_an_event(world: World, name: str) -> None:
    path = f"/v1/events/{world.events['published']}"
    new = {"name": "x", "timezone": "UTC"}

    for refused in (
        world.owner.update(path, "event", {name: True}),
        world.stranger.create("/v1/events", "event", {**new, name: True}),
        world.stranger.create("/v1/events", "event", {**new, name: "true"}),
    ):
        assert (refused.status_code, pointers(refused)) == (403, {f"/data/attributes/{name}"})
    assert world.stranger.create("/v1/events", "event", {**new, name: False}).status_code == 201
    assert world.owner.update(path, "event", {name: False}).status_code == 200

    assert data(world.admin.update(path, "event", {name: True}))["attributes"][name] is True

    assert world.owner.update(path, "event", {name: True, "location-name": "Hall"}).status_code == 200
    taken_away = world.owner.update(path, "event", {name: False})
    assert (taken_away.status_code, pointers(taken_away)) == (403, {f"/data/attributes/{name}"})
    assert data(world.admin.create("/v1/events", "event", {**new, name: True}))["attributes"][name] is True
