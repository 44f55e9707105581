"""The resize API from the image to its variant; docs/resize-api.md names the tests for flaws of the original."""

import base64
import re
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.exc import OperationalError
from werkzeug.test import TestResponse

import config
from app import database, embedded, errors, request_bodies, storage, throttle
from app.database import commit, open_transaction
from app.extensions import db, limiter
from app.images import resize_api
from app.jobs import lifecycle, state_hooks
from app.jobs.records import JobRow
from app.storage import Storage
from app.users import auth
from tests.conftest import ROOT
from tests.dataset import ApiClient, Dataset, get_pointers
from tests.dataset import get_errors as errors_of
from tests.images import sample_images
from tests.images.job_helpers import execute_job, list_files, list_jobs, list_work_files, run_all_jobs
from tests.images.sample_images import GPS, ZIP, Image, add_metadata, encode_image, make_flag_image
from tests.test_openapi import StrictDescription, description, strict_description  # noqa: F401  # fixtures
from tests.test_throttle import own_redis, redis_process  # noqa: F401  # same
from tests.worker_process import run_state_hooks

URL = "/api/v1/resize"
PHOTO = encode_image(add_metadata(make_flag_image(800, 400)), "jpeg")
BROKEN = sample_images.make_webp_claiming_size(400, 300)
"""Image with a valid header and end, and invalid data."""


def encode_base64(content: bytes) -> str:
    """Return the image in base64 without a prefix, as the original server expected it."""
    return base64.b64encode(content).decode()


def post_image(caller: ApiClient, content: bytes = PHOTO, **options: Any) -> TestResponse:
    """Send an image."""
    return caller.send("POST", URL, {"imageData": encode_base64(content), **options}, Content_Type="application/json")


def get_token(answer: TestResponse) -> str:
    """Return the token of an accepted image."""
    assert answer.status_code == HTTPStatus.ACCEPTED, answer.text
    assert answer.get_json().keys() == {"success", "token"}
    assert answer.get_json()["success"] is True
    return str(answer.get_json()["token"])


def get_image_status(caller: ApiClient, token: str) -> Any:
    """Return the status of a token."""
    answer = caller.get(f"{URL}/{token}")
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.get_json()


def fetch_resized_image(storage: Storage, caller: ApiClient, token: str) -> Any:
    """Return the resized image."""
    answer = get_image_status(caller, token)
    assert answer.keys() == {"status", "resized_image_url"}
    assert answer["status"] == "SUCCESS"
    return Image.new_from_buffer(storage.read_file(storage.get_name_from_url(answer["resized_image_url"])), "")


@pytest.mark.parametrize("slash", ["", "/"])
def test_an_image_is_accepted_made_smaller_and_fetched(
    app: Flask, dataset: Dataset, storage: Storage, slash: str
) -> None:
    document = {"imageData": encode_base64(PHOTO)}
    accepted = dataset.stranger.send("POST", URL + slash, document, Content_Type="application/json")
    token = get_token(accepted)
    assert accepted.headers["Location"] == f"{app.config['PUBLIC_URL']}{URL}/{token}"
    assert accepted.headers["Retry-After"] == "1"
    assert get_image_status(dataset.stranger, token + slash) == {"status": "PENDING", "resized_image_url": None}

    execute_job(app, UUID(token))

    url = get_image_status(dataset.stranger, token + slash)["resized_image_url"]
    assert url.startswith(f"{app.config['PUBLIC_URL']}/files/images/")
    served = app.test_client().get(url.removeprefix(app.config["PUBLIC_URL"]))
    image = Image.new_from_buffer(served.data, "")
    assert (served.content_type, image.width, image.height) == ("image/jpeg", 100, 50)
    assert GPS.encode() not in served.data


def test_status_of_running_job_is_started(app: Flask, dataset: Dataset, storage: Storage) -> None:
    token = get_token(post_image(dataset.stranger))

    with app.app_context(), open_transaction(is_read=False):
        lifecycle.claim_job(UUID(token), "tests", timedelta(seconds=60))
        commit()

    assert get_image_status(dataset.stranger, token) == {"status": "STARTED", "resized_image_url": None}


