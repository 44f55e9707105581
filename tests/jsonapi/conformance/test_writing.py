"""JSON:API 1.1, "Creating, Updating and Deleting Resources": each test is named after the statement it shows."""

from typing import Any

import pytest

from app.faqs.models import Faq
from tests.jsonapi.conformance.crawl import data_of
from tests.world import Caller, World, data, ids, linkage, pointers

CAMP = {"name": "Camp", "timezone": "UTC"}


def relate(caller: Caller, method: str, path: str, type_: str, *ids: int) -> int:
    """The status of a change to a to-many relationship."""
    return caller.send(method, path, {"data": linkage(type_, list(ids))}).status_code


def test_crud_atomic(world: World) -> None:
    path, stranger = f"/v1/events/{world.events['draft']}", world.stranger.id
    before = data_of(world.owner, path)

    refused = world.owner.update(path, "event", {"name": "New", "latitude": 1000}, organizers=[stranger])
    half = world.owner.update(path, "event", {"name": "New"}, organizers=[stranger, 999999999])

    assert (refused.status_code, half.status_code) == (422, 404)
    assert data_of(world.owner, path) == before


@pytest.mark.parametrize("primary", [None, [], [{"type": "event", "attributes": CAMP}], "event"])
def test_create_single_resource(world: World, primary: Any) -> None:
    assert world.owner.send("POST", "/v1/events", {"data": primary}).status_code == 400


def test_create_type_member(world: World) -> None:
    answer = world.owner.send("POST", "/v1/events", {"data": {"attributes": CAMP}})

    assert (answer.status_code, pointers(answer)) == (422, {"/data/type"})


@pytest.mark.parametrize("relationship", [None, [], "1", {}, {"extra": 1}])
def test_create_relationships_member(world: World, relationship: Any) -> None:
    document = {"data": {"type": "event", "attributes": CAMP, "relationships": {"owner": relationship}}}

    assert world.owner.send("POST", "/v1/events", document).status_code in (400, 422)


def test_create_client_generated_ids_forbidden(world: World) -> None:
    document = {"data": {"type": "event", "id": "550e8400-e29b-41d4-a716-446655440000", "attributes": CAMP}}

    assert world.owner.send("POST", "/v1/events", document).status_code == 403


def test_create_lid_is_accepted(world: World) -> None:
    document = {"data": {"type": "event", "lid": "a", "attributes": CAMP}}

    assert world.owner.send("POST", "/v1/events", document).status_code == 201


def test_create_responses_201_status(world: World) -> None:
    assert world.owner.create("/v1/events", "event", CAMP).status_code == 201


def test_create_responses_201_location(world: World) -> None:
    location = world.owner.create("/v1/events", "event", CAMP).headers["Location"]

    assert location.startswith(world.app.config["PUBLIC_URL"])
    assert data_of(world.owner, location.removeprefix(world.app.config["PUBLIC_URL"]))["attributes"]["name"] == "Camp"


def test_create_responses_201_document(world: World) -> None:
    made = data(world.owner.create("/v1/events", "event", CAMP))

    assert made == data_of(world.owner, f"/v1/events/{made['id']}")


def test_create_responses_201_self(world: World) -> None:
    """`self` is a path without host: it is the Location once resolved against the address of the server."""
    made = world.owner.create("/v1/events", "event", CAMP)

    assert made.headers["Location"] == world.app.config["PUBLIC_URL"] + data(made)["links"]["self"]


def test_create_responses_404_related(world: World) -> None:
    made = world.owner.create("/v1/faqs", "faq", {"question": "Where?", "answer": "Here"}, event=999999999)

    assert made.status_code == 404


def test_create_responses_409_bad_type(world: World) -> None:
    assert world.owner.create("/v1/events", "faq", CAMP).status_code == 409


def test_create_http_semantics(world: World) -> None:
    made = world.owner.create("/v1/events", "event", CAMP)

    assert made.headers["ETag"]
    assert "WWW-Authenticate" in world.anonymous.create("/v1/events", "event", CAMP).headers


