"""Treatments below /jobs, as far as HTTP goes: forms and what they refuse, and what the page of one shows."""

import html
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import UUID

import orjson
import psycopg
import pytest
from sqlalchemy import func, insert, select, update
from werkzeug.test import TestResponse

from app.database import commit, transaction
from app.documents.expansion import Document
from app.documents.models import SET_EVENTS, SET_FAQS, SET_UPLOADS, DocumentSet
from app.events.models import Event
from app.extensions import db
from app.images import uploads as intake
from app.jobs import artifacts, lifecycle
from app.jobs.kinds import KINDS
from app.jobs.models import Job
from app.jobs.records import JobRow
from app.pages import document_sets, treated
from app.processors import remote
from app.processors.models import RemoteRun
from app.slots import SlotPool
from app.storage import Storage
from app.treatments.models import Region, Similarity, Treatment
from app.uploads.models import Upload
from app.users.models import User
from tests.images.pictures import encode, flag
from tests.jobs.written import read
from tests.pages.browser import Browser, Tags, field, rows, signed_in
from tests.pages.test_pages import LEASE, MARKUP, NOBODY, Listening, after, assert_protected
from tests.world import SOON, World

pytestmark = pytest.mark.long

NEW, SETS, NEW_SET = "/jobs/treatments/new", "/jobs/document-sets", "/jobs/document-sets/new"
NO_PROCESSOR = "PROCESSOR_URL is not set"

EVERY_KIND = {
    "type": "object",
    "properties": {
        "document-set": {"type": "integer"},
        "name": {"type": "string", "title": "The name", "description": "As people say it.", "maxLength": 5},
        "model": {"enum": ["small", "large", 3, None]},
        "count": {"type": "integer", "minimum": 1, "maximum": 9, "default": 2},
        "share": {"type": ["number", "null"], "maximum": 1},
        "is-fast": {"type": "boolean", "default": True},
        "words": {"type": "array", "items": {"type": "string"}},
        "text": {"type": "string", "maxLength": 10_000},
        "key": {"type": "string", "writeOnly": True, "default": ""},
        "token": {"type": "string", "default": "mine"},
        "anything": True,
    },
    "required": ["document-set", "name"],
    "additionalProperties": False,
}


@pytest.fixture
def processor(people: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The server has one, at an address where nobody is."""
    monkeypatch.setitem(people.app.config, "PROCESSOR_URL", "http://127.0.0.1:9")
    return people


@pytest.fixture
def set_id(processor: World) -> int:
    """A document set of the stranger's."""
    return processor.document_set("stranger", [processor.upload("stranger", "of the set")])


@pytest.fixture
def every_kind(processor: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task with a parameter of each kind."""
    with processor.app.app_context():
        kind = replace(KINDS["regions"], name="tests-every", parameters=EVERY_KIND)
    monkeypatch.setitem(KINDS.declared, "tests-every", kind)


def link(**given: object) -> str:
    """The form, filled in by a link."""
    return f"{NEW}?{urlencode({name.replace('_', '-'): value for name, value in given.items()}, doseq=True)}"


def start(browser: Browser, set_id: object, task: str = "regions", **fields: str) -> TestResponse:
    """Send the form."""
    return browser.press(NEW, **{"task-type": task, "document-set": str(set_id), **fields})


def started(browser: Browser, set_id: int, **fields: str) -> UUID:
    """The id of a new treatment."""
    response = start(browser, set_id, **fields)
    assert response.status_code == 303, words(response)
    return UUID(response.headers["Location"].removeprefix("/jobs/"))


def words(response: TestResponse) -> str:
    """What a page says."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", response.text)).split())


def attributes(response: TestResponse, name: str) -> dict[str, str | None]:
    """Of the field with this name."""
    (found,) = [each for tag, each in Tags(response.text).found if each.get("name") == name and tag != "meta"]
    return found


def fault(response: TestResponse, name: str) -> str:
    """What is said of a field to those who listen."""
    about = attributes(response, name)
    assert about["aria-invalid"] == "true"
    (id_,) = [each for each in str(about["aria-describedby"]).split() if each.endswith("-fault")]
    (said,) = re.findall(rf'<p class="fault" id="{id_}">([^<]*)</p>', response.text)
    return html.unescape(said)


def chosen(response: TestResponse) -> list[str]:
    """The document set that is selected."""
    return re.findall(r'<option value="(\d+)" selected', response.text)


# Where it begins


def test_there_are_links_where_there_is_a_processor(processor: World) -> None:
    page = signed_in(processor, "stranger").get("/jobs")

    assert {NEW, SETS} <= set(Tags(page.text).values("href"))


