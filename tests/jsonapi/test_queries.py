"""Queries: sparse fieldsets, includes, sort keys, filters and pages."""

import json
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from sqlalchemy import text, update

from app.events.models import Event
from app.extensions import db
from app.faqs.models import Faq
from app.jsonapi.cursors import PROFILE
from tests.dataset import JSONAPI, Dataset, get_data, get_ids

pytestmark = pytest.mark.long


def list_event_names(dataset: Dataset, path: str, role: str = "owner") -> list[str]:
    """Return the names of the events in a list, without their last word."""
    return [item["attributes"]["name"].split()[0] for item in get_data(dataset.callers[role].get(path))]


def filter_ids(dataset: Dataset, term: Any, kind: str = "events", role: str = "owner") -> list[int]:
    """Return the ids that a JSON filter selects."""
    return get_ids(dataset.callers[role].get(f"/v1/{kind}?filter={quote(json.dumps([term]))}"))


def build_term(name: str, op: str, val: Any = None) -> dict[str, Any]:
    """Return one term of a filter."""
    return {"name": name, "op": op, "val": val}


def test_sparse_fieldsets_in_both_spellings(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}"

    for field in ("starts-at", "starts_at"):
        item = get_data(dataset.anonymous.get(f"{path}?fields[event]=name,{field},faq-types"))
        assert set(item["attributes"]) == {"name", "starts-at"}
        assert set(item["relationships"]) == {"faq-types"}

    item = get_data(dataset.anonymous.get(f"{path}?fields[event]="))
    assert set(item) == {"type", "id", "links"}


def test_the_plural_of_a_type_names_its_fieldset_too(dataset: Dataset) -> None:
    assert get_data(dataset.anonymous.get("/v1/events?fields[events]=name"))[0]["attributes"].keys() == {"name"}


def test_includes_are_fully_linked_and_never_twice(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}?include=faqs.faq-type,faq_types.event,owner,organizers"
    document = dataset.owner.get(path).get_json()

    everything = [document["data"], *document["included"]]
    keys = [(item["type"], item["id"]) for item in everything]
    linked = {
        (found["type"], found["id"])
        for item in everything
        for relationship in item.get("relationships", {}).values()
        for found in to_list(relationship.get("data"))
    }
    assert len(keys) == len(set(keys))
    assert set(keys[1:]) <= linked
    assert {type_ for type_, _ in keys} == {"event", "faq", "faq-type", "user"}


def to_list(linkage: Any) -> list[Any]:
    """Return linkage of any kind as a list."""
    if linkage is None:
        return []
    return linkage if isinstance(linkage, list) else [linkage]


def test_included_resources_are_in_order_of_their_ids_however_they_are_stored(dataset: Dataset) -> None:
    with dataset.app.app_context(), db.engine.connect() as connection:
        for id_ in sorted(dataset.events.values(), reverse=True):  # each goes behind the one before
            connection.execute(update(Event).where(Event.id == id_).values(description="<p>Moved</p>"))
            connection.commit()
        connection.execute(text("ANALYZE events"))  # one block, which is scanned as a whole
        connection.commit()

    document = dataset.owner.get("/v1/faq-types?include=event").get_json()

    ids = [int(item["id"]) for item in document["included"]]
    assert ids == sorted(ids)
    assert len(ids) > 1


def test_an_empty_include_includes_nothing(dataset: Dataset) -> None:
    assert dataset.owner.get("/v1/events?include=").get_json()["included"] == []


def test_include_on_the_answer_of_a_post(dataset: Dataset) -> None:
    document = {
        "data": {
            "type": "faqs",
            "attributes": {"question": "Where?", "answer": "Here"},
            "relationships": {"event": {"data": {"type": "events", "id": dataset.events["draft"]}}},
        }
    }

    made = dataset.owner.send("POST", "/v1/faqs/?include=event", document).get_json()

    assert [item["type"] for item in made["included"]] == ["event"]


