"""FAQs and their types: one type, one spelling, one event."""

import threading

from app.extensions import db
from app.faqs.models import FaqType
from tests.world import Caller, World, data, ids, pointers


def test_a_type_name_is_unique_in_its_event_without_regard_to_case_and_space(world: World) -> None:
    event = world.events["published"]
    assert world.owner.create("/v1/faq-types", "faq-type", {"name": " Venue "}, event=event).status_code == 201

    again = world.owner.create("/v1/faq-types", "faq-type", {"name": "vENUE"}, event=event)
    elsewhere = world.owner.create("/v1/faq-types", "faq-type", {"name": "venue"}, event=world.events["draft"])

    assert (again.status_code, pointers(again)) == (409, {"/data/attributes/name"})
    assert "uq_" not in again.text
    assert elsewhere.status_code == 201
    renamed = world.owner.update(f"/v1/faq-types/{world.types['published']}", "faq-type", {"name": "VENUE"})
    assert renamed.status_code == 409


def test_two_at_the_same_moment_make_one_type(world: World) -> None:
    statuses: list[int] = []
    callers = [Caller(world.app.test_client(), world.owner.token) for _ in range(4)]

    def create(caller: Caller) -> None:
        made = caller.create("/v1/faq-types", "faq-type", {"name": "Race"}, event=world.events["published"])
        statuses.append(made.status_code)

    threads = [threading.Thread(target=create, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(statuses) == [201, 409, 409, 409]


def test_the_name_of_a_deleted_type_is_free_again_and_restoring_it_a_conflict(world: World) -> None:
    old, event = world.types["published"], world.events["published"]
    world.owner.delete(f"/v1/faq-types/{old}")

    made = world.owner.create("/v1/faq-types", "faq-type", {"name": "published type"}, event=event)
    restored = world.admin.update(f"/v1/faq-types/{old}?get_trashed=true", "faq-type", {"deleted-at": None})

    assert (made.status_code, restored.status_code) == (201, 409)


def test_deleting_a_type_leaves_its_faqs_without_a_type(world: World) -> None:
    faq = f"/v1/faqs/{world.faqs['published']}"

    world.owner.delete(f"/v1/faq-types/{world.types['published']}")

    assert data(world.anonymous.get(faq))["relationships"]["faq-type"]["data"] is None
    assert data(world.anonymous.get(f"{faq}/relationships/faq-type")) is None
    assert (world.anonymous.get(f"{faq}/faq-type").status_code, data(world.anonymous.get(f"{faq}/faq-type"))) == (
        200,
        None,
    )


def test_a_faq_sent_back_keeps_the_type_that_is_in_the_trash(world: World) -> None:
    faq, type_ = f"/v1/faqs/{world.faqs['published']}", f"/v1/faq-types/{world.types['published']}"
    world.owner.delete(type_)

    assert world.owner.send("PATCH", faq, {"data": data(world.owner.get(faq))}).status_code == 200
    world.admin.update(f"{type_}?get_trashed=true", "faq-type", {"deleted-at": None})

    assert data(world.owner.get(faq))["relationships"]["faq-type"]["data"]["id"] == type_.rpartition("/")[2]


def test_a_type_of_another_event_is_refused_everywhere(world: World) -> None:
    foreign, event = world.types["draft"], world.events["published"]
    faq = f"/v1/faqs/{world.faqs['published']}"
    linkage = {"data": {"type": "faq-type", "id": str(foreign)}}

    answers = [
        world.owner.create("/v1/faqs", "faq", {"question": "a", "answer": "b"}, event=event, faq_type=foreign),
        world.owner.update(faq, "faq", None, faq_type=foreign),
        world.owner.send("PATCH", f"{faq}/relationships/faq-type", linkage),
    ]

    for answer in answers:
        assert (answer.status_code, pointers(answer)) == (422, {"/data/relationships/faq-type/data"})


def test_a_type_the_caller_cannot_see_is_not_there(world: World) -> None:
    answer = world.other.create(
        "/v1/faqs", "faq", {"question": "a", "answer": "b"}, event=world.events["others"], faq_type=world.types["draft"]
    )

    assert (answer.status_code, pointers(answer)) == (404, {"/data/relationships/faq-type/data"})


def test_the_event_of_a_faq_stays(world: World) -> None:
    faq = f"/v1/faqs/{world.faqs['published']}"
    elsewhere = {"data": {"type": "event", "id": str(world.events["draft"])}}

    patched = world.owner.update(faq, "faq", None, event=world.events["draft"])
    related = world.owner.send("PATCH", f"{faq}/relationships/event", elsewhere)
    same = world.owner.update(faq, "faq", {"position": "7"}, event=world.events["published"])

    assert (patched.status_code, pointers(patched)) == (403, {"/data/relationships/event"})
    assert related.status_code == 403
    assert (same.status_code, data(same)["attributes"]["position"]) == (200, 7)
    emptied = world.owner.send("PATCH", f"{faq}/relationships/event", {"data": None})
    assert emptied.status_code in (403, 422)


def test_the_type_of_a_faq_changes_and_goes(world: World) -> None:
    path = f"/v1/faqs/{world.faqs['published']}/relationships/faq-type"
    made = data(world.owner.create("/v1/faq-types", "faq-type", {"name": "New"}, event=world.events["published"]))

    changed = world.owner.send("PATCH", path, {"data": {"type": "faq-types", "id": int(made["id"])}})
    assert data(changed) == {"type": "faq-type", "id": made["id"]}
    assert data(world.owner.send("PATCH", path, {"data": None})) is None


def test_the_faqs_of_a_type_change_from_its_side(world: World) -> None:
    type_, faq = world.types["published"], world.faqs["published"]
    path = f"/v1/faq-types/{type_}/relationships/faqs"
    made = data(
        world.owner.create("/v1/faqs", "faq", {"question": "a", "answer": "b"}, event=world.events["published"])
    )
    new = {"type": "faq", "id": made["id"]}

    assert ids(world.owner.send("POST", path, {"data": [new]})) == [faq, int(made["id"])]
    assert ids(world.owner.send("DELETE", path, {"data": [{"type": "faq", "id": str(faq)}]})) == [int(made["id"])]
    assert ids(world.owner.send("PATCH", path, {"data": []})) == []
    assert ids(world.anonymous.get(f"/v1/faq-types/{type_}/faqs")) == []


def test_a_foreign_faq_is_not_taken_over(world: World) -> None:
    path = f"/v1/faq-types/{world.types['published']}/relationships/faqs"

    foreign = world.owner.send("POST", path, {"data": [{"type": "faq", "id": str(world.faqs["others"])}]})
    elsewhere = world.owner.send("POST", path, {"data": [{"type": "faq", "id": str(world.faqs["draft"])}]})
    hidden = world.other.send(
        "POST",
        f"/v1/faq-types/{world.types['others']}/relationships/faqs",
        {"data": [{"type": "faq", "id": str(world.faqs["draft"])}]},
    )

    assert (foreign.status_code, elsewhere.status_code, hidden.status_code) == (403, 422, 404)


def test_the_answer_is_cleaned_html(world: World) -> None:
    attributes = {"question": "<b>?</b>", "answer": "<b>Yes</b><img src=x onerror=alert(1)>"}

    made = data(world.owner.create("/v1/faqs", "faq", attributes, event=world.events["published"]))

    assert (made["attributes"]["question"], made["attributes"]["answer"]) == ("<b>?</b>", "<b>Yes</b>")


def test_a_refused_write_leaves_no_lock_and_no_transaction_behind(world: World) -> None:
    path = f"/v1/faq-types/{world.types['published']}"
    world.stranger.update(path, "faq-type", {"name": "x"})
    world.owner.update(path, "faq-type", {"name": ""})

    with world.app.app_context():
        row = db.session.get_one(FaqType, world.types["published"], with_for_update={"nowait": True})
        assert row.name == "published type"
        db.session.rollback()