@pytest.mark.parametrize("primary", [None, [], [{"type": "event", "id": "1"}], "event"])
def test_update_patch_resource(world: World, primary: Any) -> None:
    path = f"/v1/events/{world.events['draft']}"

    assert world.owner.send("PATCH", path, {"data": primary}).status_code == 400


def test_update_patch_resource_members(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}"

    without_type = world.owner.send("PATCH", path, {"data": {"id": path.rpartition("/")[2]}})
    without_id = world.owner.send("PATCH", path, {"data": {"type": "event"}})

    assert (without_type.status_code, pointers(without_type)) == (422, {"/data/type"})
    assert (without_id.status_code, pointers(without_id)) == (422, {"/data/id"})


def test_update_interpret_resource_attributes(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}"
    before = data_of(world.owner, path)["attributes"]

    after = data(world.owner.update(path, "event", {"name": "New"}))["attributes"]

    assert after == {**before, "name": "New"}


def test_update_interpret_resource_relationships(world: World) -> None:
    path = f"/v1/faqs/{world.faqs['draft']}"
    before = data_of(world.owner, path)["relationships"]

    assert data(world.owner.update(path, "faq", {"question": "Who?"}))["relationships"] == before


@pytest.mark.parametrize("relationship", [None, [], "1", {}, {"extra": 1}])
def test_update_resource_relationship_value(world: World, relationship: Any) -> None:
    path = f"/v1/faqs/{world.faqs['draft']}"
    resource = {"type": "faq", "id": path.rpartition("/")[2], "relationships": {"faq-type": relationship}}

    assert world.owner.send("PATCH", path, {"data": resource}).status_code in (400, 422)


def test_update_resource_relationship_reject_full_replacement_response(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}"

    refused = world.owner.update(path, "event", {"name": "New"}, faqs=[])

    assert refused.status_code == 403
    assert data_of(world.owner, path)["attributes"]["name"] == "draft event"


def test_update_resource_200_status(world: World) -> None:
    """The server changes more than was asked: the cleaned answer, the verification of a new address."""
    path = f"/v1/faqs/{world.faqs['draft']}"

    changed = world.owner.update(path, "faq", {"answer": "<script>1</script>Yes"})

    assert (changed.status_code, data(changed)["attributes"]["answer"]) == (200, "Yes")


@pytest.mark.parametrize("query", ["", "?include=faqs", "?fields[event]=name,faqs&include=faqs.faq-type"])
def test_update_resource_relationship_200_response(world: World, query: str) -> None:
    path = f"/v1/events/{world.events['draft']}{query}"
    document = {"data": {"type": "event", "id": str(world.events["draft"]), "attributes": {"name": "New"}}}

    changed = world.owner.send("PATCH", path, document)

    assert changed.get_json(force=True) == world.owner.get(path).get_json(force=True)


def test_update_resource_204_status(world: World) -> None:
    changed = world.owner.update(f"/v1/events/{world.events['draft']}", "event", {"name": "New"})

    assert (changed.status_code, data(changed)["attributes"]["name"]) == (200, "New")


def test_update_resource_403_status(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}"

    assert world.owner.update(path, "event", {"created-at": "2000-01-01T00:00:00Z"}).status_code == 403
    assert world.owner.update(f"/v1/faqs/{world.faqs['draft']}", "faq", event=world.events["others"]).status_code == 403
    assert world.stranger.update(f"/v1/events/{world.events['published']}", "event", {"name": "x"}).status_code == 403


def test_update_resource_404_status(world: World) -> None:
    for kind, type_ in (("events", "event"), ("faqs", "faq"), ("faq-types", "faq-type"), ("users", "user")):
        assert world.admin.update(f"/v1/{kind}/999999999", type_).status_code == 404
        assert world.admin.delete(f"/v1/{kind}/999999999").status_code == 404