def test_without_a_processor_the_pages_say_so(people: World, browser: Browser) -> None:
    assert not {NEW, SETS} & set(Tags(browser.get("/jobs").text).values("href"))
    for path in (NEW, SETS, NEW_SET):
        page = browser.get(path)
        assert page.status_code == 200
        assert NO_PROCESSOR in page.text
        assert_protected(page)
    refused = start(browser, people.document_set("stranger"))
    assert (refused.status_code, people.rows(Treatment)) == (422, 0)
    assert NO_PROCESSOR in refused.text


def test_who_is_not_signed_in_comes_back_to_the_link(processor: World) -> None:
    browser = Browser(processor.app)
    asked = link(task_type="regions", model="a/b:c d")

    led = browser.get(asked)
    entered = browser.sign_in("stranger", next=field(browser.get(led.headers["Location"]), "next"))

    assert (led.status_code, entered.headers["Location"]) == (303, asked)


# The form of a treatment


def test_a_task_is_chosen_then_its_fields_are_there(processor: World, browser: Browser, set_id: int) -> None:
    first = browser.get(link(document_set=set_id, notify_email="true"))
    (url,) = [each for each in Tags(first.text).values("href") if "task-type=regions" in each]
    second = browser.get(url)

    assert 'name="model"' not in first.text
    assert attributes(second, "model")["value"] == "illustration_extraction"
    assert attributes(second, "model")["maxlength"] == "100"
    assert chosen(second) == [str(set_id)]
    assert "checked" in attributes(second, "notify-email")
    assert_protected(second)


def test_a_link_fills_the_form(processor: World, browser: Browser, set_id: int) -> None:
    page = browser.get(link(task_type="similarity", document_set=set_id, model="mine", utm_source="mail"))

    assert (attributes(page, "model")["value"], attributes(page, "algorithm")["value"]) == ("mine", "default")
    assert chosen(page) == [str(set_id)]
    assert "checked" not in attributes(page, "notify-email")
    assert "utm_source" not in page.text
    assert "aria-invalid" not in page.text


@pytest.mark.parametrize("set_id", ["x", "-1", "0", "9" * 30, "999999", "%00"])
def test_what_a_link_has_wrong_is_said_at_its_field(processor: World, browser: Browser, set_id: str) -> None:
    page = browser.get(link(task_type="regions", document_set=set_id, notify_email="perhaps", model="x" * 101))

    assert page.status_code == 200
    assert fault(page, "document-set") == "There is no such document-set here."
    assert fault(page, "notify-email") == "This is true or false."
    assert fault(page, "model").endswith("is too long")
    assert attributes(page, "model")["value"] == "x" * 101


def test_a_task_that_is_none_is_said(processor: World, browser: Browser) -> None:
    for task in ("sleep", "nothing", "\0", MARKUP):
        page = browser.get(link(task_type=task))
        assert page.status_code == 200
        assert "This server has no such task." in words(page)


def test_somebody_elses_set_is_not_shown(processor: World, browser: Browser) -> None:
    others = processor.document_set("owner")

    page = browser.get(link(task_type="regions", document_set=others))
    refused = start(browser, others)

    for each in (page, refused):
        assert "All that owner chose" not in each.text
        assert fault(each, "document-set") == "There is no such document-set here."
    assert (refused.status_code, processor.rows(Job)) == (422, 0)


def test_an_admin_may_be_led_to_anybodys_set(processor: World, set_id: int) -> None:
    page = signed_in(processor, "admin").get(link(task_type="regions", document_set=set_id))

    assert chosen(page) == [str(set_id)]


def test_the_newest_hundred_sets_are_offered_and_the_one_that_is_named(processor: World, browser: Browser) -> None:
    with processor.app.app_context():
        values = [{"title": f"Set {number}", "owner_id": processor.stranger.id} for number in range(101)]
        oldest, *_ = db.session.scalars(insert(DocumentSet).returning(DocumentSet.id), values).all()
        db.session.commit()

    def offered(page: TestResponse) -> list[str]:
        return re.findall(r'<option value="(\d+)"', page.text)

    assert len(offered(browser.get(link(task_type="regions")))) == 100
    assert offered(browser.get(link(task_type="regions", document_set=oldest)))[0] == str(oldest)


