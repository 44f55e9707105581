"""Deletion of stored files that no row refers to, and of no others."""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from time import time
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from flask import Flask
from sqlalchemy import update

from app import stored_files
from app.database import commit, get_connection, open_transaction
from app.events.models import Event
from app.jsonapi.fields import Url
from app.jsonapi.resource_type import TYPES
from app.storage import Storage
from tests.dataset import Dataset, get_data
from tests.images.job_helpers import list_files, list_jobs, run_all_jobs
from tests.images.sample_images import encode_image, make_flag_image
from tests.images.test_resize_api import URL, get_token, post_image
from tests.images.test_uploads import send_as_form
from tests.worker_process import run_process

PHOTO = encode_image(make_flag_image(800, 400), "jpeg")


@pytest.fixture(autouse=True)
def _make_sweep_due(app: Flask, storage: Storage) -> None:
    """Claim an empty storage and make the daily sweep due, as in a relay that has run for a while."""
    app.extensions.pop("next_orphan_sweep", None)
    run_sweep(app)
    make_due(app)


def make_due(app: Flask) -> None:
    """Make the next sweep due."""
    app.extensions["next_orphan_sweep"] = 0.0


def put_orphan(storage: Storage, name: str) -> str:
    """Store a file without a row; return its name."""
    storage.put(name, b"orphan", "image/jpeg")
    return name


def age_files(storage: Storage) -> None:
    """Set the modification time of all files to two days ago."""
    directory = Path(storage.storage_url.removeprefix("file://"))
    for path in directory.rglob("*"):
        if path.is_file():
            os.utime(path, (time() - 2 * 24 * 3600,) * 2)


def run_sweep(app: Flask) -> None:
    """Run the daily sweep, as the relay does."""
    with app.app_context():
        stored_files.sweep_orphans(timedelta(0))


ORPHANS = [
    f"uploads/{'a' * 64}.jpg",
    f"images/{'b' * 64}.jpg",
    "jobs/0199a1c2-6d0e-7c4b-9a55-3f1f0f2b7c11/input.jpg",
    "calendars/0199a1c2-6d0e-7c4b-9a55-3f1f0f2b7c12.ics",
]


def test_old_files_without_a_row_are_deleted_once_a_day(app: Flask, storage: Storage) -> None:
    for name in ORPHANS:
        put_orphan(storage, name)
    kept = put_orphan(storage, "inbox/aaaaaaaa/photo.jpg")
    run_sweep(app)
    assert list_files(storage) == sorted([*ORPHANS, kept]), "their rows may be about to be written"
    age_files(storage)
    run_sweep(app)
    assert list_files(storage) == sorted([*ORPHANS, kept]), "once a day"
    make_due(app)

    run_sweep(app)

    assert list_files(storage) == [kept]


def test_the_sweep_does_not_run_within_the_first_minutes_after_the_start(app: Flask, storage: Storage) -> None:
    put_orphan(storage, ORPHANS[0])
    age_files(storage)
    app.extensions.pop("next_orphan_sweep")

    run_sweep(app)
    run_sweep(app)

    assert list_files(storage) == [ORPHANS[0]]
    assert stored_files.START_DELAY_SECONDS >= 300


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return a list that collects the fields of the warnings of the sweep."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(stored_files.log, "warning", lambda _event, **fields: found.append(fields))
    return found


@pytest.mark.parametrize("marker", [b"the id of another database", b"", None])
def test_no_file_of_a_storage_that_belongs_to_another_database_is_deleted(
    app: Flask, storage: Storage, warnings: list[dict[str, Any]], marker: bytes | None
) -> None:
    own = storage.read_file(stored_files.MARKER)
    put_orphan(storage, ORPHANS[0])
    age_files(storage)
    if marker is None:
        storage.delete(stored_files.MARKER)
    else:
        storage.put(stored_files.MARKER, marker, "text/plain")

    run_sweep(app)
    run_sweep(app)

    assert list_files(storage) == [ORPHANS[0]]
    assert storage.exists(stored_files.MARKER) == (marker is not None), "no storage with files is claimed"
    assert [(fields["marker"], fields["expected"]) for fields in warnings] == [(stored_files.MARKER, own.decode())]

    storage.put(stored_files.MARKER, own + b"\n", "text/plain")
    make_due(app)
    run_sweep(app)
    assert list_files(storage) == [], "the operator has written the id there"


