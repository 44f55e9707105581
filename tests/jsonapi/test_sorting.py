"""Natural language order of texts, in lists and in cursor pagination."""

from collections.abc import Iterable
from typing import Any

import pytest
from sqlalchemy import insert

from app.extensions import db
from app.faqs.models import Faq
from tests.dataset import Dataset, get_data

ORDER = (
    "", " ", "_under", "-dash", "\u2014dash", ",comma", "!bang", "¡Hola!", "'tis", "(a)", "#hash", "+plus",
    "🎉 Party", "$5", "10", "9", "a b", "a-b", "a/b", "ab", "Aeon", "æon", "aex", "Apfel", "Äpfel", "apple", "Apple",
    "Banana", "Đakovo", "Dakow", "e\u0301cole", "École", "ecole 2", "ix", "iz", "\u0131x", "Łódź", "Lodzer", "Ølberg",
    "Olberh", "role", "Role", "rôle", "Rôle", "Ssa", "strasse", "straße", "strassf", "über", "uberall", "Z",
    "Zebra", "\u03b1", "\u03a9", "\u0433\u0430", "\u0491\u0430", "\u0433\u044f", "\u0435", "\u0451", "\u0435\u0436",
    "\u0438", "\u0438\u044f", "\u0456", "\u0457", "\u0439", "\u043a", "\u044f", "\u05d0", "\u0627", "あ", "中",
)  # fmt: skip
"""Order of the root collation of ICU 78, so that this test does not need ICU."""


def test_text_sort_key_sorts_like_the_root_collation(dataset: Dataset) -> None:
    with dataset.app.app_context():
        statement = db.text(
            'SELECT array_agg(t ORDER BY text_sort_key(t) COLLATE "C") FROM unnest(CAST(:texts AS text[])) AS t'
        )
        found = db.session.scalar(statement, {"texts": sorted(ORDER)})
        db.session.rollback()

    assert found == list(ORDER)


@pytest.mark.parametrize(
    "text", ["\U0001f389" * 20_000, "\ufdfa" * 300, "\u0131" * 300, "\u00df" * 300, "\u0390" * 300, "\u4e2d" * 300]
)
def test_text_sort_key_fits_into_an_index(dataset: Dataset, text: str) -> None:
    with dataset.app.app_context():
        size = db.session.scalar(db.text("SELECT octet_length(text_sort_key(CAST(:text AS text)))"), {"text": text})
        db.session.rollback()

    assert size <= 2600


NAMES = (
    "Apfel",
    "\u00c4pfel",
    "apple",
    "Apple",
    "Banana",
    "banana",
    "Zebra",
    "zebra",
    "\u00c9cole",
    "ecole",
    "\u00e9cole",
    "Apfel",
    "Zebra",
    "9",
    "10",
)
SORTED_TEXTS = (
    *(
        "10",
        "9",
        "Apfel",
        "Apfel",
        "\u00c4pfel",
        "apple",
        "Apple",
        "banana",
        "Banana",
        "ecole",
        "\u00e9cole",
        "\u00c9cole",
    ),
    *("zebra", "Zebra", "Zebra"),
)


@pytest.fixture
def events(dataset: Dataset) -> list[int]:
    """Create events of the stranger with these names, and return them by id."""
    made = [dataset.stranger.create("/v1/events", "event", {"name": name, "timezone": "UTC"}) for name in NAMES]
    return [int(get_data(answer)["id"]) for answer in made]


def list_names(items: Iterable[Any]) -> tuple[str, ...]:
    """Return the names of resources."""
    return tuple(item["attributes"]["name"] for item in items)


def follow_cursors(dataset: Dataset, path: str, *, backwards: bool = False) -> list[Any]:
    """Return all resources of a list, page by page by cursors."""
    direction = "prev" if backwards else "next"
    found: list[Any] = []
    while path:
        document = dataset.stranger.get(path, Accept=PROFILE).get_json(force=True)
        found = [*document["data"], *found] if backwards else [*found, *document["data"]]
        path = document["links"][direction]
    return found


