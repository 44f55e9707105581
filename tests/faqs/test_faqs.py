"""FAQs and their types: one type, one spelling, one event."""

import threading

from app.extensions import db
from app.faqs.models import FaqType
from tests.dataset import ApiClient, Dataset, get_data, get_ids, get_pointers


def test_a_type_name_is_unique_in_its_event_without_regard_to_case_and_space(dataset: Dataset) -> None:
    event = dataset.events["published"]
    assert dataset.owner.create("/v1/faq-types", "faq-type", {"name": " Venue "}, event=event).status_code == 201

    again = dataset.owner.create("/v1/faq-types", "faq-type", {"name": "vENUE"}, event=event)
    elsewhere = dataset.owner.create("/v1/faq-types", "faq-type", {"name": "venue"}, event=dataset.events["draft"])

    assert (again.status_code, get_pointers(again)) == (409, {"/data/attributes/name"})
    assert "uq_" not in again.text
    assert elsewhere.status_code == 201
    renamed = dataset.owner.update(f"/v1/faq-types/{dataset.types['published']}", "faq-type", {"name": "VENUE"})
    assert renamed.status_code == 409


def test_two_at_the_same_moment_make_one_type(dataset: Dataset) -> None:
    statuses: list[int] = []
    callers = [ApiClient(dataset.app.test_client(), dataset.owner.token) for _ in range(4)]

    def create(caller: ApiClient) -> None:
        made = caller.create("/v1/faq-types", "faq-type", {"name": "Race"}, event=dataset.events["published"])
        statuses.append(made.status_code)

    threads = [threading.Thread(target=create, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(statuses) == [201, 409, 409, 409]


def test_the_name_of_a_deleted_type_is_free_again_and_restoring_it_a_conflict(dataset: Dataset) -> None:
    old, event = dataset.types["published"], dataset.events["published"]
    dataset.owner.delete(f"/v1/faq-types/{old}")

    made = dataset.owner.create("/v1/faq-types", "faq-type", {"name": "published type"}, event=event)
    restored = dataset.admin.update(f"/v1/faq-types/{old}?get_trashed=true", "faq-type", {"deleted-at": None})

    assert (made.status_code, restored.status_code) == (201, 409)


def test_deleting_a_type_leaves_its_faqs_without_a_type(dataset: Dataset) -> None:
    faq = f"/v1/faqs/{dataset.faqs['published']}"

    dataset.owner.delete(f"/v1/faq-types/{dataset.types['published']}")

    assert get_data(dataset.anonymous.get(faq))["relationships"]["faq-type"]["data"] is None
    assert get_data(dataset.anonymous.get(f"{faq}/relationships/faq-type")) is None
    assert (
        dataset.anonymous.get(f"{faq}/faq-type").status_code,
        get_data(dataset.anonymous.get(f"{faq}/faq-type")),
    ) == (
        200,
        None,
    )


def test_a_faq_sent_back_keeps_the_type_that_is_in_the_trash(dataset: Dataset) -> None:
    faq, type_ = f"/v1/faqs/{dataset.faqs['published']}", f"/v1/faq-types/{dataset.types['published']}"
    dataset.owner.delete(type_)

    assert dataset.owner.send("PATCH", faq, {"data": get_data(dataset.owner.get(faq))}).status_code == 200
    dataset.admin.update(f"{type_}?get_trashed=true", "faq-type", {"deleted-at": None})

    assert get_data(dataset.owner.get(faq))["relationships"]["faq-type"]["data"]["id"] == type_.rpartition("/")[2]


def test_a_type_of_another_event_is_refused_everywhere(dataset: Dataset) -> None:
    foreign, event = dataset.types["draft"], dataset.events["published"]
    faq = f"/v1/faqs/{dataset.faqs['published']}"
    linkage = {"data": {"type": "faq-type", "id": str(foreign)}}

    answers = [
        dataset.owner.create("/v1/faqs", "faq", {"question": "a", "answer": "b"}, event=event, faq_type=foreign),
        dataset.owner.update(faq, "faq", None, faq_type=foreign),
        dataset.owner.send("PATCH", f"{faq}/relationships/faq-type", linkage),
    ]

    for answer in answers:
        assert (answer.status_code, get_pointers(answer)) == (422, {"/data/relationships/faq-type/data"})


def test_a_type_the_caller_cannot_see_is_not_there(dataset: Dataset) -> None:
    answer = dataset.other.create(
        "/v1/faqs",
        "faq",
        {"question": "a", "answer": "b"},
        event=dataset.events["others"],
        faq_type=dataset.types["draft"],
    )

    assert (answer.status_code, get_pointers(answer)) == (404, {"/data/relationships/faq-type/data"})


def test_the_event_of_a_faq_stays(dataset: Dataset) -> None:
    faq = f"/v1/faqs/{dataset.faqs['published']}"
    elsewhere = {"data": {"type": "event", "id": str(dataset.events["draft"])}}

    patched = dataset.owner.update(faq, "faq", None, event=dataset.events["draft"])
    related = dataset.owner.send("PATCH", f"{faq}/relationships/event", elsewhere)
    same = dataset.owner.update(faq, "faq", {"position": "7"}, event=dataset.events["published"])

    assert (patched.status_code, get_pointers(patched)) == (403, {"/data/relationships/event"})
    assert related.status_code == 403
    assert (same.status_code, get_data(same)["attributes"]["position"]) == (200, 7)
    emptied = dataset.owner.send("PATCH", f"{faq}/relationships/event", {"data": None})
    assert emptied.status_code in (403, 422)


def test_the_type_of_a_faq_changes_and_goes(dataset: Dataset) -> None:
    path = f"/v1/faqs/{dataset.faqs['published']}/relationships/faq-type"
    made = get_data(
        dataset.owner.create("/v1/faq-types", "faq-type", {"name": "New"}, event=dataset.events["published"])
    )

    changed = dataset.owner.send("PATCH", path, {"data": {"type": "faq-types", "id": int(made["id"])}})
    assert get_data(changed) == {"type": "faq-type", "id": made["id"]}
    assert get_data(dataset.owner.send("PATCH", path, {"data": None})) is None


def test_the_faqs_of_a_type_change_from_its_side(dataset: Dataset) -> None:
    type_, faq = dataset.types["published"], dataset.faqs["published"]
    path = f"/v1/faq-types/{type_}/relationships/faqs"
    made = get_data(
        dataset.owner.create("/v1/faqs", "faq", {"question": "a", "answer": "b"}, event=dataset.events["published"])
    )
    new = {"type": "faq", "id": made["id"]}

    assert get_ids(dataset.owner.send("POST", path, {"data": [new]})) == [faq, int(made["id"])]
    assert get_ids(dataset.owner.send("DELETE", path, {"data": [{"type": "faq", "id": str(faq)}]})) == [int(made["id"])]
    assert get_ids(dataset.owner.send("PATCH", path, {"data": []})) == []
    assert get_ids(dataset.anonymous.get(f"/v1/faq-types/{type_}/faqs")) == []


def test_a_foreign_faq_is_not_taken_over(dataset: Dataset) -> None:
    path = f"/v1/faq-types/{dataset.types['published']}/relationships/faqs"

    foreign = dataset.owner.send("POST", path, {"data": [{"type": "faq", "id": str(dataset.faqs["others"])}]})
    elsewhere = dataset.owner.send("POST", path, {"data": [{"type": "faq", "id": str(dataset.faqs["draft"])}]})
    hidden = dataset.other.send(
        "POST",
        f"/v1/faq-types/{dataset.types['others']}/relationships/faqs",
        {"data": [{"type": "faq", "id": str(dataset.faqs["draft"])}]},
    )

    assert (foreign.status_code, elsewhere.status_code, hidden.status_code) == (403, 422, 404)


def test_the_answer_is_cleaned_html(dataset: Dataset) -> None:
    attributes = {"question": "<b>?</b>", "answer": "<b>Yes</b><img src=x onerror=alert(1)>"}

    made = get_data(dataset.owner.create("/v1/faqs", "faq", attributes, event=dataset.events["published"]))

    assert (made["attributes"]["question"], made["attributes"]["answer"]) == ("<b>?</b>", "<b>Yes</b>")


def test_a_refused_write_leaves_no_lock_and_no_transaction_behind(dataset: Dataset) -> None:
    path = f"/v1/faq-types/{dataset.types['published']}"
    dataset.stranger.update(path, "faq-type", {"name": "x"})
    dataset.owner.update(path, "faq-type", {"name": ""})

    with dataset.app.app_context():
        row = db.session.get_one(FaqType, dataset.types["published"], with_for_update={"nowait": True})
        assert row.name == "published type"
        db.session.rollback()
