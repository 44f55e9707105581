"""What users may store: a share of each day, a sum of all, and a disk that is never filled."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select, update
from werkzeug.test import TestResponse

from app import quotas
from app.database import commit, connection, transaction
from app.images.uploads import PIXELS_PER_BYTE
from app.jobs import running
from app.quotas import DailyBytes
from app.storage import Storage
from app.uploads.models import Upload
from tests.images.background import files, jobs, work_off
from tests.images.pictures import encode, flag, plain
from tests.images.test_resize_api import post
from tests.images.test_uploads import as_data_url, as_form
from tests.jobs import kinds as _kinds  # noqa: F401  # declares them
from tests.world import Caller, World, errors

PHOTO = encode(flag(400, 200), "jpeg")
Send = Callable[[Caller, bytes], TestResponse]


@pytest.fixture(autouse=True)
def _counted_anew(app: Flask) -> None:
    """The sum of all stored bytes is asked for again."""
    app.extensions.pop("stored_bytes", None)


def send_resize(caller: Caller, content: bytes) -> TestResponse:
    """An image for the resize API."""
    return post(caller, content)


def set_sent(world: World, caller: Caller, size: int) -> None:
    """What a caller has sent today."""
    with world.app.app_context(), transaction(is_read=False):
        connection().execute(update(DailyBytes).where(DailyBytes.share == caller.id).values(bytes=size))
        commit()


def refused(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    """The error of a request that was refused."""
    (error,) = errors(response)
    assert (response.status_code, error["code"]) == (status, code)
    assert int(response.headers["Retry-After"]) > 0
    return error


@pytest.mark.parametrize("send", [as_form, as_data_url, send_resize])
def test_a_user_stores_no_more_than_the_share_of_a_day(
    app: Flask, world: World, storage: Storage, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "MAX_UPLOAD_MB_PER_DAY", 1)
    assert send(world.stranger, PHOTO).status_code in (200, 202)
    set_sent(world, world.stranger, 2**20 - 1)
    before = files(storage)

    error = refused(send(world.stranger, encode(flag(300, 200), "jpeg")), 429, "too-many-bytes")
    assert error["detail"] == "At most 1 MiB a day are taken from one user. The next day begins at 00:00 UTC."
    set_sent(world, world.stranger, 2**20)
    refused(send(world.stranger, encode(flag(200, 200), "jpeg")), 429, "too-many-bytes")

    assert len(files(storage)) <= len(before) + 1
    assert send(world.owner, PHOTO).status_code in (200, 202)


@pytest.mark.parametrize("send", [as_form, as_data_url])
def test_image_of_few_bytes_and_many_pixels_counts_for_its_pixels(world: World, storage: Storage, send: Send) -> None:
    flat = encode(plain(4000, 3000), "png")
    assert len(flat) < 4000 * 3000 // PIXELS_PER_BYTE

    assert send(world.stranger, flat).status_code == 200
    assert send(world.owner, PHOTO).status_code == 200

    with world.app.app_context(), transaction(is_read=True):
        counted = dict(connection().execute(select(DailyBytes.share, DailyBytes.bytes)).tuples().all())
    assert counted[world.stranger.id] == 4000 * 3000 // PIXELS_PER_BYTE
    assert counted[world.owner.id] >= len(PHOTO)


def test_callers_who_are_not_signed_in_are_counted_by_their_address(
    app: Flask, world: World, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "RESIZE_PUBLIC", True)
    monkeypatch.setitem(app.config, "MAX_UPLOAD_MB_PER_DAY", 1)

    def send(address: str) -> TestResponse:
        monkeypatch.setitem(world.anonymous.client.environ_base, "REMOTE_ADDR", address)
        return post(world.anonymous, PHOTO)

    assert [send(address).status_code for address in ("192.0.2.1", "2001:db8::1")] == [202, 202]
    with app.app_context(), transaction(is_read=False):
        connection().execute(update(DailyBytes).values(bytes=2**20))
        commit()

    for address in ("192.0.2.1", "2001:db8::2"):  # a customer has the whole network of an IPv6 address
        error = refused(send(address), 429, "too-many-bytes")
        assert error["detail"] == (
            "At most 1 MiB a day are taken from one address without a log-in. The next day begins at 00:00 UTC."
        )
    assert [send(address).status_code for address in ("192.0.2.2", "2001:db8:0:1::1")] == [202, 202]
    assert world.rows(DailyBytes) == 4
    monkeypatch.setitem(world.anonymous.client.environ_base, "REMOTE_ADDR", "192.0.2.1")
    assert post(world.stranger, PHOTO).status_code == 202, "users are not counted by their address"


def test_counts_of_earlier_days_do_not_matter_and_are_deleted(
    app: Flask, world: World, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "MAX_UPLOAD_MB_PER_DAY", 1)
    assert as_form(world.stranger, PHOTO).status_code == 200
    set_sent(world, world.stranger, 2**20)
    with app.app_context(), transaction(is_read=False):
        connection().execute(update(DailyBytes).values(day=func.current_date() - 1))
        commit()

    assert as_form(world.stranger, PHOTO).status_code == 200

    with app.app_context():
        quotas.prune(timedelta(0))
    assert world.rows(DailyBytes) == 1


@pytest.mark.parametrize("send", [as_form, as_data_url, send_resize])
def test_nothing_is_stored_when_all_files_together_reach_the_limit(
    app: Flask, world: World, storage: Storage, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "MAX_STORAGE_MB", 1)
    upload = world.upload("owner")
    with app.app_context(), transaction(is_read=False):
        connection().execute(update(Upload).where(Upload.id == upload).values(size=2**20))
        commit()

    error = refused(send(world.stranger, PHOTO), 507, "storage-full")

    assert error["detail"] == "The server has no room for further files at the moment. Try again later."
    assert files(storage) == []


def test_inputs_and_artifacts_of_jobs_count(app: Flask, world: World, storage: Storage) -> None:
    def total() -> int:
        app.extensions.pop("stored_bytes", None)
        with app.app_context():
            return quotas._total()

    before = total()
    assert send_resize(world.stranger, PHOTO).status_code == 202
    assert total() == before + len(PHOTO)
    work_off(app)
    assert total() == before
    world.stranger.create("/v1/jobs", "job", {"kind": "tests-make", "parameters": {}})
    work_off(app)
    assert total() == before + len("[]")


def test_a_disk_that_is_nearly_full_takes_no_more(
    app: Flask, world: World, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(app.config["VAR_DIR"], "files").mkdir(exist_ok=True)
    free = shutil.disk_usage(app.config["VAR_DIR"]).free // 2**20
    monkeypatch.setitem(app.config, "MIN_FREE_DISK_MB", free * 2)

    refused(as_form(world.stranger, PHOTO), 507, "storage-full")
    made = world.stranger.create("/v1/jobs", "job", {"kind": "tests-make", "parameters": {}})
    assert made.status_code == 202
    with app.app_context():
        running.run(jobs(app)[0].id, "tests")

    job = jobs(app)[0]
    assert (job.state, (job.error or {})["code"]) == ("failed", "storage-full")


def set_made(world: World, caller: Caller, size: int) -> None:
    """Set how many bytes the jobs of a caller have made today."""
    with world.app.app_context(), transaction(is_read=False):
        quotas.charge_output(caller.id, 0, is_triggered=True)
        share = quotas.OUTPUT_SHARE + caller.id
        connection().execute(update(DailyBytes).where(DailyBytes.share == share).values(bytes=size))
        commit()


def made(world: World, caller: Caller) -> int:
    """Return how many bytes the jobs of a caller have made today."""
    with world.app.app_context(), transaction(is_read=True):
        share = quotas.OUTPUT_SHARE + caller.id
        return connection().scalar(select(DailyBytes.bytes).where(DailyBytes.share == share)) or 0


def last_job(app: Flask) -> tuple[str, str | None]:
    """Run what is queued; return the state and the code of the error of the newest job."""
    job = work_off(app)[-1]
    return job.state, (job.error or {}).get("code")


def test_variants_of_a_resize_job_are_charged_to_its_owner(
    app: Flask, world: World, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = as_form(world.stranger, encode(flag(400, 200), "png")).get_json()["url"]
    before = files(storage)
    parameters = {"image": url, "width": 300}
    world.stranger.create("/v1/jobs", "job", {"kind": "resize-image", "parameters": parameters})
    assert last_job(app) == ("succeeded", None)
    (variant,) = set(files(storage)) - set(before)
    directory = Path(storage.storage_url.removeprefix("file://"))
    assert made(world, world.stranger) == (directory / variant).stat().st_size

    monkeypatch.setitem(app.config, "MAX_JOB_OUTPUT_MB_PER_DAY", 1)
    set_made(world, world.stranger, 3 * 2**20 // 4)
    stored = files(storage)
    world.stranger.create("/v1/jobs", "job", {"kind": "resize-image", "parameters": {"image": url, "width": 200}})
    assert last_job(app) == ("failed", "too-many-bytes")
    assert files(storage) == stored
    assert (jobs(app)[-1].error or {})["detail"] == (
        "The jobs of one user make at most 1 MiB a day, the last 0 of them by jobs that changes start. "
        "The next day begins at 00:00 UTC."
    )

    world.owner.create("/v1/jobs", "job", {"kind": "resize-image", "parameters": {"image": url, "width": 200}})
    assert last_job(app) == ("succeeded", None), "others have their own share"


def test_archive_is_charged_to_its_owner(
    app: Flask, world: World, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/v1/events/{world.events['published']}/archive"
    assert world.owner.send("POST", path).status_code == 202
    assert last_job(app) == ("succeeded", None)
    assert made(world, world.owner) > 0

    monkeypatch.setitem(app.config, "MAX_JOB_OUTPUT_MB_PER_DAY", 1)
    set_made(world, world.owner, 2**20)
    stored = files(storage)
    assert world.owner.send("POST", path).status_code == 202
    assert last_job(app) == ("failed", "too-many-bytes")
    assert files(storage) == stored


def test_job_that_a_change_starts_may_use_the_whole_share(
    app: Flask, world: World, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "MAX_JOB_OUTPUT_MB_PER_DAY", 1)
    set_made(world, world.owner, 3 * 2**20 // 4)
    path = f"/v1/events/{world.events['published']}"
    url = as_form(world.owner, PHOTO).get_json()["url"]
    world.owner.update(path, "event", {"original-image-url": url})
    assert last_job(app) == ("succeeded", None)

    set_made(world, world.owner, 2**20)
    url = as_form(world.owner, encode(flag(300, 200), "png")).get_json()["url"]
    world.owner.update(path, "event", {"original-image-url": url})
    assert last_job(app) == ("failed", "too-many-bytes")


def test_jobs_without_an_owner_are_charged_all_together(
    app: Flask, world: World, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "RESIZE_PUBLIC", True)
    monkeypatch.setitem(app.config, "MAX_JOB_OUTPUT_MB_PER_DAY", 1)
    assert send_resize(world.anonymous, PHOTO).status_code == 202
    assert last_job(app) == ("succeeded", None)
    assert made(world, world.anonymous) > 0

    set_made(world, world.anonymous, quotas.ANONYMOUS_OUTPUT_FACTOR * 2**20)
    assert send_resize(world.anonymous, encode(flag(300, 200), "jpeg")).status_code == 202
    assert last_job(app) == ("failed", "too-many-bytes")


def test_resize_job_stores_nothing_on_a_disk_that_is_nearly_full(
    app: Flask, world: World, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = as_form(world.stranger, PHOTO).get_json()["url"]
    world.stranger.create("/v1/jobs", "job", {"kind": "resize-image", "parameters": {"image": url}})
    monkeypatch.setitem(app.config, "MIN_FREE_DISK_MB", shutil.disk_usage(app.config["VAR_DIR"]).free // 2**20 * 2)
    stored = files(storage)

    assert last_job(app) == ("failed", "storage-full")
    assert files(storage) == stored
