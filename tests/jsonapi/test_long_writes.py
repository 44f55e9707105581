"""Long writes: few at once, with HTML that is cleaned before a connection is held."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from werkzeug.test import TestResponse

from app.database import make_long_write_slots, make_writer_slots
from app.extensions import db
from app.jsonapi import fields, long_writes
from app.jsonapi.long_writes import MAX_SHORT_BODY_BYTES, MAX_SHORT_OPERATIONS
from app.slots import SlotPool
from tests.dataset import Dataset, get_data, get_errors
from tests.jsonapi.test_operations import CONTENT_TYPE

RAW = "<div>One</div><script>alert(1)</script>"
CLEAN = "<p>One</p>"
LONG_TEXT = "<p>" + "x" * MAX_SHORT_BODY_BYTES + "</p>"
REQUESTS = 6


@pytest.fixture
def slots(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> SlotPool:
    """Return the slots of long writes; requests wait only briefly for them."""
    monkeypatch.setattr(long_writes, "SLOT_TIMEOUT_SECONDS", 0.1)
    made = make_long_write_slots(10)
    monkeypatch.setitem(dataset.app.extensions, "long_writes", made)
    return made


@pytest.fixture
def connections_while_cleaning(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the number of connections in use each time HTML is cleaned."""
    with dataset.app.app_context():
        pool: Any = db.engine.pool
    seen = []
    clean = fields.clean_html

    def clean_and_count(text: str) -> str:
        seen.append(pool.checkedout())
        return clean(text)

    monkeypatch.setattr(fields, "clean_html", clean_and_count)
    return seen


def update_event(dataset: Dataset, attributes: dict[str, str], role: str = "owner", address: str = "") -> TestResponse:
    id_ = dataset.events["published"]
    return dataset.app.test_client().patch(
        f"/v1/events/{id_}",
        json={"data": {"type": "event", "id": str(id_), "attributes": attributes}},
        headers={"Content-Type": "application/vnd.api+json", "Authorization": f"JWT {getattr(dataset, role).token}"},
        environ_base={"REMOTE_ADDR": address or "192.0.2.1"},
    )


def update_in_operations(
    dataset: Dataset, number: int, attributes: dict[str, str], address: str = "192.0.2.1"
) -> TestResponse:
    data = {"type": "event", "id": str(dataset.events["published"]), "attributes": attributes}
    return dataset.app.test_client().post(
        "/v1/operations",
        json={"atomic:operations": [{"op": "update", "data": data}] * number},
        headers={"Content-Type": CONTENT_TYPE, "Authorization": f"JWT {dataset.owner.token}"},
        environ_base={"REMOTE_ADDR": address},
    )


def test_html_of_a_long_document_is_cleaned_once_without_a_connection(
    dataset: Dataset, connections_while_cleaning: list[int]
) -> None:
    answer = update_event(dataset, {"description": LONG_TEXT + RAW, "owner_description": RAW})

    assert answer.status_code == 200, answer.text
    attributes = get_data(answer)["attributes"]
    assert attributes["description"] == LONG_TEXT + CLEAN
    assert attributes["owner-description"] == CLEAN
    assert connections_while_cleaning == [0, 0]


def test_html_of_many_operations_is_cleaned_without_a_connection(
    dataset: Dataset, connections_while_cleaning: list[int]
) -> None:
    answer = update_in_operations(dataset, MAX_SHORT_OPERATIONS + 1, {"description": RAW})

    assert answer.status_code == 200, answer.text
    results = answer.get_json(force=True)["atomic:results"]
    assert {each["data"]["attributes"]["description"] for each in results} == {CLEAN}
    assert connections_while_cleaning
    assert set(connections_while_cleaning) == {0}


