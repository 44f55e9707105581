"""Large answers hold a slot until they are sent."""

from collections.abc import Iterator

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app import large_answers
from app.slots import SlotPool
from tests.world import World, errors

EVENT = {
    "name": "Large",
    "timezone": "UTC",
    "starts-at": "2030-05-01T10:00:00Z",
    "ends-at": "2030-05-02T10:00:00Z",
}


@pytest.fixture
def slots(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlotPool]:
    """The slots of large answers: an answer of more than 100 bytes counts as large, one address has two."""
    made = SlotPool(8, 2)
    monkeypatch.setattr(large_answers, "slots", made)
    monkeypatch.setattr(large_answers, "LARGE_ANSWER_BYTES", 100)
    monkeypatch.setattr(large_answers, "PART_BYTES", 64)
    monkeypatch.setattr(large_answers, "SLOT_TIMEOUT_SECONDS", 0.1)
    yield made
    assert len(made) == 0, "a slot was not returned"
    assert not large_answers.open_answers


def get(app: Flask, path: str, method: str = "GET", **headers: str) -> TestResponse:
    return app.test_client().open(path, method=method, headers=headers)


def test_large_answer_holds_a_slot_until_it_is_sent(world: World, slots: SlotPool) -> None:
    whole = world.app.test_client().get("/v1/events", buffered=True).data
    answer = get(world.app, "/v1/events")
    assert len(slots) == 1

    assert answer.data == whole
    assert answer.content_length == len(whole)
    answer.close()
    assert len(slots) == 0


def test_client_that_leaves_returns_the_slot(world: World, slots: SlotPool) -> None:
    answer = get(world.app, "/v1/events")
    next(answer.iter_encoded())
    assert len(slots) == 1

    answer.close()

    assert len(slots) == 0


def test_large_answers_beyond_the_share_of_an_address_are_429(world: World, slots: SlotPool) -> None:
    held = [slots.acquire("127.0.0.1") for _ in range(2)]

    refused = get(world.app, "/v1/events")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    assert errors(refused)[0]["detail"].startswith("Your address is loading")
    assert get(world.app, "/openapi.json").status_code == 429
    tag = world.app.test_client().open("/v1/events", method="HEAD").headers["ETag"]
    assert get(world.app, "/v1/events", **{"If-None-Match": tag}).status_code == 304

    for slot in held:
        slots.release(slot)


def test_write_with_a_large_answer_beyond_the_share_writes_nothing(world: World, slots: SlotPool) -> None:
    held = [slots.acquire("127.0.0.1") for _ in range(2)]
    count = "/v1/events?filter[name]=Large"

    refused = world.owner.create("/v1/events", "event", EVENT)
    assert refused.status_code == 429

    for slot in held:
        slots.release(slot)
    found = world.owner.get(count)
    assert found.json["data"] == []
    found.close()
    created = world.owner.create("/v1/events", "event", EVENT)
    assert (created.status_code, len(slots)) == (201, 1)
    created.close()
