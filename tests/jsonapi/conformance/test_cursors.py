"""The cursor pagination profile: each test is named after what the profile demands.

Text: https://jsonapi.org/profiles/ethanresnick/cursor-pagination
"""

from typing import Any

import pytest

from app.extensions import db
from app.faqs.models import Faq
from app.jsonapi.cursors import PROFILE
from app.jsonapi.query import BIGGEST_PAGE_SIZE, DEFAULT_PAGE_SIZE
from tests.world import JSONAPI, World, errors

PAGE = "https://jsonapi.org/profiles/ethanresnick/cursor-pagination"
ACCEPT = f'{JSONAPI}; profile="{PROFILE}"'


def fetched(world: World, path: str) -> dict[str, Any]:
    """The document of a GET that asks for the profile."""
    answer = world.owner.get(path, Accept=ACCEPT)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.get_json(force=True)
    return document


def shown(document: dict[str, Any]) -> list[str]:
    """The ids in a document."""
    return [item["id"] for item in document["data"]]


def cursors(world: World, path: str) -> list[str]:
    """The cursor of every item."""
    return [item["meta"]["page"]["cursor"] for item in fetched(world, path)["data"]]


@pytest.fixture
def path(world: World) -> str:
    """A list of 30 FAQs at three positions."""
    event_id = world.events["draft"]
    with world.app.app_context():
        rows = [Faq(question="a", answer="b", event_id=event_id, position=number % 3) for number in range(29)]
        db.session.add_all(rows)
        db.session.commit()
    return f"/v1/events/{event_id}/faqs"


@pytest.mark.parametrize("query", ["", "&sort=position", "&sort=-position"])
def test_order_is_unique(world: World, path: str, query: str) -> None:
    """A partial order is completed: no item is lost or shown twice between pages."""
    everything = shown(fetched(world, f"{path}?page[size]=100{query}"))

    walked, page = [], fetched(world, f"{path}?page[size]=7{query}")
    while page["links"]["next"]:
        walked += shown(page)
        page = fetched(world, page["links"]["next"])

    assert walked + shown(page) == everything
    assert len(set(everything)) == 30


def test_linkage_has_an_order(world: World, path: str) -> None:
    linkage = path.replace("/faqs", "/relationships/faqs")
    first = fetched(world, f"{linkage}?page[size]=20")
    second = fetched(world, first["links"]["next"])

    assert shown(first) + shown(second) == shown(fetched(world, f"{path}?page[size]=100"))
    assert world.owner.get(f"{linkage}?page[after]=x").status_code == 400


@pytest.mark.parametrize("size", ["0", "-1", "abc", "1.5", ""])
def test_size_is_a_positive_integer(world: World, path: str, size: str) -> None:
    answer = world.owner.get(f"{path}?page[size]={size}", Accept=ACCEPT)

    assert (answer.status_code, errors(answer)[0]["source"]) == (400, {"parameter": "page[size]"})


@pytest.mark.parametrize("size", [str(BIGGEST_PAGE_SIZE + 1), "9" * 5000])
def test_size_exceeded(world: World, path: str, size: str) -> None:
    answer = world.owner.get(f"{path}?page[size]={size}", Accept=ACCEPT)

    (error,) = errors(answer)
    assert (answer.status_code, error["source"]) == (400, {"parameter": "page[size]"})
    assert error["meta"] == {"page": {"maxSize": BIGGEST_PAGE_SIZE}}
    assert error["links"] == {"type": f"{PAGE}/max-size-exceeded"}


def test_default_size(world: World, path: str) -> None:
    assert len(fetched(world, path)["data"]) == DEFAULT_PAGE_SIZE <= BIGGEST_PAGE_SIZE


def test_number_of_items_is_the_size(world: World, path: str) -> None:
    after = cursors(world, path)[4]

    assert len(fetched(world, f"{path}?page[size]=7")["data"]) == 7
    assert len(fetched(world, f"{path}?page[size]=7&page[after]={after}")["data"]) == 7
    assert len(fetched(world, f"{path}?page[size]=7&page[before]={after}")["data"]) == 4


