"""Writing requests that wait for rows hold at most their share of the connection pool."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import text
from werkzeug.test import TestResponse

from app import database
from app.database import get_connection, make_writer_slots, open_transaction
from app.extensions import db
from app.slots import SlotPool
from tests.dataset import Dataset, get_errors

REQUESTS = 12
EVENT = {
    "name": "Meanwhile",
    "timezone": "UTC",
    "starts-at": "2030-05-01T10:00:00Z",
    "ends-at": "2030-05-02T10:00:00Z",
}


@pytest.fixture
def writers(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> SlotPool:
    """Return the writer slots of the app, with a short waiting time."""
    monkeypatch.setattr(database, "WRITER_SLOT_TIMEOUT_SECONDS", 0.1)
    slots = make_writer_slots(10)
    monkeypatch.setitem(dataset.app.extensions, "writers", slots)
    return slots


@contextmanager
def lock_event(dataset: Dataset) -> Iterator[None]:
    """Lock the row of an event, so that all requests that write it wait."""
    with dataset.app.app_context():
        engine = db.engine
    with engine.connect() as held:
        held.execute(text("SELECT 1 FROM events WHERE id = :id FOR UPDATE"), {"id": dataset.events["published"]})
        yield
        held.rollback()


def update_event(dataset: Dataset, role: str, address: str = "127.0.0.1") -> TestResponse:
    """Change the name of the event from a client of its own."""
    id_ = dataset.events["published"]
    return dataset.app.test_client().patch(
        f"/v1/events/{id_}",
        json={"data": {"type": "event", "id": str(id_), "attributes": {"name": "Other"}}},
        headers={"Content-Type": "application/vnd.api+json", "Authorization": f"JWT {getattr(dataset, role).token}"},
        environ_base={"REMOTE_ADDR": address},
    )


def update_concurrently(
    pool: ThreadPoolExecutor, dataset: Dataset, addresses: list[str], role: str = "owner"
) -> list[Future[TestResponse]]:
    return [pool.submit(update_event, dataset, role, address) for address in addresses]


def test_waiting_writes_of_one_user_take_three_connections(
    dataset: Dataset, writers: SlotPool, wait_until: Callable[..., Any]
) -> None:
    with ThreadPoolExecutor(REQUESTS) as pool:
        with lock_event(dataset):
            sent = update_concurrently(pool, dataset, [f"192.0.2.{number}" for number in range(REQUESTS)])
            wait_until(lambda: sum(each.done() for each in sent) == REQUESTS - writers.max_per_user)
            began = monotonic()
            read = dataset.anonymous.get("/v1/events")
            created = dataset.stranger.create("/v1/events", "event", EVENT)
            seconds = monotonic() - began
        answers = [each.result(30) for each in sent]

    assert writers.max_per_user == 3
    refused = [answer for answer in answers if answer.status_code == 429]
    assert [answer.status_code for answer in answers].count(200) == 3
    assert len(refused) == REQUESTS - 3
    assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
    assert get_errors(refused[0])[0]["detail"].startswith(
        f"Too many writes of user {dataset.owner.id} are in progress:"
    )
    assert (read.status_code, created.status_code, seconds < 1) == (200, 201, True)
    assert len(writers) == 0


def test_waiting_writes_of_one_address_take_half_of_the_pool(
    dataset: Dataset, writers: SlotPool, wait_until: Callable[..., Any]
) -> None:
    with ThreadPoolExecutor(REQUESTS) as pool:
        with lock_event(dataset):
            sent = update_concurrently(pool, dataset, ["192.0.2.1"] * 3) + update_concurrently(
                pool, dataset, ["192.0.2.1"] * 3, "admin"
            )
            wait_until(lambda: sum(each.done() for each in sent) == 1)
            assert dataset.stranger.create("/v1/events", "event", EVENT).status_code == 201
        answers = [each.result(30) for each in sent]

    assert writers.max_per_holder == 5
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429]
    (refused,) = [answer for answer in answers if answer.status_code == 429]
    assert get_errors(refused)[0]["detail"].startswith("Too many writes of 192.0.2.1 are in progress:")


def test_operations_count_for_their_user(dataset: Dataset, writers: SlotPool) -> None:
    media_type = 'application/vnd.api+json;ext="https://jsonapi.org/ext/atomic"'
    slots = [writers.acquire(f"user {dataset.owner.id}") for _ in range(writers.max_per_user)]
    document = {"atomic:operations": [{"op": "remove", "ref": {"type": "event", "id": "999999999"}}]}
    headers = {"Content-Type": media_type, "Accept": media_type}

    def send(role: str) -> int:
        token = {"Authorization": f"JWT {getattr(dataset, role).token}"}
        return dataset.app.test_client().post("/v1/operations", json=document, headers={**headers, **token}).status_code

    assert (send("owner"), send("stranger")) == (429, 404)
    for slot in slots:
        writers.release(slot)
    assert send("owner") == 404


def test_write_that_finds_no_slot_in_the_process_is_503(dataset: Dataset, writers: SlotPool) -> None:
    slots = [writers.acquire(f"192.0.2.{number}") for number in range(writers.size)]

    refused = dataset.owner.create("/v1/events", "event", EVENT)

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    for slot in slots:
        writers.release(slot)
    assert dataset.owner.create("/v1/events", "event", EVENT).status_code == 201


def test_transaction_outside_of_a_request_needs_no_slot(dataset: Dataset, writers: SlotPool) -> None:
    slots = [writers.acquire(f"192.0.2.{number}") for number in range(writers.size)]

    with dataset.app.app_context(), open_transaction(is_read=False):
        assert get_connection().execute(text("SELECT 1")).scalar() == 1

    for slot in slots:
        writers.release(slot)


@pytest.mark.parametrize(
    ("pool_size", "expected"), [(1, (1, 1, 1)), (2, (1, 1, 1)), (10, (6, 5, 3)), (40, (24, 20, 12))]
)
def test_writer_slots_leave_connections_for_reads(pool_size: int, expected: tuple[int, int, int]) -> None:
    slots = make_writer_slots(pool_size)

    assert (slots.size, slots.max_per_holder, slots.max_per_user) == expected
