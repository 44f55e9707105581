"""JSON:API 1.1, "Fetching Data", "Query Parameters" and "Errors": each test is named after the statement it shows."""

from itertools import pairwise
from typing import Any

import pytest

from app.jsonapi.query import DETAIL, LIST, PAGED_LINKAGE, WRITE
from tests.jsonapi.conformance.crawl import data_of, failures, resources, rows, successes
from tests.world import Caller, World, data, ids

DEFINED = {"include", "sort", "fields", "filter", "page"}


def fetched(caller: Caller, path: str) -> dict[str, Any]:
    """The document of a GET that succeeds."""
    answer = caller.get(path)
    assert answer.status_code == 200, (path, answer.text)
    document: dict[str, Any] = answer.get_json(force=True)
    return document


def test_fetch_url_support(world: World) -> None:
    links = {f"/v1/{kind}" for kind in rows(world)}
    for resource in resources(world, live=True):
        links |= {resource["links"]["self"]} if "links" in resource else set()
        links |= {each["links"]["related"] for each in resource.get("relationships", {}).values()}

    assert len(links) > 20
    assert {world.admin.get(link).status_code for link in links} == {200}


def test_fetch_response_code(world: World) -> None:
    assert {answer.status_code for answer in successes(world)} == {200}


def test_fetch_primary_data_collection(world: World) -> None:
    assert all(isinstance(fetched(world.admin, f"/v1/{kind}")["data"], list) for kind in rows(world))
    assert fetched(world.admin, f"/v1/users/{world.stranger.id}/events")["data"] == []


def test_fetch_primary_data_single(world: World) -> None:
    path = f"/v1/faqs/{world.faqs['draft']}"
    one = fetched(world.owner, f"{path}/faq-type")
    world.owner.send("PATCH", f"{path}/relationships/faq-type", {"data": None})

    assert one["data"]["id"] == str(world.types["draft"])
    assert fetched(world.owner, f"{path}/faq-type")["data"] is None


def test_fetch_responses_404(world: World) -> None:
    for kind in rows(world):
        assert world.admin.get(f"/v1/{kind}/999999999").status_code == 404
    assert world.admin.get("/v1/faqs/999999999/faq-type").status_code == 404


def test_fetch_responses_http_semantics(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}"
    get, head = world.owner.get(path), world.owner.send("HEAD", path)
    options = world.owner.send("OPTIONS", path)

    assert (head.status_code, head.data, head.headers["ETag"]) == (200, b"", get.headers["ETag"])
    assert {"GET", "HEAD", "PATCH", "DELETE"} <= set(options.headers["Allow"].split(", "))
    assert world.owner.get(path, If_None_Match=get.headers["ETag"]).status_code == 304
    assert "WWW-Authenticate" in world.anonymous.delete(path).headers
    assert "Allow" in world.owner.send("PUT", path).headers


def test_fetch_relationships(world: World) -> None:
    for resource in resources(world, live=True):
        for relationship in resource.get("relationships", {}).values():
            assert world.admin.get(relationship["links"]["self"]).status_code == 200


def test_fetch_relationships_response_200(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}/relationships"

    assert {world.owner.get(f"{path}/{name}").status_code for name in ("owner", "organizers", "faqs")} == {200}


def test_fetch_relationships_response_200_primary_data(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}"
    relationships = data_of(world.owner, f"{path}?include=owner,organizers,faqs")["relationships"]

    for name in ("owner", "organizers", "faqs"):
        document = fetched(world.owner, f"{path}/relationships/{name}")
        assert document["data"] == relationships[name]["data"]
        assert relationships[name]["links"].items() <= document["links"].items()


def test_fetch_relationships_response_404(world: World) -> None:
    assert world.admin.get("/v1/events/999999999/relationships/owner").status_code == 404
    assert world.admin.get(f"/v1/events/{world.events['draft']}/relationships/nobody").status_code == 404


def test_fetch_relationships_response_exists_empty(world: World) -> None:
    path = f"/v1/faqs/{world.faqs['draft']}/relationships/faq-type"
    world.owner.send("PATCH", path, {"data": None})

    assert fetched(world.owner, path)["data"] is None
    assert fetched(world.owner, f"/v1/events/{world.events['others']}/relationships/organizers")["data"] == []


