"""Calendar file of an event: content, URL and deletion."""

import unicodedata
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import icalendar
import pytest
import vobject
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from app import outbox
from app.events.calendar import MEDIA_TYPE, to_icalendar
from app.events.models import Event
from app.extensions import db
from app.outbox import OutboxEntry
from app.storage import Storage
from tests.dataset import Dataset
from tests.events.calendars import HOST, WRITTEN_AT, make_event

CONSUMER = "events.write_calendar"
REWRITE_CONSUMER = "events.rewrite_calendar"


def parse_event(content: bytes) -> Any:
    """Return the event of a calendar file."""
    (component,) = icalendar.Calendar.from_ical(content).walk("VEVENT")
    return component


def test_a_file_says_what_the_event_says() -> None:
    event = make_event(
        location_name="Hall 1", latitude=52.5, longitude=13.4, external_event_url="https://events.example.com/x"
    )

    component = parse_event(to_icalendar(event, WRITTEN_AT, HOST))

    assert component["UID"] == "abcdef12@events.example"
    assert component["SUMMARY"] == "Grüße, Welt; jetzt"
    assert component["LOCATION"] == "Hall 1"
    assert component["GEO"].to_ical() == "52.5;13.4"
    assert component["URL"] == "https://events.example.com/x"
    assert component["DTSTAMP"].dt == component["LAST-MODIFIED"].dt == WRITTEN_AT


def test_times_are_written_in_utc_beside_the_name_of_the_zone() -> None:
    lines = to_icalendar(make_event(), WRITTEN_AT, HOST).split(b"\r\n")

    assert {b"DTSTART:20270327T090000Z", b"DTEND:20270328T090000Z", b"X-WR-TIMEZONE:Europe/Berlin"} <= set(lines)
    assert b"BEGIN:VTIMEZONE" not in lines


def test_times_from_a_session_in_another_zone_are_written_in_utc() -> None:
    start = datetime(2027, 3, 27, 9, tzinfo=timezone(timedelta(hours=5, minutes=30)))

    lines = to_icalendar(make_event(starts_at=start), start, HOST).split(b"\r\n")

    assert {b"DTSTART:20270327T033000Z", b"DTSTAMP:20270327T033000Z", b"LAST-MODIFIED:20270327T033000Z"} <= set(lines)


@pytest.mark.parametrize(
    ("starts_at", "ends_at", "written"),
    [
        ("10:00:00.1", "10:00:00.9", ("100000Z", "100001Z")),
        ("10:00:00", "10:00:00.000001", ("100000Z", "100001Z")),
        ("10:00:00.999999", "10:00:01", ("100000Z", "100001Z")),
        ("10:00:00", "10:00:01", ("100000Z", "100001Z")),
        ("23:59:59.5", "23:59:59.6", ("235959Z", "000000Z")),
    ],
)
def test_end_of_an_event_shorter_than_a_second_is_after_its_start(
    starts_at: str, ends_at: str, written: tuple[str, str]
) -> None:
    moments = {
        name: datetime.fromisoformat(f"2027-03-27T{moment}+00:00")
        for name, moment in (("starts_at", starts_at), ("ends_at", ends_at))
    }

    component = parse_event(to_icalendar(make_event(**moments), WRITTEN_AT, HOST))

    assert component["DTSTART"].dt < component["DTEND"].dt
    assert [component[name].to_ical().decode().partition("T")[2] for name in ("DTSTART", "DTEND")] == [*written]


@pytest.mark.parametrize(
    ("attribute", "property_"),
    [("name", "SUMMARY"), ("location_name", "LOCATION"), ("searchable_location_name", "LOCATION")],
)
def test_text_with_control_characters_has_none_in_the_calendar(attribute: str, property_: str) -> None:
    text = "".join(map(chr, range(0xA0))) + "\u2028b\u2029c\r\nd\re"

    content = to_icalendar(make_event(**{attribute: text}), WRITTEN_AT, HOST).decode()

    written = content.replace("\r\n", "").replace("\t", "")
    assert [char for char in written if unicodedata.category(char) in ("Cc", "Zl", "Zp")] == []
    expected = "\t" + "\n" * 7 + "".join(map(chr, range(0x20, 0x7F))) + "\n\nb\nc\nd\ne"
    assert parse_event(content.encode())[property_] == expected
    assert vobject.readOne(content).vevent.getChildValue(property_.lower()) == expected


def test_long_text_is_folded_between_characters() -> None:
    content = to_icalendar(make_event(name="ü,€😀" * 60), WRITTEN_AT, HOST)

    assert max(len(line) for line in content.split(b"\r\n")) <= 75
    assert all(line.decode() for line in content.split(b"\r\n")[:-1])
    assert parse_event(content)["SUMMARY"] == "ü,€😀" * 60


def test_small_coordinate_is_written_without_exponent() -> None:
    content = to_icalendar(make_event(latitude=0.00001, longitude=-0.000001), WRITTEN_AT, HOST)

    assert b"GEO:0.000010;-0.000001\r\n" in content