@pytest.mark.parametrize(
    ("content", "options", "size", "form"),
    [
        (PHOTO, {}, (100, 50), "jpeg"),
        (encode_image(make_flag_image(400, 800), "png"), {}, (50, 100), "png"),
        (encode_image(make_flag_image(), "webp", keep="none"), {}, (80, 40), "webp"),
        (PHOTO, {"width": None, "height": None, "format": None}, (100, 50), "jpeg"),
        (PHOTO, {"width": 200}, (200, 100), "jpeg"),
        (PHOTO, {"height": 200, "format": "webp"}, (400, 200), "webp"),
        (PHOTO, {"width": 2000, "height": 2000, "format": "png"}, (800, 400), "png"),
        (encode_image(make_flag_image(8000, 8), "png"), {"height": 8}, (2000, 2), "png"),
    ],
)
def test_resized_image_fits_keeps_ratio_and_is_not_enlarged(
    app: Flask,
    dataset: Dataset,
    storage: Storage,
    content: bytes,
    options: dict[str, Any],
    size: tuple[int, int],
    form: str,
) -> None:
    token = get_token(post_image(dataset.stranger, content, **options))
    run_all_jobs(app)

    image = fetch_resized_image(storage, dataset.stranger, token)

    assert (image.width, image.height) == size
    assert image.get("vips-loader").startswith(form)


@pytest.mark.parametrize("prefix", ["", "data:image/jpeg;base64,", "data:;base64,"])
def test_base64_is_taken_as_the_command_of_that_name_writes_it(
    app: Flask, dataset: Dataset, storage: Storage, prefix: str
) -> None:
    written = subprocess.run(["base64"], input=PHOTO, capture_output=True, check=True).stdout.decode()
    assert "\n" in written.strip()

    answer = dataset.stranger.send("POST", URL, {"imageData": prefix + written}, Content_Type="application/json")

    run_all_jobs(app)
    assert fetch_resized_image(storage, dataset.stranger, get_token(answer)).width == 100


# Storage of the input


def test_the_image_lies_in_private_storage_and_not_in_the_job(app: Flask, dataset: Dataset, storage: Storage) -> None:
    token = get_token(post_image(dataset.stranger, PHOTO + ZIP, width=50))

    name = f"jobs/{token}/input.jpg"
    assert list_files(storage) == [name]
    assert storage.read_file(name) == PHOTO, "and nothing of what followed it"
    (job,) = list_jobs(app)
    assert (str(job.id), job.parameters) == (token, {"image": name, "width": 50})
    assert (job.trigger, job.owner_id) == ("api", dataset.stranger.id)
    assert app.test_client().get(f"/files/{name}").status_code == 404


def test_two_of_the_same_image_are_two_jobs(dataset: Dataset, storage: Storage) -> None:
    assert get_token(post_image(dataset.stranger)) != get_token(post_image(dataset.stranger))


@pytest.mark.parametrize("content", [PHOTO, BROKEN])
def test_the_image_is_deleted_when_its_job_has_ended(
    app: Flask, dataset: Dataset, storage: Storage, content: bytes
) -> None:
    token = get_token(post_image(dataset.stranger, content))

    run_all_jobs(app)

    assert [name for name in list_files(storage) if name.startswith("jobs/")] == []
    retried = dataset.stranger.send("POST", f"/v1/jobs/{token}/retry")
    (error,) = retried.get_json(force=True)["errors"]
    assert (retried.status_code, error["code"]) == (409, "input-not-kept")
    assert error["detail"] == "The image of this job has been deleted. Send it again."


def test_the_image_of_a_canceled_job_is_deleted_and_that_of_an_interrupted_one_is_kept(
    app: Flask, dataset: Dataset, storage: Storage
) -> None:
    canceled, interrupted = get_token(post_image(dataset.stranger)), get_token(post_image(dataset.stranger))
    with app.app_context(), open_transaction(is_read=False):
        job = lifecycle.claim_job(UUID(interrupted), "tests", timedelta(seconds=60))
        assert job is not None
        state_hooks.on_state_change(cast(JobRow, lifecycle.interrupt_attempt(job)))
        commit()
    dataset.stranger.send("POST", f"/v1/jobs/{canceled}/cancel")

    run_state_hooks(app)

    assert list_files(storage) == [f"jobs/{interrupted}/input.jpg"]
    run_all_jobs(app)
    assert fetch_resized_image(storage, dataset.stranger, interrupted).width == 100