def test_fetch_relationships_http_semantics(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}/relationships/faqs"
    tag = world.owner.get(path).headers["ETag"]

    assert world.owner.get(path, If_None_Match=tag).status_code == 304
    assert world.owner.send("HEAD", path).headers["ETag"] == tag


def test_inclusion_unsupported_endpoint(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}"

    assert world.owner.get(f"{path}/relationships/faqs?include=faqs").status_code == 400
    assert world.owner.send("DELETE", f"{path}?include=faqs").status_code == 400


def test_inclusion_is_compound(world: World) -> None:
    """A document with an empty `included`, when nothing is related."""
    path = f"/v1/faqs/{world.faqs['draft']}"
    world.owner.send("PATCH", f"{path}/relationships/faq-type", {"data": None})

    assert fetched(world.owner, f"{path}?include=faq-type")["included"] == []
    assert fetched(world.owner, f"{path}/faq-type?include=event")["included"] == []
    assert fetched(world.owner, "/v1/events?filter[name]=nothing&include=faqs")["included"] == []


def test_inclusion_unrequested(world: World) -> None:
    included = fetched(world.owner, f"/v1/events/{world.events['draft']}?include=faqs")["included"]

    assert {item["type"] for item in included} == {"faq"}
    assert "included" not in fetched(world.owner, "/v1/events")


def test_inclusion_include_parameter_value(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}"

    both = fetched(world.owner, f"{path}?include=faqs.faq-type,owner")["included"]

    assert {item["type"] for item in both} == {"faq", "faq-type", "user"}
    assert world.owner.get(f"{path}?include=faqs;organizers").status_code == 400


@pytest.mark.parametrize("include", ["nobody", "name", "faqs.nobody", "faqs..event", ".", "faqs.event.faqs.event"])
def test_inclusion_bad_request(world: World, include: str) -> None:
    assert world.owner.get(f"/v1/events?include={include}").status_code == 400


def test_sparse_fieldsets_parameter_value(world: World) -> None:
    (first, *_) = fetched(world.owner, "/v1/events?fields[event]=name,faqs")["data"]

    assert (first["attributes"].keys(), first["relationships"].keys()) == ({"name"}, {"faqs"})
    assert world.owner.get("/v1/events?fields[event]=name;faqs").status_code == 400


def test_sparse_fieldsets_additional_fields(world: World) -> None:
    sparse = "fields[event]=name&fields[faq]=&fields[faq-type]=faqs"
    document = fetched(world.owner, f"/v1/faqs?include=event,faq-type&{sparse}")

    kept = {"event": ({"name"}, set()), "faq": (set(), set()), "faq-type": (set(), {"faqs"})}
    for item in (*document["data"], *document["included"]):
        assert (set(item.get("attributes", {})), set(item.get("relationships", {}))) == kept[item["type"]]


def test_sorting_parameter_value(world: World) -> None:
    assert ids(world.owner.get("/v1/events?sort=id")) == sorted(ids(world.owner.get("/v1/events")))


def test_sorting_multiple_fields(world: World) -> None:
    listed = data(world.owner.get("/v1/events?sort=state,-name"))

    keys = [(item["attributes"]["state"], item["attributes"]["name"]) for item in listed]
    assert [state for state, _name in keys] == ["draft", "published", "published", "published"]
    assert [name for _state, name in keys[1:]] == sorted((name for _state, name in keys[1:]), reverse=True)


def test_sorting_order(world: World) -> None:
    up = [item["attributes"]["name"] for item in data(world.owner.get("/v1/events?sort=name"))]
    down = [item["attributes"]["name"] for item in data(world.owner.get("/v1/events?sort=-name"))]

    assert up == sorted(up)
    assert down == up[::-1]


@pytest.mark.parametrize("path", ["events?sort=nobody", "events?sort=faqs", "events?sort=faqs.id", "events/1?sort=id"])
def test_sorting_not_supported(world: World, path: str) -> None:
    assert world.owner.get(f"/v1/{path}").status_code == 400


def test_sorting_specified_order(world: World) -> None:
    listed = data(world.owner.get("/v1/faqs?sort=-event.name&include=event"))

    names = {id_: name for name, id_ in world.faqs.items()}
    assert [names[int(item["id"])] for item in listed] == ["published", "private", "others", "draft"]


