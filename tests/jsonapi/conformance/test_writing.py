"""JSON:API 1.1, "Creating, Updating and Deleting Resources": each test is named after a statement of it."""

from typing import Any

import pytest

from app.faqs.models import Faq
from tests.dataset import ApiClient, Dataset, build_linkage, get_data, get_ids, get_pointers
from tests.jsonapi.conformance.crawl import get_data_at

CAMP = {"name": "Camp", "timezone": "UTC"}


def change_relationship(caller: ApiClient, method: str, path: str, type_: str, *ids: int) -> int:
    """Return the status of a change to a to-many relationship."""
    return caller.send(method, path, {"data": build_linkage(type_, list(ids))}).status_code


def test_crud_atomic(dataset: Dataset) -> None:
    path, stranger = f"/v1/events/{dataset.events['draft']}", dataset.stranger.id
    before = get_data_at(dataset.owner, path)

    refused = dataset.owner.update(path, "event", {"name": "New", "latitude": 1000}, organizers=[stranger])
    half = dataset.owner.update(path, "event", {"name": "New"}, organizers=[stranger, 999999999])

    assert (refused.status_code, half.status_code) == (422, 404)
    assert get_data_at(dataset.owner, path) == before


@pytest.mark.parametrize("primary", [None, [], [{"type": "event", "attributes": CAMP}], "event"])
def test_create_single_resource(dataset: Dataset, primary: Any) -> None:
    assert dataset.owner.send("POST", "/v1/events", {"data": primary}).status_code == 400


def test_create_type_member(dataset: Dataset) -> None:
    answer = dataset.owner.send("POST", "/v1/events", {"data": {"attributes": CAMP}})

    assert (answer.status_code, get_pointers(answer)) == (422, {"/data/type"})


@pytest.mark.parametrize("relationship", [None, [], "1", {}, {"extra": 1}])
def test_create_relationships_member(dataset: Dataset, relationship: Any) -> None:
    document = {"data": {"type": "event", "attributes": CAMP, "relationships": {"owner": relationship}}}

    assert dataset.owner.send("POST", "/v1/events", document).status_code in (400, 422)


def test_create_client_generated_ids_forbidden(dataset: Dataset) -> None:
    document = {"data": {"type": "event", "id": "550e8400-e29b-41d4-a716-446655440000", "attributes": CAMP}}

    assert dataset.owner.send("POST", "/v1/events", document).status_code == 403


def test_create_lid_is_accepted(dataset: Dataset) -> None:
    document = {"data": {"type": "event", "lid": "a", "attributes": CAMP}}

    assert dataset.owner.send("POST", "/v1/events", document).status_code == 201


def test_create_responses_201_status(dataset: Dataset) -> None:
    assert dataset.owner.create("/v1/events", "event", CAMP).status_code == 201


def test_create_responses_201_location(dataset: Dataset) -> None:
    location = dataset.owner.create("/v1/events", "event", CAMP).headers["Location"]

    assert location.startswith(dataset.app.config["PUBLIC_URL"])
    assert (
        get_data_at(dataset.owner, location.removeprefix(dataset.app.config["PUBLIC_URL"]))["attributes"]["name"]
        == "Camp"
    )


def test_create_responses_201_document(dataset: Dataset) -> None:
    made = get_data(dataset.owner.create("/v1/events", "event", CAMP))

    assert made == get_data_at(dataset.owner, f"/v1/events/{made['id']}")


def test_create_responses_201_self(dataset: Dataset) -> None:
    """`self` is a path without host: it is the Location once resolved against the address of the server."""
    made = dataset.owner.create("/v1/events", "event", CAMP)

    assert made.headers["Location"] == dataset.app.config["PUBLIC_URL"] + get_data(made)["links"]["self"]


def test_create_responses_404_related(dataset: Dataset) -> None:
    made = dataset.owner.create("/v1/faqs", "faq", {"question": "Where?", "answer": "Here"}, event=999999999)

    assert made.status_code == 404


def test_create_responses_409_bad_type(dataset: Dataset) -> None:
    assert dataset.owner.create("/v1/events", "faq", CAMP).status_code == 409


def test_create_http_semantics(dataset: Dataset) -> None:
    made = dataset.owner.create("/v1/events", "event", CAMP)

    assert made.headers["ETag"]
    assert "WWW-Authenticate" in dataset.anonymous.create("/v1/events", "event", CAMP).headers


