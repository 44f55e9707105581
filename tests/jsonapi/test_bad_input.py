"""Invalid requests: an error with its source, nothing stored, never a 500."""

import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from marshmallow import ValidationError

from app.errors import MAX_ERRORS
from app.events.models import Event
from app.faqs.models import Faq
from app.jsonapi.document_parser import parse_create
from app.jsonapi.json_parsing import MAX_CONTAINERS, _load_json, parse_json
from app.jsonapi.resource_type import TYPES
from tests.dataset import JSONAPI, Dataset, get_data, get_errors, get_ids, get_pointers

DEEP = "[" * 5000 + "]" * 5000
DEEP_OBJECT = '{"data":' * 40 + "1" + "}" * 40


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        ("null", 400),
        ('"a"', 400),
        ("1", 400),
        ('{"data":null}', 400),
        ('{"data":[]}', 400),
        ('{"data":"a"}', 400),
        ('{"data":[1]}', 400),
        ('{"data":{}}', 422),
        ('{"data":{"type":null}}', 422),
        ('{"data":{"type":["event"]}}', 422),
        ('{"data":{"type":"user"}}', 409),
        ('{"data":{"type":"event","id":"1"}}', 403),
        ('{"data":{"type":"event","attributes":null}}', 400),
        ('{"data":{"type":"event","attributes":[]}}', 400),
        ('{"data":{"type":"event","relationships":null}}', 400),
        ('{"data":{"type":"event","relationships":{"owner":null}}}', 400),
        ('{"data":{"type":"event","relationships":{"owner":{}}}}', 422),
        ('{"data":{"type":"event","relationships":{"owner":{"data":"1"}}}}', 400),
        ('{"data":{"type":"event","relationships":{"owner":{"data":[]}}}}', 400),
        ('{"data":{"type":"event","relationships":{"organizers":{"data":null}}}}', 400),
        ('{"data":{"type":"event","relationships":{"unknown":{"data":null}}}}', 422),
        ('{"data":{"type":"event","relationships":{"owner":{"data":{"type":"event","id":"1"}}}}}', 409),
        ('{"data":{"type":"event","relationships":{"owner":{"data":{"type":"user","id":"abc"}}}}}', 422),
        ('{"data":{"type":"event","relationships":{"owner":{"data":{"type":"user","id":-1}}}}}', 422),
        ('{"data":{"type":"event","attributes":{"name":NaN}}}', 400),
        ('{"data":{"type":"event","attributes":{"latitude":1e400}}}', 400),
        ('{"data":{"type":"event","attributes":{"latitude":' + "9" * 400 + "}}}", 400),
        ('{"data":{"type":"event","attributes":{"latitude":' + "9" * 5000 + "}}}", 400),
        (DEEP, 400),
        (DEEP_OBJECT, 400),
        (b"\xff\xfe", 400),
        (b'{"data": "\xff"}', 400),
    ],
)
def test_a_document_of_the_wrong_shape(dataset: Dataset, body: Any, status: int) -> None:
    before = dataset.count_rows(Event)

    answer = dataset.owner.send("POST", "/v1/events", body)

    assert answer.status_code == status, answer.text
    assert answer.content_type == JSONAPI
    assert get_errors(answer)[0]["status"] == str(status)
    assert dataset.count_rows(Event) == before


VALID_ATTRIBUTES = {
    "name": "Conference",
    "timezone": "Europe/Berlin",
    "starts-at": "2030-05-01T10:00:00+02:00",
    "ends-at": "2030-05-02T10:00:00+02:00",
}