@pytest.mark.parametrize("parameter", ["page[after]", "page[before]"])
def test_invalid_cursor(world: World, path: str, parameter: str) -> None:
    answer = world.owner.get(f"{path}?{parameter}=nonsense", Accept=ACCEPT)

    assert (answer.status_code, errors(answer)[0]["source"]) == (400, {"parameter": parameter})


def test_after_begins_behind_the_cursor(world: World, path: str) -> None:
    everything, at = shown(fetched(world, f"{path}?page[size]=100")), cursors(world, f"{path}?page[size]=100")

    assert shown(fetched(world, f"{path}?page[size]=2&page[after]={at[3]}")) == everything[4:6]
    assert shown(fetched(world, f"{path}?page[after]={at[-1]}")) == []


def test_before_ends_in_front_of_the_cursor(world: World, path: str) -> None:
    everything, at = shown(fetched(world, f"{path}?page[size]=100")), cursors(world, f"{path}?page[size]=100")

    assert shown(fetched(world, f"{path}?page[size]=2&page[before]={at[3]}")) == everything[1:3]
    assert shown(fetched(world, f"{path}?page[before]={at[0]}")) == []


def test_neither_begins_at_the_start(world: World, path: str) -> None:
    assert shown(fetched(world, f"{path}?page[size]=2")) == shown(fetched(world, f"{path}?page[size]=100"))[:2]
    assert fetched(world, "/v1/events?filter[name]=nothing")["data"] == []


def test_range_uses_the_biggest_size(world: World, path: str) -> None:
    everything, at = shown(fetched(world, f"{path}?page[size]=100")), cursors(world, f"{path}?page[size]=100")

    between = fetched(world, f"{path}?page[after]={at[0]}&page[before]={at[-1]}")

    assert shown(between) == everything[1:-1]
    assert "page" not in between["meta"]


def test_range_truncated(world: World, path: str) -> None:
    everything, at = shown(fetched(world, f"{path}?page[size]=100")), cursors(world, f"{path}?page[size]=100")

    between = fetched(world, f"{path}?page[after]={at[0]}&page[before]={at[-1]}&page[size]=3")

    assert shown(between) == everything[1:4]
    assert between["meta"]["page"] == {"rangeTruncated": True}


def test_page_meta_is_an_object(world: World, path: str) -> None:
    assert all(isinstance(item["meta"]["page"], dict) for item in fetched(world, path)["data"])


def test_item_cursor_falls_on_its_item(world: World, path: str) -> None:
    document = fetched(world, f"{path}?page[size]=100")
    ids, at = shown(document), [item["meta"]["page"]["cursor"] for item in document["data"]]

    assert shown(fetched(world, f"{path}?page[size]=1&page[after]={at[9]}")) == [ids[10]]
    assert shown(fetched(world, f"{path}?page[size]=1&page[before]={at[9]}")) == [ids[8]]


def test_links_prev_and_next_are_there(world: World, path: str) -> None:
    at = cursors(world, path)[4]

    for query in ("", f"&page[after]={at}", f"&page[before]={at}"):
        assert {"prev", "next"} <= fetched(world, f"{path}?page[size]=3{query}")["links"].keys()


def test_next_is_null_at_the_end(world: World, path: str) -> None:
    at = cursors(world, f"{path}?page[size]=100")

    assert fetched(world, f"{path}?page[size]=100")["links"]["next"] is None
    assert fetched(world, f"{path}?page[after]={at[-3]}")["links"]["next"] is None
    assert fetched(world, f"{path}?page[size]=1&page[after]={at[-3]}")["links"]["next"] is not None


def test_prev_is_null_at_the_start(world: World, path: str) -> None:
    at = cursors(world, path)

    assert fetched(world, path)["links"]["prev"] is None
    assert fetched(world, f"{path}?page[before]={at[2]}")["links"]["prev"] is None
    assert fetched(world, f"{path}?page[size]=1&page[before]={at[2]}")["links"]["prev"] is not None
