"""Offer and acceptance of ownership; teams see no private profiles."""

from collections.abc import Callable
from email.message import EmailMessage
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import select

from app.events.models import EventRole
from app.extensions import db
from tests.dataset import ROLES, ApiClient, Dataset, get_data, get_errors, get_ids
from tests.users.conftest import deliver_mails as deliver_mails  # a fixture of the tests of accounts

Deliver = Callable[[], list[EmailMessage]]


def user_identifier(caller: ApiClient) -> dict[str, str]:
    """Return the resource identifier of a user."""
    return {"type": "user", "id": str(caller.id)}


def offer_event(dataset: Dataset, caller: ApiClient, to: ApiClient | None, event: str = "draft") -> Any:
    """Offer the ownership of an event to a user, or withdraw the offer."""
    path = f"/v1/events/{dataset.events[event]}/relationships/pending-owner"
    return caller.send("PATCH", path, {"data": to and user_identifier(to)})


def answer_offer(dataset: Dataset, caller: ApiClient, answer: str, event: str = "draft") -> Any:
    """Accept or decline an offer."""
    return caller.send("POST", f"/v1/events/{dataset.events[event]}/{answer}-ownership")


def get_owner_ids(dataset: Dataset, event: str = "draft") -> tuple[str, str | None]:
    """Return the ids of the owner and of the pending owner."""
    relationships = get_data(dataset.admin.get(f"/v1/events/{dataset.events[event]}"))["relationships"]
    asked = relationships["pending-owner"]["data"]
    return relationships["owner"]["data"]["id"], asked and asked["id"]


def test_a_new_owner_accepts(dataset: Dataset, deliver_mails: Deliver) -> None:
    path = f"/v1/events/{dataset.events['draft']}"
    deliver_mails()
    assert dataset.stranger.get(path).status_code == 404

    assert get_data(offer_event(dataset, dataset.owner, dataset.stranger)) == user_identifier(dataset.stranger)

    assert get_owner_ids(dataset) == (str(dataset.owner.id), str(dataset.stranger.id))
    (mail,) = deliver_mails()
    assert (mail["To"], mail["X-Resource-Id"]) == ("stranger@example.com", str(dataset.events["draft"]))
    assert f"{path}/accept-ownership" in mail.get_content()
    assert get_data(dataset.stranger.get(path))["attributes"]["name"] == "draft event"  # to know what is offered
    assert dataset.stranger.update(path, "event", {"name": "mine"}).status_code == 403

    accepted = answer_offer(dataset, dataset.stranger, "accept")

    assert get_data(accepted)["relationships"]["owner"]["data"] == user_identifier(dataset.stranger)
    assert get_owner_ids(dataset) == (str(dataset.stranger.id), None)
    with dataset.app.app_context():
        statement = select(EventRole.user_id, EventRole.role).where(EventRole.event_id == dataset.events["draft"])
        roles = {tuple(row) for row in db.session.execute(statement)}
    assert roles == {
        (dataset.stranger.id, "owner"),
        (dataset.owner.id, "organizer"),
        (dataset.organizer.id, "organizer"),
        (dataset.coorganizer.id, "coorganizer"),
    }
    assert dataset.stranger.update(path, "event", {"name": "mine"}).status_code == 200


def test_a_user_declines_and_is_not_bound(dataset: Dataset) -> None:
    offer_event(dataset, dataset.owner, dataset.stranger)

    assert answer_offer(dataset, dataset.stranger, "decline").status_code == 200

    assert get_owner_ids(dataset) == (str(dataset.owner.id), None)
    assert dataset.stranger.get(f"/v1/events/{dataset.events['draft']}").status_code == 404
    assert answer_offer(dataset, dataset.stranger, "accept").status_code == 404


@pytest.mark.parametrize("answer", ["accept", "decline"])
def test_only_the_user_who_is_asked_answers(dataset: Dataset, answer: str) -> None:
    offer_event(dataset, dataset.owner, dataset.stranger, "published")

    for role in ("owner", "organizer", "other", "admin", "super_admin"):
        refused = answer_offer(dataset, dataset.callers[role], answer, "published")
        assert (refused.status_code, get_errors(refused)[0]["code"]) == (403, "not-pending-owner"), role
    assert answer_offer(dataset, dataset.anonymous, answer, "published").status_code == 401
    assert get_owner_ids(dataset, "published") == (str(dataset.owner.id), str(dataset.stranger.id))


@pytest.mark.parametrize("answer", ["accept", "decline"])
def test_a_withdrawn_offer_is_void_and_its_mail_unsent(dataset: Dataset, deliver_mails: Deliver, answer: str) -> None:
    deliver_mails()
    offer_event(dataset, dataset.owner, dataset.stranger, "published")
    offer_event(dataset, dataset.owner, None, "published")

    assert answer_offer(dataset, dataset.stranger, answer, "published").status_code == 403
    assert get_owner_ids(dataset, "published") == (str(dataset.owner.id), None)
    assert deliver_mails() == []


