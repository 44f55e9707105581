"""Reading what one asks for: sparse fieldsets, includes, order, filters, pages."""

import json
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from app.extensions import db
from app.faqs.models import Faq
from app.jsonapi.cursors import PROFILE
from tests.world import JSONAPI, World, data, ids

pytestmark = pytest.mark.long


def names(world: World, path: str, role: str = "owner") -> list[str]:
    """The names of the events in a list, without their last word."""
    return [item["attributes"]["name"].split()[0] for item in data(world.callers[role].get(path))]


def filtered(world: World, term: Any, kind: str = "events", role: str = "owner") -> list[int]:
    """The ids a JSON filter leaves."""
    return ids(world.callers[role].get(f"/v1/{kind}?filter={quote(json.dumps([term]))}"))


def term(name: str, op: str, val: Any = None) -> dict[str, Any]:
    """One term of a filter."""
    return {"name": name, "op": op, "val": val}


def test_sparse_fieldsets_in_both_spellings(world: World) -> None:
    path = f"/v1/events/{world.events['published']}"

    for field in ("starts-at", "starts_at"):
        item = data(world.anonymous.get(f"{path}?fields[event]=name,{field},faq-types"))
        assert set(item["attributes"]) == {"name", "starts-at"}
        assert set(item["relationships"]) == {"faq-types"}

    item = data(world.anonymous.get(f"{path}?fields[event]="))
    assert set(item) == {"type", "id", "links"}


def test_the_plural_of_a_type_names_its_fieldset_too(world: World) -> None:
    assert data(world.anonymous.get("/v1/events?fields[events]=name"))[0]["attributes"].keys() == {"name"}


def test_includes_are_fully_linked_and_never_twice(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}?include=faqs.faq-type,faq_types.event,owner,organizers"
    document = world.owner.get(path).get_json()

    everything = [document["data"], *document["included"]]
    keys = [(item["type"], item["id"]) for item in everything]
    linked = {
        (found["type"], found["id"])
        for item in everything
        for relationship in item.get("relationships", {}).values()
        for found in as_list(relationship.get("data"))
    }
    assert len(keys) == len(set(keys))
    assert set(keys[1:]) <= linked
    assert {type_ for type_, _ in keys} == {"event", "faq", "faq-type", "user"}


def as_list(linkage: Any) -> list[Any]:
    """Linkage of any kind as a list."""
    if linkage is None:
        return []
    return linkage if isinstance(linkage, list) else [linkage]


def test_an_empty_include_includes_nothing(world: World) -> None:
    assert world.owner.get("/v1/events?include=").get_json()["included"] == []


def test_include_on_the_answer_of_a_post(world: World) -> None:
    document = {
        "data": {
            "type": "faqs",
            "attributes": {"question": "Where?", "answer": "Here"},
            "relationships": {"event": {"data": {"type": "events", "id": world.events["draft"]}}},
        }
    }

    made = world.owner.send("POST", "/v1/faqs/?include=event", document).get_json()

    assert [item["type"] for item in made["included"]] == ["event"]


def test_order_by_several_keys_and_one_hop(world: World) -> None:
    assert names(world, "/v1/events?sort=name") == ["draft", "others", "private", "published"]
    assert names(world, "/v1/events?sort=-state,name") == ["others", "private", "published", "draft"]
    assert ids(world.owner.get("/v1/faqs?sort=-event.name")) == [
        world.faqs[name] for name in ("published", "private", "others", "draft")
    ]
    assert ids(world.owner.get("/v1/faqs?sort=faq_type.name,-id"))[0] == world.faqs["draft"]


def test_faqs_of_an_event_come_by_position_then_id(world: World) -> None:
    event = world.events["published"]
    for position in (2, 1, 1):
        made = world.owner.create(
            "/v1/faqs", "faq", {"question": f"At {position}", "answer": "x", "position": position}, event=event
        )
        assert made.status_code == 201

    questions = [item["attributes"]["question"] for item in data(world.anonymous.get(f"/v1/events/{event}/faqs"))]

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
def test_filters_as_parameters(world: World, query: str, expected: set[str]) -> None:
    assert set(names(world, f"/v1/events?{quote(query, safe='=&[],:')}")) == expected


