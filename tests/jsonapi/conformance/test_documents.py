"""JSON:API 1.1, "Document Structure": each test is named after the statement it shows.

The validator in `tests/jsonapi/validator.py` asks most of this of every answer of the whole suite; here each is said
once, on answers of every kind.
"""

from typing import Any

import pytest

from app.jsonapi.resource_type import TYPES
from tests.jsonapi import validator
from tests.jsonapi.conformance.crawl import (
    INCLUDES,
    answers,
    as_list,
    data_of,
    documents,
    members,
    resources,
    rows,
    successes,
)
from tests.jsonapi.validator import NAME
from tests.world import World, data

RESERVED = set("+,.[]!\"#$%&'()*/:;<=>?@\\^`{|}~\x7f") | {chr(code) for code in range(32)}


def names(world: World) -> set[str]:
    """Every member name that answers use; meta objects hold any."""
    return {name for document in documents(world) for name, _member in members(document) if name != "meta"}


def test_additional_members(world: World) -> None:
    for document in documents(world):
        assert set(document) <= validator.TOP_LEVEL
        for error in document.get("errors", []):
            assert set(error) <= validator.ERROR
            assert set(error.get("source", {})) <= validator.SOURCE
    for resource in resources(world):
        assert set(resource) <= validator.RESOURCE
        for relationship in resource.get("relationships", {}).values():
            assert set(relationship) <= {"links", "data", "meta"}


def test_ignore_additional_members(world: World) -> None:
    link = {"type": "event", "id": str(world.events["draft"]), "extra": 1, "meta": {"a": 1}}
    document = {
        "data": {
            "type": "faq",
            "attributes": {"question": "Where?", "answer": "Here"},
            "relationships": {"event": {"data": link, "extra": [1]}},
            "extra": {"a": None},
        },
        "extra": 1,
        "links": {},
        "jsonapi": {"extra": 1},
    }

    assert world.owner.send("POST", "/v1/faqs", document).status_code == 201


def test_json_object(world: World) -> None:
    assert all(isinstance(document, dict) for document in documents(world))
    assert [world.owner.send("POST", "/v1/events", body).status_code for body in ("[]", "null", '"a"', "1")] == [
        400
    ] * 4


def test_required_top_level(world: World) -> None:
    assert all(document.keys() & {"data", "errors", "meta"} for document in documents(world))


def test_data_errors(world: World) -> None:
    assert not [document for document in documents(world) if {"data", "errors"} <= document.keys()]


def test_data_included(world: World) -> None:
    assert not [document for document in documents(world) if "included" in document and "data" not in document]


def test_primary_data(world: World) -> None:
    for answer in successes(world):
        primary = answer.get_json(force=True)["data"]
        for item in as_list(primary):
            assert {"type", "id"} <= item.keys() <= validator.RESOURCE


def test_logical_collection(world: World) -> None:
    empty = world.owner.get("/v1/events?filter[name]=nothing")
    one = world.owner.get(f"/v1/events?filter[id]={world.events['draft']}")

    assert data(empty) == []
    assert [item["id"] for item in data(one)] == [str(world.events["draft"])]


def test_resource_required_top_level(world: World) -> None:
    assert all({"type", "id"} <= resource.keys() for resource in resources(world))


def test_resource_optional_top_level(world: World) -> None:
    assert all(resource.keys() <= validator.RESOURCE - {"lid"} for resource in resources(world))


def test_resource_id_type(world: World) -> None:
    assert {resource["type"] for resource in resources(world) if resource["id"]} == set(TYPES)


def test_resource_id_type_types(world: World) -> None:
    for document in documents(world):
        for name, member in members(document.get("data")):
            assert name not in ("id", "type") or isinstance(member, str)


def test_resource_unique(world: World) -> None:
    """The same pair names the same resource on every way to it."""
    for kind, id_ in rows(world).items():
        resource = data_of(world.admin, f"/v1/{kind}/{id_}")
        assert [resource] == [item for item in data_of(world.admin, f"/v1/{kind}") if item["id"] == str(id_)]


