"""Errors of query strings name the parameter as sent, on reads, writes and routes of plain JSON."""

import json
from typing import Any
from urllib.parse import quote, unquote_plus

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg.errors import NumericValueOutOfRange, QueryCanceled
from sqlalchemy.exc import DataError, OperationalError

from app.jsonapi.query_params import MAX_PARAMETERS, MAX_QUERY_BYTES
from tests.dataset import Dataset, build_resource, get_errors
from tests.jsonapi.strategies import ODD_TEXT

NAMES = [
    *("include", "sort", "fields", "fields[event]", "fields[faq]", "fields[nothing]", "fields[event][x]"),
    *("filter", "filter[name]", "filter[id]", "filter[starts-at][ge]", "filter[name][nothing]", "filter[", "filter[x]"),
    *("page", "page[size]", "page[number]", "page[after]", "page[before]", "page[nothing]", "get_trashed"),
    *("nothing", "Nothing", "my-own", "a[b]", "\u00e9", "\x00", "x" * 300, "lastEventId", "token"),
]
DEEP = "[" * 60 + "]" * 60
VALUES = [*(text for text in ODD_TEXT if text != "\ud800"), DEEP, "[" * 60, '[{"name": "name", "op": "eq", "val": 1}]']
RAW = ["%", "%zz", "%ff", "%ed%a0%80", "%00", "a%00b", "\u00e9".encode().decode("latin-1")]


def encode_parameter(name: str, value: str) -> str:
    """Return a parameter, percent-encoded."""
    return f"{quote(name, safe='[]')}={quote(value, safe='')}"


encoded = st.builds(encode_parameter, st.sampled_from(NAMES), st.sampled_from(VALUES) | st.text(max_size=10))
raw = st.builds("{}={}".format, st.sampled_from(["include", "page[after]", "filter[name]", "x"]), st.sampled_from(RAW))
broken_name = st.sampled_from(["%zz=1", "%ff", "filter[%ff]=1", "%00=1", "=1", "=", "&&a"])
queries = st.lists(encoded | raw | broken_name, min_size=1, max_size=3).map("&".join)


def list_parameter_names(query: str) -> set[str]:
    """Return the names of the parameters that can be decoded."""
    pairs = [part for part in query.split("&") if part]
    return {unquote_plus(part.partition("=")[0].encode("latin-1").decode(errors="replace")) for part in pairs}


def build_requests(dataset: Dataset) -> list[tuple[str, str, Any]]:
    """Return a valid request to a route of each kind."""
    event, faq = dataset.events["published"], dataset.faqs["published"]
    job = dataset.get_background_ids()["job"]
    linkage = {"data": [{"type": "user", "id": str(dataset.organizer.id)}]}
    new = {"data": build_resource("faq", None, {"question": "a", "answer": "b"}, {"event": event})}
    return [
        *(("GET", path, None) for path in ("/v1/events", f"/v1/events/{event}/faqs", f"/v1/events/{event}")),
        *(("GET", f"/v1/faqs/{faq}{rest}", None) for rest in ("/event", "/relationships/event")),
        *(("GET", path, None) for path in (f"/v1/events/{event}/relationships/faqs", "/v1/job-kinds", "/v1/jobs")),
        ("GET", f"/v1/jobs/{job}/progress", None),
        ("GET", f"/v1/jobs/{job}/artifacts", None),
        ("POST", "/v1/faqs", new),
        ("PATCH", f"/v1/faqs/{faq}", {"data": build_resource("faq", str(faq), {"answer": "c"}, {})}),
        ("PATCH", f"/v1/events/{event}/relationships/organizers", linkage),
        ("POST", f"/v1/events/{event}/relationships/organizers", linkage),
        ("DELETE", f"/v1/events/{event}/relationships/organizers", {"data": []}),
        ("DELETE", f"/v1/faq-types/{dataset.types['published']}", None),
        ("POST", f"/v1/jobs/{job}/cancel", None),
        ("POST", "/v1/operations", {"atomic:operations": []}),
    ]


