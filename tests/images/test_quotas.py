"""Quotas: the daily quota of a user, the quota of all files, and free disk space."""

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
from app.database import commit, get_connection, open_transaction
from app.images.upload_view import PIXELS_PER_BYTE
from app.jobs import executor
from app.quotas import DailyBytes
from app.storage import Storage
from app.uploads.models import Upload
from tests.dataset import ApiClient, Dataset, get_errors
from tests.images.job_helpers import list_files, list_jobs, run_all_jobs
from tests.images.sample_images import encode_image, make_flag_image, make_plain_image
from tests.images.test_resize_api import post_image
from tests.images.test_uploads import send_as_data_url, send_as_form
from tests.jobs import kinds as _kinds  # noqa: F401  # declares them

PHOTO = encode_image(make_flag_image(400, 200), "jpeg")
Send = Callable[[ApiClient, bytes], TestResponse]


@pytest.fixture(autouse=True)
def _reset_usage_cache(app: Flask) -> None:
    """Reset the cached sum of all stored bytes."""
    app.extensions.pop("stored_bytes", None)


def send_resize(caller: ApiClient, content: bytes) -> TestResponse:
    """Send an image to the resize API."""
    return post_image(caller, content)


def set_sent_bytes(dataset: Dataset, caller: ApiClient, size: int) -> None:
    """Set the bytes that a caller has sent today."""
    with dataset.app.app_context(), open_transaction(is_read=False):
        get_connection().execute(update(DailyBytes).where(DailyBytes.share == caller.id).values(bytes=size))
        commit()


