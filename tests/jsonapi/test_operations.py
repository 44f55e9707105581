"""Atomic operations: all or nothing, with local ids."""

from typing import Any

import pytest
from werkzeug.test import TestResponse

from app.faqs.models import Faq, FaqType
from tests.dataset import ApiClient, Dataset, get_data, get_errors

EXTENSION = "https://jsonapi.org/ext/atomic"
CONTENT_TYPE = f'application/vnd.api+json; ext="{EXTENSION}"'


def send_operations(caller: ApiClient, *operations: Any) -> TestResponse:
    """Send several operations in one request."""
    return caller.send("POST", "/v1/operations", {"atomic:operations": operations}, Content_Type=CONTENT_TYPE)


def build_add(type_: str, attributes: Any, lid: str | None = None, **related: Any) -> dict[str, Any]:
    """Return an operation that adds a resource; `related` has resource identifiers."""
    made = {"type": type_, "attributes": attributes}
    if lid is not None:
        made["lid"] = lid
    made["relationships"] = {name.replace("_", "-"): {"data": value} for name, value in related.items()}
    return {"op": "add", "data": made}


def test_an_event_with_its_types_and_faqs_at_once(dataset: Dataset) -> None:
    event = {"type": "event", "lid": "e"}

    answer = send_operations(
        dataset.stranger,
        build_add("event", {"name": "Camp", "timezone": "UTC"}, "e"),
        build_add("faq-type", {"name": "Venue"}, "t", event=event),
        build_add(
            "faqs", {"question": "a", "answer": "b"}, "f", event=event, faq_type={"type": "faq-type", "lid": "t"}
        ),
        {"op": "update", "data": {"type": "faq", "lid": "f", "attributes": {"position": 3}}},
        {"op": "update", "ref": {"type": "faq", "lid": "f", "relationship": "faq-type"}, "data": None},
        {
            "op": "add",
            "ref": {"type": "faq-type", "lid": "t", "relationship": "faqs"},
            "data": [{"type": "faq", "lid": "f"}],
        },
        {"op": "remove", "ref": {"type": "faq-type", "lid": "t"}},
    )

    assert answer.status_code == 200, answer.text
    assert EXTENSION in answer.content_type
    results = answer.get_json(force=True)["atomic:results"]
    assert [result.get("data", {}).get("type") for result in results] == [
        "event", "faq-type", "faq", "faq", None, None, None,
    ]  # fmt: skip
    assert results[3]["data"]["attributes"]["position"] == 3
    assert (
        get_data(dataset.stranger.get(f"/v1/events/{results[0]['data']['id']}/faqs"))[0]["id"]
        == results[2]["data"]["id"]
    )


def test_one_that_fails_undoes_all_before_it(dataset: Dataset) -> None:
    before = dataset.count_rows(Faq), dataset.count_rows(FaqType)
    event = {"type": "event", "id": str(dataset.events["published"])}

    answer = send_operations(
        dataset.owner,
        build_add("faq-type", {"name": "Venue"}, event=event),
        build_add("faq", {"question": "", "answer": "b"}, event=event),
    )

    assert answer.status_code == 422
    assert get_errors(answer)[0]["source"] == {"pointer": "/atomic:operations/1/data/attributes/question"}
    assert (dataset.count_rows(Faq), dataset.count_rows(FaqType)) == before


def test_every_operation_asks_for_its_rights(dataset: Dataset) -> None:
    event = str(dataset.events["published"])

    forbidden = send_operations(dataset.stranger, {"op": "remove", "ref": {"type": "event", "id": event}})
    hidden = send_operations(dataset.stranger, {"op": "remove", "href": f"/v1/events/{dataset.events['draft']}"})
    anonymous = send_operations(dataset.anonymous, {"op": "remove", "ref": {"type": "event", "id": event}})

    assert (forbidden.status_code, hidden.status_code, anonymous.status_code) == (403, 404, 401)