@pytest.mark.parametrize("primary", [None, [], [{"type": "event", "id": "1"}], "event"])
def test_update_patch_resource(dataset: Dataset, primary: Any) -> None:
    path = f"/v1/events/{dataset.events['draft']}"

    assert dataset.owner.send("PATCH", path, {"data": primary}).status_code == 400


def test_update_patch_resource_members(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}"

    without_type = dataset.owner.send("PATCH", path, {"data": {"id": path.rpartition("/")[2]}})
    without_id = dataset.owner.send("PATCH", path, {"data": {"type": "event"}})

    assert (without_type.status_code, get_pointers(without_type)) == (422, {"/data/type"})
    assert (without_id.status_code, get_pointers(without_id)) == (422, {"/data/id"})


def test_update_interpret_resource_attributes(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}"
    before = get_data_at(dataset.owner, path)["attributes"]

    after = get_data(dataset.owner.update(path, "event", {"name": "New"}))["attributes"]

    assert after == {**before, "name": "New"}


def test_update_interpret_resource_relationships(dataset: Dataset) -> None:
    path = f"/v1/faqs/{dataset.faqs['draft']}"
    before = get_data_at(dataset.owner, path)["relationships"]

    assert get_data(dataset.owner.update(path, "faq", {"question": "Who?"}))["relationships"] == before


@pytest.mark.parametrize("relationship", [None, [], "1", {}, {"extra": 1}])
def test_update_resource_relationship_value(dataset: Dataset, relationship: Any) -> None:
    path = f"/v1/faqs/{dataset.faqs['draft']}"
    resource = {"type": "faq", "id": path.rpartition("/")[2], "relationships": {"faq-type": relationship}}

    assert dataset.owner.send("PATCH", path, {"data": resource}).status_code in (400, 422)


def test_update_resource_relationship_reject_full_replacement_response(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}"

    refused = dataset.owner.update(path, "event", {"name": "New"}, faqs=[])

    assert refused.status_code == 403
    assert get_data_at(dataset.owner, path)["attributes"]["name"] == "draft event"


def test_update_resource_200_status(dataset: Dataset) -> None:
    """The server changes more than the request: it cleans HTML, and resets the verification of an e-mail address."""
    path = f"/v1/faqs/{dataset.faqs['draft']}"

    changed = dataset.owner.update(path, "faq", {"answer": "<script>1</script>Yes"})

    assert (changed.status_code, get_data(changed)["attributes"]["answer"]) == (200, "Yes")


@pytest.mark.parametrize("query", ["", "?include=faqs", "?fields[event]=name,faqs&include=faqs.faq-type"])
def test_update_resource_relationship_200_response(dataset: Dataset, query: str) -> None:
    path = f"/v1/events/{dataset.events['draft']}{query}"
    document = {"data": {"type": "event", "id": str(dataset.events["draft"]), "attributes": {"name": "New"}}}

    changed = dataset.owner.send("PATCH", path, document)

    assert changed.get_json(force=True) == dataset.owner.get(path).get_json(force=True)


def test_update_resource_204_status(dataset: Dataset) -> None:
    changed = dataset.owner.update(f"/v1/events/{dataset.events['draft']}", "event", {"name": "New"})

    assert (changed.status_code, get_data(changed)["attributes"]["name"]) == (200, "New")


def test_update_resource_403_status(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}"

    assert dataset.owner.update(path, "event", {"created-at": "2000-01-01T00:00:00Z"}).status_code == 403
    assert (
        dataset.owner.update(f"/v1/faqs/{dataset.faqs['draft']}", "faq", event=dataset.events["others"]).status_code
        == 403
    )
    assert (
        dataset.stranger.update(f"/v1/events/{dataset.events['published']}", "event", {"name": "x"}).status_code == 403
    )


def test_update_resource_404_status(dataset: Dataset) -> None:
    for kind, type_ in (("events", "event"), ("faqs", "faq"), ("faq-types", "faq-type"), ("users", "user")):
        assert dataset.admin.update(f"/v1/{kind}/999999999", type_).status_code == 404
        assert dataset.admin.delete(f"/v1/{kind}/999999999").status_code == 404


