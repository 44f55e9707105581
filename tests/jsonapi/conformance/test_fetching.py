"""JSON:API 1.1, "Fetching Data", "Query Parameters" and "Errors": each test is named after a statement of it."""

from itertools import pairwise
from typing import Any

import pytest

from app.jsonapi.query_params import DETAIL_FAMILIES, LINKAGE_LIST_FAMILIES, LIST_FAMILIES, WRITE_FAMILIES
from tests.dataset import ApiClient, Dataset, get_data, get_ids
from tests.jsonapi.conformance.crawl import get_data_at, get_failures, get_row_ids, get_successes, list_resources

DEFINED_PARAMETERS = {"include", "sort", "fields", "filter", "page"}


def fetch_document(caller: ApiClient, path: str) -> dict[str, Any]:
    """Return the document of a GET that succeeds."""
    answer = caller.get(path)
    assert answer.status_code == 200, (path, answer.text)
    document: dict[str, Any] = answer.get_json(force=True)
    return document


def test_fetch_url_support(dataset: Dataset) -> None:
    links = {f"/v1/{kind}" for kind in get_row_ids(dataset)}
    for resource in list_resources(dataset, live=True):
        links |= {resource["links"]["self"]} if "links" in resource else set()
        links |= {each["links"]["related"] for each in resource.get("relationships", {}).values()}

    assert len(links) > 20
    assert {dataset.admin.get(link).status_code for link in links} == {200}


def test_fetch_response_code(dataset: Dataset) -> None:
    assert {answer.status_code for answer in get_successes(dataset)} == {200}


def test_fetch_primary_data_collection(dataset: Dataset) -> None:
    assert all(isinstance(fetch_document(dataset.admin, f"/v1/{kind}")["data"], list) for kind in get_row_ids(dataset))
    assert fetch_document(dataset.admin, f"/v1/users/{dataset.stranger.id}/events")["data"] == []


def test_fetch_primary_data_single(dataset: Dataset) -> None:
    path = f"/v1/faqs/{dataset.faqs['draft']}"
    one = fetch_document(dataset.owner, f"{path}/faq-type")
    dataset.owner.send("PATCH", f"{path}/relationships/faq-type", {"data": None})

    assert one["data"]["id"] == str(dataset.types["draft"])
    assert fetch_document(dataset.owner, f"{path}/faq-type")["data"] is None


def test_fetch_responses_404(dataset: Dataset) -> None:
    for kind in get_row_ids(dataset):
        assert dataset.admin.get(f"/v1/{kind}/999999999").status_code == 404
    assert dataset.admin.get("/v1/faqs/999999999/faq-type").status_code == 404


def test_fetch_responses_http_semantics(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}"
    get, head = dataset.owner.get(path), dataset.owner.send("HEAD", path)
    options = dataset.owner.send("OPTIONS", path)

    assert (head.status_code, head.data, head.headers["ETag"]) == (200, b"", get.headers["ETag"])
    assert {"GET", "HEAD", "PATCH", "DELETE"} <= set(options.headers["Allow"].split(", "))
    assert dataset.owner.get(path, If_None_Match=get.headers["ETag"]).status_code == 304
    assert "WWW-Authenticate" in dataset.anonymous.delete(path).headers
    assert "Allow" in dataset.owner.send("PUT", path).headers


def test_fetch_relationships(dataset: Dataset) -> None:
    for resource in list_resources(dataset, live=True):
        for relationship in resource.get("relationships", {}).values():
            assert dataset.admin.get(relationship["links"]["self"]).status_code == 200


def test_fetch_relationships_response_200(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}/relationships"

    assert {dataset.owner.get(f"{path}/{name}").status_code for name in ("owner", "organizers", "faqs")} == {200}


def test_fetch_relationships_response_200_primary_data(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}"
    relationships = get_data_at(dataset.owner, f"{path}?include=owner,organizers,faqs")["relationships"]

    for name in ("owner", "organizers", "faqs"):
        document = fetch_document(dataset.owner, f"{path}/relationships/{name}")
        assert document["data"] == relationships[name]["data"]
        assert relationships[name]["links"].items() <= document["links"].items()


def test_fetch_relationships_response_404(dataset: Dataset) -> None:
    assert dataset.admin.get("/v1/events/999999999/relationships/owner").status_code == 404
    assert dataset.admin.get(f"/v1/events/{dataset.events['draft']}/relationships/unknown").status_code == 404


def test_fetch_relationships_response_exists_empty(dataset: Dataset) -> None:
    path = f"/v1/faqs/{dataset.faqs['draft']}/relationships/faq-type"
    dataset.owner.send("PATCH", path, {"data": None})

    assert fetch_document(dataset.owner, path)["data"] is None
    assert (
        fetch_document(dataset.owner, f"/v1/events/{dataset.events['others']}/relationships/organizers")["data"] == []
    )