def test_the_form_starts_what_the_api_would(processor: World, browser: Browser, set_id: int) -> None:
    id_ = started(browser, set_id, model="mine", algorithm="", **{"notify-email": "true"})

    job = read(processor.app, id_)
    assert (job.kind, job.owner_id, job.state) == ("regions", processor.stranger.id, "queued")
    assert job.parameters == {"model": "mine", "document-set": set_id}
    with processor.app.app_context():
        treatment = db.session.get_one(Treatment, id_)
        assert (treatment.api_parameters, treatment.notify_email) == ({"model": "mine"}, True)
    assert rows(browser.get("/jobs")) == [(str(id_), "queued")]


@pytest.mark.parametrize(
    ("fields", "name", "said"),
    [
        ({"model": "x" * 101}, "model", "is too long"),
        ({"document-set": ""}, "document-set", "document-set is required."),
        ({"document-set": "x"}, "document-set", "This is not an id of the type document-set."),
    ],
)
def test_what_is_refused_is_said_at_its_field(
    processor: World, browser: Browser, set_id: int, fields: dict[str, str], name: str, said: str
) -> None:
    response = browser.press(
        NEW,
        **{
            "task-type": "regions",
            "document-set": str(set_id),
            "algorithm": MARKUP[:90],
            "notify-email": "true",
            **fields,
        },
    )

    assert (response.status_code, processor.rows(Treatment), processor.rows(Job)) == (422, 0, 0)
    assert fault(response, name).endswith(said)
    assert attributes(response, "algorithm")["value"] == MARKUP[:90]
    assert "checked" in attributes(response, "notify-email")
    assert_protected(response)


def test_an_empty_set_is_refused_at_its_field(processor: World, browser: Browser) -> None:
    with processor.app.app_context():
        empty = db.session.scalar(
            insert(DocumentSet).values(title="Empty", owner_id=processor.stranger.id).returning(DocumentSet.id)
        )
        db.session.commit()

    response = start(browser, empty)

    assert (response.status_code, fault(response, "document-set")) == (422, "There is nothing in this set.")
    assert chosen(response) == [str(empty)]
    assert processor.rows(Job) == 0


@pytest.mark.parametrize("task", ["", "sleep", "nothing"])
def test_what_is_no_task_is_not_started(processor: World, browser: Browser, set_id: int, task: str) -> None:
    response = start(browser, set_id, task)

    assert (response.status_code, processor.rows(Job)) == (422, 0)
    assert "This cannot be done yet" in words(response)


def test_what_is_no_text_is_400(processor: World, browser: Browser, set_id: int) -> None:
    response = start(browser, set_id, model="a\0b")

    assert (response.status_code, response.mimetype, processor.rows(Job)) == (400, "text/html", 0)


# Fields from a schema


@pytest.mark.usefixtures("every_kind")
def test_each_kind_of_parameter_has_its_field(browser: Browser) -> None:
    page = browser.get(link(task_type="tests-every"))

    name, count, share, text = (attributes(page, each) for each in ("name", "count", "share", "text"))
    assert "required" in name
    assert "The name" in page.text
    assert "As people say it." in page.text
    assert {each: count[each] for each in ("type", "min", "max", "step", "value")} == {
        "type": "number",
        "min": "1",
        "max": "9",
        "step": "1",
        "value": "2",
    }
    assert (share["type"], share["step"], share["max"]) == ("number", "any", "1")
    assert "rows" in text
    assert attributes(page, "is-fast")["type"] == "checkbox"
    assert "checked" in attributes(page, "is-fast")
    assert re.findall(r'<option value="([^"]*)"', page.text)[-5:] == ["", "small", "large", "3", "null"]
    assert attributes(page, "key")["type"] == "password"
    assert attributes(page, "api-parameters.token")["value"] == "mine"
    assert "rows" in attributes(page, "anything")


@pytest.mark.usefixtures("every_kind")
def test_what_is_entered_has_the_type_of_its_parameter(processor: World, browser: Browser, set_id: int) -> None:
    fields = {"name": "n", "model": "3", "count": "7", "share": "0.5", "words": '["a"]', "text": "a\nb"}
    more = {"key": "sesame", "api-parameters.token": "t", "anything": "null"}

    id_ = started(browser, set_id, task="tests-every", **fields, **more)

    with processor.app.app_context():
        assert db.session.get_one(Treatment, id_).api_parameters == {
            "name": "n",
            "model": 3,
            "count": 7,
            "share": 0.5,
            "is-fast": False,
            "words": ["a"],
            "text": "a\nb",
            "key": "sesame",
            "token": "t",
            "anything": None,
        }
    assert "sesame" not in browser.get(f"/jobs/{id_}").text


