"""Cursor pagination: each row once, in any order and with any values, and invalid cursors are rejected."""

import base64
from typing import Any

import orjson
import pytest
from sqlalchemy import update

from app.events.models import Event
from app.extensions import db
from app.jsonapi.cursors import PROFILE
from tests.dataset import JSONAPI, Dataset, get_data

WITH_CURSORS = f'{JSONAPI}; profile="{PROFILE}"'


def follow_next_links(dataset: Dataset, path: str) -> list[str]:
    """Return the ids on all pages, by their `next` links."""
    found: list[str] = []
    link: str | None = path
    while link is not None:
        assert len(found) < 50, "the walk has no end"
        answer = dataset.owner.get(link, Accept=WITH_CURSORS)
        found += [item["id"] for item in get_data(answer)]
        link = (answer.json or {})["links"]["next"]
    return found


def encode_value(value: Any) -> str:
    """Return a cursor with this value."""
    return base64.urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=").decode()


def store_values(dataset: Dataset, **values: dict[str, Any]) -> None:
    """Update rows by SQL, without the API."""
    with dataset.app.app_context(), db.session.begin():
        for name, columns in values.items():
            db.session.execute(update(Event).where(Event.id == dataset.events[name]).values(columns))


@pytest.mark.parametrize("sort", ["online", "-online", "online,-id", "-is-featured,online,name", "-online,-latitude"])
def test_an_order_by_flags_leads_through_all_rows(dataset: Dataset, sort: str) -> None:
    store_values(dataset, draft={"online": True}, private={"online": True, "latitude": 1.5})
    expected = [item["id"] for item in get_data(dataset.owner.get(f"/v1/events?sort={sort}"))]

    assert follow_next_links(dataset, f"/v1/events?sort={sort}&page[size]=1") == expected


def test_a_text_that_the_api_would_clean_is_compared_as_it_is_stored(dataset: Dataset) -> None:
    texts = ["<li><li>0</li></li>", "<script>1</script>", "\u00a0padded "]
    for name, text in zip(("draft", "private", "published"), texts, strict=True):
        store_values(dataset, **{name: {"description": text, "location_name": text}})
    for sort in ("description", "-location-name"):
        expected = [item["id"] for item in get_data(dataset.owner.get(f"/v1/events?sort={sort}"))]
        assert follow_next_links(dataset, f"/v1/events?sort={sort}&page[size]=1") == expected


def test_a_row_with_a_long_text_is_named_by_its_id(dataset: Dataset) -> None:
    store_values(dataset, draft={"refund_policy": "ä" * 15_000}, private={"refund_policy": "ä" * 15_000 + "b"})
    expected = [item["id"] for item in get_data(dataset.owner.get("/v1/events?sort=refund-policy"))]

    assert follow_next_links(dataset, "/v1/events?sort=refund-policy&page[size]=1") == expected


@pytest.mark.parametrize(
    ("sort", "value"),
    [
        ("id", [18446744073709551615]),
        ("id", [True]),
        ("id", 9223372036854775808),
        ("id", "x"),
        ("id", 10**9),
        ("name", ["\0", 1]),
        ("name", [1, 1]),
        ("name", [None, 1]),
        ("name", "1"),
        ("online", ["perhaps", 1]),
        ("starts-at", ["yesterday", 1]),
        ("latitude", ["far", 1]),
        ("latitude", {}),
    ],
)
def test_a_cursor_that_somebody_made_up_is_refused_or_harmless(dataset: Dataset, sort: str, value: Any) -> None:
    for way in ("after", "before"):
        answer = dataset.owner.get(f"/v1/events?sort={sort}&page[{way}]={encode_value(value)}")
        assert answer.status_code == 400 or (sort, value) == ("name", "1")


def test_a_cursor_by_id_does_not_tell_of_rows_that_are_hidden(dataset: Dataset) -> None:
    seen = dataset.anonymous.get(f"/v1/events?sort=name&page[after]={encode_value(dataset.events['draft'])}")
    unknown = dataset.anonymous.get(f"/v1/events?sort=name&page[after]={encode_value(10**9)}")

    assert seen.status_code == unknown.status_code == 400


@pytest.mark.parametrize("path", ["/v1/events/%00abcdefg", "/v1/events/abc%00efgh/faqs", "/v1/events/ABCDEFGH"])
def test_a_name_that_no_event_can_have_is_not_found(dataset: Dataset, path: str) -> None:
    assert dataset.anonymous.get(path).status_code == 404


UNKNOWN = "https://example.com/unknown"
NEW = {"data": {"type": "event", "attributes": {"name": "Camp", "timezone": "UTC"}}}
SPELLINGS = [
    "http://jsonapi.org/profiles/ethanresnick/cursor-pagination/",
    "http://jsonapi.org/profiles/ethanresnick/cursor-pagination",
    "https://jsonapi.org/profiles/ethanresnick/cursor-pagination/",
    "https://jsonapi.org/profiles/ethanresnick/cursor-pagination",
]


@pytest.mark.parametrize("uri", SPELLINGS)
@pytest.mark.parametrize(
    "accept",
    [
        '{type};profile="{uri}"',
        '{type}; Profile="{uri}"; q=0.5',
        '{type}; profile="{unknown} {uri}"',
        'text/html, {type}; profile="{uri} {unknown}", */*;q=0.1',
    ],
)
def test_cursor_profile_each_spelling_is_recognised(dataset: Dataset, uri: str, accept: str) -> None:
    answer = dataset.owner.get("/v1/events", Accept=accept.format(type=JSONAPI, uri=uri, unknown=UNKNOWN))

    assert answer.content_type == f'{JSONAPI}; profile="{uri}"'
    assert all(item["meta"]["page"]["cursor"] for item in answer.get_json(force=True)["data"])
    assert "Accept" in answer.headers["Vary"]


@pytest.mark.parametrize("uri", SPELLINGS)
def test_cursor_profile_each_spelling_is_taken_on_a_body(dataset: Dataset, uri: str) -> None:
    answer = dataset.owner.send("POST", "/v1/events", NEW, Content_Type=f'{JSONAPI}; profile="{uri}"')

    assert (answer.status_code, answer.content_type) == (201, JSONAPI)


@pytest.mark.parametrize("uri", [f"{SPELLINGS[0]}/", SPELLINGS[0].upper(), f"{SPELLINGS[1]}-2", "cursor-pagination"])
def test_cursor_profile_another_uri_is_ignored(dataset: Dataset, uri: str) -> None:
    answer = dataset.owner.get("/v1/events", Accept=f'{JSONAPI}; profile="{uri}"')

    assert (answer.status_code, answer.content_type) == (200, JSONAPI)


def test_cursor_profile_two_spellings_name_the_first(dataset: Dataset) -> None:
    answer = dataset.owner.get("/v1/events", Accept=f'{JSONAPI}; profile="{SPELLINGS[3]} {SPELLINGS[0]}"')

    assert answer.content_type == f'{JSONAPI}; profile="{SPELLINGS[3]}"'
