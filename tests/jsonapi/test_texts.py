"""Texts of every resource: not blank where required, in NFC, with correct articles in sentences."""

import re
import unicodedata
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from app.events.permissions import list_types_of_events
from app.jsonapi.fields import Enum, Html, Text, Url
from app.jsonapi.resource_type import TYPES
from app.users.schemas import Email
from tests.dataset import Dataset, get_data, get_errors, get_ids, get_pointers
from tests.samples import sample_required_attributes

BLANK = ("", " ", "\u200b", "\u2060", "\ufeff", "\u00a0", "\u200b \u2060\u00ad", "\u3164", "\u2800", "\x07")
BLANK_HTML = (
    *BLANK,
    "<p></p>",
    "<p><br></p>",
    "&nbsp;",
    "<p>&nbsp;</p>",
    "<div>\u200b</div>",
    "&#8203;",
    "<ul><li></li></ul>",
)

DECOMPOSED, COMPOSED = "E\u0301cole d'e\u0301te\u0301", "\u00c9cole d'\u00e9t\u00e9"

REQUIRED = {
    "user": {"email": "new@example.com", "password": "correct horse"},
    "event": {"name": "A name", "timezone": "Europe/Berlin"},
    **{type_.name: sample_required_attributes(type_) for type_ in list_types_of_events()},
    "document-set": {"title": "A title"},
    "hook": {"kind": "sleep"},
    "job": {"kind": "sleep"},
    "treatment": {"task-type": "regions"},
}
"""Attributes with which a resource can be created."""


def _list_required_texts() -> Iterator[Any]:
    """Return all required text attributes that clients can write."""
    for type_ in TYPES.values():
        for attribute in type_.attributes.values():
            field = attribute.field
            if isinstance(field, Text) and field.required and not field.dump_only:
                yield pytest.param(type_.name, attribute.key, field, id=f"{type_.name}-{attribute.key}")


required_texts = list(_list_required_texts())


def test_required_texts_are_all_known() -> None:
    known = {(type_, key) for type_, attributes in REQUIRED.items() for key in attributes}

    assert {param.values[:2] for param in required_texts} <= known


@pytest.mark.parametrize(("type_name", "key", "field"), required_texts)
def test_required_text_that_shows_nothing_is_refused(dataset: Dataset, type_name: str, key: str, field: Text) -> None:
    plural = TYPES[type_name].plural
    related: dict[str, Any] = {"event": dataset.events["published"]} if type_name in dataset.belongings else {}
    if type_name == "treatment":
        related = {"document_set": dataset.get_background_ids()["document-set"]}
    for blank in BLANK_HTML if isinstance(field, Html) else BLANK:
        refused = dataset.owner.create(f"/v1/{plural}", type_name, {**REQUIRED[type_name], key: blank}, **related)

        assert (refused.status_code, get_pointers(refused)) == (422, {f"/data/attributes/{key}"}), repr(blank)
        if not isinstance(field, Email | Enum):
            assert "Must not be blank." in [error["detail"] for error in get_errors(refused)], repr(blank)


@pytest.mark.parametrize(
    ("path", "type_", "key"),
    [("/v1/faqs", "faq", "answer"), ("/v1/faqs", "faq", "question"), ("/v1/events", "event", "name")],
)
def test_required_text_is_not_emptied_later(dataset: Dataset, path: str, type_: str, key: str) -> None:
    rows = {"faq": dataset.faqs, "event": dataset.events}[type_]
    for blank in ("<p></p>", "&nbsp;") if key == "answer" else ("\u200b", " "):
        refused = dataset.owner.update(f"{path}/{rows['published']}", type_, {key: blank})

        assert (refused.status_code, get_pointers(refused)) == (422, {f"/data/attributes/{key}"})
        assert get_errors(refused)[0]["detail"] == "Must not be blank."


def test_blank_name_of_a_document_link_is_refused(dataset: Dataset) -> None:
    links = [{"name": "\u200b", "link": "https://example.com"}]

    refused = dataset.owner.update(f"/v1/events/{dataset.events['draft']}", "event", {"document-links": links})

    assert (refused.status_code, get_pointers(refused)) == (422, {"/data/attributes/document-links"})


def test_normal_form_decomposed_texts_are_stored_composed(dataset: Dataset) -> None:
    texts = {
        attribute.key: DECOMPOSED
        for attribute in TYPES["event"].attributes.values()
        if isinstance(attribute.field, Text)
        and not isinstance(attribute.field, Enum | Url | Email)
        and not attribute.field.dump_only
        and attribute.name != "timezone"
    }
    links = [{"name": DECOMPOSED, "link": "https://example.com/e\u0301"}]
    url = "https://example.com/e\u0301"
    attributes = {**texts, "timezone": "Europe/Berlin", "document-links": links, "ticket-url": url}

    made = get_data(dataset.owner.create("/v1/events", "event", attributes))["attributes"]

    assert {key: made[key] for key in texts} == dict.fromkeys(texts, COMPOSED)
    assert made["document-links"] == [{"name": COMPOSED, "link": url}]
    assert made["ticket-url"] == url


