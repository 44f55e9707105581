"""Ownership is offered and accepted; membership in a team binds no one and shows no private profile."""

from collections.abc import Callable
from email.message import EmailMessage
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import select

from app.events.models import EventRole
from app.extensions import db
from tests.users.conftest import deliver as deliver  # a fixture of the tests of accounts
from tests.world import ROLES, Caller, World, data, errors, ids

Deliver = Callable[[], list[EmailMessage]]


def member(caller: Caller) -> dict[str, str]:
    """The identifier of a user."""
    return {"type": "user", "id": str(caller.id)}


def offer(world: World, caller: Caller, to: Caller | None, event: str = "draft") -> Any:
    """Ask a user to take an event over, or no user any more."""
    path = f"/v1/events/{world.events[event]}/relationships/pending-owner"
    return caller.send("PATCH", path, {"data": to and member(to)})


def reply(world: World, caller: Caller, answer: str, event: str = "draft") -> Any:
    """Accept or decline."""
    return caller.send("POST", f"/v1/events/{world.events[event]}/{answer}-ownership")


def owner_of(world: World, event: str = "draft") -> tuple[str, str | None]:
    """The ids of the owner and of the user who is asked."""
    relationships = data(world.admin.get(f"/v1/events/{world.events[event]}"))["relationships"]
    asked = relationships["pending-owner"]["data"]
    return relationships["owner"]["data"]["id"], asked and asked["id"]


def test_a_new_owner_accepts(world: World, deliver: Deliver) -> None:
    path = f"/v1/events/{world.events['draft']}"
    deliver()
    assert world.stranger.get(path).status_code == 404

    assert data(offer(world, world.owner, world.stranger)) == member(world.stranger)

    assert owner_of(world) == (str(world.owner.id), str(world.stranger.id))
    (mail,) = deliver()
    assert (mail["To"], mail["X-Resource-Id"]) == ("stranger@example.com", str(world.events["draft"]))
    assert f"{path}/accept-ownership" in mail.get_content()
    assert data(world.stranger.get(path))["attributes"]["name"] == "draft event"  # to know what is offered
    assert world.stranger.update(path, "event", {"name": "mine"}).status_code == 403

    accepted = reply(world, world.stranger, "accept")

    assert data(accepted)["relationships"]["owner"]["data"] == member(world.stranger)
    assert owner_of(world) == (str(world.stranger.id), None)
    with world.app.app_context():
        statement = select(EventRole.user_id, EventRole.role).where(EventRole.event_id == world.events["draft"])
        roles = {tuple(row) for row in db.session.execute(statement)}
    assert roles == {
        (world.stranger.id, "owner"),
        (world.owner.id, "organizer"),
        (world.organizer.id, "organizer"),
        (world.coorganizer.id, "coorganizer"),
    }
    assert world.stranger.update(path, "event", {"name": "mine"}).status_code == 200


def test_a_user_declines_and_is_not_bound(world: World) -> None:
    offer(world, world.owner, world.stranger)

    assert reply(world, world.stranger, "decline").status_code == 200

    assert owner_of(world) == (str(world.owner.id), None)
    assert world.stranger.get(f"/v1/events/{world.events['draft']}").status_code == 404
    assert reply(world, world.stranger, "accept").status_code == 404


@pytest.mark.parametrize("answer", ["accept", "decline"])
def test_only_the_user_who_is_asked_answers(world: World, answer: str) -> None:
    offer(world, world.owner, world.stranger, "published")

    for role in ("owner", "organizer", "other", "admin", "super_admin"):
        refused = reply(world, world.callers[role], answer, "published")
        assert (refused.status_code, errors(refused)[0]["code"]) == (403, "not-pending-owner"), role
    assert reply(world, world.anonymous, answer, "published").status_code == 401
    assert owner_of(world, "published") == (str(world.owner.id), str(world.stranger.id))


@pytest.mark.parametrize("answer", ["accept", "decline"])
def test_a_withdrawn_offer_is_void_and_its_mail_unsent(world: World, deliver: Deliver, answer: str) -> None:
    deliver()
    offer(world, world.owner, world.stranger, "published")
    offer(world, world.owner, None, "published")

    assert reply(world, world.stranger, answer, "published").status_code == 403
    assert owner_of(world, "published") == (str(world.owner.id), None)
    assert deliver() == []