def test_filter_by_ids(world: World) -> None:
    wanted = [world.events["published"], world.events["draft"]]

    assert ids(world.owner.get(f"/v1/events?filter[id]={wanted[0]},{wanted[1]}")) == wanted
    assert ids(world.anonymous.get(f"/v1/events?filter[id]={wanted[0]},{wanted[1]}")) == wanted[:1]


def test_filter_by_what_a_to_one_relationship_links_to(world: World) -> None:
    event, faq = world.events["published"], world.faqs["published"]
    typed = world.owner.update(f"/v1/faqs/{faq}", "faq", {}, faq_type=world.types["published"])
    assert typed.status_code == 200

    assert ids(world.owner.get(f"/v1/faqs?filter[event]={event}")) == [faq]
    assert ids(world.owner.get(f"/v1/faqs?filter[faq-type]={world.types['published']}")) == [faq]
    assert faq not in ids(world.owner.get("/v1/faqs?filter[faq_type][is-null]=true"))
    assert filtered(world, term("event", "eq", str(event)), "faqs") == [faq]
    assert faq not in filtered(world, {"not": term("event", "in", [event])}, "faqs")
    untyped = filtered(world, {"not": term("faq-type", "in", [world.types["published"]])}, "faqs")
    assert world.faqs["draft"] in untyped  # it has no type at all
    assert faq not in untyped


def test_a_filter_by_linkage_does_not_tell_of_what_is_in_the_trash(world: World) -> None:
    faq, faq_type = world.faqs["published"], world.types["published"]
    world.owner.update(f"/v1/faqs/{faq}", "faq", {}, faq_type=faq_type)
    assert world.owner.delete(f"/v1/faq-types/{faq_type}").status_code == 200

    assert ids(world.owner.get(f"/v1/faqs?filter[faq-type]={faq_type}")) == []
    assert faq in ids(world.owner.get("/v1/faqs?filter[faq-type][is-null]=true"))


@pytest.mark.parametrize("query", ["[event]=x", "[event][like]=1", "[event]=", "[event][eq]=-1"])
def test_a_filter_by_linkage_takes_ids(world: World, query: str) -> None:
    assert world.owner.get(f"/v1/faqs?filter{query}").status_code == 400


def test_a_to_many_relationship_is_asked_by_any_only(world: World) -> None:
    assert world.owner.get("/v1/events?filter[faqs]=1").status_code == 400


def test_filters_as_json(world: World) -> None:
    events = world.events
    assert filtered(world, term("name", "eq", "draft event")) == [events["draft"]]
    assert filtered(world, term("latitude", "eq")) == sorted(v for k, v in events.items() if k != "trashed")
    assert filtered(world, {"or": [term("state", "eq", "draft"), term("privacy", "eq", "private")]}) == [
        events["draft"],
        events["private"],
    ]
    assert filtered(world, {"and": [term("state", "eq", "draft"), term("privacy", "eq", "private")]}) == []
    assert filtered(world, {"not": {"or": [term("state", "eq", "draft"), term("privacy", "eq", "private")]}}) == [
        events["published"],
        events["others"],
    ]
    assert filtered(world, term("faqs", "any", term("question", "eq", "draft question"))) == [events["draft"]]
    assert filtered(world, term("event", "has", term("state", "eq", "draft")), "faqs") == [world.faqs["draft"]]
    nested = term("event", "has", term("faq-types", "any", term("name", "like", "private%")))
    assert filtered(world, nested, "faqs") == [world.faqs["private"]]


def test_has_and_any_do_not_reach_what_is_hidden(world: World) -> None:
    draft = term("event", "has", term("state", "eq", "draft"))
    question = term("faqs", "any", term("question", "like", "%"))

    assert filtered(world, draft, "faqs", "anonymous") == []
    assert filtered(world, {"not": draft}, "faqs", "anonymous") == [world.faqs["published"], world.faqs["others"]]
    assert filtered(world, question, "events", "anonymous") == [world.events["published"], world.events["others"]]