def test_update_resource_404_related(world: World) -> None:
    path = f"/v1/faqs/{world.faqs['draft']}"

    assert world.owner.update(path, "faq", faq_type=999999999).status_code == 404
    linked = {"data": linkage("faq-type", 999999999)}
    assert world.owner.send("PATCH", f"{path}/relationships/faq-type", linked).status_code == 404


def test_update_resource_409_no_match(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}"
    right = {"type": "event", "id": path.rpartition("/")[2]}

    for wrong in ({"type": "faq"}, {"id": str(world.events["others"])}, {"type": "faq", "id": "1"}):
        assert world.owner.send("PATCH", path, {"data": {**right, **wrong}}).status_code == 409


def test_update_resource_409_details(world: World) -> None:
    world.owner.create("/v1/faq-types", "faq-type", {"name": "Venue"}, event=world.events["draft"])

    again = world.owner.update(f"/v1/faq-types/{world.types['draft']}", "faq-type", {"name": "venue "})

    assert (again.status_code, pointers(again)) == (409, {"/data/attributes/name"})


def test_update_resource_http_semantics(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}"
    document = {"data": {"type": "event", "id": path.rpartition("/")[2]}}

    assert world.owner.send("PATCH", path, document, If_Match='"other"').status_code == 412
    assert world.owner.send("PATCH", path, document).headers["ETag"] == world.owner.get(path).headers["ETag"]


def test_respond_patch_to_one_relationship_link(world: World) -> None:
    path = f"/v1/faqs/{world.faqs['draft']}/relationships/faq-type"
    type_ = linkage("faq-type", world.types["draft"])

    for wanted in (None, type_):
        assert world.owner.send("PATCH", path, {"data": wanted}).status_code == 200
        assert data_of(world.owner, path) == wanted


@pytest.mark.parametrize("document", [{}, {"data": []}, {"data": "1"}, {"data": {"type": "faq-type"}}, []])
def test_patch_to_one_data_member(world: World, document: Any) -> None:
    path = f"/v1/faqs/{world.faqs['draft']}/relationships/faq-type"

    assert world.owner.send("PATCH", path, document).status_code in (400, 422)


def test_patch_to_one_response(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}/relationships/pending-owner"

    handed = world.owner.send("PATCH", path, {"data": linkage("user", world.stranger.id)})

    assert (handed.status_code, data(handed)) == (200, linkage("user", world.stranger.id))


def test_respond_patch_post_delete_to_many_relationship_link(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}/relationships/organizers"
    organizer, stranger, other = world.organizer.id, world.stranger.id, world.other.id

    for method, sent, left in (
        ("POST", [stranger], [organizer, stranger]),
        ("PATCH", [other], [other]),
        ("DELETE", [other], []),
    ):
        assert relate(world.owner, method, path, "user", *sent) == 200
        assert sorted(ids(world.owner.get(path))) == sorted(left)


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
@pytest.mark.parametrize("document", [{}, {"data": None}, {"data": {"type": "user", "id": "1"}}, {"data": [{}]}])
def test_patch_post_delete_to_many_data_member(world: World, method: str, document: Any) -> None:
    path = f"/v1/events/{world.events['draft']}/relationships/organizers"

    assert world.owner.send(method, path, document).status_code in (400, 422)
    assert world.owner.send(method, path, {"data": []}).status_code == 200


def test_patch_to_many_complete_replace(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}/relationships/organizers"

    assert relate(world.owner, "PATCH", path, "user", world.stranger.id, 999999999) == 404
    assert ids(world.owner.get(path)) == [world.organizer.id]
    assert relate(world.owner, "PATCH", path, "user", world.stranger.id, world.other.id) == 200
    assert set(ids(world.owner.get(path))) == {world.stranger.id, world.other.id}
    faqs = f"/v1/events/{world.events['draft']}/relationships/faqs"
    assert world.owner.send("PATCH", faqs, {"data": []}).status_code == 403