@pytest.mark.parametrize(
    ("attributes", "pointer"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"name": "   "}, "name"),
        ({"name": 5}, "name"),
        ({"name": ["a"]}, "name"),
        ({"name": {"a": 1}}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": None}, "timezone"),
        ({"timezone": "../../etc/passwd"}, "timezone"),
        ({"starts-at": "tomorrow"}, "starts-at"),
        ({"starts-at": "2030-05-01T10:00:00"}, "starts-at"),
        ({"starts-at": "0000-05-01T10:00:00Z"}, "starts-at"),
        ({"starts-at": "0001-01-01T00:00:00+14:00"}, "starts-at"),
        ({"starts-at": "0001-01-01T00:00:00Z", "ends-at": "0001-01-02T00:00:00Z"}, "starts-at"),
        ({"description": "&" * 20_000}, "description"),
        ({"ends-at": "9999-12-31T23:59:59-14:00"}, "ends-at"),
        ({"starts-at": 5}, "starts-at"),
        ({"ends-at": "2030-04-30T10:00:00+02:00"}, "ends-at"),
        ({"ends-at": "2030-05-01T10:00:00+02:00"}, "ends-at"),
        ({"ends-at": "2030-05-22T10:00:00+02:00"}, "ends-at"),
        ({"state": "cancelled"}, "state"),
        ({"state": None}, "state"),
        ({"state": "published", "starts-at": None}, "starts-at"),
        ({"privacy": "secret"}, "privacy"),
        ({"latitude": 91}, "latitude"),
        ({"longitude": "-181"}, "longitude"),
        ({"latitude": True}, "latitude"),
        ({"latitude": "NaN"}, "latitude"),
        ({"logo-url": "javascript:alert(1)"}, "logo-url"),
        ({"logo-url": "http://"}, "logo-url"),
        ({"logo-url": "http://[::1"}, "logo-url"),
        ({"logo-url": "https://a b"}, "logo-url"),
        ({"logo-url": "https://a/" + "x" * 3000}, "logo-url"),
        ({"online": "perhaps"}, "online"),
        ({"online": None}, "online"),
        ({"online": 2}, "online"),
        ({"online": [True]}, "online"),
        ({"paypal-email": "unknown"}, "paypal-email"),
        ({"public-stream-link": "javascript:alert(1)"}, "public-stream-link"),
        ({"public-stream-link": "data:text/html,x"}, "public-stream-link"),
        ({"public-stream-link": "www.example.com"}, "public-stream-link"),
        ({"document-links": {"name": "a"}}, "document-links"),
        ({"document-links": [{"name": "a", "link": "javascript:1"}]}, "document-links"),
        ({"name": "a\x00b"}, "name"),
        ({"no-such": 1}, "no-such"),
        ({"id": "5"}, "id"),
        ({"type": "x"}, "type"),
        ({"owner-id": 5}, "owner-id"),
        ({"__class__": 5}, "__class__"),
        ({"starts-at": VALID_ATTRIBUTES["starts-at"], "starts_at": VALID_ATTRIBUTES["starts-at"]}, "starts_at"),
    ],
)
def test_an_attribute_that_is_not_valid(dataset: Dataset, attributes: dict[str, Any], pointer: str) -> None:
    before = dataset.count_rows(Event)

    answer = dataset.owner.create("/v1/events", "event", {**VALID_ATTRIBUTES, **attributes})

    assert answer.status_code == 422, answer.text
    assert f"/data/attributes/{pointer}" in get_pointers(answer)
    assert dataset.count_rows(Event) == before


def test_a_look_at_a_large_body_takes_no_more_room_than_the_body() -> None:
    body = b"[" + b",".join([b"0"] * 2**20) + b"]"
    tracemalloc.start()

    parse_json(body)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 48 * 2**20  # the list itself takes 32 while it grows


@pytest.mark.parametrize("number", [2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**300])
def test_a_number_means_the_same_to_both_parsers(number: int) -> None:
    (alone,) = _load_json(b"[%d]" % number)
    beside_what_orjson_refuses, _ = _load_json(b'[%d, "\\ud800"]' % number)

    assert repr(beside_what_orjson_refuses) == repr(alone)


