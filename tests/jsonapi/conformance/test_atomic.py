"""The Atomic Operations extension: each test is named after a requirement of the extension.

Text: https://jsonapi.org/ext/atomic
"""

from typing import Any

import pytest

from app.faqs.models import Faq
from app.jsonapi.atomic_operations import EXTENSION
from tests.dataset import Dataset, build_linkage, get_errors
from tests.jsonapi.conformance.crawl import get_data_at
from tests.jsonapi.test_operations import build_add, send_operations


def build_ref(type_: str, id_: int, relationship: str | None = None) -> dict[str, str]:
    """Return a ref object."""
    named = {} if relationship is None else {"relationship": relationship}
    return {"type": type_, "id": str(id_), **named}


def get_results(answer: Any) -> list[dict[str, Any]]:
    """Return the results of operations that succeeded."""
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.get_json(force=True)["atomic:results"]
    return results


def event_linkage(dataset: Dataset) -> dict[str, str]:
    """Return linkage to an event of the owner."""
    return {"type": "event", "id": str(dataset.events["draft"])}


def test_document_has_no_data_or_included(dataset: Dataset) -> None:
    answer = send_operations(dataset.owner, {"op": "remove", "ref": build_ref("faq", dataset.faqs["draft"])})

    assert answer.get_json(force=True).keys() == {"atomic:results", "jsonapi"}


def test_document_has_results_or_errors(dataset: Dataset) -> None:
    answer = send_operations(dataset.owner, {"op": "remove", "ref": build_ref("faq", 999999999)})

    assert answer.get_json(force=True).keys() == {"errors", "jsonapi"}


@pytest.mark.parametrize("op", [None, 5, "replace", "ADD", ["add"]])
def test_operation_has_an_op(dataset: Dataset, op: Any) -> None:
    operation = {"op": op, "ref": build_ref("faq", dataset.faqs["draft"])}

    assert send_operations(dataset.owner, operation).status_code == 400


def test_operation_has_ref_or_href(dataset: Dataset) -> None:
    ref = build_ref("faq", dataset.faqs["draft"])

    assert (
        send_operations(dataset.owner, {"op": "remove", "ref": ref, "href": f"/v1/faqs/{ref['id']}"}).status_code == 400
    )


def test_only_post(dataset: Dataset) -> None:
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        answer = dataset.owner.send(method, "/v1/operations")
        assert answer.status_code == 405
        assert "POST" in answer.headers["Allow"]


def test_operations_run_in_order(dataset: Dataset) -> None:
    path = f"/v1/faqs/{dataset.faqs['draft']}"
    names = ("one", "two", "three")
    resource = build_ref("faq", dataset.faqs["draft"])
    operations = [{"op": "update", "data": {**resource, "attributes": {"question": name}}} for name in names]

    results = get_results(send_operations(dataset.owner, *operations))

    assert [result["data"]["attributes"]["question"] for result in results] == [*names]
    assert get_data_at(dataset.owner, path)["attributes"]["question"] == "three"


def test_a_failure_undoes_everything(dataset: Dataset) -> None:
    before = dataset.count_rows(Faq)

    answer = send_operations(
        dataset.owner,
        build_add("faq", {"question": "a", "answer": "b"}, event=event_linkage(dataset)),
        {"op": "remove", "ref": build_ref("faq", dataset.faqs["draft"])},
        {"op": "remove", "ref": build_ref("faq", 999999999)},
    )

    assert answer.status_code == 404
    assert dataset.count_rows(Faq) == before
    assert dataset.owner.get(f"/v1/faqs/{dataset.faqs['draft']}").status_code == 200


def test_results_match_the_operations(dataset: Dataset) -> None:
    results = get_results(
        send_operations(
            dataset.owner,
            build_add("faq", {"question": "a", "answer": "b"}, event=event_linkage(dataset)),
            {"op": "remove", "ref": build_ref("faq", dataset.faqs["draft"])},
            build_add("faq-type", {"name": "Food"}, event=event_linkage(dataset)),
        )
    )

    assert [result.get("data", {}).get("type") for result in results] == ["faq", None, "faq-type"]


def test_errors_are_those_of_the_base(dataset: Dataset) -> None:
    answer = send_operations(
        dataset.owner,
        build_add("faq", {"question": "a", "answer": "b"}, event=event_linkage(dataset)),
        build_add("faq", {"question": "", "answer": ""}, event=event_linkage(dataset)),
    )

    assert answer.status_code == 422
    assert {error["source"]["pointer"] for error in get_errors(answer)} == {
        f"/atomic:operations/1/data/attributes/{name}" for name in ("question", "answer")
    }


@pytest.mark.parametrize("data", [None, [], {}, {"attributes": {"name": "Camp"}}])
def test_adding_takes_a_resource_with_a_type(dataset: Dataset, data: Any) -> None:
    assert send_operations(dataset.owner, {"op": "add", "data": data}).status_code == 422