def test_pages_keep_the_other_parameters(world: World) -> None:
    answer = world.owner.get("/v1/events?page[size]=2&sort=-name&page[number]=1").get_json()

    assert answer["meta"] == {"count": 4}
    assert answer["links"]["prev"] is None
    assert answer["links"]["last"] == answer["links"]["next"]
    following = world.owner.get(answer["links"]["next"]).get_json()
    assert [item["attributes"]["name"] for item in following["data"]] == ["others event", "draft event"]
    assert following["links"]["next"] is None


def test_links_below_a_parent_keep_the_parent(world: World) -> None:
    path = f"/v1/events/{world.events['published']}/faqs"

    links = world.owner.get(f"{path}/?page[size]=1").get_json()["links"]

    assert all(link is None or link.startswith(f"{path}?") for link in links.values())


def test_trailing_slashes_are_no_redirects(world: World) -> None:
    assert world.owner.get("/v1/events/").status_code == 200
    assert world.owner.get(f"/v1/events/{world.events['draft']}/").status_code == 200
    assert world.owner.get(f"/v1/faqs/{world.faqs['draft']}/relationships/event/").status_code == 200


def test_upcoming_events_are_public_published_and_not_over(world: World) -> None:
    for caller in (world.anonymous, world.owner):
        assert ids(caller.get("/v1/events/upcoming")) == [world.events["published"], world.events["others"]]