def test_a_lone_surrogate_is_no_text(dataset: Dataset) -> None:
    body = '{"data":{"type":"event","attributes":{"name":"\\ud800","timezone":"UTC"}}}'

    answer = dataset.owner.send("POST", "/v1/events", body)

    assert (answer.status_code, get_pointers(answer)) == (422, {"/data/attributes/name"})


def test_every_error_of_a_document_comes_at_once(dataset: Dataset) -> None:
    sent = {"name": "", "latitude": 100, "timezone": "Nowhere", "un/known~": 1}

    answer = dataset.owner.create("/v1/events", "event", sent)

    names = ("name", "latitude", "timezone")
    assert get_pointers(answer) == {"/data/attributes/un~1known~0", *(f"/data/attributes/{name}" for name in names)}
    assert {*names} < {error["meta"]["attribute"] for error in get_errors(answer)}
    assert len({error["id"] for error in get_errors(answer)}) == 4


def test_a_faq_without_an_event(dataset: Dataset) -> None:
    answer = dataset.owner.create("/v1/faqs", "faq", {"question": "Who?", "answer": "We"})

    assert (answer.status_code, get_pointers(answer)) == (422, {"/data/relationships/event"})


@pytest.mark.parametrize("event", [10**6, 10**12, "9" * 40])
def test_a_related_resource_that_is_not_there(dataset: Dataset, event: Any) -> None:
    answer = dataset.owner.create("/v1/faqs", "faq", {"question": "Who?", "answer": "We"}, event=event)

    assert (answer.status_code, get_pointers(answer)) == (404, {"/data/relationships/event/data"})


@pytest.mark.parametrize(
    "query",
    [
        "page[size]=0",
        "page[size]=-1",
        "page[size]=100000",
        "page[size]=abc",
        "page[size]=1,2",
        "page[size]=",
        "page[number]=0",
        "page[number]=1.5",
        "page[limit]=5",
        "page=5",
        "include=unknown",
        "include=name",
        "include=faqs.",
        "include=faqs,",
        "include=faqs.event.faqs.event",
        "include=owner,organizers,coorganizers,faqs,faq-types,faqs.event,faqs.faq-type",
        "include[faqs]=1",
        "sort=unknown",
        "sort=password",
        "sort=owner.password-hash",
        "sort=owner.email",
        "sort=faqs.question",
        "sort=faqs",
        "sort=document-links",
        "sort=,",
        "sort=--name",
        "sort=name.__class__",
        "fields[unknown]=name",
        "fields[event]=unknown",
        "fields[user]=password",
        "fields=name",
        "fields[event][x]=name",
        "filter=abc",
        "filter={}",
        "filter=[1]",
        "filter=[[]]",
        'filter=[{"name":"name"}]',
        'filter=[{"name":"name","op":"__class__","val":"x"}]',
        'filter=[{"name":"name","op":"op","val":"x"}]',
        'filter=[{"name":"name","op":"eq","field":"state"}]',
        'filter=[{"name":"owner","op":"has","val":{"name":"email","op":"like","val":"a%"}}]',
        'filter=[{"name":"owner","op":"has","val":{"name":"password_hash","op":"like","val":"a%"}}]',
        'filter=[{"name":"owner","op":"any","val":{"name":"details","op":"eq","val":"a"}}]',
        'filter=[{"name":"faqs","op":"has","val":{"name":"question","op":"eq","val":"a"}}]',
        'filter=[{"name":"starts-at","op":"ge","val":"yesterday"}]',
        'filter=[{"name":"online","op":"gt","val":true}]',
        'filter=[{"name":"latitude","op":"like","val":"1"}]',
        'filter=[{"name":"name","op":"in","val":"x"}]',
        'filter=[{"name":"name","op":"gt","val":null}]',
        'filter=[{"name":"name","op":"eq","val":5}]',
        'filter=[{"name":"name","op":"like","val":"x\\\\"}]',
        'filter=[{"or":{"name":"name"}}]',
        'filter=[{"not":[]}]',
        "filter=" + json.dumps([{"name": "name", "op": "eq", "val": "x"}] * 51),
        "filter=" + '[{"not":' * 6 + '{"name":"name","op":"eq","val":"x"}' + "}]" * 6,
        "filter=" + "[" * 2000 + "]" * 2000,
        'filter=[{"name":"name","op":"in","val":' + json.dumps(["x"] * 101) + "}]",
        "filter[password]=x",
        "filter[name][__class__]=x",
        "filter[id]=abc",
        "filter[id][like]=1",
        'filter=[{"name":"id","op":"ilike","val":"1"}]',
        "filter=" + json.dumps([{"name": "name", "op": "like", "val": "%x%"}] * 6),
        "filter[id]=" + "9" * 30,
        "filter[]=x",
        "filter[name][eq][x]=x",
        "filter[name]=a&filter[name]=b",
        "unknown=1",
        "get_trashed=perhaps",
        "foo[bar]=1",
        "sort=%zz",
        "sort=%ff",
        "sort=%00",
        "&".join(f"filter[{number}]=x" for number in range(200)),
        "filter[name]=" + "x" * 20_000,
    ],
)
def test_a_query_that_means_nothing_here(dataset: Dataset, query: str) -> None:
    answer = dataset.owner.get("/v1/events?" + quote(query, safe="=&%[],"))

    assert answer.status_code == 400, answer.text
    assert answer.content_type == JSONAPI
    assert "source" in get_errors(answer)[0] or get_errors(answer)[0]["code"] == "invalid-query"