def test_fetch_relationships_http_semantics(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}/relationships/faqs"
    tag = dataset.owner.get(path).headers["ETag"]

    assert dataset.owner.get(path, If_None_Match=tag).status_code == 304
    assert dataset.owner.send("HEAD", path).headers["ETag"] == tag


def test_inclusion_unsupported_endpoint(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}"

    assert dataset.owner.get(f"{path}/relationships/faqs?include=faqs").status_code == 400
    assert dataset.owner.send("DELETE", f"{path}?include=faqs").status_code == 400


def test_inclusion_is_compound(dataset: Dataset) -> None:
    """A document without related resources has an empty `included`."""
    path = f"/v1/faqs/{dataset.faqs['draft']}"
    dataset.owner.send("PATCH", f"{path}/relationships/faq-type", {"data": None})

    assert fetch_document(dataset.owner, f"{path}?include=faq-type")["included"] == []
    assert fetch_document(dataset.owner, f"{path}/faq-type?include=event")["included"] == []
    assert fetch_document(dataset.owner, "/v1/events?filter[name]=nothing&include=faqs")["included"] == []


def test_inclusion_unrequested(dataset: Dataset) -> None:
    included = fetch_document(dataset.owner, f"/v1/events/{dataset.events['draft']}?include=faqs")["included"]

    assert {item["type"] for item in included} == {"faq"}
    assert "included" not in fetch_document(dataset.owner, "/v1/events")


def test_inclusion_include_parameter_value(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}"

    both = fetch_document(dataset.owner, f"{path}?include=faqs.faq-type,owner")["included"]

    assert {item["type"] for item in both} == {"faq", "faq-type", "user"}
    assert dataset.owner.get(f"{path}?include=faqs;organizers").status_code == 400


@pytest.mark.parametrize("include", ["unknown", "name", "faqs.unknown", "faqs..event", ".", "faqs.event.faqs.event"])
def test_inclusion_bad_request(dataset: Dataset, include: str) -> None:
    assert dataset.owner.get(f"/v1/events?include={include}").status_code == 400


def test_sparse_fieldsets_parameter_value(dataset: Dataset) -> None:
    (first, *_) = fetch_document(dataset.owner, "/v1/events?fields[event]=name,faqs")["data"]

    assert (first["attributes"].keys(), first["relationships"].keys()) == ({"name"}, {"faqs"})
    assert dataset.owner.get("/v1/events?fields[event]=name;faqs").status_code == 400


def test_sparse_fieldsets_additional_fields(dataset: Dataset) -> None:
    sparse = "fields[event]=name&fields[faq]=&fields[faq-type]=faqs"
    document = fetch_document(dataset.owner, f"/v1/faqs?include=event,faq-type&{sparse}")

    kept = {"event": ({"name"}, set()), "faq": (set(), set()), "faq-type": (set(), {"faqs"})}
    for item in (*document["data"], *document["included"]):
        assert (set(item.get("attributes", {})), set(item.get("relationships", {}))) == kept[item["type"]]


def test_sorting_parameter_value(dataset: Dataset) -> None:
    assert get_ids(dataset.owner.get("/v1/events?sort=id")) == sorted(get_ids(dataset.owner.get("/v1/events")))


def test_sorting_multiple_fields(dataset: Dataset) -> None:
    listed = get_data(dataset.owner.get("/v1/events?sort=state,-name"))

    keys = [(item["attributes"]["state"], item["attributes"]["name"]) for item in listed]
    assert [state for state, _name in keys] == ["draft", "published", "published", "published"]
    assert [name for _state, name in keys[1:]] == sorted((name for _state, name in keys[1:]), reverse=True)


def test_sorting_order(dataset: Dataset) -> None:
    up = [item["attributes"]["name"] for item in get_data(dataset.owner.get("/v1/events?sort=name"))]
    down = [item["attributes"]["name"] for item in get_data(dataset.owner.get("/v1/events?sort=-name"))]

    assert up == sorted(up)
    assert down == up[::-1]


@pytest.mark.parametrize("path", ["events?sort=unknown", "events?sort=faqs", "events?sort=faqs.id", "events/1?sort=id"])
def test_sorting_not_supported(dataset: Dataset, path: str) -> None:
    assert dataset.owner.get(f"/v1/{path}").status_code == 400


def test_sorting_specified_order(dataset: Dataset) -> None:
    listed = get_data(dataset.owner.get("/v1/faqs?sort=-event.name&include=event"))

    names = {id_: name for name, id_ in dataset.faqs.items()}
    assert [names[int(item["id"])] for item in listed] == ["published", "private", "others", "draft"]