@pytest.mark.parametrize("role", ["owner", "admin", "super_admin"])
def test_ownership_is_forced_on_no_one(dataset: Dataset, role: str) -> None:
    path, caller = f"/v1/events/{dataset.events['draft']}", dataset.callers[role]

    answers = [
        caller.send("PATCH", f"{path}/relationships/owner", {"data": user_identifier(dataset.stranger)}),
        caller.update(path, "event", {}, owner=dataset.stranger.id),
        caller.create("/v1/events", "event", {"name": "x", "timezone": "UTC"}, owner=dataset.stranger.id),
    ]

    assert [(each.status_code, get_errors(each)[0]["code"]) for each in answers] == [(403, "acceptance-required")] * 3
    assert get_owner_ids(dataset) == (str(dataset.owner.id), None)


@pytest.mark.parametrize("role", ["stranger", "organizer", "coorganizer", "other"])
def test_only_the_owner_offers(dataset: Dataset, role: str) -> None:
    assert offer_event(dataset, dataset.callers[role], dataset.callers[role], "published").status_code == 403


def test_an_admin_makes_themself_the_owner(dataset: Dataset) -> None:
    offer_event(dataset, dataset.owner, dataset.stranger)

    taken = dataset.admin.update(f"/v1/events/{dataset.events['draft']}", "event", {}, owner=dataset.admin.id)

    assert taken.status_code == 200
    assert get_owner_ids(dataset) == (str(dataset.admin.id), None)


def test_an_unverified_user_owns_no_event_where_that_is_asked_for(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dataset.app.config, "REQUIRE_VERIFIED_EMAIL", True)
    dataset.admin.update(f"/v1/users/{dataset.stranger.id}", "user", {"is-verified": False})
    offer_event(dataset, dataset.owner, dataset.stranger)

    refused = answer_offer(dataset, dataset.stranger, "accept")

    assert (refused.status_code, get_errors(refused)[0]["code"]) == (403, "unverified-email")


def test_the_owner_is_not_asked(dataset: Dataset) -> None:
    assert offer_event(dataset, dataset.owner, dataset.owner).status_code == 409


def test_an_event_is_created_with_an_offer(dataset: Dataset, deliver_mails: Deliver) -> None:
    deliver_mails()

    made = dataset.owner.create("/v1/events", "event", {"name": "x", "timezone": "UTC"}, pending_owner=dataset.other.id)

    assert get_data(made)["relationships"]["pending-owner"]["data"] == user_identifier(dataset.other)
    assert [mail["To"] for mail in deliver_mails()] == ["other@example.com"]


def test_offers_are_counted_for_the_user_who_is_asked(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Any] = []
    monkeypatch.setattr("app.throttle.check_rate_limit", lambda action, account=None: counted.append((action, account)))

    offer_event(dataset, dataset.owner, dataset.stranger)
    offer_event(dataset, dataset.owner, dataset.stranger)  # the same again changes nothing
    offer_event(dataset, dataset.owner, None)

    assert counted == [("offer-ownership", str(dataset.stranger.id))]


def test_a_deleted_user_is_asked_nothing(dataset: Dataset, deliver_mails: Deliver) -> None:
    deliver_mails()
    offer_event(dataset, dataset.owner, dataset.stranger)
    assert dataset.stranger.delete(f"/v1/users/{dataset.stranger.id}").status_code == 200

    assert get_owner_ids(dataset) == (str(dataset.owner.id), None)
    assert [mail["Subject"] for mail in deliver_mails()] == ["Your account was deleted"]


def test_a_member_deletes_their_account_and_the_owner_does_not(dataset: Dataset) -> None:
    for role in ("organizer", "coorganizer"):
        assert dataset.callers[role].delete(f"/v1/users/{dataset.callers[role].id}").status_code == 200
    refused = dataset.owner.delete(f"/v1/users/{dataset.owner.id}")

    assert (refused.status_code, get_errors(refused)[0]["code"]) == (403, "owns-events")
    for event in ("published", "draft", "private"):
        for relation in ("organizers", "coorganizers"):
            assert get_ids(dataset.owner.get(f"/v1/events/{dataset.events[event]}/relationships/{relation}")) == []
    with dataset.app.app_context():
        assert set(db.session.scalars(select(EventRole.role))) == {"owner"}