@pytest.mark.parametrize("thief", ["other", "admin"])
def test_job_cannot_read_the_input_of_another_job(app: Flask, dataset: Dataset, storage: Storage, thief: str) -> None:
    token = get_token(post_image(dataset.stranger))
    parameters = {"image": f"jobs/{token}/input.jpg"}
    stolen = dataset.callers[thief].create("/v1/jobs", "job", {"kind": "resize-image", "parameters": parameters})

    run_all_jobs(app)

    job = next(job for job in list_jobs(app) if str(job.id) == stolen.get_json(force=True)["data"]["id"])
    assert job.error is not None
    assert job.error["code"] == "image-not-found"


def test_file_is_deleted_when_submit_fails(dataset: Dataset, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OperationalError("", None, Exception())

    monkeypatch.setattr(resize_api.submission, "submit_job", fail)

    assert post_image(dataset.stranger).status_code == 503
    assert list_files(storage) == []


# Errors


def test_an_image_that_cannot_be_decoded_is_a_failure_with_its_reason(
    app: Flask, dataset: Dataset, storage: Storage
) -> None:
    token = get_token(post_image(dataset.stranger, BROKEN))

    run_all_jobs(app)

    detail = "The image is damaged: it cannot be decoded."
    expected = {"status": "FAILURE", "resized_image_url": None, "error": {"code": "broken-image", "detail": detail}}
    assert get_image_status(dataset.stranger, token) == expected
    assert list_work_files(app) == []
    assert list_files(storage) == []


def test_a_canceled_one_is_a_failure_too(dataset: Dataset, storage: Storage) -> None:
    token = get_token(post_image(dataset.stranger))
    dataset.stranger.send("POST", f"/v1/jobs/{token}/cancel")

    answer = get_image_status(dataset.stranger, token)

    assert (answer["status"], answer["error"]["code"]) == ("FAILURE", "canceled")


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "broken-image"),
        (PHOTO[:-2], 422, "broken-image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported-image"),
        (sample_images.make_png(50_000, 50_000), 413, "image-too-large"),
        (sample_images.make_progressive_jpeg(5_000, 5_000, 2_000), 413, "image-too-large"),
        (PHOTO + bytes(20 * 2**20), 413, "image-too-large"),
        (bytes(25_000_000), 413, "content-too-large"),
    ],
    ids=["empty", "cut", "svg", "bomb", "thousands of scans", "over 20 MiB", "25 MB"],
)
def test_an_image_that_is_not_taken_is_refused_before_the_202(
    app: Flask, dataset: Dataset, storage: Storage, content: bytes, status: int, code: str
) -> None:
    answer = post_image(dataset.stranger, content)

    (error,) = errors_of(answer)
    assert (answer.status_code, error["code"]) == (status, code)
    assert list_jobs(app) == []
    assert list_files(storage) == []


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, "/imageData"),
        ({"imageData": None}, "/imageData"),
        ({"imageData": 1}, "/imageData"),
        ({"imageData": "***"}, "/imageData"),
        ({"imagedata": "AAAA"}, "/imageData"),
        ({"imageData": encode_base64(PHOTO), "width": 0}, "/width"),
        ({"imageData": encode_base64(PHOTO), "width": 2001}, "/width"),
        ({"imageData": encode_base64(PHOTO), "width": "100"}, "/width"),
        ({"imageData": encode_base64(PHOTO), "width": True}, "/width"),
        ({"imageData": encode_base64(PHOTO), "height": 1.5}, "/height"),
        ({"imageData": encode_base64(PHOTO), "height": 10**30}, "/height"),
        ({"imageData": encode_base64(PHOTO), "format": "gif"}, "/format"),
        ({"imageData": encode_base64(PHOTO), "format": ["png"]}, "/format"),
        ({"imageData": encode_base64(PHOTO), "format": "x" * 70_000}, ""),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(
    app: Flask, dataset: Dataset, storage: Storage, document: Any, expected: str
) -> None:
    answer = dataset.stranger.send("POST", URL, document, Content_Type="application/json")

    assert (answer.status_code, get_pointers(answer)) == (422, {expected})
    assert list_jobs(app) == []
    assert list_files(storage) == []


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"imageData=AAAA", "application/x-www-form-urlencoded", 415),
        (PHOTO, "image/jpeg", 415),
    ],
)
def test_body_other_than_json_object_is_refused(dataset: Dataset, body: bytes, content_type: str, status: int) -> None:
    assert dataset.stranger.send("POST", URL, body, Content_Type=content_type).status_code == status