def test_order_by_several_keys_and_one_hop(dataset: Dataset) -> None:
    assert list_event_names(dataset, "/v1/events?sort=name") == ["draft", "others", "private", "published"]
    assert list_event_names(dataset, "/v1/events?sort=-state,name") == ["others", "private", "published", "draft"]
    assert get_ids(dataset.owner.get("/v1/faqs?sort=-event.name")) == [
        dataset.faqs[name] for name in ("published", "private", "others", "draft")
    ]
    assert get_ids(dataset.owner.get("/v1/faqs?sort=faq_type.name,-id"))[0] == dataset.faqs["draft"]


def test_faqs_of_an_event_come_by_position_then_id(dataset: Dataset) -> None:
    event = dataset.events["published"]
    for position in (2, 1, 1):
        made = dataset.owner.create(
            "/v1/faqs", "faq", {"question": f"At {position}", "answer": "x", "position": position}, event=event
        )
        assert made.status_code == 201

    questions = [item["attributes"]["question"] for item in get_data(dataset.anonymous.get(f"/v1/events/{event}/faqs"))]

    assert questions == ["published question", "At 1", "At 1", "At 2"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("filter[name]=draft event", {"draft"}),
        ("filter[state]=draft", {"draft"}),
        ("filter[privacy][ne]=public", {"private"}),
        ("filter[name][like]=p%", {"published", "private"}),
        ("filter[name][ilike]=P%", {"published", "private"}),
        ("filter[starts-at][ge]=2000-01-01T00:00:00Z", {"published", "draft", "private", "others"}),
        ("filter[starts_at][lt]=2000-01-01T00:00:00Z", set()),
        ("filter[is-ticket-form-enabled]=true&filter[online]=false&filter[state]=draft", {"draft"}),
        ("filter[logo-url][is-null]=true&filter[state]=draft", {"draft"}),
        ("filter[name][in]=draft event,others event", {"draft", "others"}),
    ],
)
def test_filters_as_parameters(dataset: Dataset, query: str, expected: set[str]) -> None:
    assert set(list_event_names(dataset, f"/v1/events?{quote(query, safe='=&[],:')}")) == expected


def test_filter_by_ids(dataset: Dataset) -> None:
    wanted = [dataset.events["published"], dataset.events["draft"]]

    assert get_ids(dataset.owner.get(f"/v1/events?filter[id]={wanted[0]},{wanted[1]}")) == wanted
    assert get_ids(dataset.anonymous.get(f"/v1/events?filter[id]={wanted[0]},{wanted[1]}")) == wanted[:1]


def test_filter_by_what_a_to_one_relationship_links_to(dataset: Dataset) -> None:
    event, faq = dataset.events["published"], dataset.faqs["published"]
    typed = dataset.owner.update(f"/v1/faqs/{faq}", "faq", {}, faq_type=dataset.types["published"])
    assert typed.status_code == 200

    assert get_ids(dataset.owner.get(f"/v1/faqs?filter[event]={event}")) == [faq]
    assert get_ids(dataset.owner.get(f"/v1/faqs?filter[faq-type]={dataset.types['published']}")) == [faq]
    assert faq not in get_ids(dataset.owner.get("/v1/faqs?filter[faq_type][is-null]=true"))
    assert filter_ids(dataset, build_term("event", "eq", str(event)), "faqs") == [faq]
    assert faq not in filter_ids(dataset, {"not": build_term("event", "in", [event])}, "faqs")
    untyped = filter_ids(dataset, {"not": build_term("faq-type", "in", [dataset.types["published"]])}, "faqs")
    assert dataset.faqs["draft"] in untyped  # this FAQ has no type
    assert faq not in untyped