def test_missing_attributes_are_omitted() -> None:
    component = parse_event(to_icalendar(make_event(latitude=1.0, ends_at=None), WRITTEN_AT, HOST))

    assert {"DTEND", "GEO", "LOCATION", "URL"}.isdisjoint(component)


def test_the_same_entry_makes_the_same_bytes() -> None:
    assert to_icalendar(make_event(), WRITTEN_AT, HOST) == to_icalendar(make_event(), WRITTEN_AT, HOST)


@pytest.fixture
def storage(app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """Use an empty directory as the storage behind /files."""
    empty = Storage(tmp_path.as_uri(), app.config["PUBLIC_URL"])
    monkeypatch.setitem(app.extensions, "storage", empty)
    return empty


@pytest.fixture
def write_calendars(app: Flask, storage: Storage) -> Callable[..., int]:
    """Return a function that consumes pending calendar entries and returns their number."""

    def run(consumer: str = CONSUMER) -> int:
        is_open = select(OutboxEntry.id).where(OutboxEntry.consumer == consumer, OutboxEntry.done_at.is_(None))
        with app.app_context():
            ids = db.session.scalars(is_open.order_by(OutboxEntry.id)).all()
            db.session.rollback()
            for entry_id in ids:
                outbox.consume_entry(entry_id)
        return len(ids)

    return run


@pytest.fixture
def ical_url(app: Flask) -> Callable[[int], str | None]:
    """Return a function that reads the calendar URL of an event."""

    def read(event_id: int) -> str | None:
        with app.app_context():
            return db.session.scalar(select(Event.ical_url).where(Event.id == event_id))

    return read


@pytest.fixture
def path(tmp_path: Path) -> Callable[[], list[Path]]:
    """Return a function that lists all files."""
    return lambda: [each for each in tmp_path.rglob("*") if each.is_file()]


def get_status(app: Flask, client: FlaskClient, url: str | None) -> int:
    """Return the status of a GET of a file URL."""
    assert url
    return client.get(url.removeprefix(app.config["PUBLIC_URL"])).status_code


Work = Callable[..., int]
Url = Callable[[int], str | None]
Files = Callable[[], list[Path]]


def update_event(dataset: Dataset, event: str, **attributes: object) -> None:
    """PATCH by the owner."""
    response = dataset.owner.update(f"/v1/events/{dataset.events[event]}", "event", attributes)
    assert response.status_code == 200, response.text


def test_a_published_event_gets_a_file_that_can_be_fetched(
    app: Flask, client: FlaskClient, dataset: Dataset, write_calendars: Work, ical_url: Url
) -> None:
    write_calendars()

    url = ical_url(dataset.events["published"])
    assert url
    assert url.startswith(f"{app.config['PUBLIC_URL']}/files/calendars/")
    assert get_status(app, client, url) == 200
    assert ical_url(dataset.events["draft"]) is None
    assert ical_url(dataset.events["trashed"]) is None


def test_writing_the_url_wakes_nobody(dataset: Dataset, write_calendars: Work) -> None:
    assert write_calendars() > 0

    assert write_calendars() == 0


def test_the_url_stays_while_the_content_changes(
    app: Flask, client: FlaskClient, dataset: Dataset, write_calendars: Work, ical_url: Url, path: Files
) -> None:
    write_calendars()
    before, files = ical_url(dataset.events["published"]), len(path())

    update_event(dataset, "published", name="Another name")
    write_calendars()

    assert ical_url(dataset.events["published"]) == before
    assert len(path()) == files
    assert before
    content = client.get(before.removeprefix(app.config["PUBLIC_URL"])).data
    assert parse_event(content)["SUMMARY"] == "Another name"


@pytest.mark.parametrize(
    ("starts_at", "ends_at", "written"),
    [
        ("2027-07-10T11:00:00+02:00", "2027-07-10T14:00:00+02:00", ["20270710T090000Z", "20270710T120000Z"]),
        ("2038-07-10T11:00:00+02:00", "2038-07-10T14:00:00+02:00", ["20380710T090000Z", "20380710T120000Z"]),
        ("2027-03-28T01:30:00+01:00", "2027-03-28T03:30:00+02:00", ["20270328T003000Z", "20270328T013000Z"]),
        ("2027-10-31T02:30:00+02:00", "2027-10-31T02:15:00+01:00", ["20271031T003000Z", "20271031T011500Z"]),
        ("2027-07-10T10:00:00.1Z", "2027-07-10T10:00:00.9Z", ["20270710T100000Z", "20270710T100001Z"]),
    ],
)
def test_times_sent_to_the_api_are_those_of_the_calendar(
    app: Flask,
    client: FlaskClient,
    dataset: Dataset,
    write_calendars: Work,
    ical_url: Url,
    starts_at: str,
    ends_at: str,
    written: list[str],
) -> None:
    update_event(dataset, "published", **{"starts-at": starts_at, "ends-at": ends_at})
    write_calendars()

    url = ical_url(dataset.events["published"])
    assert url
    component = parse_event(client.get(url.removeprefix(app.config["PUBLIC_URL"])).data)
    assert [component[name].to_ical().decode() for name in ("DTSTART", "DTEND")] == written


@pytest.mark.parametrize("way", ["unpublished", "deleted"])
def test_calendar_is_deleted_when_event_is_not_public(
    app: Flask, client: FlaskClient, dataset: Dataset, write_calendars: Work, ical_url: Url, way: str
) -> None:
    write_calendars()
    event_id = dataset.events["published"]
    before = ical_url(event_id)

    if way == "unpublished":
        update_event(dataset, "published", state="draft")
    else:
        assert dataset.owner.delete(f"/v1/events/{event_id}").status_code == 200
    write_calendars()

    assert ical_url(event_id) is None
    assert get_status(app, client, before) == 404


@pytest.mark.parametrize("attributes", [[{"state": "draft"}, {"state": "published"}], [{"privacy": "private"}]])
def test_republished_event_gets_new_calendar_url(
    app: Flask,
    client: FlaskClient,
    dataset: Dataset,
    write_calendars: Work,
    ical_url: Url,
    attributes: list[dict[str, object]],
) -> None:
    write_calendars()
    event_id = dataset.events["published"]
    before = ical_url(event_id)

    for each in attributes:
        update_event(dataset, "published", **each)
    write_calendars()

    after = ical_url(event_id)
    assert after != before
    assert get_status(app, client, after) == 200
    assert get_status(app, client, before) == 404


def test_an_attribute_that_does_not_show_writes_nothing(dataset: Dataset, write_calendars: Work) -> None:
    write_calendars()

    update_event(dataset, "published", description="Longer")

    assert write_calendars() == 0


def test_a_try_that_failed_leaves_no_file_when_the_event_is_a_draft_by_then(
    app: Flask, dataset: Dataset, write_calendars: Work, storage: Storage, path: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_calendars()
    update_event(dataset, "draft", state="published")
    monkeypatch.setattr("app.events.tasks._set_url", lambda *_: (_ for _ in ()).throw(RuntimeError("after the file")))
    files = len(path())
    with pytest.raises(RuntimeError):
        write_calendars()
    assert len(path()) == files + 1
    monkeypatch.undo()
    monkeypatch.setitem(app.extensions, "storage", storage)

    update_event(dataset, "draft", state="draft")
    write_calendars()

    assert len(path()) == files


def run_migration(app: Flask, direction: str) -> None:
    """Run one direction of the migration that orders all calendars again."""
    scripts = ScriptDirectory(app.extensions["migrate"].directory)
    run = getattr(scripts.get_revision("0011").module, direction)
    with app.app_context(), db.engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        run()


def test_upgrade_rewrites_every_calendar_under_its_url(
    app: Flask, client: FlaskClient, dataset: Dataset, write_calendars: Work, ical_url: Url, storage: Storage
) -> None:
    write_calendars()
    urls = {id_: ical_url(id_) for id_ in dataset.events.values()}
    written = [url for url in urls.values() if url]
    for url in written:
        storage.put(storage.get_name_from_url(url), b"as the version before wrote it", MEDIA_TYPE)

    run_migration(app, "upgrade")

    assert write_calendars(REWRITE_CONSUMER) == len(written) > 1
    assert {id_: ical_url(id_) for id_ in urls} == urls
    for url in written:
        assert parse_event(client.get(url.removeprefix(app.config["PUBLIC_URL"])).data)["DTSTART"]


def test_upgrade_spreads_the_rewriting_and_begins_with_coming_events(
    app: Flask, dataset: Dataset, write_calendars: Work
) -> None:
    write_calendars()
    past, coming = dataset.events["published"], dataset.events["others"]
    update_event(dataset, "published", **{"starts-at": "2020-01-01T10:00:00Z", "ends-at": "2020-01-01T11:00:00Z"})

    run_migration(app, "upgrade")

    entries = select(OutboxEntry.payload["id"].as_integer(), OutboxEntry.due_at).order_by(OutboxEntry.next_at)
    with app.app_context():
        due = db.session.execute(entries.where(OutboxEntry.consumer == REWRITE_CONSUMER)).all()
    assert [id_ for id_, _ in due if id_ in (past, coming)] == [coming, past]
    assert {later - sooner for (_, sooner), (_, later) in pairwise(due)} == {timedelta(milliseconds=50)}


def test_downgrade_takes_back_what_has_not_been_rewritten(app: Flask, dataset: Dataset, write_calendars: Work) -> None:
    write_calendars()
    run_migration(app, "upgrade")

    run_migration(app, "downgrade")

    assert write_calendars(REWRITE_CONSUMER) == 0
