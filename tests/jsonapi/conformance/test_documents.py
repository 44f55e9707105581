"""JSON:API 1.1, "Document Structure": each test is named after a statement of the specification.

The validator in `tests/jsonapi/validator.py` asks most of this of every answer of the whole suite; here each is said
once, on answers of every kind.
"""

from typing import Any

import pytest

from app.jsonapi.resource_type import TYPES
from tests.dataset import Dataset, get_data
from tests.jsonapi import validator
from tests.jsonapi.conformance.crawl import (
    INCLUDES,
    get_data_at,
    get_documents,
    get_responses,
    get_row_ids,
    get_successes,
    iterate_members,
    list_resources,
    to_list,
)
from tests.jsonapi.validator import NAME

RESERVED = set("+,.[]!\"#$%&'()*/:;<=>?@\\^`{|}~\x7f") | {chr(code) for code in range(32)}


def list_member_names(dataset: Dataset) -> set[str]:
    """Return all member names in responses, except those in meta objects."""
    return {
        name for document in get_documents(dataset) for name, _member in iterate_members(document) if name != "meta"
    }


def test_additional_members(dataset: Dataset) -> None:
    for document in get_documents(dataset):
        assert set(document) <= validator.TOP_LEVEL
        for error in document.get("errors", []):
            assert set(error) <= validator.ERROR
            assert set(error.get("source", {})) <= validator.SOURCE
    for resource in list_resources(dataset):
        assert set(resource) <= validator.RESOURCE
        for relationship in resource.get("relationships", {}).values():
            assert set(relationship) <= {"links", "data", "meta"}


def test_ignore_additional_members(dataset: Dataset) -> None:
    link = {"type": "event", "id": str(dataset.events["draft"]), "extra": 1, "meta": {"a": 1}}
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

    assert dataset.owner.send("POST", "/v1/faqs", document).status_code == 201


def test_json_object(dataset: Dataset) -> None:
    assert all(isinstance(document, dict) for document in get_documents(dataset))
    assert [dataset.owner.send("POST", "/v1/events", body).status_code for body in ("[]", "null", '"a"', "1")] == [
        400
    ] * 4


def test_required_top_level(dataset: Dataset) -> None:
    assert all(document.keys() & {"data", "errors", "meta"} for document in get_documents(dataset))


def test_data_errors(dataset: Dataset) -> None:
    assert not [document for document in get_documents(dataset) if {"data", "errors"} <= document.keys()]


def test_data_included(dataset: Dataset) -> None:
    assert not [document for document in get_documents(dataset) if "included" in document and "data" not in document]


def test_primary_data(dataset: Dataset) -> None:
    for answer in get_successes(dataset):
        primary = answer.get_json(force=True)["data"]
        for item in to_list(primary):
            assert {"type", "id"} <= item.keys() <= validator.RESOURCE


def test_logical_collection(dataset: Dataset) -> None:
    empty = dataset.owner.get("/v1/events?filter[name]=nothing")
    one = dataset.owner.get(f"/v1/events?filter[id]={dataset.events['draft']}")

    assert get_data(empty) == []
    assert [item["id"] for item in get_data(one)] == [str(dataset.events["draft"])]


def test_resource_required_top_level(dataset: Dataset) -> None:
    assert all({"type", "id"} <= resource.keys() for resource in list_resources(dataset))


def test_resource_optional_top_level(dataset: Dataset) -> None:
    assert all(resource.keys() <= validator.RESOURCE - {"lid"} for resource in list_resources(dataset))


def test_resource_id_type(dataset: Dataset) -> None:
    assert {resource["type"] for resource in list_resources(dataset) if resource["id"]} == set(TYPES)


def test_resource_id_type_types(dataset: Dataset) -> None:
    for document in get_documents(dataset):
        for name, member in iterate_members(document.get("data")):
            assert name not in ("id", "type") or isinstance(member, str)


def test_resource_unique(dataset: Dataset) -> None:
    """The same type and id identify the same resource in all documents."""
    for kind, id_ in get_row_ids(dataset).items():
        resource = get_data_at(dataset.admin, f"/v1/{kind}/{id_}")
        assert [resource] == [item for item in get_data_at(dataset.admin, f"/v1/{kind}") if item["id"] == str(id_)]