def test_a_page_far_beyond_the_end_is_empty(dataset: Dataset) -> None:
    answer = dataset.owner.get("/v1/events?page[number]=1000000")

    assert (answer.status_code, get_ids(answer)) == (200, [])


@pytest.mark.parametrize("id_", ["abc", "-1", "0", "1000000000000", "9" * 40, "1.5", "%00", "%ff", "1%27", "a" * 5000])
@pytest.mark.parametrize("kind", ["events", "faqs", "faq-types", "users"])
def test_an_id_that_names_nothing(dataset: Dataset, kind: str, id_: str) -> None:
    for method in ("GET", "DELETE"):
        assert dataset.admin.send(method, f"/v1/{kind}/{id_}").status_code == 404


def test_a_method_that_does_not_exist_names_those_that_do(dataset: Dataset) -> None:
    answer = dataset.owner.send("PUT", "/v1/events")

    assert answer.status_code == 405
    assert {"GET", "POST"} <= set(answer.headers["Allow"].split(", "))
    assert get_errors(answer)[0]["status"] == "405"


def test_post_and_delete_on_a_to_one_relationship_do_not_exist(dataset: Dataset) -> None:
    path = f"/v1/faqs/{dataset.faqs['published']}/relationships/faq-type"

    assert dataset.owner.send("POST", path, {"data": None}).status_code == 405
    assert dataset.owner.send("DELETE", path, {"data": None}).status_code == 405


def test_no_such_route_is_a_json_api_error(dataset: Dataset) -> None:
    answer = dataset.owner.get("/v1/nothing")

    assert (answer.status_code, answer.content_type, get_errors(answer)[0]["code"]) == (404, JSONAPI, "not-found")


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (JSONAPI, 201),
        ("application/json", 201),
        ("application/json; charset=utf-8", 201),
        (f"{JSONAPI}; profile=https://example.com/unknown", 201),
        (f"{JSONAPI}; charset=utf-8", 415),
        (f"{JSONAPI}; q=1", 415),
        (f'{JSONAPI}; ext="https://example.com/ext"', 415),
        ("text/plain", 415),
        ("", 415),
        ("application/x-www-form-urlencoded", 415),
    ],
)
def test_media_types_of_a_body(dataset: Dataset, content_type: str, status: int) -> None:
    document = {"data": {"type": "event", "attributes": {"name": "A", "timezone": "UTC"}}}

    assert dataset.owner.send("POST", "/v1/events", document, Content_Type=content_type).status_code == status


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("*/*", 200),
        ("text/html", 200),
        (JSONAPI, 200),
        (f"{JSONAPI};q=0.5", 200),
        (f"{JSONAPI}; profile=x", 200),
        (f"{JSONAPI}; charset=utf-8", 406),
        (f"{JSONAPI}; charset=utf-8, {JSONAPI}", 200),
        (f'{JSONAPI}; ext="https://example.com/ext"', 406),
    ],
)
def test_media_types_of_an_answer(dataset: Dataset, accept: str, status: int) -> None:
    assert dataset.owner.get("/v1/events", Accept=accept).status_code == status