def test_update_resource_404_related(dataset: Dataset) -> None:
    path = f"/v1/faqs/{dataset.faqs['draft']}"

    assert dataset.owner.update(path, "faq", faq_type=999999999).status_code == 404
    linked = {"data": build_linkage("faq-type", 999999999)}
    assert dataset.owner.send("PATCH", f"{path}/relationships/faq-type", linked).status_code == 404


def test_update_resource_409_no_match(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}"
    right = {"type": "event", "id": path.rpartition("/")[2]}

    for wrong in ({"type": "faq"}, {"id": str(dataset.events["others"])}, {"type": "faq", "id": "1"}):
        assert dataset.owner.send("PATCH", path, {"data": {**right, **wrong}}).status_code == 409


def test_update_resource_409_details(dataset: Dataset) -> None:
    dataset.owner.create("/v1/faq-types", "faq-type", {"name": "Venue"}, event=dataset.events["draft"])

    again = dataset.owner.update(f"/v1/faq-types/{dataset.types['draft']}", "faq-type", {"name": "venue "})

    assert (again.status_code, get_pointers(again)) == (409, {"/data/attributes/name"})


def test_update_resource_http_semantics(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}"
    document = {"data": {"type": "event", "id": path.rpartition("/")[2]}}

    assert dataset.owner.send("PATCH", path, document, If_Match='"other"').status_code == 412
    assert dataset.owner.send("PATCH", path, document).headers["ETag"] == dataset.owner.get(path).headers["ETag"]


def test_respond_patch_to_one_relationship_link(dataset: Dataset) -> None:
    path = f"/v1/faqs/{dataset.faqs['draft']}/relationships/faq-type"
    type_ = build_linkage("faq-type", dataset.types["draft"])

    for wanted in (None, type_):
        assert dataset.owner.send("PATCH", path, {"data": wanted}).status_code == 200
        assert get_data_at(dataset.owner, path) == wanted


@pytest.mark.parametrize("document", [{}, {"data": []}, {"data": "1"}, {"data": {"type": "faq-type"}}, []])
def test_patch_to_one_data_member(dataset: Dataset, document: Any) -> None:
    path = f"/v1/faqs/{dataset.faqs['draft']}/relationships/faq-type"

    assert dataset.owner.send("PATCH", path, document).status_code in (400, 422)


def test_patch_to_one_response(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}/relationships/pending-owner"

    handed = dataset.owner.send("PATCH", path, {"data": build_linkage("user", dataset.stranger.id)})

    assert (handed.status_code, get_data(handed)) == (200, build_linkage("user", dataset.stranger.id))


def test_respond_patch_post_delete_to_many_relationship_link(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}/relationships/organizers"
    organizer, stranger, other = dataset.organizer.id, dataset.stranger.id, dataset.other.id

    for method, sent, left in (
        ("POST", [stranger], [organizer, stranger]),
        ("PATCH", [other], [other]),
        ("DELETE", [other], []),
    ):
        assert change_relationship(dataset.owner, method, path, "user", *sent) == 200
        assert sorted(get_ids(dataset.owner.get(path))) == sorted(left)


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
@pytest.mark.parametrize("document", [{}, {"data": None}, {"data": {"type": "user", "id": "1"}}, {"data": [{}]}])
def test_patch_post_delete_to_many_data_member(dataset: Dataset, method: str, document: Any) -> None:
    path = f"/v1/events/{dataset.events['draft']}/relationships/organizers"

    assert dataset.owner.send(method, path, document).status_code in (400, 422)
    assert dataset.owner.send(method, path, {"data": []}).status_code == 200


def test_patch_to_many_complete_replace(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}/relationships/organizers"

    assert change_relationship(dataset.owner, "PATCH", path, "user", dataset.stranger.id, 999999999) == 404
    assert get_ids(dataset.owner.get(path)) == [dataset.organizer.id]
    assert change_relationship(dataset.owner, "PATCH", path, "user", dataset.stranger.id, dataset.other.id) == 200
    assert set(get_ids(dataset.owner.get(path))) == {dataset.stranger.id, dataset.other.id}
    faqs = f"/v1/events/{dataset.events['draft']}/relationships/faqs"
    assert dataset.owner.send("PATCH", faqs, {"data": []}).status_code == 403