def test_resource_type_constraints() -> None:
    assert all(NAME.fullmatch(type_) for type_ in TYPES)


def test_resource_fields() -> None:
    for type_ in TYPES.values():
        keys = [*(each.key for each in type_.attributes.values()), *(each.key for each in type_.relations.values())]
        assert len(keys) == len(set(keys))
        assert not {"id", "type"} & set(keys)


def test_resource_attributes_key(dataset: Dataset) -> None:
    assert all(isinstance(resource.get("attributes", {}), dict) for resource in list_resources(dataset))
    assert dataset.owner.send("POST", "/v1/events", {"data": {"type": "event", "attributes": []}}).status_code == 400


@pytest.mark.parametrize("reserved", ["links", "relationships"])
def test_resource_attributes_reserve_members(dataset: Dataset, reserved: str) -> None:
    link = {"name": "Map", "link": "https://example.com/map", reserved: {}}
    attributes = {"name": "Camp", "timezone": "UTC", "document-links": [link]}

    assert dataset.owner.create("/v1/events", "event", attributes).status_code == 422


def test_resource_relationships_key(dataset: Dataset) -> None:
    assert all(isinstance(resource.get("relationships", {}), dict) for resource in list_resources(dataset))
    assert dataset.owner.send("POST", "/v1/events", {"data": {"type": "event", "relationships": 1}}).status_code == 400


def test_resource_relationships_object(dataset: Dataset) -> None:
    for resource in list_resources(dataset):
        for relationship in resource.get("relationships", {}).values():
            assert relationship["links"].keys() >= {"self", "related"}


def test_resource_related_resource_link(dataset: Dataset) -> None:
    dataset.admin.send("PATCH", f"/v1/faqs/{dataset.faqs['draft']}/relationships/faq-type", {"data": None})
    for kind, id_ in get_row_ids(dataset).items():
        for relationship in get_data_at(dataset.admin, f"/v1/{kind}/{id_}")["relationships"].values():
            assert dataset.admin.get(relationship["links"]["related"]).status_code == 200


def test_resource_related_resource_link_change(dataset: Dataset) -> None:
    path = f"/v1/faqs/{dataset.faqs['draft']}"
    before = get_data_at(dataset.owner, path)["relationships"]["faq-type"]

    dataset.owner.send("PATCH", f"{path}/relationships/faq-type", {"data": None})

    after = get_data_at(dataset.owner, path)["relationships"]["faq-type"]
    assert (before["links"], after["data"]) == (after["links"], None)


def test_resource_linkage(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['others']}"
    included = get_data_at(dataset.owner, f"{path}?include=owner,organizers,faqs")["relationships"]
    dataset.owner.send("PATCH", f"/v1/faqs/{dataset.faqs['draft']}/relationships/faq-type", {"data": None})

    assert get_data_at(dataset.owner, f"/v1/faqs/{dataset.faqs['draft']}")["relationships"]["faq-type"]["data"] is None
    assert included["organizers"]["data"] == []
    assert included["owner"]["data"] == {"type": "user", "id": str(dataset.other.id)}
    assert included["faqs"]["data"] == [{"type": "faq", "id": str(dataset.faqs["others"])}]


def test_resource_link_response(dataset: Dataset) -> None:
    for resource in list_resources(dataset, live=True):
        if "links" in resource:
            found = get_data_at(dataset.admin, resource["links"]["self"])
            assert (found["type"], found["id"]) == (resource["type"], resource["id"])


def test_resource_identifier_required_members(dataset: Dataset) -> None:
    for resource in list_resources(dataset):
        for relationship in resource.get("relationships", {}).values():
            for identifier in to_list(relationship.get("data")):
                assert identifier.keys() == {"type", "id"}


def test_compound_documents_top_level_included(dataset: Dataset) -> None:
    for answer in get_successes(dataset):
        document = answer.get_json(force=True)
        asked = b"include=" in answer.request.query_string
        assert asked == ("included" in document)
        assert isinstance(document.get("included", []), list)


def test_compound_documents_full_linkage(dataset: Dataset) -> None:
    for answer in get_successes(dataset):
        document = answer.get_json(force=True)
        included = document.get("included", [])
        reached = validator.find_reachable(to_list(document["data"]), included)
        assert {(item["type"], item["id"]) for item in included} <= reached