def test_a_private_profile_is_not_shown_to_a_team_it_was_put_into(dataset: Dataset) -> None:
    event = f"/v1/events/{dataset.events['others']}"
    assert dataset.other.send(
        "POST", f"{event}/relationships/organizers", {"data": [user_identifier(dataset.stranger)]}
    ).status_code

    def list_exposures() -> set[str]:
        """Return the ways in which the public name of the profile is visible."""
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
        found = {name for name, path in paths.items() if "stranger in public" in dataset.other.get(path).text}
        filtered = dataset.other.get(f"/v1/events?filter={quote(dataset.app.json.dumps([condition]))}")
        return found | ({"filter"} if get_ids(filtered) else set())

    assert list_exposures() == set()
    assert get_ids(dataset.other.get(f"{event}/relationships/organizers")) == [dataset.stranger.id]  # the number alone

    dataset.stranger.update(f"/v1/users/{dataset.stranger.id}", "user", {"is-profile-public": True})

    assert list_exposures() == {"include", "list", "related", "operations", "filter"}
    assert "in private" not in dataset.other.get(f"{event}?include=organizers").text


@pytest.mark.parametrize("role", ROLES)
def test_an_offer_is_seen_by_the_owner_admins_and_the_user_who_is_asked(dataset: Dataset, role: str) -> None:
    asked = dataset.other
    assert asked.update(f"/v1/users/{asked.id}", "user", {"is-profile-public": True}).status_code == 200
    assert offer_event(dataset, dataset.owner, asked, "published").status_code == 200
    path = f"/v1/events/{dataset.events['published']}"

    for caller, sees in ((dataset.callers[role], role in ("owner", "admin", "super_admin")), (asked, True)):
        expected = user_identifier(asked) if sees else None
        assert get_data(caller.get(f"{path}/relationships/pending-owner")) == expected
        assert (get_data(caller.get(f"{path}/pending-owner")) is not None) == sees
        included = caller.get(f"{path}?include=pending-owner").get_json(force=True)
        assert included["data"]["relationships"]["pending-owner"]["data"] == expected
        assert [each["id"] for each in included["included"]] == ([str(asked.id)] if sees else [])
        for each in caller.get("/v1/events?page[size]=50").get_json(force=True)["data"]:
            if each["id"] == str(dataset.events["published"]):
                assert each["relationships"]["pending-owner"]["data"] == expected


@pytest.mark.parametrize("role", ROLES)
def test_events_are_searched_by_offers_that_the_caller_sees(dataset: Dataset, role: str) -> None:
    offer_event(dataset, dataset.owner, dataset.stranger, "published")
    event_id = dataset.events["published"]
    has = [{"name": "pending-owner", "op": "has", "val": {"name": "public-name", "op": "like", "val": "str%"}}]
    queries = [
        f"filter[pending-owner]={dataset.stranger.id}",
        f"filter[pending-owner][in]={dataset.stranger.id}",
        f"filter[pending-owner][eq]={dataset.stranger.id}",
        "filter[pending-owner][is-null]=false",
        f"filter={quote(dataset.app.json.dumps(has))}",
        "sort=pending-owner.public-name",
    ]

    answers = [dataset.callers[role].get(f"/v1/events?{query}") for query in queries]

    if role == "anonymous":
        assert {each.status_code for each in answers} == {400}
        return
    sees = role in ("stranger", "owner", "admin", "super_admin")
    assert [get_ids(each) for each in answers[:4]] == [[event_id] if sees else []] * 4
    assert (
        event_id in get_ids(dataset.callers[role].get(f"/v1/events?filter[pending-owner][ne]={dataset.stranger.id}"))
    ) != sees
    assert {each.status_code for each in answers[4:]} == ({200} if role in ("admin", "super_admin") else {400})


def test_an_organizer_who_sends_everything_back_changes_no_offer(dataset: Dataset) -> None:
    offer_event(dataset, dataset.owner, dataset.stranger, "published")
    path = f"/v1/events/{dataset.events['published']}"
    everything = get_data(dataset.organizer.get(path))

    assert dataset.organizer.send("PATCH", path, {"data": everything}).status_code == 200

    assert get_owner_ids(dataset, "published") == (str(dataset.owner.id), str(dataset.stranger.id))


@pytest.mark.parametrize("way", ["accept", "admin"])
def test_a_new_owner_gets_no_payment_details_of_the_former_one(dataset: Dataset, way: str) -> None:
    path = f"/v1/events/{dataset.events['draft']}"
    details = {"bank-details": "DE02", "paypal-email": "pay@example.com", "onsite-details": "Cash"}
    assert dataset.owner.update(path, "event", details).status_code == 200
    offer_event(dataset, dataset.owner, dataset.stranger)

    if way == "accept":
        taken = answer_offer(dataset, dataset.stranger, "accept")
        expected = dict.fromkeys(details)
    else:
        taken = dataset.admin.update(path, "event", {"bank-details": "of the admin"}, owner=dataset.admin.id)
        expected = {**dict.fromkeys(details), "bank-details": "of the admin"}

    assert {name: get_data(taken)["attributes"][name] for name in details} == expected
    assert get_data(dataset.admin.get(path))["attributes"]["paypal-email"] is None