@pytest.mark.parametrize("spelled", [DECOMPOSED, COMPOSED])
@pytest.mark.parametrize("asked", [DECOMPOSED, COMPOSED])
def test_normal_form_filters_find_either_spelling(dataset: Dataset, spelled: str, asked: str) -> None:
    made = get_data(dataset.owner.create("/v1/events", "event", {"name": spelled, "timezone": "UTC"}))["id"]
    form = "NFD" if asked == DECOMPOSED else "NFC"
    start = unicodedata.normalize(form, "\u00e9col") + "%"

    for query in (
        f"filter[name]={quote(asked)}",
        f"filter[name][in]={quote(asked)},x",
        f"filter[name][ilike]={quote(start)}",
    ):
        assert get_ids(dataset.owner.get(f"/v1/events?{query}")) == [int(made)], query
    term = dataset.app.json.dumps([{"name": "name", "op": "ilike", "val": start}])
    assert get_ids(dataset.owner.get(f"/v1/events?filter={quote(term)}")) == [int(made)]


def test_normal_form_type_names_in_two_forms_are_one(dataset: Dataset) -> None:
    event = dataset.events["published"]
    assert dataset.owner.create("/v1/faq-types", "faq-type", {"name": "\u00dcn\u00ef"}, event=event).status_code == 201

    again = dataset.owner.create("/v1/faq-types", "faq-type", {"name": "u\u0308ni\u0308"}, event=event)

    assert (again.status_code, get_pointers(again)) == (409, {"/data/attributes/name"})


def test_normal_form_length_counts_after_composing(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}"

    assert dataset.owner.update(path, "event", {"name": "e\u0301" * 255}).status_code == 200
    assert dataset.owner.update(path, "event", {"name": "e\u0301" * 256}).status_code == 422
    assert dataset.owner.update(path, "event", {"description": "e\u0301" * 20_000}).status_code == 200


@pytest.mark.parametrize("key", ["name", "description"])
def test_normal_form_too_many_marks_are_refused(dataset: Dataset, key: str) -> None:
    refused = dataset.owner.update(f"/v1/events/{dataset.events['draft']}", "event", {key: "a" + "\u0301\u0316" * 100})

    assert (refused.status_code, get_pointers(refused)) == (422, {f"/data/attributes/{key}"})
    assert get_errors(refused)[0]["detail"] == "Must have at most 30 combining marks in a row."
    marks = quote("a" + "\u0301\u0316" * 20)
    asked = dataset.anonymous.get(f"/v1/events?filter[name]={marks}")
    assert (asked.status_code, get_errors(asked)[0]["source"]) == (400, {"parameter": "filter[name]"})


def test_sentences_need_no_article(dataset: Dataset) -> None:
    refused = [
        dataset.anonymous.get("/v1/events?fields[event]=x"),
        dataset.anonymous.get("/v1/events?include=x"),
        dataset.anonymous.get("/v1/events?sort=x"),
        dataset.anonymous.get("/v1/events?sort=x.y"),
        dataset.anonymous.get("/v1/events?filter[x]=1"),
        dataset.anonymous.get('/v1/events?filter=[{"name":"x","op":"has","val":{"name":"id","op":"eq","val":"1"}}]'),
        dataset.owner.create("/v1/events", "event", {"x": 1}),
        dataset.owner.create("/v1/events", "event", {"name": "x", "timezone": "UTC"}, faqs=["x"]),
        dataset.owner.send("POST", "/v1/events", {"data": {"type": "event", "relationships": {"x": {"data": None}}}}),
        dataset.owner.create("/v1/faqs", "faq", {}, event="x"),
    ]

    for answer in refused:
        for error in get_errors(answer):
            text = f"{error['title']} {error['detail']}"
            assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", text), text


@pytest.mark.parametrize(
    "url",
    [
        "http://user:pw@evil.example/",
        "https://example.com@evil.example/",
        "https://@evil.example/",
        "https://exam\u202eple.com/",  # right-to-left override
        "https://example.com/\u202egpj.exe",
        "https://example.com/\u2066a",
        "https://exa\u200bmple.com/",  # zero-width space
        "https://exa\u00admple.com/",  # soft hyphen
        "https://exa\u115fmple.com/",  # Hangul filler
        "https://example.com/\u0085",
    ],
)
def test_url_that_hides_where_it_leads_is_refused(dataset: Dataset, url: str) -> None:
    path = f"/v1/events/{dataset.events['draft']}"
    for attributes, name in (
        ({"ticket-url": url}, "ticket-url"),
        ({"document-links": [{"name": "A", "link": url}]}, "document-links"),
    ):
        answer = dataset.owner.update(path, "event", attributes)
        assert answer.status_code == 422
        assert get_pointers(answer) == {f"/data/attributes/{name}"}
        assert "without a user name or password" in get_errors(answer)[0]["detail"]


def test_url_with_letters_of_other_scripts_is_taken(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}"
    for url in ("https://müller.example/a@b?c=@", "https://例え.jp/\u200cن", "https://example.com:8080/~a%40"):
        assert get_data(dataset.owner.update(path, "event", {"ticket-url": url}))["attributes"]["ticket-url"] == url
