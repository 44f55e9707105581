"""The permission table: role x resource x verb."""

import pytest

from app.events.permissions import list_types_of_events
from app.jsonapi.resource_type import TYPES
from tests.dataset import ROLES, Dataset, get_ids

READ = {
    "published": dict.fromkeys(ROLES, 200),
    "draft": {"anonymous": 404, "stranger": 404} | dict.fromkeys(ROLES[2:], 200),
    "private": {"anonymous": 404, "stranger": 404} | dict.fromkeys(ROLES[2:], 200),
    "trashed": dict.fromkeys(ROLES, 404),
}
"""Status of a GET by the id of a resource that belongs to an event in this state."""

WRITE = {
    "published": {"anonymous": 401, "stranger": 403} | dict.fromkeys(ROLES[2:], 200),
    "draft": {"anonymous": 401, "stranger": 404} | dict.fromkeys(ROLES[2:], 200),
    "private": {"anonymous": 401, "stranger": 404} | dict.fromkeys(ROLES[2:], 200),
    "trashed": {"anonymous": 401} | dict.fromkeys(ROLES[1:], 404),
}
"""Status of a PATCH or DELETE of such a resource."""


@pytest.mark.parametrize("state", READ)
def test_reading_an_event_and_what_belongs_to_it(dataset: Dataset, state: str) -> None:
    event, faq_type, faq = dataset.events[state], dataset.types[state], dataset.faqs[state]
    image = dataset.images[state]
    paths = [
        f"/v1/events/{event}",
        f"/v1/events/{event}/owner",
        f"/v1/events/{event}/organizers",
        f"/v1/events/{event}/faqs",
        f"/v1/events/{event}/faq-types",
        f"/v1/events/{event}/images",
        f"/v1/events/{event}/relationships/faqs",
        f"/v1/events/{event}/relationships/images",
        f"/v1/events/{event}/relationships/owner",
        f"/v1/events/{event}/relationships/coorganizers",
        f"/v1/faq-types/{faq_type}",
        f"/v1/faq-types/{faq_type}/event",
        f"/v1/faq-types/{faq_type}/faqs",
        f"/v1/faq-types/{faq_type}/relationships/faqs",
        f"/v1/faqs/{faq}",
        f"/v1/faqs/{faq}/event",
        f"/v1/faqs/{faq}/faq-type",
        f"/v1/faqs/{faq}/relationships/event",
        f"/v1/faqs/{faq}/relationships/faq-type",
        f"/v1/event-images/{image}",
        f"/v1/event-images/{image}/event",
        f"/v1/event-images/{image}/relationships/event",
        *(f"{TYPES[name].path}/{ids[state]}" for name, ids in dataset.belongings.items()),
    ]
    for role in ROLES:
        for path in paths:
            expected = READ[state][role]
            if path.endswith(f"{event}/owner") and expected == 200 and role in ROLES[:4]:
                expected = 404  # the profile of the owner is not public
            assert dataset.callers[role].get(path).status_code == expected, (role, path)


@pytest.mark.parametrize("state", WRITE)
@pytest.mark.parametrize("role", ROLES)
def test_changing_and_deleting(dataset: Dataset, state: str, role: str) -> None:
    caller, expected = dataset.callers[role], WRITE[state][role]
    event, faq_type, faq = dataset.events[state], dataset.types[state], dataset.faqs[state]

    assert caller.update(f"/v1/faqs/{faq}", "faq", {"question": "New?"}).status_code == expected
    assert caller.update(f"/v1/faq-types/{faq_type}", "faq-type", {"name": "New"}).status_code == expected
    assert caller.update(f"/v1/events/{event}", "event", {"name": "New"}).status_code == expected
    assert caller.delete(f"/v1/faqs/{faq}").status_code == expected
    assert caller.delete(f"/v1/faq-types/{faq_type}").status_code == expected
    may_delete = role != "coorganizer" or expected != 200
    assert caller.delete(f"/v1/events/{event}").status_code == (expected if may_delete else 403)


CREATE = {
    "published": {"anonymous": 401, "stranger": 403} | dict.fromkeys(ROLES[2:], 201),
    "draft": {"anonymous": 401, "stranger": 404} | dict.fromkeys(ROLES[2:], 201),
    "private": {"anonymous": 401, "stranger": 404} | dict.fromkeys(ROLES[2:], 201),
    "trashed": {"anonymous": 401} | dict.fromkeys(ROLES[1:], 404),
}


@pytest.mark.parametrize("state", CREATE)
@pytest.mark.parametrize("role", ROLES)
def test_creating_below_an_event(dataset: Dataset, state: str, role: str) -> None:
    caller, expected, event = dataset.callers[role], CREATE[state][role], dataset.events[state]

    made = caller.create("/v1/faqs", "faq", {"question": "Where?", "answer": "Here"}, event=event)
    type_made = caller.create("/v1/faq-types", "faq-type", {"name": "Venue"}, event=event)

    assert (made.status_code, type_made.status_code) == (expected, expected)


