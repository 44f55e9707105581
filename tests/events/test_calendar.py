"""The calendar file of an event: what is in it, where it is, and when it goes."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import icalendar
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from app import outbox
from app.events.calendar import to_icalendar
from app.events.models import Event
from app.extensions import db
from app.outbox import OutboxEntry
from app.storage import Storage
from tests.world import World

CONSUMER = "events.write_calendar"
HOST = "events.example"
WRITTEN = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)


def an_event(**columns: object) -> Event:
    """An event in Berlin, over the change to summer time."""
    return Event(
        **{
            "identifier": "abcdef12",
            "name": "Grüße, Welt; jetzt",
            "timezone": "Europe/Berlin",
            "starts_at": datetime(2027, 3, 27, 9, tzinfo=UTC),
            "ends_at": datetime(2027, 3, 28, 9, tzinfo=UTC),
            **columns,
        }
    )


def parsed(content: bytes) -> Any:
    """The event of a file."""
    (component,) = icalendar.Calendar.from_ical(content).walk("VEVENT")
    return component


def test_a_file_says_what_the_event_says() -> None:
    event = an_event(
        location_name="Hall 1", latitude=52.5, longitude=13.4, external_event_url="https://events.example.com/x"
    )

    component = parsed(to_icalendar(event, WRITTEN, HOST))

    assert component["UID"] == "abcdef12@events.example"
    assert component["SUMMARY"] == "Grüße, Welt; jetzt"
    assert component["LOCATION"] == "Hall 1"
    assert component["GEO"].to_ical() == "52.5;13.4"
    assert component["URL"] == "https://events.example.com/x"
    assert component["DTSTAMP"].dt == component["LAST-MODIFIED"].dt == WRITTEN


def test_times_stand_in_the_zone_of_the_event() -> None:
    content = to_icalendar(an_event(), WRITTEN, HOST)

    assert b"DTSTART;TZID=Europe/Berlin:20270327T100000" in content
    assert b"DTEND;TZID=Europe/Berlin:20270328T110000" in content
    assert b"BEGIN:VTIMEZONE\r\nTZID:Europe/Berlin" in content


@pytest.mark.parametrize("timezone", ["UTC", "America/Argentina/Buenos_Aires", "Asia/Kathmandu", "Etc/GMT+5", "GMT"])
def test_any_zone_keeps_the_moment(timezone: str) -> None:
    event = an_event(timezone=timezone)

    assert parsed(to_icalendar(event, WRITTEN, HOST))["DTSTART"].dt == event.starts_at


def test_what_an_event_does_not_have_is_left_out() -> None:
    component = parsed(to_icalendar(an_event(latitude=1.0, ends_at=None), WRITTEN, HOST))

    assert {"DTEND", "GEO", "LOCATION", "URL"}.isdisjoint(component)


def test_the_same_entry_makes_the_same_bytes() -> None:
    assert to_icalendar(an_event(), WRITTEN, HOST) == to_icalendar(an_event(), WRITTEN, HOST)


@pytest.fixture
def storage(app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """An empty directory behind /files."""
    empty = Storage(tmp_path.as_uri(), app.config["PUBLIC_URL"])
    monkeypatch.setitem(app.extensions, "storage", empty)
    return empty


@pytest.fixture
def work(app: Flask, storage: Storage) -> Callable[[], int]:
    """A function that does what the worker does with open calendar entries; how many there were."""

    def run() -> int:
        is_open = select(OutboxEntry.id).where(OutboxEntry.consumer == CONSUMER, OutboxEntry.done_at.is_(None))
        with app.app_context():
            ids = db.session.scalars(is_open.order_by(OutboxEntry.id)).all()
            db.session.rollback()
            for entry_id in ids:
                outbox.consume(entry_id)
        return len(ids)

    return run


@pytest.fixture
def ical_url(app: Flask) -> Callable[[int], str | None]:
    """A function that tells the URL an event has now."""

    def read(event_id: int) -> str | None:
        with app.app_context():
            return db.session.scalar(select(Event.ical_url).where(Event.id == event_id))

    return read


@pytest.fixture
def path(tmp_path: Path) -> Callable[[], list[Path]]:
    """A function that lists all files."""
    return lambda: [each for each in tmp_path.rglob("*") if each.is_file()]


def fetch(app: Flask, client: FlaskClient, url: str | None) -> int:
    """The status of an address that was handed out."""
    assert url
    return client.get(url.removeprefix(app.config["PUBLIC_URL"])).status_code


Work = Callable[[], int]
Url = Callable[[int], str | None]
Files = Callable[[], list[Path]]


def change(world: World, event: str, **attributes: object) -> None:
    """PATCH by the owner."""
    response = world.owner.update(f"/v1/events/{world.events[event]}", "event", attributes)
    assert response.status_code == 200, response.text


def test_a_published_event_gets_a_file_that_can_be_fetched(
    app: Flask, client: FlaskClient, world: World, work: Work, ical_url: Url
) -> None:
    work()

    url = ical_url(world.events["published"])
    assert url
    assert url.startswith(f"{app.config['PUBLIC_URL']}/files/calendars/")
    assert fetch(app, client, url) == 200
    assert ical_url(world.events["draft"]) is None
    assert ical_url(world.events["trashed"]) is None


def test_writing_the_url_wakes_nobody(world: World, work: Work) -> None:
    assert work() > 0

    assert work() == 0


def test_the_url_stays_while_the_content_changes(
    app: Flask, client: FlaskClient, world: World, work: Work, ical_url: Url, path: Files
) -> None:
    work()
    before, files = ical_url(world.events["published"]), len(path())

    change(world, "published", name="Another name")
    work()

    assert ical_url(world.events["published"]) == before
    assert len(path()) == files
    assert before
    content = client.get(before.removeprefix(app.config["PUBLIC_URL"])).data
    assert parsed(content)["SUMMARY"] == "Another name"


@pytest.mark.parametrize("way", ["unpublished", "deleted"])
def test_what_is_no_longer_public_has_no_file(
    app: Flask, client: FlaskClient, world: World, work: Work, ical_url: Url, way: str
) -> None:
    work()
    event_id = world.events["published"]
    before = ical_url(event_id)

    if way == "unpublished":
        change(world, "published", state="draft")
    else:
        assert world.owner.delete(f"/v1/events/{event_id}").status_code == 200
    work()

    assert ical_url(event_id) is None
    assert fetch(app, client, before) == 404


@pytest.mark.parametrize("attributes", [[{"state": "draft"}, {"state": "published"}], [{"privacy": "private"}]])
def test_who_knew_the_old_url_does_not_know_the_new_one(
    app: Flask,
    client: FlaskClient,
    world: World,
    work: Work,
    ical_url: Url,
    attributes: list[dict[str, object]],
) -> None:
    work()
    event_id = world.events["published"]
    before = ical_url(event_id)

    for each in attributes:
        change(world, "published", **each)
    work()

    after = ical_url(event_id)
    assert after != before
    assert fetch(app, client, after) == 200
    assert fetch(app, client, before) == 404


def test_an_attribute_that_does_not_show_writes_nothing(world: World, work: Work) -> None:
    work()

    change(world, "published", description="Longer")

    assert work() == 0


def test_a_try_that_failed_leaves_no_file_when_the_event_is_a_draft_by_then(
    app: Flask, world: World, work: Work, storage: Storage, path: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    work()
    change(world, "draft", state="published")
    monkeypatch.setattr("app.events.tasks._set_url", lambda *_: (_ for _ in ()).throw(RuntimeError("after the file")))
    files = len(path())
    with pytest.raises(RuntimeError):
        work()
    assert len(path()) == files + 1
    monkeypatch.undo()
    monkeypatch.setitem(app.extensions, "storage", storage)

    change(world, "draft", state="draft")
    work()

    assert len(path()) == files
