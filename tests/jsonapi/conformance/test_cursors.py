"""The cursor pagination profile: each test is named after a requirement of the profile.

Text: https://jsonapi.org/profiles/ethanresnick/cursor-pagination
"""

from typing import Any

import pytest

from app.extensions import db
from app.faqs.models import Faq
from app.jsonapi.cursors import PROFILE
from app.jsonapi.query_params import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from tests.dataset import JSONAPI, Dataset, get_errors

PAGE = "https://jsonapi.org/profiles/ethanresnick/cursor-pagination"
ACCEPT = f'{JSONAPI}; profile="{PROFILE}"'


def fetch_document(dataset: Dataset, path: str) -> dict[str, Any]:
    """Return the document of a GET that requests the profile."""
    answer = dataset.owner.get(path, Accept=ACCEPT)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.get_json(force=True)
    return document


def list_ids(document: dict[str, Any]) -> list[str]:
    """Return the ids in a document."""
    return [item["id"] for item in document["data"]]


def list_cursors(dataset: Dataset, path: str) -> list[str]:
    """Return the cursors of all items."""
    return [item["meta"]["page"]["cursor"] for item in fetch_document(dataset, path)["data"]]


@pytest.fixture
def path(dataset: Dataset) -> str:
    """Return the path of a list of 30 FAQs at three positions."""
    event_id = dataset.events["draft"]
    with dataset.app.app_context():
        rows = [Faq(question="a", answer="b", event_id=event_id, position=number % 3) for number in range(29)]
        db.session.add_all(rows)
        db.session.commit()
    return f"/v1/events/{event_id}/faqs"


@pytest.mark.parametrize("query", ["", "&sort=position", "&sort=-position"])
def test_order_is_unique(dataset: Dataset, path: str, query: str) -> None:
    """A partial order is made total: no item is missing or repeated between pages."""
    everything = list_ids(fetch_document(dataset, f"{path}?page[size]=100{query}"))

    walked, page = [], fetch_document(dataset, f"{path}?page[size]=7{query}")
    while page["links"]["next"]:
        walked += list_ids(page)
        page = fetch_document(dataset, page["links"]["next"])

    assert walked + list_ids(page) == everything
    assert len(set(everything)) == 30


def test_linkage_has_an_order(dataset: Dataset, path: str) -> None:
    linkage = path.replace("/faqs", "/relationships/faqs")
    first = fetch_document(dataset, f"{linkage}?page[size]=20")
    second = fetch_document(dataset, first["links"]["next"])

    assert list_ids(first) + list_ids(second) == list_ids(fetch_document(dataset, f"{path}?page[size]=100"))
    assert dataset.owner.get(f"{linkage}?page[after]=x").status_code == 400


@pytest.mark.parametrize("size", ["0", "-1", "abc", "1.5", ""])
def test_size_is_a_positive_integer(dataset: Dataset, path: str, size: str) -> None:
    answer = dataset.owner.get(f"{path}?page[size]={size}", Accept=ACCEPT)

    assert (answer.status_code, get_errors(answer)[0]["source"]) == (400, {"parameter": "page[size]"})


@pytest.mark.parametrize("size", [str(MAX_PAGE_SIZE + 1), "9" * 5000])
def test_size_exceeded(dataset: Dataset, path: str, size: str) -> None:
    answer = dataset.owner.get(f"{path}?page[size]={size}", Accept=ACCEPT)

    (error,) = get_errors(answer)
    assert (answer.status_code, error["source"]) == (400, {"parameter": "page[size]"})
    assert error["meta"] == {"page": {"maxSize": MAX_PAGE_SIZE}}
    assert error["links"] == {"type": f"{PAGE}/max-size-exceeded"}


def test_default_size(dataset: Dataset, path: str) -> None:
    assert len(fetch_document(dataset, path)["data"]) == DEFAULT_PAGE_SIZE <= MAX_PAGE_SIZE


def test_number_of_items_is_the_size(dataset: Dataset, path: str) -> None:
    after = list_cursors(dataset, path)[4]

    assert len(fetch_document(dataset, f"{path}?page[size]=7")["data"]) == 7
    assert len(fetch_document(dataset, f"{path}?page[size]=7&page[after]={after}")["data"]) == 7
    assert len(fetch_document(dataset, f"{path}?page[size]=7&page[before]={after}")["data"]) == 4