def test_a_filter_by_linkage_does_not_tell_of_what_is_in_the_trash(dataset: Dataset) -> None:
    faq, faq_type = dataset.faqs["published"], dataset.types["published"]
    dataset.owner.update(f"/v1/faqs/{faq}", "faq", {}, faq_type=faq_type)
    assert dataset.owner.delete(f"/v1/faq-types/{faq_type}").status_code == 200

    assert get_ids(dataset.owner.get(f"/v1/faqs?filter[faq-type]={faq_type}")) == []
    assert faq in get_ids(dataset.owner.get("/v1/faqs?filter[faq-type][is-null]=true"))


@pytest.mark.parametrize("query", ["[event]=x", "[event][like]=1", "[event]=", "[event][eq]=-1"])
def test_a_filter_by_linkage_takes_ids(dataset: Dataset, query: str) -> None:
    assert dataset.owner.get(f"/v1/faqs?filter{query}").status_code == 400


def test_a_to_many_relationship_is_asked_by_any_only(dataset: Dataset) -> None:
    assert dataset.owner.get("/v1/events?filter[faqs]=1").status_code == 400


def test_filters_as_json(dataset: Dataset) -> None:
    events = dataset.events
    assert filter_ids(dataset, build_term("name", "eq", "draft event")) == [events["draft"]]
    assert filter_ids(dataset, build_term("latitude", "eq")) == sorted(v for k, v in events.items() if k != "trashed")
    assert filter_ids(
        dataset, {"or": [build_term("state", "eq", "draft"), build_term("privacy", "eq", "private")]}
    ) == [
        events["draft"],
        events["private"],
    ]
    assert (
        filter_ids(dataset, {"and": [build_term("state", "eq", "draft"), build_term("privacy", "eq", "private")]}) == []
    )
    assert filter_ids(
        dataset, {"not": {"or": [build_term("state", "eq", "draft"), build_term("privacy", "eq", "private")]}}
    ) == [
        events["published"],
        events["others"],
    ]
    assert filter_ids(dataset, build_term("faqs", "any", build_term("question", "eq", "draft question"))) == [
        events["draft"]
    ]
    assert filter_ids(dataset, build_term("event", "has", build_term("state", "eq", "draft")), "faqs") == [
        dataset.faqs["draft"]
    ]
    nested = build_term("event", "has", build_term("faq-types", "any", build_term("name", "like", "private%")))
    assert filter_ids(dataset, nested, "faqs") == [dataset.faqs["private"]]


def test_has_and_any_do_not_reach_what_is_hidden(dataset: Dataset) -> None:
    draft = build_term("event", "has", build_term("state", "eq", "draft"))
    question = build_term("faqs", "any", build_term("question", "like", "%"))

    assert filter_ids(dataset, draft, "faqs", "anonymous") == []
    assert filter_ids(dataset, {"not": draft}, "faqs", "anonymous") == [
        dataset.faqs["published"],
        dataset.faqs["others"],
    ]
    assert filter_ids(dataset, question, "events", "anonymous") == [
        dataset.events["published"],
        dataset.events["others"],
    ]


def test_pages_keep_the_other_parameters(dataset: Dataset) -> None:
    answer = dataset.owner.get("/v1/events?page[size]=2&sort=-name&page[number]=1").get_json()

    assert answer["meta"] == {"count": 4}
    assert answer["links"]["prev"] is None
    assert answer["links"]["last"] == answer["links"]["next"]
    following = dataset.owner.get(answer["links"]["next"]).get_json()
    assert [item["attributes"]["name"] for item in following["data"]] == ["others event", "draft event"]
    assert following["links"]["next"] is None


def test_links_below_a_parent_keep_the_parent(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}/faqs"

    links = dataset.owner.get(f"{path}/?page[size]=1").get_json()["links"]

    assert all(link is None or link.startswith(f"{path}?") for link in links.values())


def test_trailing_slashes_are_no_redirects(dataset: Dataset) -> None:
    assert dataset.owner.get("/v1/events/").status_code == 200
    assert dataset.owner.get(f"/v1/events/{dataset.events['draft']}/").status_code == 200
    assert dataset.owner.get(f"/v1/faqs/{dataset.faqs['draft']}/relationships/event/").status_code == 200