@pytest.mark.parametrize("role", ROLES)
def test_creating_an_event(dataset: Dataset, role: str) -> None:
    made = dataset.callers[role].create("/v1/events", "event", {"name": "Mine", "timezone": "UTC"})

    assert made.status_code == (401 if role == "anonymous" else 201)


VISIBLE = {"anonymous": {"published", "others"}, "stranger": {"published", "others"}}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("type_", ["event", *(type_.name for type_ in list_types_of_events())])
def test_lists_and_their_counts_hold_what_the_role_sees(dataset: Dataset, role: str, type_: str) -> None:
    known = {"event": dataset.events, **dataset.belongings}[type_]
    visible = VISIBLE.get(role, {"published", "draft", "private", "others"})

    answer = dataset.callers[role].get(TYPES[type_].path)

    assert set(get_ids(answer)) == {known[name] for name in visible}
    assert answer.get_json(force=True)["meta"]["count"] == len(visible)


USERS = {
    "anonymous": {"list": 401, "own": 401, "other": 404, "change": 401},
    "stranger": {"list": 403, "own": 200, "other": 404, "change": 404},
    "owner": {"list": 403, "own": 200, "other": 404, "change": 404},
    "admin": {"list": 200, "own": 200, "other": 200, "change": 200},
    "super_admin": {"list": 200, "own": 200, "other": 200, "change": 200},
}


@pytest.mark.parametrize("role", USERS)
def test_users_access_by_role(dataset: Dataset, role: str) -> None:
    caller, expected = dataset.callers[role], USERS[role]
    other = f"/v1/users/{dataset.other.id}"

    assert caller.get("/v1/users").status_code == expected["list"]
    assert caller.get(other).status_code == expected["other"]
    assert caller.get(f"{other}/events").status_code == expected["other"]
    assert caller.update(other, "user", {"details": "New"}).status_code == expected["change"]
    if caller.id:
        assert caller.get(f"/v1/users/{caller.id}").status_code == expected["own"]
        assert caller.update(f"/v1/users/{caller.id}", "user", {"details": "New"}).status_code == 200


TEAM = {"anonymous": 401, "stranger": 403, "coorganizer": 403} | dict.fromkeys(ROLES[3:], 200)
"""Status of a change to organizers or coorganizers of a published event."""


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("relation", ["organizers", "coorganizers"])
@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_changing_a_team(dataset: Dataset, role: str, relation: str, method: str) -> None:
    path = f"/v1/events/{dataset.events['published']}/relationships/{relation}"
    member = {"data": [{"type": "user", "id": str(dataset.stranger.id)}]}

    assert dataset.callers[role].send(method, path, member).status_code == TEAM[role]


@pytest.mark.parametrize("role", ROLES)
def test_offering_an_event(dataset: Dataset, role: str) -> None:
    path = f"/v1/events/{dataset.events['published']}/relationships/pending-owner"
    heir = {"data": {"type": "user", "id": str(dataset.stranger.id)}}
    expected = {"anonymous": 401, "owner": 200, "admin": 200, "super_admin": 200}.get(role, 403)

    assert dataset.callers[role].send("PATCH", path, heir).status_code == expected


def test_a_private_event_opens_by_its_identifier_alone(dataset: Dataset) -> None:
    identifier = dataset.identifiers["private"]

    answer = dataset.anonymous.get(f"/v1/events/{identifier}?include=faqs,faq-types,images")

    document = answer.get_json(force=True)
    assert answer.status_code == 200
    assert document["data"]["links"]["self"] == f"/v1/events/{identifier}"
    assert {(item["type"], int(item["id"])) for item in document["included"]} == {
        ("faq", dataset.faqs["private"]),
        ("faq-type", dataset.types["private"]),
        ("event-image", dataset.images["private"]),
    }
    assert get_ids(dataset.anonymous.get(f"/v1/events/{identifier}/faqs")) == [dataset.faqs["private"]]
    assert dataset.anonymous.get(f"/v1/events/{dataset.identifiers['draft']}").status_code == 404


def test_the_public_profile_of_an_owner(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}/owner"
    dataset.owner.update(f"/v1/users/{dataset.owner.id}", "user", {"is-profile-public": True})

    profile = dataset.anonymous.get(path).get_json(force=True)["data"]

    assert profile["attributes"]["public-name"] == "owner in public"
    assert not {"email", "contact", "is-admin", "created-at"} & profile["attributes"].keys()
    assert "relationships" not in profile
    assert dataset.anonymous.get(f"/v1/users/{dataset.owner.id}").status_code == 404


def test_members_of_a_team_see_public_profiles_and_themselves_whole(dataset: Dataset) -> None:
    dataset.owner.update(f"/v1/users/{dataset.owner.id}", "user", {"is-profile-public": True})
    answer = dataset.coorganizer.get(f"/v1/events/{dataset.events['draft']}?include=owner,organizers,coorganizers")

    included = {int(item["id"]): item["attributes"] for item in answer.get_json(force=True)["included"]}
    assert set(included) == {dataset.owner.id, dataset.coorganizer.id}
    assert "email" not in included[dataset.owner.id]
    assert included[dataset.coorganizer.id]["email"] == "coorganizer@example.com"