@pytest.mark.usefixtures("every_kind")
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("name", "", "'name' is a required property"),
        ("name", "longer", "'longer' is too long"),
        ("model", "medium", "'medium' is not one of ['small', 'large', 3, None]"),
        ("count", "seven", "'seven' is not of type 'integer'"),
        ("count", "1.5", "1.5 is not of type 'integer'"),
        ("count", "10", "10 is greater than the maximum of 9"),
        ("share", "1e999", "'1e999' is not of type 'number', 'null'"),
        ("share", "NaN", "'NaN' is not of type 'number', 'null'"),
        ("words", "[", "This is not JSON, or none that can be stored."),
        ("words", "[" * 1000, "This is not JSON, or none that can be stored."),
        ("words", '["a", 1]', "1: 1 is not of type 'string'"),
        ("anything", '"\\ud800"', "This is not JSON, or none that can be stored."),
    ],
)
def test_what_does_not_fit_the_schema_is_said_and_kept(
    processor: World, browser: Browser, set_id: int, name: str, text: str, said: str
) -> None:
    response = start(browser, set_id, "tests-every", **{"name": "n", name: text})

    assert (response.status_code, processor.rows(Job)) == (422, 0)
    assert fault(response, name) == said
    if text and name != "model":
        assert html.escape(text, quote=True).replace("&quot;", "&#34;") in response.text


@pytest.mark.usefixtures("every_kind")
def test_a_link_fills_every_kind_of_field(browser: Browser) -> None:
    given = {"is-fast": "no", "count": "x", "words": "[1", "model": "large", "key": "from a link", "token": "other"}

    page = browser.get(f"{NEW}?{urlencode({'task-type': 'tests-every', **given})}")

    assert page.status_code == 200
    assert "checked" not in attributes(page, "is-fast")
    assert (attributes(page, "count")["value"], attributes(page, "count")["type"]) == ("x", "text")
    assert fault(page, "words") == "This is not JSON, or none that can be stored."
    assert '<option value="large" selected' in page.text
    assert attributes(page, "key")["value"] == ""
    assert attributes(page, "api-parameters.token")["value"] == "mine"
    assert "required property" not in page.text


# Document sets


def send(browser: Browser, *files: tuple[str, bytes], **fields: Any) -> TestResponse:
    """Send the form of a document set."""
    return post(browser, *files, token=browser.token(), **fields)