def test_a_body_over_the_limit(dataset: Dataset) -> None:
    body = json.dumps({"data": {"type": "event", "attributes": {"description": "x" * 2**20}}})

    assert dataset.owner.send("POST", "/v1/events", body).status_code == 413


@pytest.mark.parametrize("path", ["/v1//events", "//v1/events", "/v1/events//", "/health-check//"])
def test_double_slashes_lead_nowhere(dataset: Dataset, path: str) -> None:
    answer = dataset.owner.get(path, Host="evil.example")

    assert (answer.status_code, answer.content_type) == (404, JSONAPI)


def test_links_do_not_follow_a_forged_host(dataset: Dataset) -> None:
    made = dataset.owner.send(
        "POST",
        "/v1/events",
        {"data": {"type": "event", "attributes": {"name": "A", "timezone": "UTC"}}},
        Host="evil.example",
    )

    assert "evil" not in made.headers["Location"] + made.text


def test_only_admins_see_the_trash(dataset: Dataset) -> None:
    path = f"/v1/faqs/{dataset.faqs['trashed']}?get_trashed=true"

    assert dataset.owner.get(path).status_code == 403
    assert get_data(dataset.admin.get(path))["id"] == str(dataset.faqs["trashed"])


def test_too_many_linkages_at_once(dataset: Dataset) -> None:
    many = {"data": [{"type": "user", "id": str(number)} for number in range(1, 102)]}
    path = f"/v1/events/{dataset.events['published']}/relationships/organizers"

    assert dataset.owner.send("POST", path, many).status_code == 422


def test_nothing_is_stored_when_a_faq_is_refused(dataset: Dataset) -> None:
    before = dataset.count_rows(Faq)

    dataset.owner.create("/v1/faqs", "faq", {"question": "", "answer": "x"}, event=dataset.events["published"])
    dataset.stranger.create("/v1/faqs", "faq", {"question": "a", "answer": "x"}, event=dataset.events["published"])

    assert dataset.count_rows(Faq) == before


@pytest.mark.parametrize(
    "query",
    [
        "fields[event]=name&fields[events]=state",
        "get_trashed[x]=true",
        'filter=[{"name":"latitude","op":"in","val":[null]}]',
    ],
)
def test_a_query_that_says_two_things_is_refused(dataset: Dataset, query: str) -> None:
    assert dataset.admin.get(f"/v1/events?{quote(query, safe='=&')}").status_code == 400


def test_a_lid_is_a_text(dataset: Dataset) -> None:
    document = {"data": {"type": "event", "lid": 5, "attributes": {"name": "x", "timezone": "UTC"}}}

    assert get_pointers(dataset.owner.send("POST", "/v1/events", document)) == {"/data/lid"}


def test_a_body_in_another_encoding_is_not_json(dataset: Dataset) -> None:
    document = json.dumps({"data": {"type": "event", "attributes": {"name": "x", "timezone": "UTC"}}})

    assert dataset.owner.send("POST", "/v1/events", document.encode("utf-16")).status_code == 400


