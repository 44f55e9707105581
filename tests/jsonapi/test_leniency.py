"""Leniency: default requests of widespread clients, and the members that they need in a response."""

from typing import Any

import pytest

from tests.dataset import Dataset, build_resource, get_data, get_errors


@pytest.mark.parametrize("member", ["links", "meta"])
def test_links_and_meta_that_come_back_among_the_attributes_are_ignored(dataset: Dataset, member: str) -> None:
    path = f"/v1/events/{dataset.events['published']}"
    sent = {"name": "Renamed", member: get_data(dataset.owner.get(path))["links"]}

    changed = get_data(dataset.owner.update(path, "event", sent))

    assert changed["attributes"]["name"] == "Renamed"


def test_a_resource_with_its_linkage_comes_back_whole(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}"
    read = get_data(dataset.owner.get(f"{path}?include=owner,organizers,coorganizers,faqs,faq-types"))
    read["attributes"]["name"] = "Renamed"

    changed = get_data(dataset.owner.send("PATCH", path, {"data": read, "included": [read]}))

    assert changed["attributes"]["name"] == "Renamed"


@pytest.mark.parametrize(
    ("attributes", "related", "field"),
    [
        ({"question": " "}, {"event": "published"}, "question"),
        ({"nonsense": 1}, {"event": "published"}, "nonsense"),
        ({}, {}, "event"),
        ({}, {"event": "published", "faq_type": "draft"}, "faq-type"),
    ],
    ids=["invalid", "unknown", "missing", "unfitting"],
)
def test_each_error_of_a_field_names_it_for_a_form(
    dataset: Dataset, attributes: dict[str, Any], related: dict[str, str], field: str
) -> None:
    rows = {"event": dataset.events, "faq_type": dataset.types}
    linked = {name: rows[name][key] for name, key in related.items()}
    sent = {"question": "Who?", "answer": "We", **attributes}

    answer = dataset.owner.send("POST", "/v1/faqs", {"data": build_resource("faq", None, sent, linked)})

    assert answer.status_code == 422
    (error,) = get_errors(answer)
    assert error["meta"] == {"attribute": field, "message": error["detail"]}
