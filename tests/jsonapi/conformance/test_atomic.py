"""The Atomic Operations extension: each test is named after what the extension demands.

Text: https://jsonapi.org/ext/atomic
"""

from typing import Any

import pytest

from app.faqs.models import Faq
from app.jsonapi.operations import EXTENSION
from tests.jsonapi.conformance.crawl import data_of
from tests.jsonapi.test_operations import add, send
from tests.world import World, errors, linkage


def reference(type_: str, id_: int, relationship: str | None = None) -> dict[str, str]:
    """A ref."""
    named = {} if relationship is None else {"relationship": relationship}
    return {"type": type_, "id": str(id_), **named}


def results(answer: Any) -> list[dict[str, Any]]:
    """The results of operations that succeeded."""
    assert answer.status_code == 200, answer.text
    listed: list[dict[str, Any]] = answer.get_json(force=True)["atomic:results"]
    return listed


def event(world: World) -> dict[str, str]:
    """Linkage to an event of the owner."""
    return {"type": "event", "id": str(world.events["draft"])}


def test_document_has_no_data_or_included(world: World) -> None:
    answer = send(world.owner, {"op": "remove", "ref": reference("faq", world.faqs["draft"])})

    assert answer.get_json(force=True).keys() == {"atomic:results", "jsonapi"}


def test_document_has_results_or_errors(world: World) -> None:
    answer = send(world.owner, {"op": "remove", "ref": reference("faq", 999999999)})

    assert answer.get_json(force=True).keys() == {"errors", "jsonapi"}


@pytest.mark.parametrize("op", [None, 5, "replace", "ADD", ["add"]])
def test_operation_has_an_op(world: World, op: Any) -> None:
    operation = {"op": op, "ref": reference("faq", world.faqs["draft"])}

    assert send(world.owner, operation).status_code == 400


def test_operation_has_ref_or_href(world: World) -> None:
    ref = reference("faq", world.faqs["draft"])

    assert send(world.owner, {"op": "remove", "ref": ref, "href": f"/v1/faqs/{ref['id']}"}).status_code == 400


def test_only_post(world: World) -> None:
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        answer = world.owner.send(method, "/v1/operations")
        assert answer.status_code == 405
        assert "POST" in answer.headers["Allow"]


def test_operations_run_in_order(world: World) -> None:
    path = f"/v1/faqs/{world.faqs['draft']}"
    names = ("one", "two", "three")
    resource = reference("faq", world.faqs["draft"])
    operations = [{"op": "update", "data": {**resource, "attributes": {"question": name}}} for name in names]

    listed = results(send(world.owner, *operations))

    assert [result["data"]["attributes"]["question"] for result in listed] == [*names]
    assert data_of(world.owner, path)["attributes"]["question"] == "three"


def test_a_failure_undoes_everything(world: World) -> None:
    before = world.rows(Faq)

    answer = send(
        world.owner,
        add("faq", {"question": "a", "answer": "b"}, event=event(world)),
        {"op": "remove", "ref": reference("faq", world.faqs["draft"])},
        {"op": "remove", "ref": reference("faq", 999999999)},
    )

    assert answer.status_code == 404
    assert world.rows(Faq) == before
    assert world.owner.get(f"/v1/faqs/{world.faqs['draft']}").status_code == 200


def test_results_match_the_operations(world: World) -> None:
    listed = results(
        send(
            world.owner,
            add("faq", {"question": "a", "answer": "b"}, event=event(world)),
            {"op": "remove", "ref": reference("faq", world.faqs["draft"])},
            add("faq-type", {"name": "Food"}, event=event(world)),
        )
    )

    assert [result.get("data", {}).get("type") for result in listed] == ["faq", None, "faq-type"]


def test_errors_are_those_of_the_base(world: World) -> None:
    answer = send(
        world.owner,
        add("faq", {"question": "a", "answer": "b"}, event=event(world)),
        add("faq", {"question": "", "answer": ""}, event=event(world)),
    )

    assert answer.status_code == 422
    assert {error["source"]["pointer"] for error in errors(answer)} == {
        f"/atomic:operations/1/data/attributes/{name}" for name in ("question", "answer")
    }