def test_null_clears_a_relationship_that_leads_into_the_trash(dataset: Dataset) -> None:
    faq, faq_type = f"/v1/faqs/{dataset.faqs['published']}", f"/v1/faq-types/{dataset.types['published']}"
    dataset.owner.update(faq, "faq", {}, faq_type=dataset.types["published"])
    dataset.owner.delete(faq_type)

    assert dataset.owner.send("PATCH", f"{faq}/relationships/faq-type", {"data": None}).status_code == 200

    document = {"data": {"type": "faq-type", "id": str(dataset.types["published"]), "attributes": {"deleted-at": None}}}
    assert dataset.admin.send("PATCH", f"{faq_type}?get_trashed=true", document).status_code == 200
    assert get_data(dataset.owner.get(f"{faq}/relationships/faq-type")) is None


@pytest.mark.parametrize("value", ["javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x", "//example.com"])
def test_every_url_of_every_type_is_a_web_address(dataset: Dataset, value: str) -> None:
    """Clients turn attributes named URL or link into links."""
    taken = {
        (type_.name, each.key): each.field
        for type_ in TYPES.values()
        for each in type_.attributes.values()
        if each.name.endswith(("_url", "_link", "url", "link")) and not each.field.dump_only
    }

    assert {name for _type, name in taken} >= {"avatar-url", "logo-url", "public-stream-link", "external-event-url"}
    for field in taken.values():
        with pytest.raises(ValidationError):
            field.deserialize(value)


OPEN_BRACKETS = "{[ " * 6_000
"""A text of 18,000 characters."""


def test_braces_inside_of_texts_are_no_objects_and_arrays(dataset: Dataset) -> None:
    long = ("description", "owner-description", "code-of-conduct", "refund-policy", "after-order-message")
    attributes = {"name": 'A \\" quoted [ name', "timezone": "UTC"} | dict.fromkeys(long, OPEN_BRACKETS)
    assert json.dumps(attributes).count("{") + json.dumps(attributes).count("[") > MAX_CONTAINERS

    made = dataset.owner.create("/v1/events", "event", attributes)

    assert get_data(made)["attributes"]["description"].count("{[") == 6_000


@pytest.mark.parametrize(
    "body",
    [
        '{"data": [' + "[]," * MAX_CONTAINERS + "[]]}",
        '{"\\\\": [' + "{}," * MAX_CONTAINERS + '{}], "a": ""}',
        '{"\\"": [' + "{}," * MAX_CONTAINERS + "{}]}",
    ],
    ids=["arrays", "after an escaped backslash", "after an escaped quotation mark"],
)
def test_too_many_objects_and_arrays_outside_of_texts_are_refused(dataset: Dataset, body: str) -> None:
    answer = dataset.owner.send("POST", "/v1/events", body)

    assert (answer.status_code, get_errors(answer)[0]["code"]) == (400, "too-large")


def test_unknown_attributes_beyond_the_first_hundred_are_not_looked_for(
    dataset: Dataset, figure: Callable[[str], None]
) -> None:
    sent = {f"a{number}": 1 for number in range(80_000)}

    begun = time.thread_time()
    answer = dataset.owner.create("/v1/events", "event", sent)
    took = time.thread_time() - begun

    assert answer.status_code == 422
    assert len(get_errors(answer)) == MAX_ERRORS
    assert len(parse_create({"data": {"type": "event", "attributes": sent}}, TYPES["event"]).errors) == MAX_ERRORS
    figure(f"80,000 unknown attributes: {took * 1000:.0f} ms of the processor, with sending them")


def test_text_without_an_end_is_counted_once(dataset: Dataset) -> None:
    body = "[" * (MAX_CONTAINERS // 2) + '"' + '\\"' * 300_000 + "[" * MAX_CONTAINERS

    started = time.perf_counter()
    answer = dataset.owner.send("POST", "/v1/events", body)

    assert (answer.status_code, get_errors(answer)[0]["code"]) == (400, "invalid-json")
    assert time.perf_counter() - started < 5  # one pass: a search from each quotation mark took minutes