def test_head_answers_like_get_without_a_body(world: World) -> None:
    answer = world.owner.send("HEAD", "/v1/events")

    assert (answer.status_code, answer.data) == (200, b"")


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the database is asked, in order, whichever way it is asked."""
    asked: list[str] = []
    execute = psycopg.Cursor.execute

    def note(cursor: Any, query: Any, *more: Any, **options: Any) -> Any:
        asked.append(str(query))
        return execute(cursor, query, *more, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", note)
    return asked


def test_the_number_of_statements_does_not_grow_with_the_rows(world: World, statements: list[str]) -> None:
    path = f"/v1/events/{world.events['published']}/faqs?include=event.owner,faq-type"
    counts = []
    for _ in range(2):
        statements.clear()
        assert world.owner.get(path).status_code == 200
        counts.append(len(statements))
        with world.app.app_context():
            event_id = world.events["published"]
            db.session.add_all([Faq(question="q", answer="a", event_id=event_id) for _ in range(2)])
            db.session.commit()

    assert counts[0] == counts[1] > 0


def test_more_than_can_be_included_is_said_so(world: World) -> None:
    with world.app.app_context():
        event_id = world.events["published"]
        db.session.add_all([Faq(question="q", answer="a", event_id=event_id) for _ in range(2001)])
        db.session.commit()

    answer = world.owner.get(f"/v1/events/{world.events['published']}?include=faqs")

    assert answer.status_code == 400
    assert answer.get_json()["errors"][0]["source"] == {"parameter": "include"}


@pytest.mark.parametrize(
    "sort", ["", "name", "-name", "logo-url", "-logo-url,name", "event.name", "-event.name,position"]
)
def test_cursors_walk_a_whole_list_both_ways(world: World, sort: str) -> None:
    kind = "faqs" if "event" in sort or not sort else "events"
    path = f"/v1/{kind}?page[size]=1" + (f"&sort={sort}" if sort else "")
    expected = ids(world.owner.get(path.replace("size]=1", "size]=100")))
    first = world.owner.get(path, Accept=f'{JSONAPI}; profile="{PROFILE}"')

    forwards, page = list(data(first)), first.get_json(force=True)
    while page["links"]["next"]:
        page = world.owner.get(page["links"]["next"]).get_json(force=True)
        forwards += page["data"]
    assert [int(item["id"]) for item in forwards] == expected
    assert PROFILE in first.content_type

    backwards = [page["data"][-1]]
    while page["links"]["prev"]:
        page = world.owner.get(page["links"]["prev"]).get_json(force=True)
        backwards += page["data"]
    assert [int(item["id"]) for item in reversed(backwards)] == expected


def test_a_page_between_two_cursors(world: World) -> None:
    listed = world.owner.get("/v1/events?sort=name", Accept=f'{JSONAPI}; profile="{PROFILE}"').get_json(force=True)
    cursors = [item["meta"]["page"]["cursor"] for item in listed["data"]]

    between = world.owner.get(f"/v1/events?sort=name&page[after]={cursors[0]}&page[before]={cursors[3]}")

    assert ids(between) == [int(item["id"]) for item in listed["data"][1:3]]


@pytest.mark.parametrize("cursor", ["", "x", "%25", "bnVsbA", "W10", "WyJ4Il0", "WzEsMiwzXQ", "W3RydWVd", "W251bGxd"])
def test_a_cursor_that_is_none(world: World, cursor: str) -> None:
    answer = world.owner.get(f"/v1/events?page[after]={cursor}")

    assert answer.status_code == 400
    assert answer.get_json(force=True)["errors"][0]["source"] == {"parameter": "page[after]"}


def test_a_page_has_a_number_or_a_cursor(world: World) -> None:
    assert world.owner.get("/v1/events?page[number]=1&page[after]=WzFd").status_code == 400


@pytest.fixture
def many(world: World) -> list[int]:
    """The ids of 150 FAQs of one event, the newest first."""
    with world.app.app_context():
        rows = [Faq(question=f"{number}", answer="b", event_id=world.events["published"]) for number in range(150)]
        db.session.add_all(rows)
        db.session.commit()
        return sorted((row.id for row in rows), reverse=True)


def named(spelling: str, chosen: list[int]) -> str:
    """The query that names resources by their ids, in one of the spellings."""
    text = ",".join(map(str, chosen))
    term = [{"name": "id", "op": "in", "val": [str(each) for each in chosen]}]
    return {"short": f"filter[id]={text}", "operator": f"filter[id][in]={text}"}.get(
        spelling, f"filter={quote(json.dumps(term))}"
    )


@pytest.mark.parametrize("spelling", ["short", "operator", "list"])
@pytest.mark.parametrize("count", [1, 20, 21, 40, 100])
def test_resources_named_by_id_come_on_one_page(world: World, many: list[int], spelling: str, count: int) -> None:
    chosen = many[:count]

    document = world.anonymous.get(f"/v1/faqs?{named(spelling, chosen)}").get_json(force=True)

    assert sorted(int(item["id"]) for item in document["data"]) == sorted(chosen)
    assert document["meta"]["count"] == count
    assert (document["links"]["next"], document["links"]["prev"]) == (None, None)


def test_resources_named_by_id_beyond_a_page_come_page_by_page(world: World, many: list[int]) -> None:
    first = world.anonymous.get(f"/v1/faqs?{named('short', many)}").get_json(force=True)
    second = world.anonymous.get(first["links"]["next"]).get_json(force=True)

    assert [len(page["data"]) for page in (first, second)] == [100, 50]
    assert {int(item["id"]) for page in (first, second) for item in page["data"]} == set(many)
    assert (second["links"]["next"], first["meta"]["count"]) == (None, 150)
    assert first["links"]["last"] == first["links"]["next"]


def test_resources_named_by_id_come_on_one_page_by_cursor(world: World, many: list[int]) -> None:
    chosen = many[:40]
    accept = f'{JSONAPI}; profile="{PROFILE}"'

    document = world.anonymous.get(f"/v1/faqs?{named('short', chosen)}", Accept=accept).get_json(force=True)

    assert {int(item["id"]) for item in document["data"]} == set(chosen)
    assert document["links"]["next"] is None


def test_resources_named_by_id_with_a_page_size_come_in_that_size(world: World, many: list[int]) -> None:
    document = world.anonymous.get(f"/v1/faqs?{named('short', many[:40])}&page[size]=30").get_json(force=True)

    assert len(document["data"]) == 30
    assert document["links"]["next"]


def test_ids_that_do_not_narrow_the_list_leave_the_default_page(world: World, many: list[int]) -> None:
    term = [{"not": {"name": "id", "op": "in", "val": [str(each) for each in many[:40]]}}]

    document = world.anonymous.get(f"/v1/faqs?filter={quote(json.dumps(term))}").get_json(force=True)

    assert len(document["data"]) == 20
    assert world.anonymous.get(f"/v1/faqs?filter[id]={','.join(['1'] * 1001)}").status_code == 400