@pytest.mark.parametrize(
    ("html", "detail"),
    [
        ("<b>" * 200 + "x" * MAX_SHORT_BODY_BYTES, "Must not nest elements deeper than 100."),
        ("x" * 20_001, "Must have at most 20000 characters."),
        ("& " * 6000, "Must have at most 20000 characters after it is cleaned."),
        (["x" * MAX_SHORT_BODY_BYTES], "Must be a string."),
    ],
)
def test_html_that_cannot_be_cleaned_is_refused_with_its_pointer(dataset: Dataset, html: Any, detail: str) -> None:
    refused = update_event(dataset, {"description": html, "owner-description": "x" * MAX_SHORT_BODY_BYTES})

    assert refused.status_code == 422
    ((source, found),) = [(each["source"], each["detail"]) for each in get_errors(refused)]
    assert (source, found) == ({"pointer": "/data/attributes/description"}, detail)


def test_one_address_and_one_user_have_one_long_write(dataset: Dataset, slots: SlotPool) -> None:
    for held in (slots.acquire("192.0.2.1"), slots.acquire(f"user {dataset.owner.id}")):
        refused = [
            update_event(dataset, {"description": LONG_TEXT}),
            update_in_operations(dataset, MAX_SHORT_OPERATIONS + 1, {"name": "Other"}),
        ]
        short = [
            update_event(dataset, {"description": RAW}),
            update_in_operations(dataset, MAX_SHORT_OPERATIONS, {"name": "Other"}),
        ]
        slots.release(held)

        assert [(each.status_code, each.headers["Retry-After"]) for each in refused] == [(429, "2")] * 2
        assert get_errors(refused[0])[0]["detail"].startswith(f"A long write of {held.holders[0]} is in progress")
        assert [each.status_code for each in short] == [200, 200]
    assert update_event(dataset, {"description": LONG_TEXT}).status_code == 200
    assert len(slots) == 0


def test_long_write_that_finds_no_slot_in_the_process_is_503(dataset: Dataset, slots: SlotPool) -> None:
    held = [slots.acquire(f"192.0.2.{number}") for number in range(2, 2 + slots.size)]

    refused = update_event(dataset, {"description": LONG_TEXT})

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
    assert update_event(dataset, {"description": RAW}).status_code == 200
    for slot in held:
        slots.release(slot)


def test_long_writes_of_one_address_wait_for_each_other(dataset: Dataset) -> None:
    with ThreadPoolExecutor(REQUESTS) as pool:
        sent = [
            pool.submit(update_in_operations, dataset, MAX_SHORT_OPERATIONS + 1, {"name": "Other"})
            for _ in range(REQUESTS)
        ]
        statuses = [each.result(60).status_code for each in sent]

    assert statuses == [200] * REQUESTS


def test_operations_that_take_too_long_are_503_and_undone(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_writes, "MAX_TRANSACTION_SECONDS", -1.0)

    refused = update_in_operations(dataset, 1, {"name": "Other"})

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
    monkeypatch.undo()
    assert get_data(dataset.owner.get(f"/v1/events/{dataset.events['published']}"))["attributes"]["name"] != "Other"


def test_sign_in_that_ends_while_a_long_write_waits_is_401(
    dataset: Dataset, slots: SlotPool, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., Any]
) -> None:
    monkeypatch.setattr(long_writes, "SLOT_TIMEOUT_SECONDS", 20.0)
    held = [slots.acquire(f"192.0.2.{number}") for number in range(2, 2 + slots.size)]

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(update_event, dataset, {"description": LONG_TEXT})
        wait_until(lambda: slots.is_awaited)
        assert dataset.owner.send("POST", "/v1/auth/logout").status_code == 200
        for slot in held:
            slots.release(slot)
        refused = waiting.result(30)

    assert (refused.status_code, get_errors(refused)[0]["code"]) == (401, "token-revoked")


@pytest.mark.parametrize(("pool_size", "expected"), [(1, 1), (2, 1), (5, 1), (10, 3), (40, 3)])
def test_long_writes_leave_slots_of_writers(pool_size: int, expected: int) -> None:
    slots = make_long_write_slots(pool_size)

    assert (slots.size, slots.max_per_holder, slots.max_per_user) == (expected, 1, 1)
    assert pool_size < 4 or slots.size < make_writer_slots(pool_size).size