def test_adding_returns_the_resource(dataset: Dataset) -> None:
    (result,) = get_results(
        send_operations(dataset.owner, build_add("faq", {"question": "a", "answer": "b"}, event=event_linkage(dataset)))
    )

    assert result["data"] == get_data_at(dataset.owner, result["data"]["links"]["self"])


def test_updating_targets_by_ref(dataset: Dataset) -> None:
    ref = build_ref("faq", dataset.faqs["draft"])

    (result,) = get_results(
        send_operations(
            dataset.owner, {"op": "update", "ref": ref, "data": {**ref, "attributes": {"answer": "<x>Yes</x>"}}}
        )
    )

    assert result["data"]["attributes"]["answer"] == "Yes"  # the server changed more than was asked: it says so


def test_updating_something_else_is_refused(dataset: Dataset) -> None:
    ref = build_ref("faq", dataset.faqs["draft"])
    other = build_ref("faq", dataset.faqs["others"])

    assert (
        send_operations(dataset.owner, {"op": "update", "ref": ref, "data": {**other, "attributes": {}}}).status_code
        == 409
    )


def test_removing_targets_by_ref(dataset: Dataset) -> None:
    (result,) = get_results(
        send_operations(dataset.owner, {"op": "remove", "ref": build_ref("faq", dataset.faqs["draft"])})
    )

    assert result == {}
    assert dataset.owner.get(f"/v1/faqs/{dataset.faqs['draft']}").status_code == 404


def test_to_one_relationships_are_updated(dataset: Dataset) -> None:
    ref = build_ref("faq", dataset.faqs["draft"], "faq-type")

    assert get_results(send_operations(dataset.owner, {"op": "update", "ref": ref, "data": None})) == [{}]
    assert get_data_at(dataset.owner, f"/v1/faqs/{dataset.faqs['draft']}/relationships/faq-type") is None
    assert send_operations(dataset.owner, {"op": "add", "ref": ref, "data": None}).status_code == 400


@pytest.mark.parametrize(
    ("op", "sent", "left"),
    [
        ("add", ["stranger"], {"organizer", "stranger"}),
        ("update", ["other"], {"other"}),
        ("remove", ["organizer"], set()),
    ],
)
def test_to_many_relationships_are_added_replaced_and_removed(
    dataset: Dataset, op: str, sent: list[str], left: set[str]
) -> None:
    ref = build_ref("event", dataset.events["draft"], "organizers")
    data = build_linkage("user", [dataset.callers[name].id for name in sent])

    assert get_results(send_operations(dataset.owner, {"op": op, "ref": ref, "data": data})) == [{}]
    results = get_data_at(dataset.owner, f"/v1/events/{dataset.events['draft']}/relationships/organizers")
    assert {item["id"] for item in results} == {str(dataset.callers[name].id) for name in left}


def test_a_lid_is_text_and_names_one_resource(dataset: Dataset) -> None:
    made = build_add("faq", {"question": "a", "answer": "b"}, "a", event=event_linkage(dataset))

    for operations in ([{**made, "data": {**made["data"], "lid": 5}}], [made, made]):
        answer = send_operations(dataset.owner, *operations)
        at = len(operations) - 1
        assert answer.status_code == 422
        assert get_errors(answer)[0]["source"] == {"pointer": f"/atomic:operations/{at}/data/lid"}


def test_a_lid_is_understood_wherever_an_id_is(dataset: Dataset) -> None:
    updated = {"type": "faq", "lid": "f", "relationships": {"faq-type": {"data": {"type": "faq-type", "lid": "t"}}}}

    *_, made, result = get_results(
        send_operations(
            dataset.owner,
            build_add("faq", {"question": "a", "answer": "b"}, "f", event=event_linkage(dataset)),
            build_add("faq-type", {"name": "Food"}, "t", event=event_linkage(dataset)),
            {"op": "update", "data": updated},
        )
    )

    assert result["data"]["relationships"]["faq-type"]["data"]["id"] == made["data"]["id"]


def test_at_members_are_no_lids(dataset: Dataset) -> None:
    made = build_add("faq", {"question": "a", "answer": "b"}, event=event_linkage(dataset))
    made["data"] |= {"@at": {"type": "event", "lid": "nothing"}}

    assert send_operations(dataset.owner, {**made, "@op": "remove"}).status_code == 200


def test_the_applied_extension_is_named(dataset: Dataset) -> None:
    answer = send_operations(dataset.owner, {"op": "remove", "ref": build_ref("faq", dataset.faqs["draft"])})

    assert f'ext="{EXTENSION}"' in answer.content_type
    assert answer.get_json(force=True)["jsonapi"]["ext"] == [EXTENSION]