def test_resource_type_constraints() -> None:
    assert all(NAME.fullmatch(type_) for type_ in TYPES)


def test_resource_fields() -> None:
    for type_ in TYPES.values():
        keys = [*(each.key for each in type_.attributes.values()), *(each.key for each in type_.relations.values())]
        assert len(keys) == len(set(keys))
        assert not {"id", "type"} & set(keys)


def test_resource_attributes_key(world: World) -> None:
    assert all(isinstance(resource.get("attributes", {}), dict) for resource in resources(world))
    assert world.owner.send("POST", "/v1/events", {"data": {"type": "event", "attributes": []}}).status_code == 400


@pytest.mark.parametrize("reserved", ["links", "relationships"])
def test_resource_attributes_reserve_members(world: World, reserved: str) -> None:
    link = {"name": "Map", "link": "https://example.com/map", reserved: {}}
    attributes = {"name": "Camp", "timezone": "UTC", "document-links": [link]}

    assert world.owner.create("/v1/events", "event", attributes).status_code == 422


def test_resource_relationships_key(world: World) -> None:
    assert all(isinstance(resource.get("relationships", {}), dict) for resource in resources(world))
    assert world.owner.send("POST", "/v1/events", {"data": {"type": "event", "relationships": 1}}).status_code == 400


def test_resource_relationships_object(world: World) -> None:
    for resource in resources(world):
        for relationship in resource.get("relationships", {}).values():
            assert relationship["links"].keys() >= {"self", "related"}


def test_resource_related_resource_link(world: World) -> None:
    world.admin.send("PATCH", f"/v1/faqs/{world.faqs['draft']}/relationships/faq-type", {"data": None})
    for kind, id_ in rows(world).items():
        for relationship in data_of(world.admin, f"/v1/{kind}/{id_}")["relationships"].values():
            assert world.admin.get(relationship["links"]["related"]).status_code == 200


def test_resource_related_resource_link_change(world: World) -> None:
    path = f"/v1/faqs/{world.faqs['draft']}"
    before = data_of(world.owner, path)["relationships"]["faq-type"]

    world.owner.send("PATCH", f"{path}/relationships/faq-type", {"data": None})

    after = data_of(world.owner, path)["relationships"]["faq-type"]
    assert (before["links"], after["data"]) == (after["links"], None)


def test_resource_linkage(world: World) -> None:
    path = f"/v1/events/{world.events['others']}"
    included = data_of(world.owner, f"{path}?include=owner,organizers,faqs")["relationships"]
    world.owner.send("PATCH", f"/v1/faqs/{world.faqs['draft']}/relationships/faq-type", {"data": None})

    assert data_of(world.owner, f"/v1/faqs/{world.faqs['draft']}")["relationships"]["faq-type"]["data"] is None
    assert included["organizers"]["data"] == []
    assert included["owner"]["data"] == {"type": "user", "id": str(world.other.id)}
    assert included["faqs"]["data"] == [{"type": "faq", "id": str(world.faqs["others"])}]


def test_resource_link_response(world: World) -> None:
    for resource in resources(world, live=True):
        if "links" in resource:
            found = data_of(world.admin, resource["links"]["self"])
            assert (found["type"], found["id"]) == (resource["type"], resource["id"])


def test_resource_identifier_required_members(world: World) -> None:
    for resource in resources(world):
        for relationship in resource.get("relationships", {}).values():
            for identifier in as_list(relationship.get("data")):
                assert identifier.keys() == {"type", "id"}


def test_compound_documents_top_level_included(world: World) -> None:
    for answer in successes(world):
        document = answer.get_json(force=True)
        asked = b"include=" in answer.request.query_string
        assert asked == ("included" in document)
        assert isinstance(document.get("included", []), list)