@pytest.mark.parametrize("role", ["owner", "admin", "super_admin"])
def test_ownership_is_forced_on_no_one(world: World, role: str) -> None:
    path, caller = f"/v1/events/{world.events['draft']}", world.callers[role]

    answers = [
        caller.send("PATCH", f"{path}/relationships/owner", {"data": member(world.stranger)}),
        caller.update(path, "event", {}, owner=world.stranger.id),
        caller.create("/v1/events", "event", {"name": "x", "timezone": "UTC"}, owner=world.stranger.id),
    ]

    assert [(each.status_code, errors(each)[0]["code"]) for each in answers] == [(403, "acceptance-required")] * 3
    assert owner_of(world) == (str(world.owner.id), None)


@pytest.mark.parametrize("role", ["stranger", "organizer", "coorganizer", "other"])
def test_only_the_owner_offers(world: World, role: str) -> None:
    assert offer(world, world.callers[role], world.callers[role], "published").status_code == 403


def test_an_admin_makes_themself_the_owner(world: World) -> None:
    offer(world, world.owner, world.stranger)

    taken = world.admin.update(f"/v1/events/{world.events['draft']}", "event", {}, owner=world.admin.id)

    assert taken.status_code == 200
    assert owner_of(world) == (str(world.admin.id), None)


def test_an_unverified_user_owns_no_event_where_that_is_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(world.app.config, "REQUIRE_VERIFIED_EMAIL", True)
    world.admin.update(f"/v1/users/{world.stranger.id}", "user", {"is-verified": False})
    offer(world, world.owner, world.stranger)

    refused = reply(world, world.stranger, "accept")

    assert (refused.status_code, errors(refused)[0]["code"]) == (403, "unverified-email")


def test_the_owner_is_not_asked(world: World) -> None:
    assert offer(world, world.owner, world.owner).status_code == 409


def test_an_event_is_created_with_an_offer(world: World, deliver: Deliver) -> None:
    deliver()

    made = world.owner.create("/v1/events", "event", {"name": "x", "timezone": "UTC"}, pending_owner=world.other.id)

    assert data(made)["relationships"]["pending-owner"]["data"] == member(world.other)
    assert [mail["To"] for mail in deliver()] == ["other@example.com"]


def test_offers_are_counted_for_the_user_who_is_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Any] = []
    monkeypatch.setattr("app.throttle.count", lambda action, account=None: counted.append((action, account)))

    offer(world, world.owner, world.stranger)
    offer(world, world.owner, world.stranger)  # the same again changes nothing
    offer(world, world.owner, None)

    assert counted == [("offer-ownership", str(world.stranger.id))]


def test_a_deleted_user_is_asked_nothing(world: World, deliver: Deliver) -> None:
    deliver()
    offer(world, world.owner, world.stranger)
    assert world.stranger.delete(f"/v1/users/{world.stranger.id}").status_code == 200

    assert owner_of(world) == (str(world.owner.id), None)
    assert [mail["Subject"] for mail in deliver()] == ["Your account was deleted"]


def test_a_member_deletes_their_account_and_the_owner_does_not(world: World) -> None:
    for role in ("organizer", "coorganizer"):
        assert world.callers[role].delete(f"/v1/users/{world.callers[role].id}").status_code == 200
    refused = world.owner.delete(f"/v1/users/{world.owner.id}")

    assert (refused.status_code, errors(refused)[0]["code"]) == (403, "owns-events")
    for event in ("published", "draft", "private"):
        for relation in ("organizers", "coorganizers"):
            assert ids(world.owner.get(f"/v1/events/{world.events[event]}/relationships/{relation}")) == []
    with world.app.app_context():
        assert set(db.session.scalars(select(EventRole.role))) == {"owner"}


def test_a_private_profile_is_not_shown_to_a_team_it_was_put_into(world: World) -> None:
    event = f"/v1/events/{world.events['others']}"
    assert world.other.send("POST", f"{event}/relationships/organizers", {"data": [member(world.stranger)]}).status_code

    def shown() -> set[str]:
        """Where the name that the profile has in public appears."""
        condition = {
            "name": "organizers",
            "op": "any",
            "val": {"name": "public-name", "op": "like", "val": "stranger%"},
        }
        paths = {
            "include": f"{event}?include=organizers,coorganizers,owner",
            "list": "/v1/events?include=organizers",
            "related": f"{event}/organizers",
            "operations": f"{event}/organizers?sort=public-name",
        }
        found = {name for name, path in paths.items() if "stranger in public" in world.other.get(path).text}
        filtered = world.other.get(f"/v1/events?filter={quote(world.app.json.dumps([condition]))}")
        return found | ({"filter"} if ids(filtered) else set())

    assert shown() == set()
    assert ids(world.other.get(f"{event}/relationships/organizers")) == [world.stranger.id]  # the number alone

    world.stranger.update(f"/v1/users/{world.stranger.id}", "user", {"is-profile-public": True})

    assert shown() == {"include", "list", "related", "operations", "filter"}
    assert "in private" not in world.other.get(f"{event}?include=organizers").text


