"""Files: whole or not there, under names of ours alone, served as what they are."""

from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.storage import Storage

CALENDAR = b"BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """A directory with a space in its path, not made yet."""
    return Storage((tmp_path / "some files").as_uri(), "https://events.example.com")


@pytest.fixture
def served(app: Flask, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """The same, behind /files."""
    monkeypatch.setitem(app.extensions, "storage", storage)
    return storage


def test_what_was_put_can_be_read(storage: Storage) -> None:
    storage.put("calendars/a.ics", CALENDAR, "text/calendar")
    storage.put("calendars/a.ics", CALENDAR * 2, "text/calendar")

    assert storage.read("calendars/a.ics") == CALENDAR * 2


def test_what_was_deleted_is_gone_and_may_be_deleted_again(storage: Storage) -> None:
    storage.put("calendars/a.ics", CALENDAR, "text/calendar")

    storage.delete("calendars/a.ics")
    storage.delete("calendars/a.ics")

    with pytest.raises(FileNotFoundError):
        storage.read("calendars/a.ics")


def test_nothing_unfinished_is_left_in_the_directory(storage: Storage, tmp_path: Path) -> None:
    storage.put("calendars/a.ics", CALENDAR, "text/calendar")

    assert [path.name for path in (tmp_path / "some files").rglob("*") if path.is_file()] == ["a.ics"]


def test_a_url_is_absolute_and_leads_back_to_the_name(storage: Storage) -> None:
    url = storage.url("calendars/a.ics")

    assert url == "https://events.example.com/files/calendars/a.ics"
    assert storage.name(url) == "calendars/a.ics"
    assert storage.name("http://where.we.were.before/files/calendars/a.ics") == "calendars/a.ics"


@pytest.mark.parametrize(
    "name",
    ["", "a", "/a.ics", "../a.ics", "a/../b.ics", "a//b.ics", ".a.ics", "a.b.ics", "a b.ics", "a.ics\n", "ä.ics"],
)
def test_a_name_that_is_not_ours_is_refused(storage: Storage, name: str) -> None:
    for act in (storage.read, storage.delete, storage.url):
        with pytest.raises(ValueError, match="no name of a stored file"):
            act(name)


def test_a_file_is_served_with_its_type(client: FlaskClient, served: Storage) -> None:
    served.put("calendars/a.ics", CALENDAR, "text/calendar")

    response = client.get("/files/calendars/a.ics")

    assert response.status_code == 200
    assert response.data == CALENDAR
    assert response.headers["Content-Type"] == "text/calendar; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_head_tells_the_length_without_the_content(client: FlaskClient, served: Storage) -> None:
    served.put("calendars/a.ics", CALENDAR, "text/calendar")

    response = client.head("/files/calendars/a.ics")

    assert (response.status_code, response.data) == (200, b"")
    assert response.content_length == len(CALENDAR)


def test_an_unchanged_file_is_not_sent_again(client: FlaskClient, served: Storage) -> None:
    served.put("calendars/a.ics", CALENDAR, "text/calendar")
    etag = client.get("/files/calendars/a.ics").headers["ETag"]

    same = client.get("/files/calendars/a.ics", headers={"If-None-Match": etag})
    served.put("calendars/a.ics", CALENDAR * 2, "text/calendar")
    changed = client.get("/files/calendars/a.ics", headers={"If-None-Match": etag})

    assert (same.status_code, same.data) == (304, b"")
    assert changed.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "",
        "calendars",
        "calendars/",
        "calendars/none.ics",
        "calendars/a.txt",
        "../secret-key",
        "%2e%2e/secret.ics",
        "calendars%2f..%2f..%2fsecret.ics",
        "..%5csecret.ics",
        "a%00.ics",
    ],
)
def test_anything_else_is_a_plain_404(client: FlaskClient, served: Storage, tmp_path: Path, path: str) -> None:
    served.put("calendars/a.ics", CALENDAR, "text/calendar")
    served.put("calendars/a.txt", b"not for the web", "text/plain")
    (tmp_path / "secret.ics").write_bytes(b"secret")

    response = client.get(f"/files/{path}")

    assert response.status_code == 404
    assert response.content_type == "application/vnd.api+json"
    assert b"secret" not in response.data