def pages(caller: Caller, path: str) -> list[dict[str, Any]]:
    """The documents of all pages, by their `next` links."""
    found = [fetched(caller, path)]
    while found[-1]["links"]["next"]:
        found.append(fetched(caller, found[-1]["links"]["next"]))
    return found


def test_pagination_links_object(world: World) -> None:
    assert fetched(world.owner, "/v1/events?page[size]=2")["links"]["next"]
    assert fetched(world.owner, f"/v1/events/{world.events['draft']}/organizers?page[size]=1")["links"]["self"]


def test_pagination_relationship_links_page_the_linkage(world: World) -> None:
    path = f"/v1/events/{world.events['draft']}/relationships/organizers"
    members = [{"type": "user", "id": str(each.id)} for each in (world.organizer, world.stranger, world.other)]
    world.owner.send("PATCH", path, {"data": members})

    for query in ("?page[size]=2", f"?page[size]=2&page[after]={first_cursor(world, path)}"):
        for page in pages(world.owner, path + query):
            assert all(item.keys() <= {"type", "id", "meta"} for item in page["data"])
            assert page["links"]["related"] == path.replace("/relationships", "")
    assert [len(page["data"]) for page in pages(world.owner, f"{path}?page[size]=2")] == [2, 1]


def first_cursor(world: World, path: str) -> str:
    """The cursor of the first item of a list."""
    profile = 'application/vnd.api+json; profile="https://jsonapi.org/profiles/ethanresnick/cursor-pagination"'
    (item, *_) = world.owner.get(path, Accept=profile).get_json(force=True)["data"]
    cursor: str = item["meta"]["page"]["cursor"]
    return cursor


def test_pagination_keys(world: World) -> None:
    links = fetched(world.owner, "/v1/events?page[size]=1&page[number]=2")["links"]

    at = {name: ids(world.owner.get(links[name])) for name in ("first", "prev", "self", "next", "last")}
    everything = ids(world.owner.get("/v1/events"))
    assert at == {
        "first": everything[:1],
        "prev": everything[:1],
        "self": everything[1:2],
        "next": everything[2:3],
        "last": everything[-1:],
    }


def test_pagination_unavailable_link(world: World) -> None:
    links = fetched(world.owner, "/v1/events")["links"]

    assert (links["prev"], links["next"]) == (None, None)


def test_pagination_order(world: World) -> None:
    names = [page["data"][0]["attributes"]["name"] for page in pages(world.owner, "/v1/events?sort=-name&page[size]=1")]

    assert all(one > other for one, other in pairwise(names))


def test_query_parameters_non_alpha() -> None:
    ours = (LIST | DETAIL | PAGED_LINKAGE | WRITE) - DEFINED

    assert ours == {"get_trashed"}
    assert all(not name.isalpha() for name in ours)


@pytest.mark.parametrize("parameter", ["nobody=1", "foo[bar]=1", "camelCase=1", "profile=x", "filter[_]=1", "page[]=1"])
def test_query_parameters_bad_request(world: World, parameter: str) -> None:
    assert world.owner.get(f"/v1/events?{parameter}").status_code == 400


def test_query_parameters_square_brackets(world: World) -> None:
    plain, encoded = (world.owner.get(f"/v1/events?page{size}=1") for size in ("[size]", "%5Bsize%5D"))

    assert ids(plain) == ids(encoded)
    assert len(ids(plain)) == 1


def test_query_parameters_are_form_urlencoded(world: World) -> None:
    expected = [world.events["draft"]]

    for value in ("draft+event", "draft%20event", "%64raft+event"):
        assert ids(world.owner.get(f"/v1/events?filter[name]={value}")) == expected


def test_error_object_key(world: World) -> None:
    for answer in failures(world):
        listed = answer.get_json(force=True)["errors"]
        assert isinstance(listed, list)
        assert listed


def test_error_object_members(world: World) -> None:
    """At least one of the members; here always the same five."""
    for answer in failures(world):
        for error in answer.get_json(force=True)["errors"]:
            assert {"id", "status", "code", "title", "detail"} <= error.keys()