def fetch_pages(caller: ApiClient, path: str) -> list[dict[str, Any]]:
    """Return the documents of all pages, by their `next` links."""
    found = [fetch_document(caller, path)]
    while found[-1]["links"]["next"]:
        found.append(fetch_document(caller, found[-1]["links"]["next"]))
    return found


def test_pagination_links_object(dataset: Dataset) -> None:
    assert fetch_document(dataset.owner, "/v1/events?page[size]=2")["links"]["next"]
    assert fetch_document(dataset.owner, f"/v1/events/{dataset.events['draft']}/organizers?page[size]=1")["links"][
        "self"
    ]


def test_pagination_relationship_links_page_the_linkage(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}/relationships/organizers"
    members = [{"type": "user", "id": str(each.id)} for each in (dataset.organizer, dataset.stranger, dataset.other)]
    dataset.owner.send("PATCH", path, {"data": members})

    for query in ("?page[size]=2", f"?page[size]=2&page[after]={get_first_cursor(dataset, path)}"):
        for page in fetch_pages(dataset.owner, path + query):
            assert all(item.keys() <= {"type", "id", "meta"} for item in page["data"])
            assert page["links"]["related"] == path.replace("/relationships", "")
    assert [len(page["data"]) for page in fetch_pages(dataset.owner, f"{path}?page[size]=2")] == [2, 1]


def get_first_cursor(dataset: Dataset, path: str) -> str:
    """Return the cursor of the first item of a list."""
    profile = 'application/vnd.api+json; profile="https://jsonapi.org/profiles/ethanresnick/cursor-pagination"'
    (item, *_) = dataset.owner.get(path, Accept=profile).get_json(force=True)["data"]
    cursor: str = item["meta"]["page"]["cursor"]
    return cursor


def test_pagination_keys(dataset: Dataset) -> None:
    links = fetch_document(dataset.owner, "/v1/events?page[size]=1&page[number]=2")["links"]

    at = {name: get_ids(dataset.owner.get(links[name])) for name in ("first", "prev", "self", "next", "last")}
    everything = get_ids(dataset.owner.get("/v1/events"))
    assert at == {
        "first": everything[:1],
        "prev": everything[:1],
        "self": everything[1:2],
        "next": everything[2:3],
        "last": everything[-1:],
    }


def test_pagination_unavailable_link(dataset: Dataset) -> None:
    links = fetch_document(dataset.owner, "/v1/events")["links"]

    assert (links["prev"], links["next"]) == (None, None)


def test_pagination_order(dataset: Dataset) -> None:
    names = [
        page["data"][0]["attributes"]["name"]
        for page in fetch_pages(dataset.owner, "/v1/events?sort=-name&page[size]=1")
    ]

    assert all(one > other for one, other in pairwise(names))


def test_query_parameters_non_alpha() -> None:
    ours = (LIST_FAMILIES | DETAIL_FAMILIES | LINKAGE_LIST_FAMILIES | WRITE_FAMILIES) - DEFINED_PARAMETERS

    assert ours == {"get_trashed"}
    assert all(not name.isalpha() for name in ours)


@pytest.mark.parametrize("parameter", ["other=1", "foo[bar]=1", "camelCase=1", "profile=x", "filter[_]=1", "page[]=1"])
def test_query_parameters_bad_request(dataset: Dataset, parameter: str) -> None:
    assert dataset.owner.get(f"/v1/events?{parameter}").status_code == 400


def test_query_parameters_square_brackets(dataset: Dataset) -> None:
    plain, encoded = (dataset.owner.get(f"/v1/events?page{size}=1") for size in ("[size]", "%5Bsize%5D"))

    assert get_ids(plain) == get_ids(encoded)
    assert len(get_ids(plain)) == 1


def test_query_parameters_are_form_urlencoded(dataset: Dataset) -> None:
    expected = [dataset.events["draft"]]

    for value in ("draft+event", "draft%20event", "%64raft+event"):
        assert get_ids(dataset.owner.get(f"/v1/events?filter[name]={value}")) == expected


def test_error_object_key(dataset: Dataset) -> None:
    for answer in get_failures(dataset):
        listed = answer.get_json(force=True)["errors"]
        assert isinstance(listed, list)
        assert listed


def test_error_object_members(dataset: Dataset) -> None:
    """An error has at least one of the members; here always the same five."""
    for answer in get_failures(dataset):
        for error in answer.get_json(force=True)["errors"]:
            assert {"id", "status", "code", "title", "detail"} <= error.keys()