def post(browser: Browser, *files: tuple[str, bytes], **fields: Any) -> TestResponse:
    """Written by hand: the client of Werkzeug puts what is long into a file, and leaves that open."""
    texts = [(name, text) for name, given in fields.items() for text in ([given] if isinstance(given, str) else given)]
    parts = [f'name="{name}"\r\n\r\n{text}'.encode() for name, text in texts]
    parts += [f'name="file"; filename="{name}"\r\n\r\n'.encode() + content for name, content in files]
    body = b"".join(b"--x\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts)
    return browser.client.post(NEW_SET, data=body + b"--x--\r\n", content_type="multipart/form-data; boundary=x")


def held(world: World, table: Any) -> list[int]:
    """What the document sets hold of one type."""
    with world.app.app_context():
        return sorted(db.session.scalars(select(table.c[1])))


PNG = encode(flag(), "png")


@pytest.mark.usefixtures("storage")
def test_a_set_is_made_of_what_was_ticked_and_sent(processor: World, browser: Browser) -> None:
    before = processor.upload("stranger", "before")
    event, faq = str(processor.events["published"]), str(processor.faqs["published"])

    response = send(
        browser,
        ("one.png", PNG),
        ("again.png", PNG),
        ("two.jpg", encode(flag(40, 20), "jpeg")),
        title=" Mine ",
        event=[event],
        faq=[faq],
        upload=[str(before)],
    )

    assert response.status_code == 303
    url = urlsplit(response.headers["Location"])
    ((made,),) = parse_qs(url.query).values()
    assert url.path == NEW
    with processor.app.app_context():
        row = db.session.get_one(DocumentSet, int(made))
        assert (row.title, row.owner_id) == ("Mine", processor.stranger.id)
    assert (held(processor, SET_EVENTS), held(processor, SET_FAQS)) == ([int(event)], [int(faq)])
    assert len(held(processor, SET_UPLOADS)) == 3  # the same image twice is one
    page = browser.get(SETS)
    assert "1 event, 1 FAQ, 3 pictures" in words(page)
    assert link(document_set=made) in Tags(page.text).values("href")


def test_a_link_chooses_what_is_ticked(processor: World, browser: Browser) -> None:
    mine, others = processor.upload("stranger"), processor.upload("owner")
    query = {
        "title": "From a link",
        "event": [processor.events["published"], processor.events["draft"]],
        "faq": [processor.faqs["published"]],
        "upload": [mine, others, "x"],
    }

    page = browser.get(f"{NEW_SET}?{urlencode(query, doseq=True)}")

    ticked = [each["value"] for _, each in Tags(page.text).found if "checked" in each]
    assert attributes(page, "title")["value"] == "From a link"
    assert sorted(ticked) == sorted(
        str(each) for each in (mine, processor.events["published"], processor.faqs["published"])
    )
    assert "draft event" not in page.text
    assert f'value="{others}"' not in re.sub(r'name="(event|faq)" value="\d+"', "", page.text)
    for said in ("There is no such event here.", "This is not the id of one: x"):
        assert said in words(page)
    assert_protected(page)


def test_the_events_of_ones_teams_are_offered(processor: World) -> None:
    page = signed_in(processor, "coorganizer").get(NEW_SET)

    assert {"published event", "draft event", "private event"} <= set(re.findall(r"> ([^<>]+ event)<", page.text))
    assert not {"trashed event", "others event"} & set(re.findall(r"> ([^<>]+ event)<", page.text))


@pytest.mark.usefixtures("storage")
def test_a_picture_that_is_none_is_named_and_the_others_are_kept(processor: World, browser: Browser) -> None:
    response = send(browser, ("good.png", PNG), ("<img src=x onerror=alert(1)>.png", b"no picture"), title="Mine")

    assert (response.status_code, processor.rows(DocumentSet), processor.rows(Upload)) == (422, 0, 1)
    assert "<img src=x onerror=alert(1)>.png:" in fault(response, "file")
    (upload,) = [each for _, each in Tags(response.text).found if each.get("name") == "upload"]
    assert "checked" in upload
    assert attributes(response, "title")["value"] == "Mine"
    again = send(browser, title="Mine", upload=[str(upload["value"])])
    assert (again.status_code, held(processor, SET_UPLOADS)) == (303, [int(str(upload["value"]))])


@pytest.mark.usefixtures("storage")
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"title": " "}, "Must not be blank."),
        ({"title": "x" * 51}, "Longer than the limit of 50 characters."),
        ({"event": ["999999"]}, "There is no such event here."),
        ({"upload": ["x"]}, "This is not the id of one: x"),
        ({"event": []}, document_sets.EMPTY),
    ],
)
def test_what_a_set_cannot_be_is_said(processor: World, browser: Browser, fields: dict[str, Any], said: str) -> None:
    response = send(browser, **{"title": MARKUP[:40], "event": [str(processor.events["published"])], **fields})

    assert (response.status_code, processor.rows(DocumentSet)) == (422, 0)
    assert said in words(response)
    assert [tag for tag, _ in Tags(response.text).found].count("script") == 1
    assert_protected(response)


@pytest.mark.usefixtures("storage")
def test_more_than_a_set_takes_at_once_is_said_and_stays_ticked(processor: World, browser: Browser) -> None:
    with processor.app.app_context():
        about = {"starts_at": SOON, "ends_at": SOON, "timezone": "UTC", "state": "published", "privacy": "public"}
        values = [{"name": f"Event {number}", "owner_id": processor.owner.id, **about} for number in range(101)]
        events = [str(id_) for id_ in db.session.scalars(insert(Event).returning(Event.id), values)]
        db.session.commit()

    followed = browser.get(f"{NEW_SET}?{urlencode({'event': events}, doseq=True)}")
    refused = send(browser, title="Mine", event=events)
    taken = send(browser, title="Mine", event=[*events[1:], events[1]])

    assert (followed.status_code, refused.status_code, taken.status_code) == (200, 422, 303)
    assert processor.rows(DocumentSet) == 1
    for page in (followed, refused):
        assert "At most 100 at once, not 101." in words(page)
        ticked = {each["value"] for _, each in Tags(page.text).found if "checked" in each}
        assert ticked == set(events)


