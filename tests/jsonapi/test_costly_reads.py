"""Costly reads: patterns and other conditions without an index, their limits and their concurrency."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from werkzeug.test import TestResponse

from app.database import get_connection, open_transaction
from app.extensions import db
from app.jsonapi import costly_reads
from app.jsonapi.current_user import ANONYMOUS_USER
from app.jsonapi.filters import MAX_PATTERNS
from tests.conftest import Processes
from tests.dataset import Dataset, get_errors, get_ids
from tests.web_server import is_up

LONG = ("description", "owner-description", "code-of-conduct", "refund-policy")


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("operator", ["like", "ilike"])
def test_pattern_on_a_long_attribute_needs_a_token(dataset: Dataset, name: str, operator: str) -> None:
    path = f"/v1/events?filter[{name}][{operator}]=%25x%25"

    answer = dataset.anonymous.get(path)

    (error,) = get_errors(answer)
    assert (answer.status_code, error["code"]) == (400, "invalid-filter")
    assert error["source"] == {"parameter": f"filter[{name}][{operator}]"}
    assert error["detail"].startswith(f"{name} may have more than 2048 characters: only signed-in users")
    assert dataset.owner.get(path).status_code == 200


def test_pattern_on_a_long_attribute_of_a_related_resource_needs_a_token(dataset: Dataset) -> None:
    term = '[{"name":"event","op":"has","val":{"name":"description","op":"ilike","val":"%25x%25"}}]'

    assert dataset.anonymous.get(f"/v1/faqs?filter={term}").status_code == 400
    assert dataset.owner.get(f"/v1/faqs?filter={term}").status_code == 200


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("/v1/events", "name", "%25ublished%25"),
        ("/v1/events", "location-name", "%25x%25"),
        ("/v1/events", "owner-name", "%25x%25"),
        ("/v1/faqs", "question", "%25ublished%25"),
        ("/v1/faq-types", "name", "%25ublished%25"),
    ],
)
def test_names_and_titles_are_searched_without_a_token(dataset: Dataset, path: str, name: str, value: str) -> None:
    answer = dataset.anonymous.get(f"{path}?filter[{name}][ilike]={value}")

    assert answer.status_code == 200
    assert get_ids(answer) or "ublished" not in value


def test_patterns_are_counted_in_all_parameters_of_a_request(dataset: Dataset) -> None:
    names = ("name", "location-name", "owner-name", "payment-country", "chat-room-name", "searchable-location-name")
    asked = [f"filter[{name}][ilike]=%25x%25" for name in names]

    allowed = dataset.anonymous.get(f"/v1/events?{'&'.join(asked[:MAX_PATTERNS])}")
    refused = dataset.anonymous.get(f"/v1/events?{'&'.join(asked)}")
    mixed = '[{"name":"name","op":"like","val":"a"},{"name":"name","op":"like","val":"b"}]'
    mixed_refused = dataset.anonymous.get(f"/v1/events?{'&'.join(asked[: MAX_PATTERNS - 1])}&filter={mixed}")

    assert (allowed.status_code, refused.status_code, mixed_refused.status_code) == (200, 400, 400)
    assert get_errors(refused)[0]["source"] == {"parameter": asked[MAX_PATTERNS].partition("=")[0]}
    assert get_errors(refused)[0]["detail"] == f"At most {MAX_PATTERNS} patterns are allowed in one request."


@contextmanager
def occupy_slots(number: int, *, is_anonymous: bool) -> Iterator[None]:
    """Hold the slots of this number of costly reads of other users."""
    with ExitStack() as stack:
        slots = costly_reads._anonymous_slots if is_anonymous else costly_reads._user_slots
        for each in range(number):
            stack.callback(slots.release, slots.acquire(f"192.0.2.{each}"))
        yield


COSTLY = [
    "/v1/events?filter[name][ilike]=%25x%25",
    "/v1/events?sort=location-name",
    "/v1/events?page[number]=1000&page[size]=100",
    '/v1/faqs?filter=[{"name":"event","op":"has","val":{"name":"state","op":"eq","val":"published"}}]',
    "/v1/faqs?sort=event.name",
    "/v1/events?filter[description][gt]=x",
]
CHEAP = ["/v1/events", "/v1/events?sort=name", "/v1/events?filter[state]=published", "/v1/faqs?sort=-position"]


@pytest.mark.parametrize("path", COSTLY)
def test_costly_read_beyond_those_that_may_run_is_refused_in_time(
    dataset: Dataset, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costly_reads, "WAIT_TIMEOUT_SECONDS", 0.05)
    with occupy_slots(costly_reads.MAX_CONCURRENT_READS, is_anonymous=True):
        refused = dataset.anonymous.get(path)
        signed_in = dataset.owner.get(path)

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
    assert get_errors(refused)[0]["detail"].startswith("Too many costly searches are running at the moment.")
    assert signed_in.status_code == 200
    assert dataset.anonymous.get(path).status_code == 200


@pytest.mark.parametrize("path", CHEAP)
def test_cheap_read_needs_no_slot(dataset: Dataset, path: str) -> None:
    with occupy_slots(costly_reads.MAX_CONCURRENT_READS, is_anonymous=True):
        assert dataset.anonymous.get(path).status_code == 200


def search_from(dataset: Dataset, address: str, token: str | None = None) -> TestResponse:
    """Search from this address, with a separate client."""
    headers = {} if token is None else {"Authorization": f"JWT {token}"}
    return dataset.app.test_client().get(COSTLY[0], headers=headers, environ_base={"REMOTE_ADDR": address})


@pytest.mark.parametrize("is_anonymous", [True, False])
def test_searches_of_one_caller_run_one_at_a_time_and_leave_a_slot_for_others(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, is_anonymous: bool
) -> None:
    monkeypatch.setattr(costly_reads, "WAIT_TIMEOUT_SECONDS", 60)
    slots = costly_reads._anonymous_slots if is_anonymous else costly_reads._user_slots
    token, other = (None, None) if is_anonymous else (dataset.owner.token, dataset.stranger.token)
    # Anonymous users are counted by address only, signed-in users by their id too.
    addresses = ["198.51.100.1"] * 12 if is_anonymous else [f"198.51.100.{number}" for number in range(12)]
    slot = slots.acquire(addresses[0] if is_anonymous else f"user {dataset.owner.id}")
    with ThreadPoolExecutor(12) as pool:
        sent = [pool.submit(search_from, dataset, address, token) for address in addresses]
        refused = [each.result() for _, each in zip(range(10), as_completed(sent, 30), strict=False)]
        assert [search_from(dataset, "198.51.100.99", other).status_code for _ in range(5)] == [200] * 5
        slots.release(slot)
        statuses = [each.result(30).status_code for each in sent]

    assert {answer.status_code for answer in refused} == {429}
    assert get_errors(refused[0])[0]["detail"].startswith("A costly search of ")
    assert statuses.count(200) == costly_reads.MAX_WAITING_PER_HOLDER


def test_only_a_few_wait_for_a_slot(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costly_reads, "WAIT_TIMEOUT_SECONDS", 60)
    with ThreadPoolExecutor(24) as pool:
        with occupy_slots(costly_reads.MAX_CONCURRENT_READS, is_anonymous=True):
            sent = [pool.submit(search_from, dataset, f"198.51.100.{number}") for number in range(24)]
            refused = [each.result() for _, each in zip(range(8), as_completed(sent, 30), strict=False)]
        statuses = [each.result(30).status_code for each in sent]

    assert {answer.status_code for answer in refused} == {503}
    assert (statuses.count(200), statuses.count(503)) == (costly_reads.MAX_WAITING, 24 - costly_reads.MAX_WAITING)


def test_costly_read_has_a_short_time_and_the_next_one_the_usual(dataset: Dataset) -> None:
    read = text("SELECT current_setting('statement_timeout'), current_setting('max_parallel_workers_per_gather')")
    with dataset.app.test_request_context(), open_transaction(is_read=True):
        before = get_connection().execute(read).one()
        with costly_reads.costly_read(ANONYMOUS_USER):
            inside = get_connection().execute(read).one()
        after = get_connection().execute(read).one()

    assert (tuple(inside), tuple(after), before[0]) == (("1s", "0"), tuple(before), "3s")


def test_costly_read_that_takes_too_long_is_refused_and_frees_its_slot(dataset: Dataset) -> None:
    for _ in range(3 * costly_reads.MAX_CONCURRENT_READS):
        with ExitStack() as stack:
            stack.enter_context(dataset.app.test_request_context())
            stack.enter_context(pytest.raises(OperationalError))
            stack.enter_context(open_transaction(is_read=True))
            stack.enter_context(costly_reads.costly_read(ANONYMOUS_USER))
            get_connection().execute(text("SET statement_timeout = '10ms'"))
            get_connection().execute(text("SELECT pg_sleep(5)"))

    assert dataset.anonymous.get(COSTLY[0]).status_code == 200


@pytest.mark.faults
def test_searches_at_once_do_not_slow_others_down(
    dataset: Dataset, processes: Processes, wait_until: Callable[..., Any], figure: Callable[[str], None]
) -> None:
    with dataset.app.app_context():
        # TOAST values in which the pattern almost matches everywhere.
        db.session.execute(
            text(
                "INSERT INTO faqs (question, answer, event_id, position) "
                "SELECT repeat('abcdefgh', 250), 'x', :event, 0 FROM generate_series(1, 30000)"
            ),
            {"event": dataset.events["published"]},
        )
        db.session.commit()
    processes.start("web")
    wait_until(lambda: is_up(processes.base_url), 30, "the server did not come up")
    pattern = "%25a%25h%25a%25h%25x%25"
    attack = "&".join(f"filter[{name}][ilike]={pattern}" for name in ("question",))
    terms = ",".join('{"name":"question","op":"ilike","val":"%a%h%a%h%x%"}' for _ in range(4))
    ended = threading.Event()
    statuses: list[int] = []

    def search() -> None:
        with httpx.Client(base_url=processes.base_url, timeout=30) as client:
            while not ended.is_set():
                statuses.append(client.get(f'/v1/faqs?{attack}&filter=[{{"or":[{terms}]}}]').status_code)

    with ThreadPoolExecutor(24) as pool, httpx.Client(base_url=processes.base_url, timeout=30) as other:
        for _ in range(24):
            pool.submit(search)
        wait_until(lambda: len(statuses) > 24, 30, "the attack did not begin")
        took = []
        for path in ("/v1/events", "/livez", f"/v1/events/{dataset.events['published']}", "/v1/faq-types") * 10:
            began = monotonic()
            assert other.get(path).status_code == 200
            took.append(monotonic() - began)
        ended.set()

    took.sort()
    figure(f"beside 24 searches at once others take {took[len(took) // 2]:.3f} s, {took[-2]:.3f} s at most")
    assert set(statuses) <= {200, 400, 429}
    assert took[-2] < 1
