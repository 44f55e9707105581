"""Events: their rules beyond who may do what."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from app.events.models import Event, new_identifier
from app.extensions import db
from tests.world import Caller, World, data, errors, ids, pointers

ATTRIBUTES = {
    "name": "Conference",
    "timezone": "Europe/Berlin",
    "starts-at": "2030-05-01T10:00:00+02:00",
    "ends-at": "2030-05-02T10:00:00+02:00",
}


def test_a_new_event_is_a_draft_of_its_creator(world: World) -> None:
    answer = world.stranger.create("/v1/events", "event", ATTRIBUTES)

    made = data(answer)
    assert answer.status_code == 201
    assert answer.headers["Location"] == world.app.config["PUBLIC_URL"] + made["links"]["self"]
    assert made["attributes"]["state"] == "draft"
    assert made["attributes"]["starts-at"] == "2030-05-01T08:00:00+00:00"
    assert made["relationships"]["owner"]["data"] == {"type": "user", "id": str(world.stranger.id)}
    assert data(world.stranger.get(f"/v1/users/{world.stranger.id}"))["attributes"]["is-user-owner"] is True
    assert world.anonymous.get(made["links"]["self"]).status_code == 404


def test_all_that_was_sent_comes_back(world: World) -> None:
    sent = {
        **ATTRIBUTES,
        "latitude": "12.5",
        "longitude": -7,
        "online": "true",
        "document-links": [{"name": "Plan", "link": "https://example.com/plan.pdf"}],
        "description": "<p onclick=x>Hi <script>alert(1)</script><a href='javascript:1'>a</a><b>b</b></p>",
        "paypal_email": " pay@Example.com ",
    }

    got = data(world.owner.create("/v1/events", "events", sent))["attributes"]

    assert (got["latitude"], got["longitude"], got["online"]) == (12.5, -7.0, True)
    assert got["document-links"] == sent["document-links"]
    assert got["paypal-email"] == "pay@example.com"
    assert "script" not in got["description"]
    assert "javascript" not in got["description"]
    assert "<b>b</b>" in got["description"]


def test_a_patch_touches_only_what_it_names(world: World) -> None:
    path = f"/v1/events/{world.events['published']}"
    before = data(world.owner.get(path))["attributes"]

    after = data(world.owner.update(path, "event", {"location-name": "Hall", "logo-url": None}))["attributes"]

    assert after == {**before, "location-name": "Hall"}
    assert data(world.owner.update(path, "event", {"location-name": None}))["attributes"] == before


def test_rules_across_attributes_see_what_is_stored(world: World) -> None:
    path = f"/v1/events/{world.events['published']}"

    for change, pointer in (
        ({"ends-at": "2001-01-01T00:00:00Z"}, "ends-at"),
        ({"starts-at": "2200-01-01T00:00:00Z"}, "ends-at"),
        ({"starts-at": None}, "starts-at"),
    ):
        answer = world.owner.update(path, "event", change)
        assert (answer.status_code, pointers(answer)) == (422, {f"/data/attributes/{pointer}"})


def test_read_only_attributes_come_back_unchanged_or_not_at_all(world: World) -> None:
    path = f"/v1/events/{world.events['published']}"
    everything = data(world.owner.get(path))

    again = world.owner.send("PATCH", path, {"data": everything})
    changed = world.owner.update(path, "event", {"identifier": "abcdef00", "created-at": "2001-01-01T00:00:00Z"})

    assert again.status_code == 200
    assert (changed.status_code, pointers(changed)) == (
        403,
        {"/data/attributes/identifier", "/data/attributes/created-at"},
    )


def test_ids_that_differ_are_a_conflict(world: World) -> None:
    document = {"data": {"type": "event", "id": str(world.events["others"]), "attributes": {"name": "x"}}}

    answer = world.owner.send("PATCH", f"/v1/events/{world.events['published']}", document)

    assert (answer.status_code, pointers(answer)) == (409, {"/data/id"})


def test_the_trash_hides_and_an_admin_restores(world: World) -> None:
    event = world.events["published"]
    path = f"/v1/events/{event}"

    assert world.owner.delete(path).get_json() == {
        "meta": {"message": "Object successfully deleted"},
        "jsonapi": {"version": "1.1"},
    }
    assert world.owner.get(path).status_code == 404
    assert world.owner.get(f"/v1/faqs/{world.faqs['published']}").status_code == 404
    assert data(world.admin.get(f"{path}?get_trashed=true"))["attributes"]["deleted-at"] is not None

    restored = world.admin.update(f"{path}?get_trashed=true", "event", {"deleted-at": None})

    assert data(restored)["attributes"]["deleted-at"] is None
    assert world.anonymous.get(f"/v1/faqs/{world.faqs['published']}").status_code == 200


def test_deleted_at_is_not_written_otherwise(world: World) -> None:
    path = f"/v1/events/{world.events['published']}"
    now = datetime.now(UTC).isoformat()

    assert world.owner.update(path, "event", {"deleted-at": now}).status_code == 403
    assert world.admin.update(f"{path}?get_trashed=true", "event", {"deleted-at": now}).status_code == 403
    assert world.owner.update(path, "event", {"deleted-at": None}).status_code == 200


def test_an_organizer_becomes_a_coorganizer(world: World) -> None:
    path = f"/v1/events/{world.events['published']}/relationships"

    world.owner.send("POST", f"{path}/coorganizers", {"data": [member(world.organizer)]})

    assert ids(world.owner.get(f"{path}/organizers")) == []
    assert ids(world.owner.get(f"{path}/coorganizers")) == sorted([world.organizer.id, world.coorganizer.id])


def test_a_team_is_replaced_and_thinned_out(world: World) -> None:
    path = f"/v1/events/{world.events['published']}/relationships/organizers"

    world.owner.send("PATCH", path, {"data": [member(world.stranger), member(world.other)]})
    assert ids(world.owner.get(path)) == [world.stranger.id, world.other.id]
    world.owner.send("DELETE", path, {"data": [member(world.stranger)]})
    assert ids(world.owner.get(path)) == [world.other.id]
    world.owner.send("PATCH", path, {"data": []})
    assert ids(world.owner.get(path)) == []


def test_a_team_in_a_patch_of_the_event(world: World) -> None:
    path = f"/v1/events/{world.events['published']}"

    same = world.coorganizer.update(path, "event", {"name": "x"}, organizers=[world.organizer.id])
    other = world.coorganizer.update(path, "event", {"name": "x"}, organizers=[world.stranger.id])
    allowed = world.organizer.update(path, "event", {"name": "y"}, organizers=[world.stranger.id, world.organizer.id])

    assert (same.status_code, other.status_code, allowed.status_code) == (200, 403, 200)
    assert ids(world.owner.get(f"{path}/relationships/organizers")) == sorted([world.stranger.id, world.organizer.id])


def test_a_member_nobody_knows(world: World) -> None:
    path = f"/v1/events/{world.events['published']}/relationships/organizers"

    answer = world.owner.send("POST", path, {"data": [{"type": "user", "id": "999999999"}]})

    assert (answer.status_code, pointers(answer)) == (404, {"/data"})


def test_the_owner_is_no_organizer_besides(world: World) -> None:
    path = f"/v1/events/{world.events['published']}/relationships/organizers"

    assert world.owner.send("POST", path, {"data": [member(world.owner)]}).status_code == 409


def test_an_event_is_never_without_an_owner(world: World) -> None:
    path = f"/v1/events/{world.events['published']}"

    assert world.owner.send("PATCH", f"{path}/relationships/owner", {"data": None}).status_code in (403, 422)
    assert world.owner.update(path, "event", {}, owner=None).status_code in (403, 422)


def test_faqs_are_not_moved_from_the_side_of_the_event(world: World) -> None:
    path = f"/v1/events/{world.events['published']}/relationships/faqs"

    for method in ("POST", "PATCH", "DELETE"):
        answer = world.owner.send(method, path, {"data": [{"type": "faq", "id": str(world.faqs["draft"])}]})
        assert answer.status_code == 403


def test_a_member_may_leave_but_throw_nobody_else_out(world: World) -> None:
    path = f"/v1/events/{world.events['published']}/relationships/coorganizers"

    other = world.coorganizer.send("DELETE", path, {"data": [member(world.coorganizer), member(world.organizer)]})
    left = world.coorganizer.send("DELETE", path, {"data": [member(world.coorganizer)]})
    again = world.stranger.send("DELETE", path, {"data": [member(world.stranger)]})

    assert (other.status_code, left.status_code, again.status_code) == (403, 200, 403)
    assert ids(world.owner.get(path)) == []


def test_a_member_nobody_knows_in_a_patch_of_the_event(world: World) -> None:
    answer = world.owner.update(f"/v1/events/{world.events['published']}", "event", {}, organizers=[10**9])

    assert (answer.status_code, pointers(answer)) == (404, {"/data/relationships/organizers/data"})


def test_an_event_does_not_come_back_to_an_owner_who_is_gone(world: World) -> None:
    path = f"/v1/events/{world.events['others']}"
    world.other.delete(path)
    assert world.other.delete(f"/v1/users/{world.other.id}").status_code == 200

    refused = world.admin.update(f"{path}?get_trashed=true", "event", {"deleted-at": None})
    restored = world.admin.update(f"{path}?get_trashed=true", "event", {"deleted-at": None}, owner=world.admin.id)

    assert (refused.status_code, restored.status_code) == (409, 200)


def test_what_the_server_wrote_meanwhile_may_be_sent_back_as_it_was(world: World) -> None:
    path = f"/v1/events/{world.events['published']}"
    read = data(world.owner.get(path))
    created = read["attributes"]["created-at"]
    read["attributes"]["created-at"] = created[:23] + "Z"  # as a Date of JavaScript prints it
    with world.app.app_context():
        db.session.execute(
            update(Event).where(Event.id == int(read["id"])).values(ical_url="https://example.com/a.ics")
        )
        db.session.commit()

    assert world.owner.send("PATCH", path, {"data": read}).status_code == 200
    assert world.owner.update(path, "event", {"ical-url": "https://example.com/b.ics"}).status_code == 403


def test_identifiers_are_never_all_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["12345678", "12ab5678"])
    monkeypatch.setattr("app.events.models.secrets.token_hex", lambda _size: next(drawn))

    assert new_identifier() == "12ab5678"


def test_only_the_verified_create_events_when_that_is_asked_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(world.app.config, "REQUIRE_VERIFIED_EMAIL", True)
    world.admin.update(f"/v1/users/{world.stranger.id}", "user", {"is-verified": False})

    refused = world.stranger.create("/v1/events", "event", ATTRIBUTES)

    assert (refused.status_code, errors(refused)[0]["code"]) == (403, "unverified-email")
    assert world.other.create("/v1/events", "event", ATTRIBUTES).status_code == 201


def test_upcoming_leaves_out_what_is_over(world: World) -> None:
    past = datetime.now(UTC) - timedelta(days=3)
    with world.app.app_context():
        event = db.session.get_one(Event, world.events["others"])
        event.starts_at, event.ends_at = past, past + timedelta(days=1)
        db.session.commit()

    assert ids(world.anonymous.get("/v1/events/upcoming")) == [world.events["published"]]


def member(caller: Caller) -> dict[str, str]:
    """A resource identifier of somebody."""
    return {"type": "user", "id": str(caller.id)}


def test_nobody_is_organizer_and_coorganizer_at_once(world: World) -> None:
    path, stranger = f"/v1/events/{world.events['published']}", world.stranger.id
    before = ids(world.owner.get(f"{path}/relationships/organizers"))

    answer = world.owner.update(path, "event", {}, organizers=[stranger], coorganizers=[stranger])

    assert (answer.status_code, pointers(answer)) == (422, {"/data/relationships/coorganizers/data"})
    assert ids(world.owner.get(f"{path}/relationships/organizers")) == before


def test_a_refused_date_is_not_also_missing(world: World) -> None:
    answer = world.owner.create(
        "/v1/events",
        "event",
        {"name": "x", "timezone": "UTC", "state": "published", "starts-at": "9999-12-31T00:00:00Z"},
    )

    details = [error["detail"] for error in errors(answer) if error["source"]["pointer"].endswith("starts-at")]
    assert details == ["Must lie in the years 1900 to 9000."]