def test_compound_documents_duplicates(dataset: Dataset) -> None:
    for answer in get_successes(dataset):
        document = answer.get_json(force=True)
        keys = [(item["type"], item["id"]) for item in (*to_list(document["data"]), *document.get("included", []))]
        assert len(keys) == len(set(keys))


def list_member_values(dataset: Dataset, wanted: str) -> list[Any]:
    """Return the values of all members with this name."""
    return [
        member for document in get_documents(dataset) for name, member in iterate_members(document) if name == wanted
    ]


def test_meta_objects(dataset: Dataset) -> None:
    assert all(isinstance(meta, dict) for meta in list_member_values(dataset, "meta"))


def test_top_level_links(dataset: Dataset) -> None:
    assert all(isinstance(links, dict) for links in list_member_values(dataset, "links"))


def test_top_level_links_members(dataset: Dataset) -> None:
    for links in list_member_values(dataset, "links"):
        assert all(isinstance(link, str | None) for link in links.values())


def test_json_api_type(dataset: Dataset) -> None:
    assert all(document["jsonapi"] == {"version": "1.1"} for document in get_documents(dataset))


def test_member_name_case(dataset: Dataset) -> None:
    attributes = {"Name": "Camp", "timezone": "UTC"}

    answer = dataset.owner.create("/v1/events", "event", attributes)

    assert answer.status_code == 422
    assert dataset.owner.send("POST", "/v1/events", {"Data": {"type": "event"}}).status_code == 400
    assert dataset.owner.get("/v1/events?sort=Name").status_code == 400


def test_member_name_character(dataset: Dataset) -> None:
    assert all(list_member_names(dataset))


def test_member_name_allowed_characters_only(dataset: Dataset) -> None:
    assert not [name for name in list_member_names(dataset) if not NAME.fullmatch(name)]


def test_member_name_globally_allowed(dataset: Dataset) -> None:
    assert all(name[0].isalnum() and name[-1].isalnum() for name in list_member_names(dataset))


def test_member_name_reserved_characters(dataset: Dataset) -> None:
    assert not [name for name in list_member_names(dataset) if RESERVED & set(name)]


AT_MEMBERS = {"@context": {"type": 5}, "@": None, "@id": "x"}


def test_member_name_at_members_no_process(dataset: Dataset) -> None:
    event = {"data": {"type": "event", "id": str(dataset.events["draft"]), **AT_MEMBERS}, **AT_MEMBERS}
    document = {
        "data": {
            "type": "faq",
            "attributes": {"question": "Where?", "answer": "Here", **AT_MEMBERS},
            "relationships": {"event": event, **AT_MEMBERS},
            **AT_MEMBERS,
        },
        **AT_MEMBERS,
    }

    made = dataset.owner.send("POST", "/v1/faqs", document)

    assert made.status_code == 201, made.text
    assert "@" not in made.text


def test_member_name_at_members_ignore_for_definitions(dataset: Dataset) -> None:
    """An object with @-members only is empty: no attribute, no relationship, no data."""
    path = f"/v1/faqs/{dataset.faqs['draft']}"
    resource = {"type": "faq", "id": path.rpartition("/")[2]}

    kept = dataset.owner.send(
        "PATCH", path, {"data": {**resource, "attributes": AT_MEMBERS, "relationships": AT_MEMBERS}}
    )
    without_data = dataset.owner.send("PATCH", path, {"data": {**resource, "relationships": {"faq-type": AT_MEMBERS}}})

    assert (kept.status_code, without_data.status_code) == (200, 422)
    assert dataset.owner.send("PATCH", path, {"@data": resource}).status_code == 400


def test_the_samples_are_of_every_kind(dataset: Dataset) -> None:
    assert {answer.status_code for answer in get_responses(dataset)} >= {
        200,
        400,
        401,
        403,
        404,
        405,
        406,
        409,
        415,
        422,
    }
    for kind, id_ in get_row_ids(dataset).items():
        relationships = get_data_at(dataset.admin, f"/v1/{kind}/{id_}")["relationships"]
        included = {path.partition(".")[0] for path in INCLUDES[kind].split(",")}
        assert included == set(relationships) - {"pending-owner"}  # it is like the owner
