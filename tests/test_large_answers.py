"""Large responses hold a slot until they are sent."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import EnvironBuilder, TestResponse

from app import large_responses
from app.slots import SlotPool
from tests.dataset import Dataset, get_errors

EVENT = {
    "name": "Large",
    "timezone": "UTC",
    "starts-at": "2030-05-01T10:00:00Z",
    "ends-at": "2030-05-02T10:00:00Z",
}


@pytest.fixture
def slots(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlotPool]:
    """Yield the slots of large responses; a response of more than 100 bytes is large, and one address has two slots."""
    made = SlotPool(8, 2)
    monkeypatch.setattr(large_responses, "response_slots", made)
    monkeypatch.setattr(large_responses, "LARGE_RESPONSE_BYTES", 100)
    monkeypatch.setattr(large_responses, "CHUNK_BYTES", 64)
    monkeypatch.setattr(large_responses, "SLOT_TIMEOUT_SECONDS", 0.1)
    yield made
    assert len(made) == 0, "a slot was not returned"
    assert not large_responses.open_responses


def get_path(app: Flask, path: str, method: str = "GET", **headers: str) -> TestResponse:
    return app.test_client().open(path, method=method, headers=headers)


def start_response(app: Flask, path: str) -> Any:
    """Call the app like the server; return the iterator of chunks, of which none has been read."""
    return app(EnvironBuilder(path).get_environ(), lambda _status, _headers, *_more: lambda _part: None)


def test_large_answer_holds_a_slot_until_it_is_sent(dataset: Dataset, slots: SlotPool) -> None:
    whole = get_path(dataset.app, "/v1/events")

    parts = start_response(dataset.app, "/v1/events")
    assert len(slots) == 1

    assert b"".join(parts) == whole.data
    assert whole.content_length == len(whole.data)
    assert len(slots) == 0
    parts.close()


@pytest.mark.parametrize("count", [0, 1])
def test_client_that_leaves_returns_the_slot(dataset: Dataset, slots: SlotPool, count: int) -> None:
    parts = start_response(dataset.app, "/v1/events")
    for _ in range(count):
        next(iter(parts))
    assert len(slots) == 1

    parts.close()

    assert len(slots) == 0


def test_large_answers_beyond_the_share_of_an_address_are_429(dataset: Dataset, slots: SlotPool) -> None:
    held = [slots.acquire("127.0.0.1") for _ in range(2)]

    refused = get_path(dataset.app, "/v1/events")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    assert get_errors(refused)[0]["detail"].startswith("Your address is already receiving")
    assert get_path(dataset.app, "/openapi.json").status_code == 429
    tag = dataset.app.test_client().open("/v1/events", method="HEAD").headers["ETag"]
    assert get_path(dataset.app, "/v1/events", **{"If-None-Match": tag}).status_code == 304

    for slot in held:
        slots.release(slot)


def test_write_with_a_large_answer_beyond_the_share_writes_nothing(dataset: Dataset, slots: SlotPool) -> None:
    held = [slots.acquire("127.0.0.1") for _ in range(2)]
    count = "/v1/events?filter[name]=Large"

    refused = dataset.owner.create("/v1/events", "event", EVENT)
    assert refused.status_code == 429

    for slot in held:
        slots.release(slot)
    assert dataset.owner.get(count).json["data"] == []
    assert dataset.owner.create("/v1/events", "event", EVENT).status_code == 201