@settings(
    max_examples=150,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(query=queries, number=st.integers(0, 17), role=st.sampled_from(["owner", "admin"]))
@example(query="include=%00", number=0, role="owner")
@example(query="page[after]=%00", number=0, role="owner")
@example(query=f"filter={DEEP}", number=0, role="owner")
@example(query="filter=%00", number=0, role="owner")
def test_refused_query_names_a_parameter_that_was_sent(dataset: Dataset, query: str, number: int, role: str) -> None:
    method, path, document = build_requests(dataset)[number]

    answer = dataset.callers[role].send(method, f"{path}?{query}", document)

    if answer.status_code == 400:
        for error in get_errors(answer):
            about = error.get("source") or {}
            if path == "/v1/operations" and about.keys() == {"header"}:
                continue  # the media type is checked after the query
            assert about.keys() == {"parameter"}, (method, path, query, error)
            assert about["parameter"] in list_parameter_names(query), (method, path, query, error)


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("nothing=1", "nothing"),
        ("sort=name", "sort"),
        ("include=%00", "include"),
        ("page[after]=%00", "page[after]"),
        ("filter=%00", "filter"),
        ("filter[name]=%zz", "filter[name]"),
        ("include=owner&include=owner", "include"),
        ("fields[nothing]=x", "fields[nothing]"),
        (f"include={'x' * MAX_QUERY_BYTES}&sort=name", "include"),
        ("&".join(f"p{number}=1" for number in range(MAX_PARAMETERS + 1)), f"p{MAX_PARAMETERS}"),
    ],
)
def test_refused_query_of_one_resource_names_the_parameter(
    dataset: Dataset, method: str, query: str, parameter: str
) -> None:
    path = f"/v1/faqs/{dataset.faqs['published']}"
    document = (
        {"data": build_resource("faq", path.rpartition("/")[2], {"answer": "c"}, {})} if method == "PATCH" else None
    )

    answer = dataset.owner.send(method, f"{path}?{query}", document)

    assert answer.status_code == 400
    assert [error["source"] for error in get_errors(answer)] == [{"parameter": parameter}]


@pytest.mark.parametrize("size", ["10", "0", "abc", ""])
@pytest.mark.parametrize("name", ["page[size]", "page[number]", "page[after]", "page[before]"])
def test_page_parameters_of_one_resource_are_ignored(dataset: Dataset, name: str, size: str) -> None:
    faq, event = dataset.faqs["published"], dataset.events["published"]
    query = f"{name}={size}"

    for path in (f"/v1/faqs/{faq}", f"/v1/events/{event}", f"/v1/faqs/{faq}/faq-type", f"/v1/events/{event}/owner"):
        asked, plain = dataset.owner.get(f"{path}?{query}"), dataset.owner.get(path)
        assert (asked.status_code, asked.json["data"]) == (200, plain.json["data"])  # type: ignore[index]  # a document
    assert dataset.owner.get(f"/v1/faqs/{faq}/relationships/faq-type?{query}").status_code == 200
    assert dataset.owner.update(f"/v1/faqs/{faq}?{query}", "faq", {"answer": "c"}).status_code == 200
    made = dataset.owner.create(f"/v1/faqs?{query}&include=event", "faq", {"question": "a", "answer": "b"}, event=event)
    assert made.status_code == 201


@pytest.mark.parametrize("path", ["/v1/events?page[size]=abc", "/v1/events?page[nothing]=1", "/v1/events?page=1"])
def test_page_parameters_of_a_list_are_checked(dataset: Dataset, path: str) -> None:
    assert dataset.owner.get(path).status_code == 400


@pytest.mark.parametrize("name", ["page[nothing]", "page", "page[size][x]"])
def test_unknown_page_parameter_of_one_resource_is_refused(dataset: Dataset, name: str) -> None:
    answer = dataset.owner.get(f"/v1/events/{dataset.events['published']}?{name}=1")

    assert (answer.status_code, get_errors(answer)[0]["source"]) == (400, {"parameter": name})


def test_page_parameters_of_written_linkage_are_refused(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}/relationships/organizers?page[size]=1"

    answer = dataset.owner.send("PATCH", path, {"data": []})

    assert (answer.status_code, get_errors(answer)[0]["source"]) == (400, {"parameter": "page[size]"})


@pytest.mark.parametrize("refusal", [QueryCanceled("takes too long"), NumericValueOutOfRange("is too large")])
@pytest.mark.parametrize(
    ("method", "query", "source"),
    [
        ("GET", "sort=name&filter[name][like]=x", {"parameter": "filter[name][like]"}),
        ("GET", "page[size]=5&sort=name", {"parameter": "sort"}),
        ("GET", "", None),
        ("PATCH", "include=owner", None),
    ],
)
def test_query_that_the_database_refuses_names_the_likeliest_parameter(
    dataset: Dataset, refusal: psycopg.Error, method: str, query: str, source: Any
) -> None:
    kind = OperationalError if isinstance(refusal, QueryCanceled) else DataError
    with dataset.app.test_request_context(f"/v1/events?{query}", method=method):
        answer = dataset.app.make_response(dataset.app.handle_user_exception(kind("SELECT", {}, refusal)))

    assert (answer.status_code, json.loads(answer.data)["errors"][0].get("source")) == (400, source)
