"""Payment details: read and changed by the owner and admins, encrypted in the database."""

import io
import json
import zipfile
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.events.permissions import PAYMENT_DETAILS
from app.extensions import db
from app.jobs import executor
from tests.dataset import ROLES, Dataset, get_data, get_errors, get_pointers

DETAILS = {
    "paypal-email": "pay@example.com",
    "cheque-details": "To Ada",
    "bank-details": "DE02 1203 0000 0000 2020 51",
    "onsite-details": "Cash",
    "invoice-details": "Ada Ltd.",
}


@pytest.fixture
def event_path(dataset: Dataset) -> str:
    """Return the path of a published event with all payment details."""
    path = f"/v1/events/{dataset.events['published']}"
    assert dataset.owner.update(path, "event", DETAILS).status_code == 200
    return path


def read_columns(dataset: Dataset, event: str = "published") -> dict[str, str | None]:
    """Return the stored columns of the payment details."""
    with dataset.app.app_context():
        statement = f"SELECT {', '.join(sorted(PAYMENT_DETAILS))} FROM events WHERE id = :id"  # noqa: S608  # our own names
        return dict(db.session.execute(text(statement), {"id": dataset.events[event]}).mappings().one())


def execute_statement(dataset: Dataset, statement: str, **values: Any) -> None:
    """Execute and commit a statement."""
    with dataset.app.app_context():
        db.session.execute(text(statement), values)
        db.session.commit()


def test_payment_details_lists_every_owner_only_attribute() -> None:
    assert {name.replace("-", "_") for name in DETAILS} == PAYMENT_DETAILS


@pytest.mark.parametrize("role", ROLES)
def test_the_owner_and_admins_read_them(dataset: Dataset, event_path: str, role: str) -> None:
    caller, may = dataset.callers[role], role in ("owner", "admin", "super_admin")

    for path in (
        event_path,
        "/v1/events",
        f"/v1/faqs/{dataset.faqs['published']}?include=event",
        "/v1/events/upcoming",
    ):
        answer = caller.get(path)
        assert answer.status_code == 200
        for value in DETAILS.values():
            assert (value in answer.text) == may, (path, value)
    event = get_data(caller.get(event_path))
    assert (DETAILS.keys() <= event["attributes"].keys()) == may
    assert {"owner", "faqs"} <= event["relationships"].keys()
    assert event["links"]["self"] == event_path


@pytest.mark.parametrize("role", ["organizer", "coorganizer"])
def test_team_cannot_change_payment_details(dataset: Dataset, event_path: str, role: str) -> None:
    caller = dataset.callers[role]

    for name, value in (("bank-details", "mine"), ("paypal-email", "mine@example.com"), ("bank-details", None)):
        refused = caller.update(event_path, "event", {name: value, "name": "x"})
        expected = (200, None) if value is None else (403, {f"/data/attributes/{name}"})
        assert (refused.status_code, get_pointers(refused) if value else None) == expected
    everything = get_data(caller.get(event_path))
    everything["attributes"]["location-name"] = "Hall"
    assert caller.send("PATCH", event_path, {"data": everything}).status_code == 200
    assert {name: get_data(dataset.owner.get(event_path))["attributes"][name] for name in DETAILS} == DETAILS


def test_owner_creates_changes_and_clears_payment_details(dataset: Dataset) -> None:
    made = get_data(dataset.stranger.create("/v1/events", "event", {"name": "x", "timezone": "UTC", **DETAILS}))
    path = f"/v1/events/{made['id']}"

    assert {name: made["attributes"][name] for name in DETAILS} == DETAILS
    changed = get_data(dataset.stranger.update(path, "event", {"bank-details": "other", "paypal-email": None}))[
        "attributes"
    ]
    assert (changed["bank-details"], changed["paypal-email"], changed["cheque-details"]) == ("other", None, "To Ada")


def test_payment_details_are_encrypted_per_column_and_row(dataset: Dataset, event_path: str) -> None:
    held = read_columns(dataset)

    assert all(value and value.startswith("sealed:") for value in held.values())
    assert not any(value in repr(held) for value in DETAILS.values())
    others = f"/v1/events/{dataset.events['others']}"
    execute_statement(
        dataset,
        "UPDATE events SET bank_details = :bank, onsite_details = :cheque WHERE id = :id",
        bank=held["bank_details"],
        cheque=held["cheque_details"],
        id=dataset.events["others"],
    )
    copied = get_data(dataset.admin.get(others))["attributes"]
    assert (copied["bank-details"], copied["onsite-details"]) == (None, None)