@pytest.mark.usefixtures("storage")
def test_too_many_or_too_large_pictures_are_refused(
    processor: World, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = send(browser, *((f"{number}.png", PNG) for number in range(21)), title="Mine")
    monkeypatch.setattr(intake, "_slots", SlotPool(1, 1))
    monkeypatch.setitem(processor.app.config, "MAX_UPLOAD_MB", 1)
    large = send(browser, ("large.png", PNG + bytes(2**20)), title="Mine")
    larger = send(browser, ("larger.png", bytes(2 * 2**20)), title="Mine")

    assert (many.status_code, fault(many, "file")) == (422, "At most 20 pictures at once.")
    assert (large.status_code, fault(large, "file")) == (422, "large.png: An image may have at most 1 MiB.")
    assert (larger.status_code, larger.mimetype) == (413, "text/html")
    assert (processor.rows(DocumentSet), processor.rows(Upload)) == (0, 0)


def test_who_is_not_signed_in_sends_nothing(processor: World) -> None:
    response = post(Browser(processor.app), ("large.png", bytes(2**21)), token="x")

    assert (response.status_code, response.headers["Location"]) == (303, "/jobs/sign-in")
    assert processor.rows(Upload) == 0


def test_a_broken_form_is_no_form_of_ours(processor: World, browser: Browser) -> None:
    response = browser.client.post(
        NEW_SET, data=b"--x\r\nContent-Disposition: form-data", content_type="multipart/form-data; boundary=x"
    )

    assert (response.status_code, response.mimetype) == (403, "text/html")


def test_sets_are_listed_page_by_page_to_their_owner(processor: World, browser: Browser) -> None:
    with processor.app.app_context():
        values = [{"title": f"Set {number:02}", "owner_id": processor.stranger.id} for number in range(22)]
        db.session.execute(insert(DocumentSet), values)
        db.session.commit()
    processor.document_set("owner")

    first = browser.get(SETS)
    (older,) = re.findall(rf'href="({SETS}\?older=\d+)"', first.text)
    second = browser.get(older)

    assert re.findall(r"<h2>([^<]+)</h2>", first.text) == [f"Set {number:02}" for number in range(21, 1, -1)]
    assert re.findall(r"<h2>([^<]+)</h2>", second.text) == ["Set 01", "Set 00"]
    assert browser.get(f"{SETS}?older=x").status_code == 400


# The page of a treatment


def go_elsewhere(world: World, id_: UUID, documents: Iterable[Document]) -> JobRow:
    """What a worker does: the processor has the task, and has said its name for it."""
    with world.app.app_context(), transaction(is_read=False):
        claimed = lifecycle.claim(id_, "tests", LEASE)
        assert claimed is not None
        remote.begin(claimed, "regions", "a token", list(documents))
        remote.track(claimed, f"run {MARKUP}")
        commit()
    return claimed


def find(world: World, id_: UUID, *found: Any) -> None:
    """What the processor has found."""
    with world.app.app_context():
        db.session.add_all(found)
        db.session.commit()
    assert id_


def region(id_: UUID, document: str, source: str | None = None, *place: float) -> Region:
    """One of them."""
    x, y, width, height = place or (1, 2, 30, 20)
    return Region(treatment_id=id_, document=document, source=source or document, x=x, y=y, width=width, height=height)


def uploaded(id_: int) -> Document:
    """An upload as a document."""
    return Document(f"upload-{id_}", "image", "upload", id_)


def test_the_page_shows_the_processor_documents_and_regions(processor: World, browser: Browser, set_id: int) -> None:
    id_ = started(browser, set_id, model="mine")
    waiting = browser.get(f"/jobs/{id_}")
    mine, event = uploaded(processor.upload("stranger")), Document("event-1", "event", "event", 1)
    go_elsewhere(processor, id_, [event, mine])
    find(
        processor,
        id_,
        region(id_, mine.uid, None, 1, 2.5, 30, 20),
        region(id_, "elsewhere", mine.uid),
        region(id_, "?"),
    )
    with processor.app.app_context():
        db.session.execute(update(RemoteRun).values(unanswered=3))
        db.session.commit()

    page = browser.get(f"/jobs/{id_}")

    assert "PENDING" in words(waiting)
    for said in ("All that stranger chose", f"run {MARKUP}", "Questions not answered 3", "3 regions in 3 images"):
        assert said in words(page), said
    assert '<rect x="1" y="2.5" width="30" height="20">' in page.text
    assert page.text.count('viewBox="0 0 80 40"') == 2  # of nobody knows what there is only the text
    assert page.text.count("<li>30 × 20 at 1, 2") == 3  # noqa: RUF001 - the sign of multiplication
    links = Tags(page.text).values("href")
    assert f"/v1/treatments/{id_}" in links
    assert link(model="mine", task_type="regions", document_set=set_id) in links
    assert all(source.startswith("/files/uploads/") for source in Tags(page.text).values("src") if "jobs" not in source)


def test_the_page_shows_the_pairs_that_are_most_alike(processor: World, browser: Browser, set_id: int) -> None:
    id_ = started(browser, set_id, task="similarity")
    mine = uploaded(processor.upload("stranger"))
    go_elsewhere(processor, id_, [mine])
    pairs = [Similarity(treatment_id=id_, document="d", a=mine.uid, b=f"b{n}", score=n / 100) for n in range(60)]
    find(processor, id_, *pairs)

    page = browser.get(f"/jobs/{id_}")

    scores = re.findall(r"<td>(0\.\d{3})</td>", page.text)
    assert (scores[0], scores[-1], len(scores)) == ("0.590", "0.100", 50)
    assert "10 more are less alike." in words(page)
    assert page.text.count('<img src="/files/uploads/') == 51


def test_what_is_shown_is_bounded_and_so_are_the_statements(
    processor: World, browser: Browser, set_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = started(browser, set_id)
    uploads = [uploaded(processor.upload("stranger", str(number))) for number in range(60)]
    go_elsewhere(processor, id_, uploads)
    find(processor, id_, region(id_, uploads[0].uid))
    few = count(monkeypatch, lambda: browser.get(f"/jobs/{id_}"))
    find(processor, id_, *(region(id_, uploads[0].uid) for _ in range(204)))
    find(processor, id_, *(region(id_, each.uid) for each in uploads[1:]))
    find(processor, id_, *(Similarity(treatment_id=id_, document="d", a="a", b=str(n), score=0) for n in range(9)))

    many = count(monkeypatch, lambda: browser.get(f"/jobs/{id_}"))
    page = browser.get(f"/jobs/{id_}")

    assert many == few
    assert page.text.count("<figure") == 50
    assert page.text.count("<rect") == 200 + 49
    for said in (
        "264 regions in 60 images",
        "5 more are not shown.",
        "10 more images with regions are not shown.",
        "10 more documents are not shown.",
    ):
        assert said in words(page), said
    monkeypatch.setattr(treated, "MOST_READ", 100)
    monkeypatch.setattr("app.pages.findings.MOST_READ", 100)
    assert "more than 100 regions" in words(browser.get(f"/jobs/{id_}"))


def count(monkeypatch: pytest.MonkeyPatch, act: Any) -> int:
    """How many statements it takes."""
    asked: list[str] = []
    execute = psycopg.Cursor.execute

    def note(cursor: Any, query: Any, *more: Any, **options: Any) -> Any:
        asked.append(str(query))
        return execute(cursor, query, *more, **options)

    with monkeypatch.context() as patched:
        patched.setattr(psycopg.Cursor, "execute", note)
        act()
    return len(asked)


def test_findings_are_for_those_who_see_the_job(processor: World, browser: Browser, set_id: int) -> None:
    id_ = started(browser, set_id)
    go_elsewhere(processor, id_, [uploaded(processor.upload("stranger"))])

    assert browser.get(f"/jobs/{id_}/findings").status_code == 200
    assert signed_in(processor, "admin").get(f"/jobs/{id_}/findings").text.count("<img") == 1
    assert signed_in(processor, "owner").get(f"/jobs/{id_}/findings").status_code == 404
    assert browser.get(f"/jobs/{NOBODY}/findings").status_code == 404
    assert "sign-in" in Browser(processor.app).get(f"/jobs/{id_}/findings").headers["Location"]
    browser.press("/jobs", seconds="1")
    ((sleep, _),) = rows(browser.get("/jobs?kind=sleep"))
    assert browser.get(f"/jobs/{sleep}/findings").status_code == 404


def test_an_image_that_may_not_be_seen_any_more_is_not_shown(processor: World, browser: Browser, set_id: int) -> None:
    id_ = started(browser, set_id)
    mine, others = uploaded(processor.upload("stranger")), uploaded(processor.upload("owner"))
    hidden = Document("event-image-1", "image", "event-image", processor.images["draft"])
    seen = Document("event-image-2", "image", "event-image", processor.images["published"])
    picture = Document("event-1-image", "image", "event", processor.events["published"])
    with processor.app.app_context():
        db.session.execute(update(Upload).where(Upload.id == mine.resource_id).values(deleted_at=func.now()))
        db.session.commit()
    go_elsewhere(processor, id_, [mine, others, hidden, seen, picture])

    sources = Tags(browser.get(f"/jobs/{id_}/findings").text).values("src")

    assert len(sources) == 1
    assert sources[0].startswith("/files/images/")


def test_the_picture_of_an_event_is_shown_where_it_is_ours(processor: World, browser: Browser, set_id: int) -> None:
    id_ = started(browser, set_id)
    event_id = processor.events["published"]
    go_elsewhere(processor, id_, [Document("event-1-image", "image", "event", event_id)])
    find(processor, id_, region(id_, "event-1-image"))

    def sources(url: str) -> list[str]:
        with processor.app.app_context():
            db.session.execute(db.text("UPDATE events SET original_image_url = :url"), {"url": url})
            db.session.commit()
        return Tags(browser.get(f"/jobs/{id_}/findings").text).values("src")

    name = f"/files/uploads/{'0' * 64}.png"
    assert sources(f"{processor.app.config['PUBLIC_URL']}{name}") == [name, name]  # not drawn: nobody knows its size
    assert sources(f"https://elsewhere.example{name}") == []


def test_what_a_processor_says_is_text(processor: World, browser: Browser, set_id: int) -> None:
    with processor.app.app_context():
        db.session.execute(update(DocumentSet).values(title=MARKUP))
        db.session.execute(update(User).where(User.id == processor.stranger.id).values(email=f"{MARKUP}@example.com"))
        db.session.commit()
    id_ = started(browser, set_id, model=MARKUP[:100])
    go_elsewhere(processor, id_, [Document(MARKUP, "image", "upload", processor.upload("stranger"))])
    find(processor, id_, region(id_, MARKUP, f"{MARKUP} source"), region(id_, "other", MARKUP))
    find(processor, id_, Similarity(treatment_id=id_, document=MARKUP, a=MARKUP, b=f"{MARKUP}b", score=1))

    for path in (
        f"/jobs/{id_}",
        f"/jobs/{id_}/findings",
        SETS,
        NEW_SET,
        link(task_type="regions", document_set=set_id),
    ):
        page = browser.get(path)
        tags = Tags(page.text)
        assert page.status_code == 200
        assert [tag for tag, _ in tags.found].count("script") == (0 if path.endswith("/findings") else 1)
        assert "textarea" not in {tag for tag, _ in tags.found}
        assert not [name for _, each in tags.found for name in each if name.startswith("on") or name == "style"]
        links = [*tags.values("href"), *tags.values("src"), *tags.values("action")]
        assert not [each for each in links if each and not each.startswith(("/", "#"))]
        assert_protected(page)


def test_a_treatment_in_the_trash_leads_nowhere(processor: World, browser: Browser, set_id: int) -> None:
    id_ = started(browser, set_id)
    with processor.app.app_context():
        db.session.execute(update(Treatment).values(deleted_at=func.now()))
        db.session.commit()

    page = browser.get(f"/jobs/{id_}")

    assert page.status_code == 200
    assert f"/v1/treatments/{id_}" not in Tags(page.text).values("href")


def test_a_page_outlives_its_processor(processor: World, browser: Browser, set_id: int) -> None:
    id_ = started(browser, set_id)
    processor.app.config["PROCESSOR_URL"] = ""

    page = browser.get(f"/jobs/{id_}")

    assert page.status_code == 200
    assert not [each for each in Tags(page.text).values("href") if each.startswith(NEW)]


def test_trying_again_makes_another_treatment(processor: World, browser: Browser, set_id: int) -> None:
    id_ = started(browser, set_id, model="mine")
    browser.press(f"/jobs/{id_}/cancel")

    again = browser.press(f"/jobs/{id_}/retry")

    assert again.status_code == 303
    assert processor.rows(Treatment) == 2
    page = browser.get(again.headers["Location"])
    assert f'href="/jobs/{id_}"' in page.text
    assert "At the processor" in page.text


@pytest.mark.usefixtures("storage")
def test_the_stream_says_when_there_is_more_to_be_seen(
    processor: World, browser: Browser, set_id: int, storage: Storage
) -> None:
    id_ = started(browser, set_id)
    job = go_elsewhere(processor, id_, [uploaded(processor.upload("stranger"))])
    page = browser.get(f"/jobs/{id_}")
    told = Listening(browser, after(page))
    _, first = told.next()

    with processor.app.app_context(), transaction(is_read=False):
        artifacts.show(job, artifacts.store(job, "result-1.json", b"[]", "application/json", partial=True))
        lifecycle.report(job, 0.5, "half")
        commit()
    _, second = told.next()
    told.response.close()

    assert first["job"]["findings"] == re.findall(r'data-mark="([^"]+)"', page.text)[0]
    assert second["job"]["findings"] != first["job"]["findings"]
    assert (second["job"]["tracking_id"], second["files"][0]["partial"]) == (f"run {MARKUP}", True)
    assert orjson.dumps(second)