def test_post_to_many_add(world: World) -> None:
    path = f"/v1/faq-types/{world.types['draft']}/relationships/faqs"
    made = world.owner.create("/v1/faqs", "faq", {"question": "a", "answer": "b"}, event=world.events["draft"])

    assert relate(world.owner, "POST", path, "faq", int(data(made)["id"])) == 200
    assert len(data_of(world.owner, path)) == 2


def test_post_to_many_add_again(world: World) -> None:
    path = f"/v1/faq-types/{world.types['draft']}/relationships/faqs"
    faq = world.faqs["draft"]

    assert relate(world.owner, "POST", path, "faq", faq, faq) == 200
    assert ids(world.owner.get(path)) == [faq]


def test_post_to_many_response(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}/relationships/organizers"

    assert relate(world.owner, "POST", path, "user", world.organizer.id, world.stranger.id) == 200
    assert set(ids(world.owner.get(path))) == {world.organizer.id, world.stranger.id}


def test_delete_to_many(world: World) -> None:
    path = f"/v1/faq-types/{world.types['draft']}/relationships/faqs"
    before = world.rows(Faq)

    assert relate(world.owner, "DELETE", path, "faq", world.faqs["draft"]) == 200
    assert data_of(world.owner, path) == []
    assert world.rows(Faq) == before  # the FAQ itself stays
    faqs = f"/v1/events/{world.events['draft']}/relationships/faqs"
    assert relate(world.owner, "DELETE", faqs, "faq", world.faqs["draft"]) == 403


def test_delete_to_many_success(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}/relationships/organizers"

    assert relate(world.owner, "DELETE", path, "user", world.stranger.id, 999999999) == 200


def test_updating_relationship_200_status(world: World) -> None:
    """Whoever becomes an organizer is a coorganizer no more: the other relationship changes, too."""
    path = f"/v1/events/{world.events['draft']}/relationships"

    assert relate(world.owner, "POST", f"{path}/organizers", "user", world.coorganizer.id) == 200
    assert data_of(world.owner, f"{path}/coorganizers") == []


def test_updating_relationship_200_response(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}/relationships/organizers"

    changed = world.owner.send("POST", path, {"data": linkage("user", [world.stranger.id])})

    assert changed.get_json(force=True) == world.owner.get(path).get_json(force=True)


def test_updating_relationship_403_status(world: World) -> None:
    event = f"/v1/faqs/{world.faqs['draft']}/relationships/event"
    events = f"/v1/users/{world.owner.id}/relationships/events"

    fixed = world.owner.send("PATCH", event, {"data": linkage("event", world.events["others"])})
    from_the_other_side = world.owner.send("PATCH", events, {"data": []})

    assert (fixed.status_code, from_the_other_side.status_code) == (403, 403)


def test_update_relationship_http_semantics(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}/relationships/organizers"

    assert world.owner.send("PATCH", path, {"data": []}, If_Match='"other"').status_code == 412
    assert "WWW-Authenticate" in world.anonymous.send("PATCH", path, {"data": []}).headers
    assert "Allow" in world.owner.send("PUT", path, {"data": []}).headers


def test_delete_200_status(world: World) -> None:
    deleted = world.owner.delete(f"/v1/faqs/{world.faqs['draft']}")

    assert (deleted.status_code, deleted.get_json(force=True).keys()) == (200, {"meta", "jsonapi"})


def test_delete_404_status(world: World) -> None:
    path = f"/v1/faqs/{world.faqs['draft']}"
    world.owner.delete(path)

    assert world.owner.delete(path).status_code == 404


def test_deleting_http_semantics(world: World) -> None:
    path = f"/v1/faqs/{world.faqs['draft']}"

    assert world.owner.send("DELETE", path, If_Match='"other"').status_code == 412
    assert world.owner.send("DELETE", path, If_Match=world.owner.get(path).headers["ETag"]).status_code == 200
    assert world.owner.get(path).status_code == 404