def get_refusal(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    """Return the error of a rejected request."""
    (error,) = get_errors(response)
    assert (response.status_code, error["code"]) == (status, code)
    assert int(response.headers["Retry-After"]) > 0
    return error


@pytest.mark.parametrize("send", [send_as_form, send_as_data_url, send_resize])
def test_a_user_stores_no_more_than_the_share_of_a_day(
    app: Flask, dataset: Dataset, storage: Storage, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "MAX_UPLOAD_MB_PER_DAY", 1)
    assert send(dataset.stranger, PHOTO).status_code in (200, 202)
    set_sent_bytes(dataset, dataset.stranger, 2**20 - 1)
    before = list_files(storage)

    error = get_refusal(send(dataset.stranger, encode_image(make_flag_image(300, 200), "jpeg")), 429, "too-many-bytes")
    assert error["detail"] == "One user may upload at most 1 MiB a day. The next day begins at 00:00 UTC."
    set_sent_bytes(dataset, dataset.stranger, 2**20)
    get_refusal(send(dataset.stranger, encode_image(make_flag_image(200, 200), "jpeg")), 429, "too-many-bytes")

    assert len(list_files(storage)) <= len(before) + 1
    assert send(dataset.owner, PHOTO).status_code in (200, 202)


@pytest.mark.parametrize("send", [send_as_form, send_as_data_url])
def test_image_of_few_bytes_and_many_pixels_counts_for_its_pixels(
    dataset: Dataset, storage: Storage, send: Send
) -> None:
    flat = encode_image(make_plain_image(4000, 3000), "png")
    assert len(flat) < 4000 * 3000 // PIXELS_PER_BYTE

    assert send(dataset.stranger, flat).status_code == 200
    assert send(dataset.owner, PHOTO).status_code == 200

    with dataset.app.app_context(), open_transaction(is_read=True):
        counted = dict(get_connection().execute(select(DailyBytes.share, DailyBytes.bytes)).tuples().all())
    assert counted[dataset.stranger.id] == 4000 * 3000 // PIXELS_PER_BYTE
    assert counted[dataset.owner.id] >= len(PHOTO)


def test_callers_who_are_not_signed_in_are_counted_by_their_address(
    app: Flask, dataset: Dataset, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "RESIZE_PUBLIC", True)
    monkeypatch.setitem(app.config, "MAX_UPLOAD_MB_PER_DAY", 1)

    def send(address: str) -> TestResponse:
        monkeypatch.setitem(dataset.anonymous.client.environ_base, "REMOTE_ADDR", address)
        return post_image(dataset.anonymous, PHOTO)

    assert [send(address).status_code for address in ("192.0.2.1", "2001:db8::1")] == [202, 202]
    with app.app_context(), open_transaction(is_read=False):
        get_connection().execute(update(DailyBytes).values(bytes=2**20))
        commit()

    for address in ("192.0.2.1", "2001:db8::2"):  # a customer has the whole network of an IPv6 address
        error = get_refusal(send(address), 429, "too-many-bytes")
        assert error["detail"] == (
            "An anonymous client address may upload at most 1 MiB a day. The next day begins at 00:00 UTC."
        )
    assert [send(address).status_code for address in ("192.0.2.2", "2001:db8:0:1::1")] == [202, 202]
    assert dataset.count_rows(DailyBytes) == 4
    monkeypatch.setitem(dataset.anonymous.client.environ_base, "REMOTE_ADDR", "192.0.2.1")
    assert post_image(dataset.stranger, PHOTO).status_code == 202, "users are not counted by their address"


def test_counts_of_earlier_days_do_not_matter_and_are_deleted(
    app: Flask, dataset: Dataset, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "MAX_UPLOAD_MB_PER_DAY", 1)
    assert send_as_form(dataset.stranger, PHOTO).status_code == 200
    set_sent_bytes(dataset, dataset.stranger, 2**20)
    with app.app_context(), open_transaction(is_read=False):
        get_connection().execute(update(DailyBytes).values(day=func.current_date() - 1))
        commit()

    assert send_as_form(dataset.stranger, PHOTO).status_code == 200

    with app.app_context():
        quotas.prune_counts(timedelta(0))
    assert dataset.count_rows(DailyBytes) == 1


@pytest.mark.parametrize("send", [send_as_form, send_as_data_url, send_resize])
def test_nothing_is_stored_when_all_files_together_reach_the_limit(
    app: Flask, dataset: Dataset, storage: Storage, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "MAX_STORAGE_MB", 1)
    upload = dataset.create_upload("owner")
    with app.app_context(), open_transaction(is_read=False):
        get_connection().execute(update(Upload).where(Upload.id == upload).values(size=2**20))
        commit()

    error = get_refusal(send(dataset.stranger, PHOTO), 507, "storage-full")

    assert error["detail"] == "The server has no room for further files at the moment. Try again later."
    assert list_files(storage) == []


def test_inputs_and_artifacts_of_jobs_count(app: Flask, dataset: Dataset, storage: Storage) -> None:
    def total() -> int:
        app.extensions.pop("stored_bytes", None)
        with app.app_context():
            return quotas._count_stored_bytes()

    before = total()
    assert send_resize(dataset.stranger, PHOTO).status_code == 202
    assert total() == before + len(PHOTO)
    run_all_jobs(app)
    assert total() == before
    dataset.stranger.create("/v1/jobs", "job", {"kind": "tests-make", "parameters": {}})
    run_all_jobs(app)
    assert total() == before + len("[]")


def test_a_disk_that_is_nearly_full_takes_no_more(
    app: Flask, dataset: Dataset, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(app.config["VAR_DIR"], "files").mkdir(exist_ok=True)
    free = shutil.disk_usage(app.config["VAR_DIR"]).free // 2**20
    monkeypatch.setitem(app.config, "MIN_FREE_DISK_MB", free * 2)

    get_refusal(send_as_form(dataset.stranger, PHOTO), 507, "storage-full")
    made = dataset.stranger.create("/v1/jobs", "job", {"kind": "tests-make", "parameters": {}})
    assert made.status_code == 202
    with app.app_context():
        executor.run_job(list_jobs(app)[0].id, "tests")

    job = list_jobs(app)[0]
    assert (job.state, (job.error or {})["code"]) == ("failed", "storage-full")


def set_created_bytes(dataset: Dataset, caller: ApiClient, size: int) -> None:
    """Set how many bytes the jobs of a caller have made today."""
    with dataset.app.app_context(), open_transaction(is_read=False):
        quotas.charge_output(caller.id, 0, is_triggered=True)
        share = quotas.OUTPUT_SHARE + caller.id
        get_connection().execute(update(DailyBytes).where(DailyBytes.share == share).values(bytes=size))
        commit()


def get_created_bytes(dataset: Dataset, caller: ApiClient) -> int:
    """Return how many bytes the jobs of a caller have made today."""
    with dataset.app.app_context(), open_transaction(is_read=True):
        share = quotas.OUTPUT_SHARE + caller.id
        return get_connection().scalar(select(DailyBytes.bytes).where(DailyBytes.share == share)) or 0


def run_last_job(app: Flask) -> tuple[str, str | None]:
    """Run what is queued; return the state and the code of the error of the newest job."""
    job = run_all_jobs(app)[-1]
    return job.state, (job.error or {}).get("code")


def test_variants_of_a_resize_job_are_charged_to_its_owner(
    app: Flask, dataset: Dataset, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = send_as_form(dataset.stranger, encode_image(make_flag_image(400, 200), "png")).get_json()["url"]
    before = list_files(storage)
    parameters = {"image": url, "width": 300}
    dataset.stranger.create("/v1/jobs", "job", {"kind": "resize-image", "parameters": parameters})
    assert run_last_job(app) == ("succeeded", None)
    (variant,) = set(list_files(storage)) - set(before)
    directory = Path(storage.storage_url.removeprefix("file://"))
    assert get_created_bytes(dataset, dataset.stranger) == (directory / variant).stat().st_size

    monkeypatch.setitem(app.config, "MAX_JOB_OUTPUT_MB_PER_DAY", 1)
    set_created_bytes(dataset, dataset.stranger, 3 * 2**20 // 4)
    stored = list_files(storage)
    dataset.stranger.create("/v1/jobs", "job", {"kind": "resize-image", "parameters": {"image": url, "width": 200}})
    assert run_last_job(app) == ("failed", "too-many-bytes")
    assert list_files(storage) == stored
    assert (list_jobs(app)[-1].error or {})["detail"] == (
        "The jobs of one user may write at most 1 MiB a day; the last 0 MiB are reserved for jobs that triggers start. "
        "The next day begins at 00:00 UTC."
    )

    dataset.owner.create("/v1/jobs", "job", {"kind": "resize-image", "parameters": {"image": url, "width": 200}})
    assert run_last_job(app) == ("succeeded", None), "others have their own share"


def test_archive_is_charged_to_its_owner(
    app: Flask, dataset: Dataset, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/v1/events/{dataset.events['published']}/archive"
    assert dataset.owner.send("POST", path).status_code == 202
    assert run_last_job(app) == ("succeeded", None)
    assert get_created_bytes(dataset, dataset.owner) > 0

    monkeypatch.setitem(app.config, "MAX_JOB_OUTPUT_MB_PER_DAY", 1)
    set_created_bytes(dataset, dataset.owner, 2**20)
    stored = list_files(storage)
    assert dataset.owner.send("POST", path).status_code == 202
    assert run_last_job(app) == ("failed", "too-many-bytes")
    assert list_files(storage) == stored


def test_job_that_a_change_starts_may_use_the_whole_share(
    app: Flask, dataset: Dataset, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "MAX_JOB_OUTPUT_MB_PER_DAY", 1)
    set_created_bytes(dataset, dataset.owner, 3 * 2**20 // 4)
    path = f"/v1/events/{dataset.events['published']}"
    url = send_as_form(dataset.owner, PHOTO).get_json()["url"]
    dataset.owner.update(path, "event", {"original-image-url": url})
    assert run_last_job(app) == ("succeeded", None)

    set_created_bytes(dataset, dataset.owner, 2**20)
    url = send_as_form(dataset.owner, encode_image(make_flag_image(300, 200), "png")).get_json()["url"]
    dataset.owner.update(path, "event", {"original-image-url": url})
    assert run_last_job(app) == ("failed", "too-many-bytes")


def test_jobs_without_an_owner_are_charged_all_together(
    app: Flask, dataset: Dataset, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "RESIZE_PUBLIC", True)
    monkeypatch.setitem(app.config, "MAX_JOB_OUTPUT_MB_PER_DAY", 1)
    assert send_resize(dataset.anonymous, PHOTO).status_code == 202
    assert run_last_job(app) == ("succeeded", None)
    assert get_created_bytes(dataset, dataset.anonymous) > 0

    set_created_bytes(dataset, dataset.anonymous, quotas.ANONYMOUS_OUTPUT_FACTOR * 2**20)
    assert send_resize(dataset.anonymous, encode_image(make_flag_image(300, 200), "jpeg")).status_code == 202
    assert run_last_job(app) == ("failed", "too-many-bytes")


def test_resize_job_stores_nothing_on_a_disk_that_is_nearly_full(
    app: Flask, dataset: Dataset, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = send_as_form(dataset.stranger, PHOTO).get_json()["url"]
    dataset.stranger.create("/v1/jobs", "job", {"kind": "resize-image", "parameters": {"image": url}})
    monkeypatch.setitem(app.config, "MIN_FREE_DISK_MB", shutil.disk_usage(app.config["VAR_DIR"]).free // 2**20 * 2)
    stored = list_files(storage)

    assert run_last_job(app) == ("failed", "storage-full")
    assert list_files(storage) == stored