@pytest.mark.parametrize(
    "token",
    [
        "",
        "abc",
        "1",
        "560c22ef-43a6-4be1-9749-62df3bdcf7e8",
        "68714dc8-851f-454e-9d8d-b0674f967878x",
        "%00",
        "x" * 5_000,
        "../../readyz",
    ],
)
def test_a_token_that_is_none_is_404(dataset: Dataset, token: str) -> None:
    assert dataset.admin.get(f"{URL}/{token or 'x'}").status_code == 404


def test_the_token_of_another_kind_of_job_is_none(dataset: Dataset) -> None:
    slept = dataset.stranger.create("/v1/jobs", "job", {"kind": "sleep", "parameters": {"seconds": 0}})
    event = {"event": dataset.events["published"]}
    resized = dataset.owner.create("/v1/jobs", "job", {"kind": "resize-image", "parameters": event})

    for answer in (slept, resized):
        assert dataset.admin.get(f"{URL}/{answer.get_json(force=True)['data']['id']}").status_code == 404


# Permissions


@pytest.mark.parametrize(
    ("public", "sender", "expected"),
    [
        ("0", "anonymous", None),
        ("0", "stranger", {"anonymous": 401, "stranger": 200, "owner": 404, "admin": 200}),
        ("1", "anonymous", {"anonymous": 200, "stranger": 200, "owner": 200, "admin": 200}),
        ("1", "stranger", {"anonymous": 404, "stranger": 200, "owner": 404, "admin": 200}),
    ],
)
def test_who_sends_and_who_asks(
    dataset: Dataset,
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
    public: str,
    sender: str,
    expected: dict[str, int] | None,
) -> None:
    monkeypatch.setitem(dataset.app.config, "RESIZE_PUBLIC", public == "1")

    answer = post_image(dataset.callers[sender])

    if expected is None:
        assert answer.status_code == 401
        assert list_files(storage) == []
        return
    path = f"{URL}/{get_token(answer)}"
    assert {name: dataset.callers[name].get(path).status_code for name in expected} == expected