@pytest.mark.parametrize("parameter", ["page[after]", "page[before]"])
def test_invalid_cursor(dataset: Dataset, path: str, parameter: str) -> None:
    answer = dataset.owner.get(f"{path}?{parameter}=nonsense", Accept=ACCEPT)

    assert (answer.status_code, get_errors(answer)[0]["source"]) == (400, {"parameter": parameter})


def test_after_begins_behind_the_cursor(dataset: Dataset, path: str) -> None:
    everything, at = (
        list_ids(fetch_document(dataset, f"{path}?page[size]=100")),
        list_cursors(dataset, f"{path}?page[size]=100"),
    )

    assert list_ids(fetch_document(dataset, f"{path}?page[size]=2&page[after]={at[3]}")) == everything[4:6]
    assert list_ids(fetch_document(dataset, f"{path}?page[after]={at[-1]}")) == []


def test_before_ends_in_front_of_the_cursor(dataset: Dataset, path: str) -> None:
    everything, at = (
        list_ids(fetch_document(dataset, f"{path}?page[size]=100")),
        list_cursors(dataset, f"{path}?page[size]=100"),
    )

    assert list_ids(fetch_document(dataset, f"{path}?page[size]=2&page[before]={at[3]}")) == everything[1:3]
    assert list_ids(fetch_document(dataset, f"{path}?page[before]={at[0]}")) == []


def test_neither_begins_at_the_start(dataset: Dataset, path: str) -> None:
    assert (
        list_ids(fetch_document(dataset, f"{path}?page[size]=2"))
        == list_ids(fetch_document(dataset, f"{path}?page[size]=100"))[:2]
    )
    assert fetch_document(dataset, "/v1/events?filter[name]=nothing")["data"] == []


def test_range_uses_the_biggest_size(dataset: Dataset, path: str) -> None:
    everything, at = (
        list_ids(fetch_document(dataset, f"{path}?page[size]=100")),
        list_cursors(dataset, f"{path}?page[size]=100"),
    )

    between = fetch_document(dataset, f"{path}?page[after]={at[0]}&page[before]={at[-1]}")

    assert list_ids(between) == everything[1:-1]
    assert "page" not in between["meta"]


def test_range_truncated(dataset: Dataset, path: str) -> None:
    everything, at = (
        list_ids(fetch_document(dataset, f"{path}?page[size]=100")),
        list_cursors(dataset, f"{path}?page[size]=100"),
    )

    between = fetch_document(dataset, f"{path}?page[after]={at[0]}&page[before]={at[-1]}&page[size]=3")

    assert list_ids(between) == everything[1:4]
    assert between["meta"]["page"] == {"rangeTruncated": True}


def test_page_meta_is_an_object(dataset: Dataset, path: str) -> None:
    assert all(isinstance(item["meta"]["page"], dict) for item in fetch_document(dataset, path)["data"])


def test_item_cursor_falls_on_its_item(dataset: Dataset, path: str) -> None:
    document = fetch_document(dataset, f"{path}?page[size]=100")
    ids, at = list_ids(document), [item["meta"]["page"]["cursor"] for item in document["data"]]

    assert list_ids(fetch_document(dataset, f"{path}?page[size]=1&page[after]={at[9]}")) == [ids[10]]
    assert list_ids(fetch_document(dataset, f"{path}?page[size]=1&page[before]={at[9]}")) == [ids[8]]


def test_links_prev_and_next_are_there(dataset: Dataset, path: str) -> None:
    at = list_cursors(dataset, path)[4]

    for query in ("", f"&page[after]={at}", f"&page[before]={at}"):
        assert {"prev", "next"} <= fetch_document(dataset, f"{path}?page[size]=3{query}")["links"].keys()


def test_next_is_null_at_the_end(dataset: Dataset, path: str) -> None:
    at = list_cursors(dataset, f"{path}?page[size]=100")

    assert fetch_document(dataset, f"{path}?page[size]=100")["links"]["next"] is None
    assert fetch_document(dataset, f"{path}?page[after]={at[-3]}")["links"]["next"] is None
    assert fetch_document(dataset, f"{path}?page[size]=1&page[after]={at[-3]}")["links"]["next"] is not None


def test_prev_is_null_at_the_start(dataset: Dataset, path: str) -> None:
    at = list_cursors(dataset, path)

    assert fetch_document(dataset, path)["links"]["prev"] is None
    assert fetch_document(dataset, f"{path}?page[before]={at[2]}")["links"]["prev"] is None
    assert fetch_document(dataset, f"{path}?page[size]=1&page[before]={at[2]}")["links"]["prev"] is not None