def test_post_to_many_add(dataset: Dataset) -> None:
    path = f"/v1/faq-types/{dataset.types['draft']}/relationships/faqs"
    made = dataset.owner.create("/v1/faqs", "faq", {"question": "a", "answer": "b"}, event=dataset.events["draft"])

    assert change_relationship(dataset.owner, "POST", path, "faq", int(get_data(made)["id"])) == 200
    assert len(get_data_at(dataset.owner, path)) == 2


def test_post_to_many_add_again(dataset: Dataset) -> None:
    path = f"/v1/faq-types/{dataset.types['draft']}/relationships/faqs"
    faq = dataset.faqs["draft"]

    assert change_relationship(dataset.owner, "POST", path, "faq", faq, faq) == 200
    assert get_ids(dataset.owner.get(path)) == [faq]


def test_post_to_many_response(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}/relationships/organizers"

    assert change_relationship(dataset.owner, "POST", path, "user", dataset.organizer.id, dataset.stranger.id) == 200
    assert set(get_ids(dataset.owner.get(path))) == {dataset.organizer.id, dataset.stranger.id}


def test_delete_to_many(dataset: Dataset) -> None:
    path = f"/v1/faq-types/{dataset.types['draft']}/relationships/faqs"
    before = dataset.count_rows(Faq)

    assert change_relationship(dataset.owner, "DELETE", path, "faq", dataset.faqs["draft"]) == 200
    assert get_data_at(dataset.owner, path) == []
    assert dataset.count_rows(Faq) == before  # the FAQ itself stays
    faqs = f"/v1/events/{dataset.events['draft']}/relationships/faqs"
    assert change_relationship(dataset.owner, "DELETE", faqs, "faq", dataset.faqs["draft"]) == 403


def test_delete_to_many_success(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}/relationships/organizers"

    assert change_relationship(dataset.owner, "DELETE", path, "user", dataset.stranger.id, 999999999) == 200


def test_updating_relationship_200_status(dataset: Dataset) -> None:
    """A coorganizer who becomes an organizer is removed from the coorganizers: the other relationship changes too."""
    path = f"/v1/events/{dataset.events['draft']}/relationships"

    assert change_relationship(dataset.owner, "POST", f"{path}/organizers", "user", dataset.coorganizer.id) == 200
    assert get_data_at(dataset.owner, f"{path}/coorganizers") == []


def test_updating_relationship_200_response(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}/relationships/organizers"

    changed = dataset.owner.send("POST", path, {"data": build_linkage("user", [dataset.stranger.id])})

    assert changed.get_json(force=True) == dataset.owner.get(path).get_json(force=True)


def test_updating_relationship_403_status(dataset: Dataset) -> None:
    event = f"/v1/faqs/{dataset.faqs['draft']}/relationships/event"
    events = f"/v1/users/{dataset.owner.id}/relationships/events"

    fixed = dataset.owner.send("PATCH", event, {"data": build_linkage("event", dataset.events["others"])})
    from_the_other_side = dataset.owner.send("PATCH", events, {"data": []})

    assert (fixed.status_code, from_the_other_side.status_code) == (403, 403)


def test_update_relationship_http_semantics(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}/relationships/organizers"

    assert dataset.owner.send("PATCH", path, {"data": []}, If_Match='"other"').status_code == 412
    assert "WWW-Authenticate" in dataset.anonymous.send("PATCH", path, {"data": []}).headers
    assert "Allow" in dataset.owner.send("PUT", path, {"data": []}).headers


def test_delete_200_status(dataset: Dataset) -> None:
    deleted = dataset.owner.delete(f"/v1/faqs/{dataset.faqs['draft']}")

    assert (deleted.status_code, deleted.get_json(force=True).keys()) == (200, {"meta", "jsonapi"})


def test_delete_404_status(dataset: Dataset) -> None:
    path = f"/v1/faqs/{dataset.faqs['draft']}"
    dataset.owner.delete(path)

    assert dataset.owner.delete(path).status_code == 404


def test_deleting_http_semantics(dataset: Dataset) -> None:
    path = f"/v1/faqs/{dataset.faqs['draft']}"

    assert dataset.owner.send("DELETE", path, If_Match='"other"').status_code == 412
    assert dataset.owner.send("DELETE", path, If_Match=dataset.owner.get(path).headers["ETag"]).status_code == 200
    assert dataset.owner.get(path).status_code == 404