def test_compound_documents_full_linkage(world: World) -> None:
    for answer in successes(world):
        document = answer.get_json(force=True)
        included = document.get("included", [])
        reached = validator.reachable(as_list(document["data"]), included)
        assert {(item["type"], item["id"]) for item in included} <= reached


def test_compound_documents_duplicates(world: World) -> None:
    for answer in successes(world):
        document = answer.get_json(force=True)
        keys = [(item["type"], item["id"]) for item in (*as_list(document["data"]), *document.get("included", []))]
        assert len(keys) == len(set(keys))


def of_members(world: World, wanted: str) -> list[Any]:
    """The values of every member with this name."""
    return [member for document in documents(world) for name, member in members(document) if name == wanted]


def test_meta_objects(world: World) -> None:
    assert all(isinstance(meta, dict) for meta in of_members(world, "meta"))


def test_top_level_links(world: World) -> None:
    assert all(isinstance(links, dict) for links in of_members(world, "links"))


def test_top_level_links_members(world: World) -> None:
    for links in of_members(world, "links"):
        assert all(isinstance(link, str | None) for link in links.values())


def test_json_api_type(world: World) -> None:
    assert all(document["jsonapi"] == {"version": "1.1"} for document in documents(world))


def test_member_name_case(world: World) -> None:
    attributes = {"Name": "Camp", "timezone": "UTC"}

    answer = world.owner.create("/v1/events", "event", attributes)

    assert answer.status_code == 422
    assert world.owner.send("POST", "/v1/events", {"Data": {"type": "event"}}).status_code == 400
    assert world.owner.get("/v1/events?sort=Name").status_code == 400


def test_member_name_character(world: World) -> None:
    assert all(names(world))


def test_member_name_allowed_characters_only(world: World) -> None:
    assert not [name for name in names(world) if not NAME.fullmatch(name)]


def test_member_name_globally_allowed(world: World) -> None:
    assert all(name[0].isalnum() and name[-1].isalnum() for name in names(world))


def test_member_name_reserved_characters(world: World) -> None:
    assert not [name for name in names(world) if RESERVED & set(name)]


AT = {"@context": {"type": 5}, "@": None, "@id": "x"}


def test_member_name_at_members_no_process(world: World) -> None:
    event = {"data": {"type": "event", "id": str(world.events["draft"]), **AT}, **AT}
    document = {
        "data": {
            "type": "faq",
            "attributes": {"question": "Where?", "answer": "Here", **AT},
            "relationships": {"event": event, **AT},
            **AT,
        },
        **AT,
    }

    made = world.owner.send("POST", "/v1/faqs", document)

    assert made.status_code == 201, made.text
    assert "@" not in made.text


def test_member_name_at_members_ignore_for_definitions(world: World) -> None:
    """What only holds @-members is empty: no attribute, no relationship, no data."""
    path = f"/v1/faqs/{world.faqs['draft']}"
    resource = {"type": "faq", "id": path.rpartition("/")[2]}

    kept = world.owner.send("PATCH", path, {"data": {**resource, "attributes": AT, "relationships": AT}})
    without_data = world.owner.send("PATCH", path, {"data": {**resource, "relationships": {"faq-type": AT}}})

    assert (kept.status_code, without_data.status_code) == (200, 422)
    assert world.owner.send("PATCH", path, {"@data": resource}).status_code == 400


def test_the_samples_are_of_every_kind(world: World) -> None:
    assert {answer.status_code for answer in answers(world)} >= {200, 400, 401, 403, 404, 405, 406, 409, 415, 422}
    for kind, id_ in rows(world).items():
        relationships = data_of(world.admin, f"/v1/{kind}/{id_}")["relationships"]
        included = {path.partition(".")[0] for path in INCLUDES[kind].split(",")}
        assert included == set(relationships) - {"pending-owner"}  # a request takes six paths, and it is like the owner