@pytest.mark.parametrize("data", [None, [], {}, {"attributes": {"name": "Camp"}}])
def test_adding_takes_a_resource_with_a_type(world: World, data: Any) -> None:
    assert send(world.owner, {"op": "add", "data": data}).status_code == 422


def test_adding_returns_the_resource(world: World) -> None:
    (result,) = results(send(world.owner, add("faq", {"question": "a", "answer": "b"}, event=event(world))))

    assert result["data"] == data_of(world.owner, result["data"]["links"]["self"])


def test_updating_targets_by_ref(world: World) -> None:
    ref = reference("faq", world.faqs["draft"])

    (result,) = results(
        send(world.owner, {"op": "update", "ref": ref, "data": {**ref, "attributes": {"answer": "<x>Yes</x>"}}})
    )

    assert result["data"]["attributes"]["answer"] == "Yes"  # the server changed more than was asked: it says so


def test_updating_something_else_is_refused(world: World) -> None:
    ref = reference("faq", world.faqs["draft"])
    other = reference("faq", world.faqs["others"])

    assert send(world.owner, {"op": "update", "ref": ref, "data": {**other, "attributes": {}}}).status_code == 409


def test_removing_targets_by_ref(world: World) -> None:
    (result,) = results(send(world.owner, {"op": "remove", "ref": reference("faq", world.faqs["draft"])}))

    assert result == {}
    assert world.owner.get(f"/v1/faqs/{world.faqs['draft']}").status_code == 404


def test_to_one_relationships_are_updated(world: World) -> None:
    ref = reference("faq", world.faqs["draft"], "faq-type")

    assert results(send(world.owner, {"op": "update", "ref": ref, "data": None})) == [{}]
    assert data_of(world.owner, f"/v1/faqs/{world.faqs['draft']}/relationships/faq-type") is None
    assert send(world.owner, {"op": "add", "ref": ref, "data": None}).status_code == 400


@pytest.mark.parametrize(
    ("op", "sent", "left"),
    [
        ("add", ["stranger"], {"organizer", "stranger"}),
        ("update", ["other"], {"other"}),
        ("remove", ["organizer"], set()),
    ],
)
def test_to_many_relationships_are_added_replaced_and_removed(
    world: World, op: str, sent: list[str], left: set[str]
) -> None:
    ref = reference("event", world.events["draft"], "organizers")
    data = linkage("user", [world.callers[name].id for name in sent])

    assert results(send(world.owner, {"op": op, "ref": ref, "data": data})) == [{}]
    listed = data_of(world.owner, f"/v1/events/{world.events['draft']}/relationships/organizers")
    assert {item["id"] for item in listed} == {str(world.callers[name].id) for name in left}


def test_a_lid_is_text_and_names_one_resource(world: World) -> None:
    made = add("faq", {"question": "a", "answer": "b"}, "a", event=event(world))

    for operations in ([{**made, "data": {**made["data"], "lid": 5}}], [made, made]):
        answer = send(world.owner, *operations)
        at = len(operations) - 1
        assert answer.status_code == 422
        assert errors(answer)[0]["source"] == {"pointer": f"/atomic:operations/{at}/data/lid"}


def test_a_lid_is_understood_wherever_an_id_is(world: World) -> None:
    updated = {"type": "faq", "lid": "f", "relationships": {"faq-type": {"data": {"type": "faq-type", "lid": "t"}}}}

    *_, made, result = results(
        send(
            world.owner,
            add("faq", {"question": "a", "answer": "b"}, "f", event=event(world)),
            add("faq-type", {"name": "Food"}, "t", event=event(world)),
            {"op": "update", "data": updated},
        )
    )

    assert result["data"]["relationships"]["faq-type"]["data"]["id"] == made["data"]["id"]


def test_at_members_are_no_lids(world: World) -> None:
    made = add("faq", {"question": "a", "answer": "b"}, event=event(world))
    made["data"] |= {"@at": {"type": "event", "lid": "nothing"}}

    assert send(world.owner, {**made, "@op": "remove"}).status_code == 200


def test_the_applied_extension_is_named(world: World) -> None:
    answer = send(world.owner, {"op": "remove", "ref": reference("faq", world.faqs["draft"])})

    assert f'ext="{EXTENSION}"' in answer.content_type
    assert answer.get_json(force=True)["jsonapi"]["ext"] == [EXTENSION]