def test_a_href_leads_to_resources_and_relationships(dataset: Dataset) -> None:
    faq = f"/v1/faqs/{dataset.faqs['published']}"

    answer = send_operations(
        dataset.owner,
        {"op": "update", "href": f"{faq}/relationships/faq-type", "data": None},
        {"op": "remove", "href": faq},
    )

    assert answer.status_code == 200, answer.text
    assert dataset.owner.get(faq).status_code == 404


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        (5, 400),
        ({}, 400),
        ({"op": "replace"}, 400),
        ({"op": ["add"]}, 400),
        ({"op": "add"}, 422),
        ({"op": "add", "data": None}, 422),
        ({"op": "add", "data": {"type": "nothing"}}, 422),
        ({"op": "add", "data": {"type": "event", "id": "1"}}, 403),
        ({"op": "add", "ref": {"type": "event"}, "href": "/v1/events"}, 400),
        ({"op": "remove", "ref": {"type": "event"}}, 422),
        ({"op": "remove", "ref": {"type": "event", "id": 5}}, 422),
        ({"op": "remove", "ref": {"type": "event", "lid": "unknown"}}, 422),
        ({"op": "remove", "ref": "event"}, 422),
        ({"op": "remove", "href": "https://example.com/v1/events/1"}, 422),
        ({"op": "remove", "href": 5}, 422),
        ({"op": "update", "ref": {"type": "event", "id": "abc"}}, 404),
        ({"op": "update", "ref": {"type": "faq", "id": "1", "relationship": "nothing"}, "data": None}, 422),
        ({"op": "remove", "ref": {"type": "faq", "id": "1", "relationship": "event"}, "data": None}, 400),
    ],
)
def test_an_operation_that_means_nothing(dataset: Dataset, operation: Any, status: int) -> None:
    answer = send_operations(dataset.owner, operation)

    assert answer.status_code == status, answer.text
    assert get_errors(answer)[0]["source"]["pointer"].startswith("/atomic:operations/0")


@pytest.mark.parametrize("document", [[], {}, {"atomic:operations": []}, {"atomic:operations": {}}, {"data": []}])
def test_a_document_without_operations(dataset: Dataset, document: Any) -> None:
    assert dataset.owner.send("POST", "/v1/operations", document, Content_Type=CONTENT_TYPE).status_code == 400


def test_more_than_fit_into_one_request(dataset: Dataset) -> None:
    remove = {"op": "remove", "href": "/v1/faqs/1"}

    assert send_operations(dataset.owner, *[remove] * 101).status_code == 422


def test_the_extension_is_named_in_the_media_type(dataset: Dataset) -> None:
    operations = {"atomic:operations": [{"op": "remove", "href": f"/v1/faqs/{dataset.faqs['published']}"}]}

    assert dataset.owner.send("POST", "/v1/operations", operations).status_code == 400
    assert dataset.owner.get(f"/v1/faqs/{dataset.faqs['published']}").status_code == 200


def test_operations_are_repeated_safely(dataset: Dataset) -> None:
    before = dataset.count_rows(FaqType)
    operations = [
        build_add("faq-type", {"name": "Venue"}, event={"type": "event", "id": str(dataset.events["published"])})
    ]
    document = {"atomic:operations": operations}

    for _ in range(2):
        answer = dataset.owner.send(
            "POST", "/v1/operations", document, Content_Type=CONTENT_TYPE, Idempotency_Key="key"
        )
        assert answer.status_code == 200

    assert dataset.count_rows(FaqType) == before + 1


@pytest.mark.parametrize("place", ["href", "ref"])
def test_nothing_is_added_where_something_is(dataset: Dataset, place: str) -> None:
    event = dataset.events["published"]
    where: Any = f"/v1/events/{event}" if place == "href" else {"type": "event", "id": str(event)}
    operation = {"op": "add", place: where, "data": {"type": "event", "attributes": {"name": "x", "timezone": "UTC"}}}

    assert send_operations(dataset.owner, operation).status_code == 400
