"""Rules of events beyond permissions."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from app.events.models import Event, new_identifier
from app.extensions import db
from tests.dataset import ApiClient, Dataset, get_data, get_errors, get_ids, get_pointers

ATTRIBUTES = {
    "name": "Conference",
    "timezone": "Europe/Berlin",
    "starts-at": "2030-05-01T10:00:00+02:00",
    "ends-at": "2030-05-02T10:00:00+02:00",
}


def test_a_new_event_is_a_draft_of_its_creator(dataset: Dataset) -> None:
    answer = dataset.stranger.create("/v1/events", "event", ATTRIBUTES)

    made = get_data(answer)
    assert answer.status_code == 201
    assert answer.headers["Location"] == dataset.app.config["PUBLIC_URL"] + made["links"]["self"]
    assert made["attributes"]["state"] == "draft"
    assert made["attributes"]["starts-at"] == "2030-05-01T08:00:00+00:00"
    assert made["relationships"]["owner"]["data"] == {"type": "user", "id": str(dataset.stranger.id)}
    assert get_data(dataset.stranger.get(f"/v1/users/{dataset.stranger.id}"))["attributes"]["is-user-owner"] is True
    assert dataset.anonymous.get(made["links"]["self"]).status_code == 404


def test_create_returns_all_sent_attributes(dataset: Dataset) -> None:
    sent = {
        **ATTRIBUTES,
        "latitude": "12.5",
        "longitude": -7,
        "online": "true",
        "document-links": [{"name": "Plan", "link": "https://example.com/plan.pdf"}],
        "description": "<p onclick=x>Hi <script>alert(1)</script><a href='javascript:1'>a</a><b>b</b></p>",
        "paypal_email": " pay@Example.com ",
    }

    got = get_data(dataset.owner.create("/v1/events", "events", sent))["attributes"]

    assert (got["latitude"], got["longitude"], got["online"]) == (12.5, -7.0, True)
    assert got["document-links"] == sent["document-links"]
    assert got["paypal-email"] == "pay@example.com"
    assert "script" not in got["description"]
    assert "javascript" not in got["description"]
    assert "<b>b</b>" in got["description"]


def test_a_patch_touches_only_what_it_names(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}"
    before = get_data(dataset.owner.get(path))["attributes"]

    after = get_data(dataset.owner.update(path, "event", {"location-name": "Hall", "logo-url": None}))["attributes"]

    assert after == {**before, "location-name": "Hall"}
    assert get_data(dataset.owner.update(path, "event", {"location-name": None}))["attributes"] == before


def test_rules_across_attributes_see_what_is_stored(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}"

    for change, pointer in (
        ({"ends-at": "2001-01-01T00:00:00Z"}, "ends-at"),
        ({"starts-at": "2200-01-01T00:00:00Z"}, "ends-at"),
        ({"starts-at": None}, "starts-at"),
    ):
        answer = dataset.owner.update(path, "event", change)
        assert (answer.status_code, get_pointers(answer)) == (422, {f"/data/attributes/{pointer}"})


def test_read_only_attributes_come_back_unchanged_or_not_at_all(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}"
    everything = get_data(dataset.owner.get(path))

    again = dataset.owner.send("PATCH", path, {"data": everything})
    changed = dataset.owner.update(path, "event", {"identifier": "abcdef00", "created-at": "2001-01-01T00:00:00Z"})

    assert again.status_code == 200
    assert (changed.status_code, get_pointers(changed)) == (
        403,
        {"/data/attributes/identifier", "/data/attributes/created-at"},
    )


def test_ids_that_differ_are_a_conflict(dataset: Dataset) -> None:
    document = {"data": {"type": "event", "id": str(dataset.events["others"]), "attributes": {"name": "x"}}}

    answer = dataset.owner.send("PATCH", f"/v1/events/{dataset.events['published']}", document)

    assert (answer.status_code, get_pointers(answer)) == (409, {"/data/id"})


def test_the_trash_hides_and_an_admin_restores(dataset: Dataset) -> None:
    event = dataset.events["published"]
    path = f"/v1/events/{event}"

    assert dataset.owner.delete(path).get_json() == {
        "meta": {"message": "Object successfully deleted"},
        "jsonapi": {"version": "1.1"},
    }
    assert dataset.owner.get(path).status_code == 404
    assert dataset.owner.get(f"/v1/faqs/{dataset.faqs['published']}").status_code == 404
    assert get_data(dataset.admin.get(f"{path}?get_trashed=true"))["attributes"]["deleted-at"] is not None

    restored = dataset.admin.update(f"{path}?get_trashed=true", "event", {"deleted-at": None})

    assert get_data(restored)["attributes"]["deleted-at"] is None
    assert dataset.anonymous.get(f"/v1/faqs/{dataset.faqs['published']}").status_code == 200


def test_deleted_at_is_not_written_otherwise(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}"
    now = datetime.now(UTC).isoformat()

    assert dataset.owner.update(path, "event", {"deleted-at": now}).status_code == 403
    assert dataset.admin.update(f"{path}?get_trashed=true", "event", {"deleted-at": now}).status_code == 403
    assert dataset.owner.update(path, "event", {"deleted-at": None}).status_code == 200


def test_an_organizer_becomes_a_coorganizer(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}/relationships"

    dataset.owner.send("POST", f"{path}/coorganizers", {"data": [user_identifier(dataset.organizer)]})

    assert get_ids(dataset.owner.get(f"{path}/organizers")) == []
    assert get_ids(dataset.owner.get(f"{path}/coorganizers")) == sorted([dataset.organizer.id, dataset.coorganizer.id])


def test_a_team_is_replaced_and_thinned_out(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}/relationships/organizers"

    dataset.owner.send("PATCH", path, {"data": [user_identifier(dataset.stranger), user_identifier(dataset.other)]})
    assert get_ids(dataset.owner.get(path)) == [dataset.stranger.id, dataset.other.id]
    dataset.owner.send("DELETE", path, {"data": [user_identifier(dataset.stranger)]})
    assert get_ids(dataset.owner.get(path)) == [dataset.other.id]
    dataset.owner.send("PATCH", path, {"data": []})
    assert get_ids(dataset.owner.get(path)) == []


def test_a_team_in_a_patch_of_the_event(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}"

    same = dataset.coorganizer.update(path, "event", {"name": "x"}, organizers=[dataset.organizer.id])
    other = dataset.coorganizer.update(path, "event", {"name": "x"}, organizers=[dataset.stranger.id])
    allowed = dataset.organizer.update(
        path, "event", {"name": "y"}, organizers=[dataset.stranger.id, dataset.organizer.id]
    )

    assert (same.status_code, other.status_code, allowed.status_code) == (200, 403, 200)
    assert get_ids(dataset.owner.get(f"{path}/relationships/organizers")) == sorted(
        [dataset.stranger.id, dataset.organizer.id]
    )


def test_a_member_nobody_knows(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}/relationships/organizers"

    answer = dataset.owner.send("POST", path, {"data": [{"type": "user", "id": "999999999"}]})

    assert (answer.status_code, get_pointers(answer)) == (404, {"/data"})


def test_the_owner_is_no_organizer_besides(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}/relationships/organizers"

    assert dataset.owner.send("POST", path, {"data": [user_identifier(dataset.owner)]}).status_code == 409


def test_an_event_is_never_without_an_owner(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}"

    assert dataset.owner.send("PATCH", f"{path}/relationships/owner", {"data": None}).status_code in (403, 422)
    assert dataset.owner.update(path, "event", {}, owner=None).status_code in (403, 422)


def test_faqs_are_not_moved_from_the_side_of_the_event(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}/relationships/faqs"

    for method in ("POST", "PATCH", "DELETE"):
        answer = dataset.owner.send(method, path, {"data": [{"type": "faq", "id": str(dataset.faqs["draft"])}]})
        assert answer.status_code == 403


def test_a_member_may_leave_but_throw_nobody_else_out(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}/relationships/coorganizers"

    other = dataset.coorganizer.send(
        "DELETE", path, {"data": [user_identifier(dataset.coorganizer), user_identifier(dataset.organizer)]}
    )
    left = dataset.coorganizer.send("DELETE", path, {"data": [user_identifier(dataset.coorganizer)]})
    again = dataset.stranger.send("DELETE", path, {"data": [user_identifier(dataset.stranger)]})

    assert (other.status_code, left.status_code, again.status_code) == (403, 200, 403)
    assert get_ids(dataset.owner.get(path)) == []


def test_a_member_nobody_knows_in_a_patch_of_the_event(dataset: Dataset) -> None:
    answer = dataset.owner.update(f"/v1/events/{dataset.events['published']}", "event", {}, organizers=[10**9])

    assert (answer.status_code, get_pointers(answer)) == (404, {"/data/relationships/organizers/data"})


def test_an_event_does_not_come_back_to_an_owner_who_is_gone(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['others']}"
    dataset.other.delete(path)
    assert dataset.other.delete(f"/v1/users/{dataset.other.id}").status_code == 200

    refused = dataset.admin.update(f"{path}?get_trashed=true", "event", {"deleted-at": None})
    restored = dataset.admin.update(f"{path}?get_trashed=true", "event", {"deleted-at": None}, owner=dataset.admin.id)

    assert (refused.status_code, restored.status_code) == (409, 200)


def test_stale_server_managed_attribute_is_accepted_unchanged(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}"
    read = get_data(dataset.owner.get(path))
    created = read["attributes"]["created-at"]
    read["attributes"]["created-at"] = created[:23] + "Z"  # as a Date of JavaScript prints it
    with dataset.app.app_context():
        db.session.execute(
            update(Event).where(Event.id == int(read["id"])).values(ical_url="https://example.com/a.ics")
        )
        db.session.commit()

    assert dataset.owner.send("PATCH", path, {"data": read}).status_code == 200
    assert dataset.owner.update(path, "event", {"ical-url": "https://example.com/b.ics"}).status_code == 403


def test_identifiers_are_never_all_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["12345678", "12ab5678"])
    monkeypatch.setattr("app.events.models.secrets.token_hex", lambda _size: next(drawn))

    assert new_identifier() == "12ab5678"


def test_only_the_verified_create_events_when_that_is_asked_for(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dataset.app.config, "REQUIRE_VERIFIED_EMAIL", True)
    dataset.admin.update(f"/v1/users/{dataset.stranger.id}", "user", {"is-verified": False})

    refused = dataset.stranger.create("/v1/events", "event", ATTRIBUTES)

    assert (refused.status_code, get_errors(refused)[0]["code"]) == (403, "unverified-email")
    assert dataset.other.create("/v1/events", "event", ATTRIBUTES).status_code == 201


def test_upcoming_leaves_out_what_is_over(dataset: Dataset) -> None:
    past = datetime.now(UTC) - timedelta(days=3)
    with dataset.app.app_context():
        event = db.session.get_one(Event, dataset.events["others"])
        event.starts_at, event.ends_at = past, past + timedelta(days=1)
        db.session.commit()

    assert get_ids(dataset.anonymous.get("/v1/events/upcoming")) == [dataset.events["published"]]


def user_identifier(caller: ApiClient) -> dict[str, str]:
    """Return the resource identifier of a user."""
    return {"type": "user", "id": str(caller.id)}


def test_nobody_is_organizer_and_coorganizer_at_once(dataset: Dataset) -> None:
    path, stranger = f"/v1/events/{dataset.events['published']}", dataset.stranger.id
    before = get_ids(dataset.owner.get(f"{path}/relationships/organizers"))

    answer = dataset.owner.update(path, "event", {}, organizers=[stranger], coorganizers=[stranger])

    assert (answer.status_code, get_pointers(answer)) == (422, {"/data/relationships/coorganizers/data"})
    assert get_ids(dataset.owner.get(f"{path}/relationships/organizers")) == before


def test_a_refused_date_is_not_also_missing(dataset: Dataset) -> None:
    answer = dataset.owner.create(
        "/v1/events",
        "event",
        {"name": "x", "timezone": "UTC", "state": "published", "starts-at": "9999-12-31T00:00:00Z"},
    )

    details = [error["detail"] for error in get_errors(answer) if error["source"]["pointer"].endswith("starts-at")]
    assert details == ["Must be in the years 1900 to 9000."]
