"""The same key and the same request: one row, one answer."""

import threading

import pytest

from app.extensions import db
from app.faqs.models import FaqType
from app.jsonapi.idempotency import IdempotencyKey
from tests.world import Caller, World, data, resource

PATH = "/v1/faq-types"


def document(world: World, name: str = "Venue", event: str = "published") -> dict[str, object]:
    """A new FAQ type."""
    return {"data": resource("faq-type", None, {"name": name}, {"event": world.events[event]})}


def test_the_same_request_again_gets_the_same_answer(world: World) -> None:
    before = world.rows(FaqType)
    first = world.owner.send("POST", PATH, document(world), Idempotency_Key="one")

    again = world.owner.send("POST", PATH, document(world), Idempotency_Key="one")

    assert (first.status_code, again.status_code) == (201, 201)
    assert (again.data, again.headers["Location"]) == (first.data, first.headers["Location"])
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert world.rows(FaqType) == before + 1


def test_another_request_with_the_key_is_refused(world: World) -> None:
    world.owner.send("POST", PATH, document(world), Idempotency_Key="one")

    other_body = world.owner.send("POST", PATH, document(world, "Food"), Idempotency_Key="one")
    other_url = world.owner.send("POST", f"{PATH}?include=event", document(world), Idempotency_Key="one")

    assert (other_body.status_code, other_url.status_code) == (422, 422)


def test_a_key_belongs_to_its_user(world: World) -> None:
    world.owner.send("POST", PATH, document(world), Idempotency_Key="one")

    made = world.other.send("POST", PATH, document(world, event="others"), Idempotency_Key="one")

    assert made.status_code == 201
    assert "Idempotent-Replayed" not in made.headers


def test_a_refused_request_does_not_use_up_its_key(world: World) -> None:
    refused = world.owner.send("POST", PATH, document(world, ""), Idempotency_Key="one")
    made = world.owner.send("POST", PATH, document(world), Idempotency_Key="one")

    assert (refused.status_code, made.status_code) == (422, 201)


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "ü"])
def test_a_key_that_is_none(world: World, key: str) -> None:
    assert world.owner.send("POST", PATH, document(world), Idempotency_Key=key).status_code == 400


def test_many_at_once_make_one(world: World) -> None:
    before = world.rows(FaqType)
    answers: list[tuple[int, str]] = []

    def send(caller: Caller) -> None:
        answer = caller.send("POST", PATH, document(world), Idempotency_Key="race")
        answers.append((answer.status_code, data(answer)["id"]))

    threads = [
        threading.Thread(target=send, args=(Caller(world.app.test_client(), world.owner.token),)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(answers)) == 1
    assert world.rows(FaqType) == before + 1


def test_a_key_of_yesterday_is_forgotten(world: World) -> None:
    world.owner.send("POST", PATH, document(world), Idempotency_Key="one")
    with world.app.app_context():
        db.session.query(IdempotencyKey).update({"created_at": db.text("now() - interval '25 hours'")})
        db.session.commit()

    again = world.owner.send("POST", PATH, document(world, "Food"), Idempotency_Key="one")

    assert again.status_code == 201
