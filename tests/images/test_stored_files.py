"""Files that no row names are deleted, and no others."""

import os
from datetime import timedelta
from pathlib import Path
from time import time

import pytest
from flask import Flask

from app import stored_files
from app.database import transaction
from app.storage import Storage
from tests.images.background import files, jobs, work_off
from tests.images.pictures import encode, flag
from tests.images.test_resize_api import URL, post, token_of
from tests.images.test_uploads import as_form
from tests.world import World, data

PHOTO = encode(flag(800, 400), "jpeg")


@pytest.fixture(autouse=True)
def _due(app: Flask) -> None:
    """The sweep of a day is due."""
    app.extensions.pop("next_orphan_sweep", None)


def put(storage: Storage, name: str) -> str:
    """A file without a row."""
    storage.put(name, b"nobody's", "image/jpeg")
    return name


def grow_old(storage: Storage) -> None:
    """All files were written two days ago."""
    directory = Path(storage.storage_url.removeprefix("file://"))
    for path in directory.rglob("*"):
        if path.is_file():
            os.utime(path, (time() - 2 * 24 * 3600,) * 2)


def sweep(app: Flask) -> None:
    """What the relay does once a day."""
    with app.app_context():
        stored_files.sweep_orphans(timedelta(0))


ORPHANS = [
    f"uploads/{'a' * 64}.jpg",
    f"images/{'b' * 64}.jpg",
    "jobs/0199a1c2-6d0e-7c4b-9a55-3f1f0f2b7c11/input.jpg",
    "calendars/0199a1c2-6d0e-7c4b-9a55-3f1f0f2b7c11.ics",
]


def test_old_files_without_a_row_are_deleted_once_a_day(app: Flask, storage: Storage) -> None:
    for name in ORPHANS:
        put(storage, name)
    kept = put(storage, "inbox/aaaaaaaa/photo.jpg")
    sweep(app)
    assert files(storage) == sorted([*ORPHANS, kept]), "their rows may be about to be written"
    grow_old(storage)
    sweep(app)
    assert files(storage) == sorted([*ORPHANS, kept]), "once a day"
    app.extensions.pop("next_orphan_sweep")

    sweep(app)

    assert files(storage) == [kept]


def test_no_file_that_a_row_names_is_deleted(app: Flask, world: World, storage: Storage) -> None:
    upload = as_form(world.stranger, PHOTO).get_json()
    path = f"/v1/events/{world.events['published']}"
    world.owner.update(path, "event", {"original-image-url": upload["url"]})
    resized = token_of(post(world.stranger, PHOTO))
    work_off(app)
    made = storage.name(world.stranger.get(f"{URL}/{resized}").get_json()["resized_image_url"])
    resizing = token_of(post(world.stranger, PHOTO))
    image = data(world.owner.get(f"/v1/event-images/{world.images['published']}"))["attributes"]["image-url"]
    put(storage, storage.name(image))
    world.stranger.delete(f"/v1/uploads/{upload['id']}")
    grow_old(storage)
    before = files(storage)
    assert f"jobs/{resizing}/input.jpg" in before

    sweep(app)

    assert files(storage) == before
    assert made in before
    shown = data(world.owner.get(path))["attributes"]
    assert {storage.name(url) for name, url in shown.items() if name.endswith("image-url") and url} <= set(before)


def test_a_file_of_a_picture_that_was_replaced_is_deleted_by_the_sweep(
    app: Flask, world: World, storage: Storage
) -> None:
    path = f"/v1/events/{world.events['published']}"
    for color in (PHOTO, encode(flag(640, 480), "jpeg")):
        world.owner.update(path, "event", {"original-image-url": as_form(world.owner, color).get_json()["url"]})
        work_off(app)
    assert {job.state for job in jobs(app)} == {"succeeded"}
    grow_old(storage)
    before = len(files(storage))

    sweep(app)

    assert before - len(files(storage)) == 3, "its variants; its original is still an upload"


def test_content_that_is_stored_again_is_no_orphan(app: Flask, storage: Storage) -> None:
    name = storage.put_by_content("images", b"content", "jpg", "image/jpeg")
    grow_old(storage)

    assert storage.put_by_content("images", b"content", "jpg", "image/jpeg") == name

    sweep(app)
    assert files(storage) == [name]


def test_all_names_that_are_named_are_found_whatever_public_url_was(app: Flask, world: World, storage: Storage) -> None:
    name = put(storage, ORPHANS[1])
    path = f"/v1/events/{world.events['published']}"
    world.owner.update(path, "event", {"original-image-url": f"https://old.example.com/files/{name}"})
    grow_old(storage)

    sweep(app)

    assert files(storage) == [name]
    with app.app_context(), transaction(is_read=True):
        assert stored_files._used([name, ORPHANS[0]]) == {name}