def test_upcoming_events_are_public_published_and_not_over(dataset: Dataset) -> None:
    for caller in (dataset.anonymous, dataset.owner):
        assert get_ids(caller.get("/v1/events/upcoming")) == [dataset.events["published"], dataset.events["others"]]


def test_head_answers_like_get_without_a_body(dataset: Dataset) -> None:
    answer = dataset.owner.send("HEAD", "/v1/events")

    assert (answer.status_code, answer.data) == (200, b"")


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the statements that the app executes, in order."""
    asked: list[str] = []
    execute = psycopg.Cursor.execute

    def note(cursor: Any, query: Any, *more: Any, **options: Any) -> Any:
        asked.append(str(query))
        return execute(cursor, query, *more, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", note)
    return asked


def test_the_number_of_statements_does_not_grow_with_the_rows(dataset: Dataset, statements: list[str]) -> None:
    path = f"/v1/events/{dataset.events['published']}/faqs?include=event.owner,faq-type"
    counts = []
    for _ in range(2):
        statements.clear()
        assert dataset.owner.get(path).status_code == 200
        counts.append(len(statements))
        with dataset.app.app_context():
            event_id = dataset.events["published"]
            db.session.add_all([Faq(question="q", answer="a", event_id=event_id) for _ in range(2)])
            db.session.commit()

    assert counts[0] == counts[1] > 0


def test_more_than_can_be_included_is_said_so(dataset: Dataset) -> None:
    with dataset.app.app_context():
        event_id = dataset.events["published"]
        db.session.add_all([Faq(question="q", answer="a", event_id=event_id) for _ in range(2001)])
        db.session.commit()

    answer = dataset.owner.get(f"/v1/events/{dataset.events['published']}?include=faqs")

    assert answer.status_code == 400
    assert answer.get_json()["errors"][0]["source"] == {"parameter": "include"}


@pytest.mark.parametrize(
    "sort", ["", "name", "-name", "logo-url", "-logo-url,name", "event.name", "-event.name,position"]
)
def test_cursors_walk_a_whole_list_both_ways(dataset: Dataset, sort: str) -> None:
    kind = "faqs" if "event" in sort or not sort else "events"
    path = f"/v1/{kind}?page[size]=1" + (f"&sort={sort}" if sort else "")
    expected = get_ids(dataset.owner.get(path.replace("size]=1", "size]=100")))
    first = dataset.owner.get(path, Accept=f'{JSONAPI}; profile="{PROFILE}"')

    forwards, page = list(get_data(first)), first.get_json(force=True)
    while page["links"]["next"]:
        page = dataset.owner.get(page["links"]["next"]).get_json(force=True)
        forwards += page["data"]
    assert [int(item["id"]) for item in forwards] == expected
    assert PROFILE in first.content_type

    backwards = [page["data"][-1]]
    while page["links"]["prev"]:
        page = dataset.owner.get(page["links"]["prev"]).get_json(force=True)
        backwards += page["data"]
    assert [int(item["id"]) for item in reversed(backwards)] == expected


def test_a_page_between_two_cursors(dataset: Dataset) -> None:
    listed = dataset.owner.get("/v1/events?sort=name", Accept=f'{JSONAPI}; profile="{PROFILE}"').get_json(force=True)
    cursors = [item["meta"]["page"]["cursor"] for item in listed["data"]]

    between = dataset.owner.get(f"/v1/events?sort=name&page[after]={cursors[0]}&page[before]={cursors[3]}")

    assert get_ids(between) == [int(item["id"]) for item in listed["data"][1:3]]


@pytest.mark.parametrize("cursor", ["", "x", "%25", "bnVsbA", "W10", "WyJ4Il0", "WzEsMiwzXQ", "W3RydWVd", "W251bGxd"])
def test_a_cursor_that_is_none(dataset: Dataset, cursor: str) -> None:
    answer = dataset.owner.get(f"/v1/events?page[after]={cursor}")

    assert answer.status_code == 400
    assert answer.get_json(force=True)["errors"][0]["source"] == {"parameter": "page[after]"}


def test_a_page_has_a_number_or_a_cursor(dataset: Dataset) -> None:
    assert dataset.owner.get("/v1/events?page[number]=1&page[after]=WzFd").status_code == 400


@pytest.fixture
def faq_ids(dataset: Dataset) -> list[int]:
    """Return the ids of 150 FAQs of one event, the newest first."""
    with dataset.app.app_context():
        rows = [Faq(question=f"{number}", answer="b", event_id=dataset.events["published"]) for number in range(150)]
        db.session.add_all(rows)
        db.session.commit()
        return sorted((row.id for row in rows), reverse=True)


def build_id_query(spelling: str, chosen: list[int]) -> str:
    """Return the query that selects resources by their ids, in one of the forms."""
    text = ",".join(map(str, chosen))
    term = [{"name": "id", "op": "in", "val": [str(each) for each in chosen]}]
    return {"short": f"filter[id]={text}", "operator": f"filter[id][in]={text}"}.get(
        spelling, f"filter={quote(json.dumps(term))}"
    )


@pytest.mark.parametrize("spelling", ["short", "operator", "list"])
@pytest.mark.parametrize("count", [1, 20, 21, 40, 100])
def test_resources_named_by_id_come_on_one_page(
    dataset: Dataset, faq_ids: list[int], spelling: str, count: int
) -> None:
    chosen = faq_ids[:count]

    document = dataset.anonymous.get(f"/v1/faqs?{build_id_query(spelling, chosen)}").get_json(force=True)

    assert sorted(int(item["id"]) for item in document["data"]) == sorted(chosen)
    assert document["meta"]["count"] == count
    assert (document["links"]["next"], document["links"]["prev"]) == (None, None)


def test_resources_named_by_id_beyond_a_page_come_page_by_page(dataset: Dataset, faq_ids: list[int]) -> None:
    first = dataset.anonymous.get(f"/v1/faqs?{build_id_query('short', faq_ids)}").get_json(force=True)
    second = dataset.anonymous.get(first["links"]["next"]).get_json(force=True)

    assert [len(page["data"]) for page in (first, second)] == [100, 50]
    assert {int(item["id"]) for page in (first, second) for item in page["data"]} == set(faq_ids)
    assert (second["links"]["next"], first["meta"]["count"]) == (None, 150)
    assert first["links"]["last"] == first["links"]["next"]


def test_resources_named_by_id_come_on_one_page_by_cursor(dataset: Dataset, faq_ids: list[int]) -> None:
    chosen = faq_ids[:40]
    accept = f'{JSONAPI}; profile="{PROFILE}"'

    document = dataset.anonymous.get(f"/v1/faqs?{build_id_query('short', chosen)}", Accept=accept).get_json(force=True)

    assert {int(item["id"]) for item in document["data"]} == set(chosen)
    assert document["links"]["next"] is None


def test_resources_named_by_id_with_a_page_size_come_in_that_size(dataset: Dataset, faq_ids: list[int]) -> None:
    document = dataset.anonymous.get(f"/v1/faqs?{build_id_query('short', faq_ids[:40])}&page[size]=30").get_json(
        force=True
    )

    assert len(document["data"]) == 30
    assert document["links"]["next"]


def test_ids_that_do_not_narrow_the_list_leave_the_default_page(dataset: Dataset, faq_ids: list[int]) -> None:
    term = [{"not": {"name": "id", "op": "in", "val": [str(each) for each in faq_ids[:40]]}}]

    document = dataset.anonymous.get(f"/v1/faqs?filter={quote(json.dumps(term))}").get_json(force=True)

    assert len(document["data"]) == 20
    assert dataset.anonymous.get(f"/v1/faqs?filter[id]={','.join(['1'] * 1001)}").status_code == 400