def test_another_database_has_another_id(app: Flask, environment: dict[str, str]) -> None:
    name = f"other_{uuid4().hex}"
    with app.app_context():
        own = stored_files.get_database_id()
    with psycopg.connect(environment["DATABASE_URL"], autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
        try:
            url = environment["DATABASE_URL"].replace("/postgres?", f"/{name}?")
            with psycopg.connect(url) as other:
                assert other.execute(stored_files._select_database_id.text).fetchall() != [(own,)]
            with psycopg.connect(environment["DATABASE_URL"]) as same:
                same.execute("SET ROLE pg_signal_backend")  # a user without any rights here
                assert same.execute(stored_files._select_database_id.text).fetchall() == [(own,)]
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize(("used", "is_refused"), [(300, True), (600, False)])
def test_more_than_a_fifth_of_all_files_is_not_deleted_at_once(
    app: Flask,
    storage: Storage,
    warnings: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    used: int,
    is_refused: bool,
) -> None:
    names = {put_orphan(storage, f"uploads/{number:064x}.jpg") for number in range(used)}
    monkeypatch.setattr(stored_files, "FINDERS", [names.intersection])
    for number in range(101):
        put_orphan(storage, f"images/{number:064x}.jpg")
    age_files(storage)

    run_sweep(app)

    assert len(list_files(storage)) == used + (101 if is_refused else 0)
    assert [(fields["orphans"], fields["files"]) for fields in warnings] == ([(101, used + 101)] if is_refused else [])


URLS = [
    "http://localhost:5000/files/{}",
    "http://localhost:5000/files/{}?v=1",
    "http://localhost:5000/files/{}#top",
    "http://localhost:5000/files/{}?from=/files/images/other.png#/files/images/other.png",
    "http://h/files/files/{}",
    "http://h/a/files/b/files/{}",
    "https://cdn.example.com/{}",
]


def test_every_attribute_with_a_url_names_a_file(app: Flask, dataset: Dataset, storage: Storage) -> None:
    events = TYPES["event"].attributes.values()
    attributes = [each.key for each in events if isinstance(each.field, Url) and not each.field.dump_only]
    assert {"logo-url", "original-image-url", "public-stream-link", "ticket-url"} <= set(attributes)
    path = f"/v1/events/{dataset.events['published']}"
    cases = [(attribute, url) for attribute in attributes for url in URLS[:1]]
    cases += [("logo-url", url) for url in URLS]
    for attribute, url in cases:
        answer = dataset.owner.update(path, "event", {attribute: url.format(ORPHANS[1])})
        assert answer.status_code == 200, answer.text
        with app.app_context(), open_transaction(is_read=True):
            assert stored_files._find_used([ORPHANS[1], ORPHANS[0]]) == {ORPHANS[1]}, (attribute, url)
        dataset.owner.update(path, "event", {attribute: None})
        with app.app_context(), open_transaction(is_read=True):
            assert stored_files._find_used([ORPHANS[1], ORPHANS[0]]) == set()


def test_every_column_with_a_url_is_an_attribute_that_names_files() -> None:
    for known in TYPES.values():
        columns = {name for name in known.table.c.keys() if name.endswith("_url")}  # noqa: SIM118  # not a dict
        urls = {name for name, each in known.attributes.items() if isinstance(each.field, Url)}
        assert columns <= urls, known.name


@pytest.mark.parametrize("url", URLS)
def test_document_links_name_files(app: Flask, dataset: Dataset, storage: Storage, url: str) -> None:
    path = f"/v1/events/{dataset.events['published']}"
    links = [{"name": "a", "link": "https://example.com"}, {"name": "b", "link": url.format(ORPHANS[0])}]

    assert dataset.owner.update(path, "event", {"document-links": links}).status_code == 200

    with app.app_context(), open_transaction(is_read=True):
        assert stored_files._find_used(ORPHANS[:2]) == {ORPHANS[0]}


@pytest.mark.parametrize("attribute", ["document-links", "logo-url"])
def test_the_file_of_a_deleted_upload_stays_while_an_event_names_it(
    app: Flask, dataset: Dataset, storage: Storage, attribute: str
) -> None:
    upload = send_as_form(dataset.owner, PHOTO).get_json()
    url = f"{upload['url']}?v=1"
    value = [{"name": "Plan", "link": url}] if attribute == "document-links" else url
    path = f"/v1/events/{dataset.events['published']}"
    assert dataset.owner.update(path, "event", {attribute: value}).status_code == 200

    assert dataset.owner.delete(f"/v1/uploads/{upload['id']}").status_code in (200, 204)
    run_all_jobs(app)

    assert storage.exists(storage.get_name_from_url(upload["url"]))


@pytest.mark.parametrize("public_url", ["http://h/files", "http://h/a/files/b"])
def test_files_are_in_use_where_public_url_has_a_segment_files(
    app: Flask, dataset: Dataset, storage: Storage, monkeypatch: pytest.MonkeyPatch, public_url: str
) -> None:
    monkeypatch.setattr(storage, "public_url", public_url)
    path = f"/v1/events/{dataset.events['published']}"
    upload = send_as_form(dataset.owner, PHOTO).get_json()
    assert upload["url"].startswith(f"{public_url}/files/uploads/")
    dataset.owner.update(path, "event", {"original-image-url": upload["url"], "name": "Renamed"})
    get_token(post_image(dataset.stranger, PHOTO))
    run_all_jobs(app)
    calendar = storage.get_url(put_orphan(storage, ORPHANS[3]))
    with app.app_context(), open_transaction(is_read=False):
        get_connection().execute(update(Event).where(Event.id == dataset.events["published"]).values(ical_url=calendar))
        commit()
    age_files(storage)
    before = list_files(storage)
    assert {name.partition("/")[0] for name in before} == {"calendars", "images", "uploads"}

    run_sweep(app)

    assert list_files(storage) == before
    assert storage.get_public_name(upload["url"]) == storage.get_name_from_url(upload["url"])


def test_no_file_that_a_row_names_is_deleted(app: Flask, dataset: Dataset, storage: Storage) -> None:
    upload = send_as_form(dataset.stranger, PHOTO).get_json()
    path = f"/v1/events/{dataset.events['published']}"
    dataset.owner.update(path, "event", {"original-image-url": upload["url"]})
    resized = get_token(post_image(dataset.stranger, PHOTO))
    run_all_jobs(app)
    made = storage.get_name_from_url(dataset.stranger.get(f"{URL}/{resized}").get_json()["resized_image_url"])
    resizing = get_token(post_image(dataset.stranger, PHOTO))
    image = get_data(dataset.owner.get(f"/v1/event-images/{dataset.images['published']}"))["attributes"]["image-url"]
    put_orphan(storage, storage.get_name_from_url(image))
    dataset.stranger.delete(f"/v1/uploads/{upload['id']}")
    age_files(storage)
    before = list_files(storage)
    assert f"jobs/{resizing}/input.jpg" in before

    run_sweep(app)

    assert list_files(storage) == before
    assert made in before
    shown = get_data(dataset.owner.get(path))["attributes"]
    assert {storage.get_name_from_url(url) for name, url in shown.items() if name.endswith("image-url") and url} <= set(
        before
    )


def test_file_of_a_replaced_image_is_deleted_by_the_sweep(app: Flask, dataset: Dataset, storage: Storage) -> None:
    path = f"/v1/events/{dataset.events['published']}"
    for color in (PHOTO, encode_image(make_flag_image(640, 480), "jpeg")):
        dataset.owner.update(
            path, "event", {"original-image-url": send_as_form(dataset.owner, color).get_json()["url"]}
        )
        run_all_jobs(app)
    assert {job.state for job in list_jobs(app)} == {"succeeded"}
    age_files(storage)
    before = len(list_files(storage))

    run_sweep(app)

    assert before - len(list_files(storage)) == 3, "its variants; its original is still an upload"


def test_content_that_is_stored_again_is_no_orphan(app: Flask, storage: Storage) -> None:
    name = storage.put_content_addressed("images", b"content", "jpg", "image/jpeg")
    age_files(storage)

    assert storage.put_content_addressed("images", b"content", "jpg", "image/jpeg") == name

    run_sweep(app)
    assert list_files(storage) == [name]


def test_all_names_that_are_named_are_found_whatever_public_url_was(
    app: Flask, dataset: Dataset, storage: Storage
) -> None:
    name = put_orphan(storage, ORPHANS[1])
    path = f"/v1/events/{dataset.events['published']}"
    dataset.owner.update(path, "event", {"original-image-url": f"https://old.example.com/files/{name}"})
    age_files(storage)

    run_sweep(app)

    assert list_files(storage) == [name]
    with app.app_context(), open_transaction(is_read=True):
        assert stored_files._find_used([name, ORPHANS[0]]) == {name}


@pytest.mark.faults
def test_a_relay_that_starts_claims_an_empty_storage(
    app: Flask, environment: dict[str, str], tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    url = (tmp_path / "new").as_uri()
    with app.app_context():
        own = stored_files.get_database_id()
    with run_process({**environment, "STORAGE_URL": url, "VAR_DIR": str(tmp_path)}, tmp_path / "relay", "relay", "60"):
        marker = tmp_path / "new" / stored_files.MARKER
        wait_until(lambda: marker.exists() and marker.read_text() == own, 60)
