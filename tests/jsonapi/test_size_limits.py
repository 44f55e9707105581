"""Size limits: large resources are rejected, pages with large resources are shortened."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from app.events.models import Event, EventRole
from app.extensions import db
from app.faqs.models import Faq, FaqType
from app.jsonapi.idempotency import MAX_STORED_BYTES, IdempotencyKey
from app.jsonapi.size_limits import MAX_ANSWER_BYTES, MAX_RESOURCE_BYTES
from tests.dataset import (
    JSONAPI,
    NEXT_MONTH,
    ApiClient,
    Dataset,
    build_resource,
    get_data,
    get_errors,
    get_ids,
    get_pointers,
)
from tests.jsonapi.test_operations import EXTENSION

LONG_ATTRIBUTES = (*("description", "owner_description", "after_order_message", "code_of_conduct", "refund_policy"),)
PLAIN = "x" * 20_000
EMOJI = "\N{SNOWMAN}" * 20_000
"""A text of 60,000 bytes."""
ESCAPED = "\x01" * 20_000
"""A text of 120,000 bytes as JSON, and 20,000 in the database."""


def insert_events(dataset: Dataset, number: int, text: str = EMOJI) -> list[int]:
    """Insert public events of the owner with all long attributes full, larger than may be written."""
    with dataset.app.app_context():
        values = {
            "timezone": "UTC",
            "state": "published",
            "privacy": "public",
            "owner_id": dataset.owner.id,
            "starts_at": NEXT_MONTH,
            "ends_at": NEXT_MONTH + timedelta(days=2),
            **dict.fromkeys(LONG_ATTRIBUTES, text),
        }
        events = [Event(name=f"large {at:02}", **values) for at in range(number)]
        for event in events:  # one at a time: a statement has three seconds
            db.session.add(event)
            db.session.flush()
        db.session.add_all(EventRole(event_id=each.id, user_id=dataset.owner.id, role="owner") for each in events)
        db.session.commit()
        return [each.id for each in events]


def insert_faqs(dataset: Dataset, number: int, text: str = PLAIN) -> None:
    """Insert FAQs of the published event."""
    row = {"question": "Why?", "answer": text, "event_id": dataset.events["published"], "position": 0}
    with dataset.app.app_context():
        db.session.execute(insert(Faq), [row | {"faq_type_id": dataset.types["published"]}] * number)
        db.session.commit()


def follow_links(caller: ApiClient, path: str, link: str = "next", **headers: str) -> Iterator[dict[str, Any]]:
    """Yield the documents of all pages, each of which must be within the limit."""
    while path:
        answer = caller.get(path, **headers)
        assert answer.status_code == 200, answer.text[:500]
        assert len(answer.data) <= MAX_ANSWER_BYTES
        document = answer.get_json(force=True)
        yield document
        path = document["links"][link]


CURSORS = f'{JSONAPI}; profile="http://jsonapi.org/profiles/ethanresnick/cursor-pagination/"'


def assert_pages_complete(dataset: Dataset, path: str, accept: str, large: list[int]) -> None:
    """Follow the links `next`, and expect each event once."""
    pages = list(follow_links(dataset.anonymous, path, Accept=accept))
    listed = [int(item["id"]) for page in pages for item in page["data"]]
    assert any(page["meta"].get("page-is-shortened") for page in pages)
    assert len(listed) == len(set(listed))
    assert set(listed) >= set(large)
    assert {page["meta"]["count"] for page in pages} == {len(listed)}


@pytest.mark.parametrize(
    ("query", "accept"),
    [
        ("", JSONAPI),
        ("?page[size]=100&sort=-name", JSONAPI),
        ("?page[size]=17&page[number]=1&sort=starts-at", JSONAPI),
        ("?page[size]=100&filter[name][like]=large%25", JSONAPI),
        ("?page[size]=100&include=faqs,owner", JSONAPI),
        ("?page[size]=100&sort=name", CURSORS),
        ("/upcoming", JSONAPI),
        ("/upcoming?page[size]=100", CURSORS),
    ],
)
def test_page_of_large_resources_is_shortened_and_none_is_skipped(dataset: Dataset, query: str, accept: str) -> None:
    large = insert_events(dataset, 20)

    assert_pages_complete(dataset, f"/v1/events{query}", accept, large)


@pytest.mark.parametrize("text", [PLAIN, ESCAPED], ids=["plain", "escaped"])
def test_page_is_shortened_by_its_bytes_however_they_are_made(dataset: Dataset, text: str) -> None:
    large = insert_events(dataset, 50, text)

    assert_pages_complete(dataset, "/v1/events?page[size]=60", JSONAPI, large)


def test_pages_of_large_resources_can_be_read_backwards(dataset: Dataset) -> None:
    large = insert_events(dataset, 20)
    (*_, last) = follow_links(
        dataset.anonymous, "/v1/events?page[size]=6&filter[name][like]=large%25&sort=name", Accept=CURSORS
    )
    assert int(last["data"][-1]["id"]) == large[-1]
    cursor = last["data"][-1]["meta"]["page"]["cursor"]

    before = f"/v1/events?page[size]=100&filter[name][like]=large%25&sort=name&page[before]={cursor}"
    pages = list(follow_links(dataset.anonymous, before, "prev", Accept=CURSORS))

    listed = [int(item["id"]) for page in reversed(pages) for item in page["data"]]
    assert (len(pages) > 1, listed) == (True, large[:-1])


def test_range_of_large_resources_says_that_it_is_cut(dataset: Dataset) -> None:
    insert_events(dataset, 20)
    small = "fields[event]=name&filter[name][like]=large%25&sort=name"
    items = get_data(dataset.anonymous.get(f"/v1/events?{small}", Accept=CURSORS))
    first, last = (items[at]["meta"]["page"]["cursor"] for at in (0, -1))

    path = f"/v1/events?filter[name][like]=large%25&sort=name&page[after]={first}&page[before]={last}"
    (document, *_) = follow_links(dataset.anonymous, path, Accept=CURSORS)

    assert document["meta"]["page"] == {"rangeTruncated": True}
    assert document["data"][0]["id"] == items[1]["id"]


def test_related_list_of_large_resources_is_shortened(dataset: Dataset) -> None:
    large = insert_events(dataset, 20)

    pages = list(follow_links(dataset.owner, f"/v1/users/{dataset.owner.id}/events?page[size]=50"))

    listed = [int(item["id"]) for page in pages for item in page["data"]]
    assert (len(pages) > 1, len(listed) == len(set(listed)), set(listed) >= set(large)) == (True, True, True)


def test_page_of_small_resources_is_not_shortened(dataset: Dataset) -> None:
    document = dataset.anonymous.get("/v1/events").get_json(force=True)

    assert "page-is-shortened" not in document["meta"]
    assert document["links"]["next"] is None


def test_includes_shorten_a_page_until_they_fit(dataset: Dataset) -> None:
    insert_faqs(dataset, 150)

    (first, *_) = follow_links(dataset.anonymous, "/v1/events?include=faqs&sort=-name")

    assert (first["meta"].get("page-is-shortened"), len(first["included"]) < 160) == (None, True)


@pytest.mark.parametrize(("number", "text"), [(300, PLAIN), (40, ESCAPED), (1_001, "short")])
def test_resource_that_includes_too_much_does_not_hide_the_others_of_a_list(
    dataset: Dataset, number: int, text: str
) -> None:
    insert_faqs(dataset, number, text)

    pages = list(follow_links(dataset.anonymous, "/v1/events?include=faqs&sort=name"))

    listed = {item["attributes"]["name"]: page for page in pages for item in page["data"]}
    assert list(listed) == ["others event", "published event"]
    assert len(listed["others event"]["included"]) == 1
    alone = listed["published event"]
    assert (len(alone["data"]), alone["included"], alone["meta"]["included-is-omitted"]) == (1, [], True)


@pytest.mark.parametrize("text", [PLAIN, EMOJI, ESCAPED], ids=["plain", "multi-byte", "escaped"])
@pytest.mark.parametrize(
    ("path", "include"),
    [("/v1/events/{event}", "faqs"), ("/v1/faq-types/{type}", "event.faqs"), ("/v1/faqs/{faq}", "faq-type.faqs")],
)
def test_include_that_makes_one_resource_too_large_is_named(
    dataset: Dataset, path: str, include: str, text: str
) -> None:
    insert_faqs(dataset, 250, text)
    named = {name: named["published"] for name, named in _map_by_name(dataset).items()}

    answer = dataset.anonymous.get(f"{path.format(**named)}?include={include}")

    (error,) = get_errors(answer)
    assert (answer.status_code, error["code"], error["source"]) == (400, "too-large", {"parameter": "include"})
    assert str(MAX_ANSWER_BYTES) in error["detail"]
    assert len(answer.data) < 2_000
    if text is not ESCAPED:
        assert f"include={include} " in error["detail"]


def _map_by_name(dataset: Dataset) -> dict[str, dict[str, int]]:
    return {"event": dataset.events, "type": dataset.types, "faq": dataset.faqs}


def post_faq_type(dataset: Dataset, **headers: str) -> Any:
    """POST a FAQ type with all FAQs of its event: 139 bytes whose response would have 37 MB."""
    document = {"data": build_resource("faq-type", None, {"name": "New"}, {"event": dataset.events["published"]})}
    return dataset.owner.send("POST", "/v1/faq-types?include=event.faqs", document, **headers)


@pytest.mark.parametrize("headers", [{}, {"Idempotency_Key": "one"}])
def test_write_whose_answer_would_be_too_large_writes_nothing(dataset: Dataset, headers: dict[str, str]) -> None:
    insert_faqs(dataset, 900)
    before = dataset.count_rows(FaqType)

    answer = post_faq_type(dataset, **headers)

    (error,) = get_errors(answer)
    assert (answer.status_code, error["code"], error["source"]) == (400, "too-large", {"parameter": "include"})
    assert (dataset.count_rows(FaqType), dataset.count_rows(IdempotencyKey)) == (before, 0)


def test_patch_whose_answer_would_be_too_large_writes_nothing(dataset: Dataset) -> None:
    insert_faqs(dataset, 900)
    path = f"/v1/events/{dataset.events['published']}"

    answer = dataset.owner.update(f"{path}?include=faqs", "event", {"name": "Renamed"})

    assert (answer.status_code, get_errors(answer)[0]["code"]) == (400, "too-large")
    assert get_data(dataset.owner.get(path))["attributes"]["name"] == "published event"


def send_operations(dataset: Dataset, operations: list[dict[str, Any]], **headers: str) -> Any:
    """POST to /v1/operations."""
    media_type = f'{JSONAPI}; ext="{EXTENSION}"'
    return dataset.owner.send(
        "POST",
        "/v1/operations",
        {"atomic:operations": operations},
        Content_Type=media_type,
        Accept=media_type,
        **headers,
    )


def test_operations_whose_results_would_be_too_large_write_nothing(dataset: Dataset) -> None:
    large = insert_events(dataset, 10)
    operations = [
        {"op": "update", "data": build_resource("event", str(large[at % 10]), {"online": True}, {})}
        for at in range(100)
    ]

    answer = send_operations(dataset, operations)

    (error,) = get_errors(answer)
    assert (answer.status_code, error["code"]) == (400, "too-large")
    assert re.fullmatch(r"/atomic:operations/[0-9]+", error["source"]["pointer"])
    assert get_data(dataset.owner.get(f"/v1/events/{large[0]}"))["attributes"]["online"] is False


def test_answer_that_is_too_large_to_be_stored_is_refused_before_it_is_written(dataset: Dataset) -> None:
    insert_faqs(dataset, 2 * MAX_STORED_BYTES // len(PLAIN))
    before = dataset.count_rows(FaqType)

    refused = post_faq_type(dataset, Idempotency_Key="one")
    rows_after_refusal = dataset.count_rows(FaqType), dataset.count_rows(IdempotencyKey)
    made = post_faq_type(dataset)

    (error,) = get_errors(refused)
    assert (refused.status_code, error["code"], error["source"]) == (400, "too-large", {"header": "Idempotency-Key"})
    assert str(MAX_STORED_BYTES) in error["detail"]
    assert rows_after_refusal == (before, 0)
    assert made.status_code == 201


def test_largest_resource_can_be_written_once_only(dataset: Dataset) -> None:
    attributes = {"name": "Large", "timezone": "UTC", "description": "\N{SNOWMAN}" * 19_000, "cheque-details": EMOJI}
    document = {"data": build_resource("event", None, attributes, {})}

    first, again = (dataset.owner.send("POST", "/v1/events", document, Idempotency_Key="one") for _ in range(2))

    assert (first.status_code, again.status_code, first.data == again.data) == (201, 201, True)


@pytest.mark.parametrize("text", [EMOJI, ESCAPED], ids=["multi-byte", "escaped"])
def test_resource_larger_than_the_limit_is_refused(dataset: Dataset, text: str) -> None:
    attributes = {"name": "Large", "timezone": "UTC", "cheque-details": text, "bank-details": text}
    before = dataset.count_rows(Event)

    answer = dataset.owner.create("/v1/events", "event", attributes | {"refund-policy": text[:8_000]})

    assert answer.status_code == 422
    assert get_pointers(answer) == {"/data/attributes/cheque-details"}
    assert str(MAX_RESOURCE_BYTES) in get_errors(answer)[0]["detail"]
    assert dataset.count_rows(Event) == before


def test_resource_cannot_grow_beyond_the_limit_step_by_step(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}"
    steps = [
        dataset.owner.update(path, "event", {name.replace("_", "-"): EMOJI})
        for name in ("cheque_details", "bank_details")
    ]

    refused = dataset.owner.update(path, "event", {"invoice-details": PLAIN})

    assert [step.status_code for step in steps] == [200, 200]
    assert (refused.status_code, get_pointers(refused)) == (422, {"/data/attributes/invoice-details"})


def test_resource_that_is_too_large_already_can_be_read_and_changed_but_not_grow(dataset: Dataset) -> None:
    (large,) = insert_events(dataset, 1)
    path = f"/v1/events/{large}"

    shown = dataset.anonymous.get(path)
    renamed = dataset.owner.update(path, "event", {"name": "Renamed", "online": True})
    shorter = dataset.owner.update(path, "event", {"refund-policy": PLAIN})
    grown = dataset.owner.update(path, "event", {"refund-policy": EMOJI})

    assert len(get_data(shown)["attributes"]["refund-policy"]) == len(EMOJI)
    assert [shown.status_code, renamed.status_code, shorter.status_code, grown.status_code] == [200, 200, 200, 422]
    assert get_pointers(grown) == {"/data/attributes/refund-policy"}


def test_answer_within_the_limit_includes_all(dataset: Dataset) -> None:
    insert_faqs(dataset, 150)

    document = dataset.anonymous.get(f"/v1/events/{dataset.events['published']}?include=faqs").get_json(force=True)

    assert len(document["included"]) == len(document["data"]["relationships"]["faqs"]["data"]) == 151
    assert get_ids(dataset.anonymous.get(f"/v1/events/{dataset.events['published']}/faqs?page[size]=1"))
