"""Treatments below /jobs over HTTP: forms and their errors, and the page of a treatment."""

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

from app.database import commit, open_transaction
from app.documents.models import SET_EVENTS, SET_FAQS, SET_UPLOADS, DocumentSet
from app.documents.resolver import Document
from app.events.models import Event
from app.extensions import db
from app.images import upload_view as intake
from app.jobs import artifacts, lifecycle
from app.jobs.kinds import KINDS
from app.jobs.models import Job
from app.jobs.records import JobRow
from app.pages import document_sets, treatment_queries
from app.processors import runs
from app.processors.models import RemoteRun
from app.slots import SlotPool
from app.storage import Storage
from app.treatments.models import Region, Similarity, Treatment
from app.uploads.models import Upload
from app.users.models import User
from tests.dataset import NEXT_MONTH, Dataset
from tests.images.sample_images import encode_image, make_flag_image
from tests.jobs.db_helpers import get_job
from tests.pages.browser import Browser, TagCollector, get_hidden_field, list_job_rows, sign_in_as
from tests.pages.test_pages import LEASE, MARKUP, UNKNOWN_JOB_ID, EventStreamReader, assert_protected, get_stream_start

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
def processor(people: Dataset, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Configure the URL of a processor that is not running."""
    monkeypatch.setitem(people.app.config, "PROCESSOR_URL", "http://127.0.0.1:9")
    return people


@pytest.fixture
def set_id(processor: Dataset) -> int:
    """Return the id of a document set of the stranger."""
    return processor.create_document_set("stranger", [processor.create_upload("stranger", "of the set")])


@pytest.fixture
def every_kind(processor: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a task with a parameter of each kind of field."""
    with processor.app.app_context():
        kind = replace(KINDS["regions"], name="tests-every", parameters=EVERY_KIND)
    monkeypatch.setitem(KINDS.declared, "tests-every", kind)


def build_link(**given: object) -> str:
    """Return the URL of the form, filled by its query string."""
    return f"{NEW}?{urlencode({name.replace('_', '-'): value for name, value in given.items()}, doseq=True)}"


def post_form(browser: Browser, set_id: object, task: str = "regions", **fields: str) -> TestResponse:
    """Send the form."""
    return browser.submit_form(NEW, **{"task-type": task, "document-set": str(set_id), **fields})


def start_treatment(browser: Browser, set_id: int, **fields: str) -> UUID:
    """Submit the form; return the id of the new treatment."""
    response = post_form(browser, set_id, **fields)
    assert response.status_code == 303, get_page_text(response)
    return UUID(response.headers["Location"].removeprefix("/jobs/"))


def get_page_text(response: TestResponse) -> str:
    """Return the text of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", response.text)).split())


def get_field_attributes(response: TestResponse, name: str) -> dict[str, str | None]:
    """Return the attributes of the field with this name."""
    (found,) = [each for tag, each in TagCollector(response.text).found if each.get("name") == name and tag != "meta"]
    return found


def get_field_error(response: TestResponse, name: str) -> str:
    """Return the description of a field for screen readers."""
    about = get_field_attributes(response, name)
    assert about["aria-invalid"] == "true"
    (id_,) = [each for each in str(about["aria-describedby"]).split() if each.endswith("-fault")]
    (said,) = re.findall(rf'<p class="fault" id="{id_}">([^<]*)</p>', response.text)
    return html.unescape(said)


def get_selected_set(response: TestResponse) -> list[str]:
    """Return the selected document set."""
    return re.findall(r'<option value="(\d+)" selected', response.text)


# Links to the form


def test_there_are_links_where_there_is_a_processor(processor: Dataset) -> None:
    page = sign_in_as(processor, "stranger").get("/jobs")

    assert {NEW, SETS} <= set(TagCollector(page.text).attribute_values("href"))


def test_without_a_processor_the_pages_say_so(people: Dataset, browser: Browser) -> None:
    assert not {NEW, SETS} & set(TagCollector(browser.get("/jobs").text).attribute_values("href"))
    for path in (NEW, SETS, NEW_SET):
        page = browser.get(path)
        assert page.status_code == 200
        assert NO_PROCESSOR in page.text
        assert_protected(page)
    refused = post_form(browser, people.create_document_set("stranger"))
    assert (refused.status_code, people.count_rows(Treatment)) == (422, 0)
    assert NO_PROCESSOR in refused.text


def test_who_is_not_signed_in_comes_back_to_the_link(processor: Dataset) -> None:
    browser = Browser(processor.app)
    asked = build_link(task_type="regions", model="a/b:c d")

    led = browser.get(asked)
    entered = browser.sign_in("stranger", next=get_hidden_field(browser.get(led.headers["Location"]), "next"))

    assert (led.status_code, entered.headers["Location"]) == (303, asked)


# The form of a treatment


def test_a_task_is_chosen_then_its_fields_are_there(processor: Dataset, browser: Browser, set_id: int) -> None:
    first = browser.get(build_link(document_set=set_id, notify_email="true"))
    (url,) = [each for each in TagCollector(first.text).attribute_values("href") if "task-type=regions" in each]
    second = browser.get(url)

    assert 'name="model"' not in first.text
    assert get_field_attributes(second, "model")["value"] == "illustration_extraction"
    assert get_field_attributes(second, "model")["maxlength"] == "100"
    assert get_selected_set(second) == [str(set_id)]
    assert "checked" in get_field_attributes(second, "notify-email")
    assert_protected(second)


def test_a_link_fills_the_form(processor: Dataset, browser: Browser, set_id: int) -> None:
    page = browser.get(build_link(task_type="similarity", document_set=set_id, model="mine", utm_source="mail"))

    assert (get_field_attributes(page, "model")["value"], get_field_attributes(page, "algorithm")["value"]) == (
        "mine",
        "default",
    )
    assert get_selected_set(page) == [str(set_id)]
    assert "checked" not in get_field_attributes(page, "notify-email")
    assert "utm_source" not in page.text
    assert "aria-invalid" not in page.text


@pytest.mark.parametrize("set_id", ["x", "-1", "0", "9" * 30, "999999", "%00"])
def test_invalid_link_parameter_is_shown_at_field(processor: Dataset, browser: Browser, set_id: str) -> None:
    page = browser.get(build_link(task_type="regions", document_set=set_id, notify_email="perhaps", model="x" * 101))

    assert page.status_code == 200
    assert get_field_error(page, "document-set") == "There is no such document-set here."
    assert get_field_error(page, "notify-email") == "This must be true or false."
    assert get_field_error(page, "model").endswith("is too long")
    assert get_field_attributes(page, "model")["value"] == "x" * 101


def test_link_with_unknown_task_shows_error(processor: Dataset, browser: Browser) -> None:
    for task in ("sleep", "nothing", "\0", MARKUP):
        page = browser.get(build_link(task_type=task))
        assert page.status_code == 200
        assert "This server has no such task." in get_page_text(page)


def test_set_of_another_user_is_not_shown(processor: Dataset, browser: Browser) -> None:
    others = processor.create_document_set("owner")

    page = browser.get(build_link(task_type="regions", document_set=others))
    refused = post_form(browser, others)

    for each in (page, refused):
        assert "All that owner chose" not in each.text
        assert get_field_error(each, "document-set") == "There is no such document-set here."
    assert (refused.status_code, processor.count_rows(Job)) == (422, 0)


def test_an_admin_may_be_led_to_anybodys_set(processor: Dataset, set_id: int) -> None:
    page = sign_in_as(processor, "admin").get(build_link(task_type="regions", document_set=set_id))

    assert get_selected_set(page) == [str(set_id)]


def test_the_newest_hundred_sets_are_offered_and_the_one_that_is_named(processor: Dataset, browser: Browser) -> None:
    with processor.app.app_context():
        values = [{"title": f"Set {number}", "owner_id": processor.stranger.id} for number in range(101)]
        oldest, *_ = db.session.scalars(insert(DocumentSet).returning(DocumentSet.id), values).all()
        db.session.commit()

    def list_offered_sets(page: TestResponse) -> list[str]:
        return re.findall(r'<option value="(\d+)"', page.text)

    assert len(list_offered_sets(browser.get(build_link(task_type="regions")))) == 100
    assert list_offered_sets(browser.get(build_link(task_type="regions", document_set=oldest)))[0] == str(oldest)


def test_the_form_starts_what_the_api_would(processor: Dataset, browser: Browser, set_id: int) -> None:
    id_ = start_treatment(browser, set_id, model="mine", algorithm="", **{"notify-email": "true"})

    job = get_job(processor.app, id_)
    assert (job.kind, job.owner_id, job.state) == ("regions", processor.stranger.id, "queued")
    assert job.parameters == {"model": "mine", "document-set": set_id}
    with processor.app.app_context():
        treatment = db.session.get_one(Treatment, id_)
        assert (treatment.api_parameters, treatment.notify_email) == ({"model": "mine"}, True)
    assert list_job_rows(browser.get("/jobs")) == [(str(id_), "queued")]


@pytest.mark.parametrize(
    ("fields", "name", "said"),
    [
        ({"model": "x" * 101}, "model", "is too long"),
        ({"document-set": ""}, "document-set", "document-set is required."),
        ({"document-set": "x"}, "document-set", "This is not an id of the type document-set."),
    ],
)
def test_refused_value_is_shown_at_field(
    processor: Dataset, browser: Browser, set_id: int, fields: dict[str, str], name: str, said: str
) -> None:
    response = browser.submit_form(
        NEW,
        **{
            "task-type": "regions",
            "document-set": str(set_id),
            "algorithm": MARKUP[:90],
            "notify-email": "true",
            **fields,
        },
    )

    assert (response.status_code, processor.count_rows(Treatment), processor.count_rows(Job)) == (422, 0, 0)
    assert get_field_error(response, name).endswith(said)
    assert get_field_attributes(response, "algorithm")["value"] == MARKUP[:90]
    assert "checked" in get_field_attributes(response, "notify-email")
    assert_protected(response)


def test_an_empty_set_is_refused_at_its_field(processor: Dataset, browser: Browser) -> None:
    with processor.app.app_context():
        empty = db.session.scalar(
            insert(DocumentSet).values(title="Empty", owner_id=processor.stranger.id).returning(DocumentSet.id)
        )
        db.session.commit()

    response = post_form(browser, empty)

    assert (response.status_code, get_field_error(response, "document-set")) == (
        422,
        "The document set has no documents.",
    )
    assert get_selected_set(response) == [str(empty)]
    assert processor.count_rows(Job) == 0


@pytest.mark.parametrize("task", ["", "sleep", "nothing"])
def test_unknown_task_is_422(processor: Dataset, browser: Browser, set_id: int, task: str) -> None:
    response = post_form(browser, set_id, task)

    assert (response.status_code, processor.count_rows(Job)) == (422, 0)
    assert "Please correct these fields" in get_page_text(response)


def test_nul_in_field_is_400(processor: Dataset, browser: Browser, set_id: int) -> None:
    response = post_form(browser, set_id, model="a\0b")

    assert (response.status_code, response.mimetype, processor.count_rows(Job)) == (400, "text/html", 0)


# Fields from a schema


@pytest.mark.usefixtures("every_kind")
def test_each_kind_of_parameter_has_its_field(browser: Browser) -> None:
    page = browser.get(build_link(task_type="tests-every"))

    name, count, share, text = (get_field_attributes(page, each) for each in ("name", "count", "share", "text"))
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
    assert get_field_attributes(page, "is-fast")["type"] == "checkbox"
    assert "checked" in get_field_attributes(page, "is-fast")
    assert re.findall(r'<option value="([^"]*)"', page.text)[-5:] == ["", "small", "large", "3", "null"]
    assert get_field_attributes(page, "key")["type"] == "password"
    assert get_field_attributes(page, "api-parameters.token")["value"] == "mine"
    assert "rows" in get_field_attributes(page, "anything")


@pytest.mark.usefixtures("every_kind")
def test_what_is_entered_has_the_type_of_its_parameter(processor: Dataset, browser: Browser, set_id: int) -> None:
    fields = {"name": "n", "model": "3", "count": "7", "share": "0.5", "words": '["a"]', "text": "a\nb"}
    more = {"key": "sesame", "api-parameters.token": "t", "anything": "null"}

    id_ = start_treatment(browser, set_id, task="tests-every", **fields, **more)

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
        ("words", "[", "This is not valid JSON, or it contains a value that cannot be stored."),
        ("words", "[" * 1000, "This is not valid JSON, or it contains a value that cannot be stored."),
        ("words", '["a", 1]', "1: 1 is not of type 'string'"),
        ("anything", '"\\ud800"', "This is not valid JSON, or it contains a value that cannot be stored."),
    ],
)
def test_schema_error_is_shown_and_input_kept(
    processor: Dataset, browser: Browser, set_id: int, name: str, text: str, said: str
) -> None:
    response = post_form(browser, set_id, "tests-every", **{"name": "n", name: text})

    assert (response.status_code, processor.count_rows(Job)) == (422, 0)
    assert get_field_error(response, name) == said
    if text and name != "model":
        assert html.escape(text, quote=True).replace("&quot;", "&#34;") in response.text


@pytest.mark.usefixtures("every_kind")
def test_a_link_fills_every_kind_of_field(browser: Browser) -> None:
    given = {"is-fast": "no", "count": "x", "words": "[1", "model": "large", "key": "from a link", "token": "other"}

    page = browser.get(f"{NEW}?{urlencode({'task-type': 'tests-every', **given})}")

    assert page.status_code == 200
    assert "checked" not in get_field_attributes(page, "is-fast")
    assert (get_field_attributes(page, "count")["value"], get_field_attributes(page, "count")["type"]) == ("x", "text")
    assert get_field_error(page, "words") == "This is not valid JSON, or it contains a value that cannot be stored."
    assert '<option value="large" selected' in page.text
    assert get_field_attributes(page, "key")["value"] == ""
    assert get_field_attributes(page, "api-parameters.token")["value"] == "mine"
    assert "required property" not in page.text


# Document sets


def send_set_form(browser: Browser, *files: tuple[str, bytes], **fields: Any) -> TestResponse:
    """Send the form of a document set."""
    return post_multipart(browser, *files, token=browser.token(), **fields)


def post_multipart(browser: Browser, *files: tuple[str, bytes], **fields: Any) -> TestResponse:
    """Post a form built by hand: the Werkzeug client writes long fields to a file and leaves it open."""
    texts = [(name, text) for name, given in fields.items() for text in ([given] if isinstance(given, str) else given)]
    parts = [f'name="{name}"\r\n\r\n{text}'.encode() for name, text in texts]
    parts += [f'name="file"; filename="{name}"\r\n\r\n'.encode() + content for name, content in files]
    body = b"".join(b"--x\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts)
    return browser.client.post(NEW_SET, data=body + b"--x--\r\n", content_type="multipart/form-data; boundary=x")


def list_members(dataset: Dataset, table: Any) -> list[int]:
    """Return the ids of one type in all document sets."""
    with dataset.app.app_context():
        return sorted(db.session.scalars(select(table.c[1])))


PNG = encode_image(make_flag_image(), "png")


@pytest.mark.usefixtures("storage")
def test_a_set_is_made_of_what_was_ticked_and_sent(processor: Dataset, browser: Browser) -> None:
    before = processor.create_upload("stranger", "before")
    event, faq = str(processor.events["published"]), str(processor.faqs["published"])

    response = send_set_form(
        browser,
        ("one.png", PNG),
        ("again.png", PNG),
        ("two.jpg", encode_image(make_flag_image(40, 20), "jpeg")),
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
    assert (list_members(processor, SET_EVENTS), list_members(processor, SET_FAQS)) == ([int(event)], [int(faq)])
    assert len(list_members(processor, SET_UPLOADS)) == 3  # the same image twice is one
    page = browser.get(SETS)
    assert "1 event, 1 FAQ, 3 images" in get_page_text(page)
    assert build_link(document_set=made) in TagCollector(page.text).attribute_values("href")


def test_a_link_chooses_what_is_ticked(processor: Dataset, browser: Browser) -> None:
    mine, others = processor.create_upload("stranger"), processor.create_upload("owner")
    query = {
        "title": "From a link",
        "event": [processor.events["published"], processor.events["draft"]],
        "faq": [processor.faqs["published"]],
        "upload": [mine, others, "x"],
    }

    page = browser.get(f"{NEW_SET}?{urlencode(query, doseq=True)}")

    ticked = [each["value"] for _, each in TagCollector(page.text).found if "checked" in each]
    assert get_field_attributes(page, "title")["value"] == "From a link"
    assert sorted(ticked) == sorted(
        str(each) for each in (mine, processor.events["published"], processor.faqs["published"])
    )
    assert "draft event" not in page.text
    assert f'value="{others}"' not in re.sub(r'name="(event|faq)" value="\d+"', "", page.text)
    for said in ("There is no such event here.", "This is not a valid id: x"):
        assert said in get_page_text(page)
    assert_protected(page)


def test_the_events_of_ones_teams_are_offered(processor: Dataset) -> None:
    page = sign_in_as(processor, "coorganizer").get(NEW_SET)

    assert {"published event", "draft event", "private event"} <= set(re.findall(r"> ([^<>]+ event)<", page.text))
    assert not {"trashed event", "others event"} & set(re.findall(r"> ([^<>]+ event)<", page.text))


@pytest.mark.usefixtures("storage")
def test_invalid_image_is_named_and_the_others_are_stored(processor: Dataset, browser: Browser) -> None:
    response = send_set_form(
        browser, ("good.png", PNG), ("<img src=x onerror=alert(1)>.png", b"no picture"), title="Mine"
    )

    assert (response.status_code, processor.count_rows(DocumentSet), processor.count_rows(Upload)) == (422, 0, 1)
    assert "<img src=x onerror=alert(1)>.png:" in get_field_error(response, "file")
    (upload,) = [each for _, each in TagCollector(response.text).found if each.get("name") == "upload"]
    assert "checked" in upload
    assert get_field_attributes(response, "title")["value"] == "Mine"
    again = send_set_form(browser, title="Mine", upload=[str(upload["value"])])
    assert (again.status_code, list_members(processor, SET_UPLOADS)) == (303, [int(str(upload["value"]))])


@pytest.mark.usefixtures("storage")
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"title": " "}, "Must not be blank."),
        ({"title": "x" * 51}, "Must have at most 50 characters."),
        ({"event": ["999999"]}, "There is no such event here."),
        ({"upload": ["x"]}, "This is not a valid id: x"),
        ({"event": []}, document_sets.EMPTY_SET_ERROR),
    ],
)
def test_invalid_document_set_form_is_422_with_reason(
    processor: Dataset, browser: Browser, fields: dict[str, Any], said: str
) -> None:
    response = send_set_form(browser, **{"title": MARKUP[:40], "event": [str(processor.events["published"])], **fields})

    assert (response.status_code, processor.count_rows(DocumentSet)) == (422, 0)
    assert said in get_page_text(response)
    assert [tag for tag, _ in TagCollector(response.text).found].count("script") == 1
    assert_protected(response)


@pytest.mark.usefixtures("storage")
def test_too_many_members_show_error_and_stay_checked(processor: Dataset, browser: Browser) -> None:
    with processor.app.app_context():
        about = {
            "starts_at": NEXT_MONTH,
            "ends_at": NEXT_MONTH,
            "timezone": "UTC",
            "state": "published",
            "privacy": "public",
        }
        values = [{"name": f"Event {number}", "owner_id": processor.owner.id, **about} for number in range(101)]
        events = [str(id_) for id_ in db.session.scalars(insert(Event).returning(Event.id), values)]
        db.session.commit()

    followed = browser.get(f"{NEW_SET}?{urlencode({'event': events}, doseq=True)}")
    refused = send_set_form(browser, title="Mine", event=events)
    taken = send_set_form(browser, title="Mine", event=[*events[1:], events[1]])

    assert (followed.status_code, refused.status_code, taken.status_code) == (200, 422, 303)
    assert processor.count_rows(DocumentSet) == 1
    for page in (followed, refused):
        assert "Choose at most 100, not 101." in get_page_text(page)
        ticked = {each["value"] for _, each in TagCollector(page.text).found if "checked" in each}
        assert ticked == set(events)


@pytest.mark.usefixtures("storage")
def test_too_many_or_too_large_images_are_rejected(
    processor: Dataset, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = send_set_form(browser, *((f"{number}.png", PNG) for number in range(21)), title="Mine")
    monkeypatch.setattr(intake, "_slots", SlotPool(1, 1))
    monkeypatch.setitem(processor.app.config, "MAX_UPLOAD_MB", 1)
    large = send_set_form(browser, ("large.png", PNG + bytes(2**20)), title="Mine")
    larger = send_set_form(browser, ("larger.png", bytes(2 * 2**20)), title="Mine")

    assert (many.status_code, get_field_error(many, "file")) == (422, "Send at most 20 images at once.")
    assert (large.status_code, get_field_error(large, "file")) == (422, "large.png: An image may have at most 1 MiB.")
    assert (larger.status_code, larger.mimetype) == (413, "text/html")
    assert (processor.count_rows(DocumentSet), processor.count_rows(Upload)) == (0, 0)


def test_who_is_not_signed_in_sends_nothing(processor: Dataset) -> None:
    response = post_multipart(Browser(processor.app), ("large.png", bytes(2**21)), token="x")

    assert (response.status_code, response.headers["Location"]) == (303, "/jobs/sign-in")
    assert processor.count_rows(Upload) == 0


def test_a_broken_form_is_no_form_of_ours(processor: Dataset, browser: Browser) -> None:
    response = browser.client.post(
        NEW_SET, data=b"--x\r\nContent-Disposition: form-data", content_type="multipart/form-data; boundary=x"
    )

    assert (response.status_code, response.mimetype) == (403, "text/html")


def test_sets_are_listed_page_by_page_to_their_owner(processor: Dataset, browser: Browser) -> None:
    with processor.app.app_context():
        values = [{"title": f"Set {number:02}", "owner_id": processor.stranger.id} for number in range(22)]
        db.session.execute(insert(DocumentSet), values)
        db.session.commit()
    processor.create_document_set("owner")

    first = browser.get(SETS)
    (older,) = re.findall(rf'href="({SETS}\?older=\d+)"', first.text)
    second = browser.get(older)

    assert re.findall(r"<h2>([^<]+)</h2>", first.text) == [f"Set {number:02}" for number in range(21, 1, -1)]
    assert re.findall(r"<h2>([^<]+)</h2>", second.text) == ["Set 01", "Set 00"]
    assert browser.get(f"{SETS}?older=x").status_code == 400


# The page of a treatment


def hand_off_job(dataset: Dataset, id_: UUID, documents: Iterable[Document]) -> JobRow:
    """Hand the job over to the processor, as a worker does, with a tracking id."""
    with dataset.app.app_context(), open_transaction(is_read=False):
        claimed = lifecycle.claim_job(id_, "tests", LEASE)
        assert claimed is not None
        runs.create_run(claimed, "regions", "a token", list(documents))
        runs.set_tracking_id(claimed, f"run {MARKUP}")
        commit()
    return claimed


def store_regions(dataset: Dataset, id_: UUID, *found: Any) -> None:
    """Store regions as results of the processor."""
    with dataset.app.app_context():
        db.session.add_all(found)
        db.session.commit()
    assert id_


def build_region(id_: UUID, document: str, source: str | None = None, *place: float) -> Region:
    """Return a region."""
    x, y, width, height = place or (1, 2, 30, 20)
    return Region(treatment_id=id_, document=document, source=source or document, x=x, y=y, width=width, height=height)


def build_upload_document(id_: int) -> Document:
    """Return an upload as a document."""
    return Document(f"upload-{id_}", "image", "upload", id_)


def test_the_page_shows_the_processor_documents_and_regions(processor: Dataset, browser: Browser, set_id: int) -> None:
    id_ = start_treatment(browser, set_id, model="mine")
    waiting = browser.get(f"/jobs/{id_}")
    mine, event = build_upload_document(processor.create_upload("stranger")), Document("event-1", "event", "event", 1)
    hand_off_job(processor, id_, [event, mine])
    store_regions(
        processor,
        id_,
        build_region(id_, mine.uid, None, 1, 2.5, 30, 20),
        build_region(id_, "elsewhere", mine.uid),
        build_region(id_, "?"),
    )
    with processor.app.app_context():
        db.session.execute(update(RemoteRun).values(unanswered_polls=3))
        db.session.commit()

    page = browser.get(f"/jobs/{id_}")

    assert "PENDING" in get_page_text(waiting)
    for said in ("All that stranger chose", f"run {MARKUP}", "Unanswered requests 3", "3 regions in 3 images"):
        assert said in get_page_text(page), said
    assert '<rect x="1" y="2.5" width="30" height="20">' in page.text
    assert page.text.count('viewBox="0 0 80 40"') == 2  # unknown documents are shown as text only
    assert page.text.count("<li>30 × 20 at 1, 2") == 3  # noqa: RUF001 - the sign of multiplication
    links = TagCollector(page.text).attribute_values("href")
    assert f"/v1/treatments/{id_}" in links
    assert build_link(model="mine", task_type="regions", document_set=set_id) in links
    assert all(
        source.startswith("/files/uploads/")
        for source in TagCollector(page.text).attribute_values("src")
        if "jobs" not in source
    )


def test_the_page_shows_the_pairs_that_are_most_alike(processor: Dataset, browser: Browser, set_id: int) -> None:
    id_ = start_treatment(browser, set_id, task="similarity")
    mine = build_upload_document(processor.create_upload("stranger"))
    hand_off_job(processor, id_, [mine])
    pairs = [Similarity(treatment_id=id_, document="d", a=mine.uid, b=f"b{n}", score=n / 100) for n in range(60)]
    store_regions(processor, id_, *pairs)

    page = browser.get(f"/jobs/{id_}")

    scores = re.findall(r"<td>(0\.\d{3})</td>", page.text)
    assert (scores[0], scores[-1], len(scores)) == ("0.590", "0.100", 50)
    assert "10 more pairs are less similar." in get_page_text(page)
    assert page.text.count('<img src="/files/uploads/') == 51


def test_treatment_page_limits_results_and_statements(
    processor: Dataset, browser: Browser, set_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = start_treatment(browser, set_id)
    uploads = [build_upload_document(processor.create_upload("stranger", str(number))) for number in range(60)]
    hand_off_job(processor, id_, uploads)
    store_regions(processor, id_, build_region(id_, uploads[0].uid))
    few = count_statements(monkeypatch, lambda: browser.get(f"/jobs/{id_}"))
    store_regions(processor, id_, *(build_region(id_, uploads[0].uid) for _ in range(204)))
    store_regions(processor, id_, *(build_region(id_, each.uid) for each in uploads[1:]))
    store_regions(
        processor, id_, *(Similarity(treatment_id=id_, document="d", a="a", b=str(n), score=0) for n in range(9))
    )

    many = count_statements(monkeypatch, lambda: browser.get(f"/jobs/{id_}"))
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
        assert said in get_page_text(page), said
    monkeypatch.setattr(treatment_queries, "MAX_SCANNED_REGIONS", 100)
    monkeypatch.setattr("app.pages.treatment_presenter.MAX_SCANNED_REGIONS", 100)
    assert "more than 100 regions" in get_page_text(browser.get(f"/jobs/{id_}"))


def count_statements(monkeypatch: pytest.MonkeyPatch, act: Any) -> int:
    """Return the number of SQL statements of a request."""
    asked: list[str] = []
    execute = psycopg.Cursor.execute

    def note(cursor: Any, query: Any, *more: Any, **options: Any) -> Any:
        asked.append(str(query))
        return execute(cursor, query, *more, **options)

    with monkeypatch.context() as patched:
        patched.setattr(psycopg.Cursor, "execute", note)
        act()
    return len(asked)


def test_findings_are_for_those_who_see_the_job(processor: Dataset, browser: Browser, set_id: int) -> None:
    id_ = start_treatment(browser, set_id)
    hand_off_job(processor, id_, [build_upload_document(processor.create_upload("stranger"))])

    assert browser.get(f"/jobs/{id_}/findings").status_code == 200
    assert sign_in_as(processor, "admin").get(f"/jobs/{id_}/findings").text.count("<img") == 1
    assert sign_in_as(processor, "owner").get(f"/jobs/{id_}/findings").status_code == 404
    assert browser.get(f"/jobs/{UNKNOWN_JOB_ID}/findings").status_code == 404
    assert "sign-in" in Browser(processor.app).get(f"/jobs/{id_}/findings").headers["Location"]
    browser.submit_form("/jobs", seconds="1")
    ((sleep, _),) = list_job_rows(browser.get("/jobs?kind=sleep"))
    assert browser.get(f"/jobs/{sleep}/findings").status_code == 404


def test_an_image_that_may_not_be_seen_any_more_is_not_shown(processor: Dataset, browser: Browser, set_id: int) -> None:
    id_ = start_treatment(browser, set_id)
    mine, others = (
        build_upload_document(processor.create_upload("stranger")),
        build_upload_document(processor.create_upload("owner")),
    )
    hidden = Document("event-image-1", "image", "event-image", processor.images["draft"])
    seen = Document("event-image-2", "image", "event-image", processor.images["published"])
    picture = Document("event-1-image", "image", "event", processor.events["published"])
    with processor.app.app_context():
        db.session.execute(update(Upload).where(Upload.id == mine.resource_id).values(deleted_at=func.now()))
        db.session.commit()
    hand_off_job(processor, id_, [mine, others, hidden, seen, picture])

    sources = TagCollector(browser.get(f"/jobs/{id_}/findings").text).attribute_values("src")

    assert len(sources) == 1
    assert sources[0].startswith("/files/images/")


def test_image_of_an_event_is_shown_if_it_is_stored_here(processor: Dataset, browser: Browser, set_id: int) -> None:
    id_ = start_treatment(browser, set_id)
    event_id = processor.events["published"]
    hand_off_job(processor, id_, [Document("event-1-image", "image", "event", event_id)])
    store_regions(processor, id_, build_region(id_, "event-1-image"))

    def sources(url: str) -> list[str]:
        with processor.app.app_context():
            db.session.execute(db.text("UPDATE events SET original_image_url = :url"), {"url": url})
            db.session.commit()
        return TagCollector(browser.get(f"/jobs/{id_}/findings").text).attribute_values("src")

    name = f"/files/uploads/{'0' * 64}.png"
    assert sources(f"{processor.app.config['PUBLIC_URL']}{name}") == [name, name]  # no regions: unknown size
    assert sources(f"https://elsewhere.example{name}") == []


def test_processor_text_is_escaped(processor: Dataset, browser: Browser, set_id: int) -> None:
    with processor.app.app_context():
        db.session.execute(update(DocumentSet).values(title=MARKUP))
        db.session.execute(update(User).where(User.id == processor.stranger.id).values(email=f"{MARKUP}@example.com"))
        db.session.commit()
    id_ = start_treatment(browser, set_id, model=MARKUP[:100])
    hand_off_job(processor, id_, [Document(MARKUP, "image", "upload", processor.create_upload("stranger"))])
    store_regions(processor, id_, build_region(id_, MARKUP, f"{MARKUP} source"), build_region(id_, "other", MARKUP))
    store_regions(processor, id_, Similarity(treatment_id=id_, document=MARKUP, a=MARKUP, b=f"{MARKUP}b", score=1))

    for path in (
        f"/jobs/{id_}",
        f"/jobs/{id_}/findings",
        SETS,
        NEW_SET,
        build_link(task_type="regions", document_set=set_id),
    ):
        page = browser.get(path)
        tags = TagCollector(page.text)
        assert page.status_code == 200
        assert [tag for tag, _ in tags.found].count("script") == (0 if path.endswith("/findings") else 1)
        assert "textarea" not in {tag for tag, _ in tags.found}
        assert not [name for _, each in tags.found for name in each if name.startswith("on") or name == "style"]
        links = [*tags.attribute_values("href"), *tags.attribute_values("src"), *tags.attribute_values("action")]
        assert not [each for each in links if each and not each.startswith(("/", "#"))]
        assert_protected(page)


def test_a_treatment_in_the_trash_leads_nowhere(processor: Dataset, browser: Browser, set_id: int) -> None:
    id_ = start_treatment(browser, set_id)
    with processor.app.app_context():
        db.session.execute(update(Treatment).values(deleted_at=func.now()))
        db.session.commit()

    page = browser.get(f"/jobs/{id_}")

    assert page.status_code == 200
    assert f"/v1/treatments/{id_}" not in TagCollector(page.text).attribute_values("href")


def test_a_page_outlives_its_processor(processor: Dataset, browser: Browser, set_id: int) -> None:
    id_ = start_treatment(browser, set_id)
    processor.app.config["PROCESSOR_URL"] = ""

    page = browser.get(f"/jobs/{id_}")

    assert page.status_code == 200
    assert not [each for each in TagCollector(page.text).attribute_values("href") if each.startswith(NEW)]


def test_trying_again_makes_another_treatment(processor: Dataset, browser: Browser, set_id: int) -> None:
    id_ = start_treatment(browser, set_id, model="mine")
    browser.submit_form(f"/jobs/{id_}/cancel")

    again = browser.submit_form(f"/jobs/{id_}/retry")

    assert again.status_code == 303
    assert processor.count_rows(Treatment) == 2
    page = browser.get(again.headers["Location"])
    assert f'href="/jobs/{id_}"' in page.text
    assert "At the processor" in page.text


@pytest.mark.usefixtures("storage")
def test_stream_sends_new_digest_when_results_change(
    processor: Dataset, browser: Browser, set_id: int, storage: Storage
) -> None:
    id_ = start_treatment(browser, set_id)
    job = hand_off_job(processor, id_, [build_upload_document(processor.create_upload("stranger"))])
    page = browser.get(f"/jobs/{id_}")
    told = EventStreamReader(browser, get_stream_start(page))
    _, first = told.read_event()

    with processor.app.app_context(), open_transaction(is_read=False):
        artifacts.attach_file(job, artifacts.store_file(job, "result-1.json", b"[]", "application/json", partial=True))
        lifecycle.record_progress(job, 0.5, "half")
        commit()
    _, second = told.read_event()
    told.response.close()

    assert first["job"]["findings"] == re.findall(r'data-mark="([^"]+)"', page.text)[0]
    assert second["job"]["findings"] != first["job"]["findings"]
    assert (second["job"]["tracking_id"], second["files"][0]["partial"]) == (f"run {MARKUP}", True)
    assert orjson.dumps(second)


def test_list_stream_shows_treatments(processor: Dataset, browser: Browser, set_id: int) -> None:
    told = EventStreamReader(browser, get_stream_start(browser.get("/jobs")))

    id_ = start_treatment(browser, set_id)
    _, started = told.read_event()
    hand_off_job(processor, id_, [build_upload_document(processor.create_upload("stranger"))])
    _, handed_off = told.read_event()
    told.response.close()

    with processor.app.app_context():
        title = KINDS["regions"].title
    assert [(job["id"], job["title"]) for job in started["jobs"]] == [(str(id_), title)]
    assert [(job["id"], job["state"]) for job in handed_off["jobs"]] == [(str(id_), "running")]