def test_token_of_a_formerly_public_api_needs_authentication(
    dataset: Dataset, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as public:
        public.setitem(dataset.app.config, "RESIZE_PUBLIC", True)
        path = f"{URL}/{get_token(post_image(dataset.anonymous))}"

    assert (dataset.anonymous.get(path).status_code, dataset.stranger.get(path).status_code) == (401, 200)


def test_a_bad_access_token_is_401_even_where_it_is_public(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dataset.app.config, "RESIZE_PUBLIC", True)

    assert post_image(ApiClient(dataset.anonymous.client, "nonsense")).status_code == 401


@pytest.fixture
def client_with_limits(
    dataset: Dataset,
    environment: dict[str, str],
    own_redis: embedded.Redis,  # noqa: F811  # the fixture
    redis_process: subprocess.Popen[bytes],  # noqa: F811  # same
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[FlaskClient]:
    """Return a client of a public resize API with rate limits; the app of the other tests has no limits."""
    monkeypatch.setattr(limiter, "_storage_dead", False)  # one object for all apps
    app = Flask("counted")
    url = (tmp_path / "files").as_uri()
    app.config.update(
        config.read_config({**environment, "REDIS_URL": own_redis.url, "STORAGE_URL": url, "RATELIMIT_ENABLED": "1"}),
        RESIZE_PUBLIC=True,
    )
    for package in (request_bodies, database, throttle, storage):
        package.init_app(app)
    app.extensions["authenticate"] = auth.authenticate_request
    app.register_blueprint(resize_api.routes)
    errors.register_error_handlers(app)
    yield app.test_client()
    with app.app_context():
        db.engine.dispose()


def test_anonymous_requests_are_limited_to_twenty_a_minute(client_with_limits: FlaskClient, dataset: Dataset) -> None:
    def send(**headers: str) -> TestResponse:
        return client_with_limits.post(URL, json={"imageData": encode_base64(PHOTO)}, headers=headers)

    statuses = [send().status_code for _ in range(21)]

    assert statuses == [202] * 20 + [429]
    assert 0 < int(send().headers["Retry-After"]) <= 60
    assert client_with_limits.get(f"{URL}/{uuid4()}").status_code == 404, "asking is not client_with_limits"
    assert send(Authorization=f"JWT {dataset.stranger.token}").status_code == 202


# Documentation


def test_answers_are_as_openapi_describes_them(
    app: Flask,
    dataset: Dataset,
    storage: Storage,
    strict_description: StrictDescription,  # noqa: F811  # the fixture
) -> None:
    good, bad = (get_token(post_image(dataset.stranger, content)) for content in (PHOTO, BROKEN))
    upload = {"data": encode_base64(PHOTO)}
    answers = [
        dataset.stranger.send("POST", "/v1/upload/image", document, Content_Type=media_type)
        for document, media_type in ((upload, "application/json"), ({}, "application/json"), (upload, "text/plain"))
    ]
    answers += [
        dataset.anonymous.send("POST", "/v1/upload/image", upload),
        post_image(dataset.stranger),
        post_image(dataset.anonymous),
    ]
    answers += [
        post_image(dataset.stranger, b"<svg/>"),
        post_image(dataset.stranger, width=0),
        post_image(dataset.stranger, bytes(2**25)),
    ]
    answers += [dataset.stranger.get(f"{URL}/{token}") for token in (good, str(uuid4()))]
    run_all_jobs(app)
    answers += [dataset.stranger.get(f"{URL}/{token}") for token in (good, bad)]

    assert [
        (answer.request.path, faults) for answer in answers if (faults := strict_description.find_faults(answer))
    ] == []
    assert {answer.status_code for answer in answers} == {200, 202, 401, 404, 413, 415, 422}


def test_every_answer_to_a_shortcoming_of_the_original_is_there() -> None:
    text = (ROOT / "docs" / "resize-api.md").read_text()
    paths = re.findall(r"`([\w.]+/[\w./]*|[\w.]+\.py|\.env\.example)`", text)
    names = re.findall(r"`(test_\w+)`", text)
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))

    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert [name for name in names if f"def {name}(" not in tests] == []


def test_the_same_request_with_the_same_key_gets_the_same_token(dataset: Dataset, storage: Storage) -> None:
    body = {"imageData": encode_base64(PHOTO), "width": 100}
    sent = {"Content_Type": "application/json", "Idempotency_Key": "one"}

    first = dataset.stranger.send("POST", URL, body, **sent)
    before = list_files(storage)
    again = dataset.stranger.send("POST", URL, body, **sent)

    assert get_token(first) == get_token(again)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    for header in ("Location", "Retry-After", "Cache-Control"):
        assert first.headers[header] == again.headers[header]
    assert list_files(storage) == before
    assert len(list_jobs(dataset.app)) == 1

    other = dataset.stranger.send("POST", URL, {**body, "width": 90}, **sent)
    assert (other.status_code, errors_of(other)[0]["source"]) == (422, {"header": "Idempotency-Key"})
    assert list_files(storage) == before
    assert get_token(dataset.owner.send("POST", URL, body, **sent)) != get_token(first)


def test_idempotency_key_of_anonymous_caller_is_rejected(
    dataset: Dataset, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dataset.app.config, "RESIZE_PUBLIC", True)
    body = {"imageData": encode_base64(PHOTO)}
    before = list_files(storage)

    answer = dataset.anonymous.send("POST", URL, body, Content_Type="application/json", Idempotency_Key="one")

    assert (answer.status_code, errors_of(answer)[0]["source"]) == (400, {"header": "Idempotency-Key"})
    assert list_files(storage) == before