PROFILE = 'application/vnd.api+json; profile="https://jsonapi.org/profiles/ethanresnick/cursor-pagination"'


def build_own_filter(dataset: Dataset) -> str:
    """Return the filter for the events of the stranger."""
    return f"filter[owner]={dataset.stranger.id}"


def test_sort_by_name_is_the_order_people_expect(dataset: Dataset, events: list[int]) -> None:
    assert (
        list_names(get_data(dataset.stranger.get(f"/v1/events?{build_own_filter(dataset)}&sort=name"))) == SORTED_TEXTS
    )
    assert (
        list_names(get_data(dataset.stranger.get(f"/v1/events?{build_own_filter(dataset)}&sort=-name")))
        == SORTED_TEXTS[::-1]
    )


def test_sort_by_name_equal_names_come_by_id(dataset: Dataset, events: list[int]) -> None:
    for sort in ("name", "-name"):
        found = get_data(dataset.stranger.get(f"/v1/events?{build_own_filter(dataset)}&sort={sort}"))
        for name in ("Apfel", "Zebra"):
            same = [int(item["id"]) for item in found if item["attributes"]["name"] == name]
            assert same == sorted(same)
            assert len(same) == 2


@pytest.mark.parametrize(
    "sort", ["name", "-name", "state,name", "-name,starts-at", "location-name,name", "owner.public-name,name"]
)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_sort_by_name_cursors_walk_the_same_order_both_ways(
    dataset: Dataset, events: list[int], sort: str, size: int
) -> None:
    whole = get_data(dataset.stranger.get(f"/v1/events?{build_own_filter(dataset)}&sort={sort}"))
    ids = [item["id"] for item in whole]
    assert sorted(map(int, ids)) == events

    forwards = follow_cursors(dataset, f"/v1/events?{build_own_filter(dataset)}&sort={sort}&page[size]={size}")
    assert [item["id"] for item in forwards] == ids

    last = forwards[-1]["meta"]["page"]["cursor"]
    back = follow_cursors(
        dataset,
        f"/v1/events?{build_own_filter(dataset)}&sort={sort}&page[size]={size}&page[before]={last}",
        backwards=True,
    )
    assert [item["id"] for item in back] == ids[:-1]


def test_sort_by_name_of_what_is_linked_follows_the_same_order(dataset: Dataset, events: list[int]) -> None:
    with dataset.app.app_context():
        rows = [{"question": "?", "answer": "!", "event_id": id_} for id_ in events]
        db.session.execute(insert(Faq).values(rows))
        db.session.commit()

    found = get_data(
        dataset.stranger.get(f"/v1/faqs?filter[event]={','.join(map(str, events))}&sort=event.name&include=event")
    )

    by_id = dict(zip(map(str, events), NAMES, strict=True))
    assert tuple(by_id[item["relationships"]["event"]["data"]["id"]] for item in found) == SORTED_TEXTS
    ids = [item["id"] for item in found]
    path = f"/v1/faqs?filter[event]={','.join(map(str, events))}&sort=event.name&page[size]=4"
    assert [item["id"] for item in follow_cursors(dataset, path)] == ids


def test_sort_by_text_empty_values_come_last(dataset: Dataset, events: list[int]) -> None:
    dataset.stranger.update(f"/v1/events/{events[3]}", "event", {"location-name": "\u00c4rea"})
    dataset.stranger.update(f"/v1/events/{events[5]}", "event", {"location-name": "area 2"})

    found = [
        int(item["id"])
        for item in get_data(dataset.stranger.get(f"/v1/events?{build_own_filter(dataset)}&sort=location-name"))
    ]

    assert found[:2] == [events[3], events[5]]
    assert found[2:] == sorted(set(events) - set(found[:2]))


def test_sort_by_words_of_programs_is_by_their_bytes(dataset: Dataset) -> None:
    states = [item["attributes"]["state"] for item in get_data(dataset.admin.get("/v1/events?sort=state"))]

    assert states == sorted(states)