@pytest.mark.parametrize("role", ROLES)
def test_an_offer_is_seen_by_the_owner_admins_and_the_user_who_is_asked(world: World, role: str) -> None:
    asked = world.other
    assert asked.update(f"/v1/users/{asked.id}", "user", {"is-profile-public": True}).status_code == 200
    assert offer(world, world.owner, asked, "published").status_code == 200
    path = f"/v1/events/{world.events['published']}"

    for caller, sees in ((world.callers[role], role in ("owner", "admin", "super_admin")), (asked, True)):
        expected = member(asked) if sees else None
        assert data(caller.get(f"{path}/relationships/pending-owner")) == expected
        assert (data(caller.get(f"{path}/pending-owner")) is not None) == sees
        included = caller.get(f"{path}?include=pending-owner").get_json(force=True)
        assert included["data"]["relationships"]["pending-owner"]["data"] == expected
        assert [each["id"] for each in included["included"]] == ([str(asked.id)] if sees else [])
        for each in caller.get("/v1/events?page[size]=50").get_json(force=True)["data"]:
            if each["id"] == str(world.events["published"]):
                assert each["relationships"]["pending-owner"]["data"] == expected


@pytest.mark.parametrize("role", ROLES)
def test_events_are_searched_by_offers_that_the_caller_sees(world: World, role: str) -> None:
    offer(world, world.owner, world.stranger, "published")
    event_id = world.events["published"]
    has = [{"name": "pending-owner", "op": "has", "val": {"name": "public-name", "op": "like", "val": "str%"}}]
    queries = [
        f"filter[pending-owner]={world.stranger.id}",
        f"filter[pending-owner][in]={world.stranger.id}",
        f"filter[pending-owner][eq]={world.stranger.id}",
        "filter[pending-owner][is-null]=false",
        f"filter={quote(world.app.json.dumps(has))}",
        "sort=pending-owner.public-name",
    ]

    answers = [world.callers[role].get(f"/v1/events?{query}") for query in queries]

    if role == "anonymous":
        assert {each.status_code for each in answers} == {400}
        return
    sees = role in ("stranger", "owner", "admin", "super_admin")
    assert [ids(each) for each in answers[:4]] == [[event_id] if sees else []] * 4
    assert (
        event_id in ids(world.callers[role].get(f"/v1/events?filter[pending-owner][ne]={world.stranger.id}"))
    ) != sees
    assert {each.status_code for each in answers[4:]} == ({200} if role in ("admin", "super_admin") else {400})


def test_an_organizer_who_sends_everything_back_changes_no_offer(world: World) -> None:
    offer(world, world.owner, world.stranger, "published")
    path = f"/v1/events/{world.events['published']}"
    everything = data(world.organizer.get(path))

    assert world.organizer.send("PATCH", path, {"data": everything}).status_code == 200

    assert owner_of(world, "published") == (str(world.owner.id), str(world.stranger.id))


@pytest.mark.parametrize("way", ["accept", "admin"])
def test_a_new_owner_gets_no_payment_details_of_the_former_one(world: World, way: str) -> None:
    path = f"/v1/events/{world.events['draft']}"
    details = {"bank-details": "DE02", "paypal-email": "pay@example.com", "onsite-details": "Cash"}
    assert world.owner.update(path, "event", details).status_code == 200
    offer(world, world.owner, world.stranger)

    if way == "accept":
        taken = reply(world, world.stranger, "accept")
        expected = dict.fromkeys(details)
    else:
        taken = world.admin.update(path, "event", {"bank-details": "of the admin"}, owner=world.admin.id)
        expected = {**dict.fromkeys(details), "bank-details": "of the admin"}

    assert {name: data(taken)["attributes"][name] for name in details} == expected
    assert data(world.admin.get(path))["attributes"]["paypal-email"] is None