def test_plaintext_payment_details_are_encrypted_on_write(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}"
    execute_statement(
        dataset, "UPDATE events SET bank_details = 'plain' WHERE id = :id", id=dataset.events["published"]
    )

    assert get_data(dataset.owner.get(path))["attributes"]["bank-details"] == "plain"
    assert "plain" not in dataset.organizer.get(path).text
    dataset.owner.update(path, "event", {"bank-details": "other"})
    assert (read_columns(dataset)["bank_details"] or "").startswith("sealed:")


def test_the_same_again_writes_nothing(dataset: Dataset, event_path: str) -> None:
    before = read_columns(dataset)

    assert dataset.owner.send("PATCH", event_path, {"data": get_data(dataset.owner.get(event_path))}).status_code == 200
    assert read_columns(dataset) == before


def test_a_text_that_looks_sealed_is_a_text(dataset: Dataset, event_path: str) -> None:
    changed = dataset.owner.update(event_path, "event", {"bank-details": "sealed:AAAA"})

    assert get_data(changed)["attributes"]["bank-details"] == "sealed:AAAA"


def test_another_secret_key_loses_them_and_nothing_else(
    dataset: Dataset, event_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dataset.app.config, "SECRET_KEY", "another one")

    event = get_data(dataset.owner.get(event_path))["attributes"]

    assert (event["name"], event["bank-details"]) == ("published event", None)


@pytest.mark.parametrize("name", DETAILS)
@pytest.mark.parametrize("role", ["anonymous", "coorganizer", "owner", "admin"])
def test_payment_details_cannot_be_filtered_or_sorted(dataset: Dataset, event_path: str, role: str, name: str) -> None:
    for query in (f"filter[{name}]=x", f"filter[{name}][like]=%25a%25", f"sort={name}"):
        refused = dataset.callers[role].get(f"/v1/events?{query}")
        assert (refused.status_code, get_errors(refused)[0]["code"] in ("invalid-filter", "invalid-parameter")) == (
            400,
            True,
        )


def test_an_archive_does_not_hold_them(dataset: Dataset, event_path: str) -> None:
    asked = {"type": "user", "id": str(dataset.stranger.id)}
    dataset.owner.send("PATCH", f"{event_path}/relationships/pending-owner", {"data": asked})
    job = get_data(dataset.coorganizer.send("POST", f"{event_path}/archive"))
    with dataset.app.app_context():
        executor.run_job(UUID(job["id"]), "tests")
    (artifact,) = get_data(dataset.coorganizer.get(f"/v1/jobs/{job['id']}/artifacts"))
    path = artifact["attributes"]["url"].removeprefix(dataset.app.config["PUBLIC_URL"])

    archive = zipfile.ZipFile(io.BytesIO(dataset.coorganizer.get(path).data))

    event = json.loads(archive.read("event.json"))["data"]
    assert "pending-owner" not in event["relationships"]
    attributes = event["attributes"]
    assert attributes["name"] == "published event"
    assert not DETAILS.keys() & attributes.keys()


def test_a_coorganizer_deletes_no_event(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}"

    assert dataset.coorganizer.delete(path).status_code == 403
    assert dataset.organizer.delete(path).status_code == 200


@pytest.mark.parametrize("name", ["is-featured", "is-promoted", "is-demoted"])
def test_only_admins_feature_an_event(dataset: Dataset, name: str) -> None:
    path = f"/v1/events/{dataset.events['published']}"
    new = {"name": "x", "timezone": "UTC"}

    for refused in (
        dataset.owner.update(path, "event", {name: True}),
        dataset.stranger.create("/v1/events", "event", {**new, name: True}),
        dataset.stranger.create("/v1/events", "event", {**new, name: "true"}),
    ):
        assert (refused.status_code, get_pointers(refused)) == (403, {f"/data/attributes/{name}"})
    assert dataset.stranger.create("/v1/events", "event", {**new, name: False}).status_code == 201
    assert dataset.owner.update(path, "event", {name: False}).status_code == 200

    assert get_data(dataset.admin.update(path, "event", {name: True}))["attributes"][name] is True

    assert dataset.owner.update(path, "event", {name: True, "location-name": "Hall"}).status_code == 200
    taken_away = dataset.owner.update(path, "event", {name: False})
    assert (taken_away.status_code, get_pointers(taken_away)) == (403, {f"/data/attributes/{name}"})
    assert get_data(dataset.admin.create("/v1/events", "event", {**new, name: True}))["attributes"][name] is True
