"""The resize API from the image to its smaller copy; docs/resize-api.md says which shortcoming each test answers."""

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
from app import bodies, database, embedded, errors, storage, throttle
from app.database import commit, transaction
from app.extensions import db, limiter
from app.images import resize_api
from app.jobs import consequences, lifecycle
from app.jobs.records import JobRow
from app.storage import Storage
from app.users import auth
from tests.background import follow
from tests.conftest import ROOT
from tests.images import pictures
from tests.images.background import files, jobs, run, work_files, work_off
from tests.images.pictures import GPS, ZIP, Image, encode, flag, with_metadata
from tests.test_openapi import Described, described, description  # noqa: F401  # fixtures
from tests.test_throttle import own_redis, redis_process  # noqa: F401  # same
from tests.world import Caller, World, pointers
from tests.world import errors as errors_of

URL = "/api/v1/resize"
PHOTO = encode(with_metadata(flag(800, 400)), "jpeg")
BROKEN = pictures.webp_saying(400, 300)
"""Nothing is wrong with its header and its end."""


def base64_of(content: bytes) -> str:
    """Without anything around it, as the original server took it."""
    return base64.b64encode(content).decode()


def post(caller: Caller, content: bytes = PHOTO, **options: Any) -> TestResponse:
    """An image to be made smaller."""
    return caller.send("POST", URL, {"imageData": base64_of(content), **options}, Content_Type="application/json")


def token_of(answer: TestResponse) -> str:
    """The token of an image that was accepted."""
    assert answer.status_code == HTTPStatus.ACCEPTED, answer.text
    assert answer.get_json().keys() == {"success", "token"}
    assert answer.get_json()["success"] is True
    return str(answer.get_json()["token"])


def ask(caller: Caller, token: str) -> Any:
    """What is known of a token."""
    answer = caller.get(f"{URL}/{token}")
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.get_json()


def made(storage: Storage, caller: Caller, token: str) -> Any:
    """The smaller image."""
    answer = ask(caller, token)
    assert answer.keys() == {"status", "resized_image_url"}
    assert answer["status"] == "SUCCESS"
    return Image.new_from_buffer(storage.read(storage.name(answer["resized_image_url"])), "")


@pytest.mark.parametrize("slash", ["", "/"])
def test_an_image_is_accepted_made_smaller_and_fetched(app: Flask, world: World, storage: Storage, slash: str) -> None:
    document = {"imageData": base64_of(PHOTO)}
    accepted = world.stranger.send("POST", URL + slash, document, Content_Type="application/json")
    token = token_of(accepted)
    assert accepted.headers["Location"] == f"{app.config['PUBLIC_URL']}{URL}/{token}"
    assert accepted.headers["Retry-After"] == "1"
    assert ask(world.stranger, token + slash) == {"status": "PENDING", "resized_image_url": None}

    run(app, UUID(token))

    url = ask(world.stranger, token + slash)["resized_image_url"]
    assert url.startswith(f"{app.config['PUBLIC_URL']}/files/images/")
    served = app.test_client().get(url.removeprefix(app.config["PUBLIC_URL"]))
    image = Image.new_from_buffer(served.data, "")
    assert (served.content_type, image.width, image.height) == ("image/jpeg", 100, 50)
    assert GPS.encode() not in served.data


def test_while_it_is_made_the_status_is_started(app: Flask, world: World, storage: Storage) -> None:
    token = token_of(post(world.stranger))

    with app.app_context(), transaction(is_read=False):
        lifecycle.claim(UUID(token), "tests", timedelta(seconds=60))
        commit()

    assert ask(world.stranger, token) == {"status": "STARTED", "resized_image_url": None}


@pytest.mark.parametrize(
    ("content", "options", "size", "form"),
    [
        (PHOTO, {}, (100, 50), "jpeg"),
        (encode(flag(400, 800), "png"), {}, (50, 100), "png"),
        (encode(flag(), "webp", keep="none"), {}, (80, 40), "webp"),
        (PHOTO, {"width": None, "height": None, "format": None}, (100, 50), "jpeg"),
        (PHOTO, {"width": 200}, (200, 100), "jpeg"),
        (PHOTO, {"height": 200, "format": "webp"}, (400, 200), "webp"),
        (PHOTO, {"width": 2000, "height": 2000, "format": "png"}, (800, 400), "png"),
        (encode(flag(8000, 8), "png"), {"height": 8}, (2000, 2), "png"),
    ],
)
def test_it_fits_is_not_distorted_and_never_grows(
    app: Flask,
    world: World,
    storage: Storage,
    content: bytes,
    options: dict[str, Any],
    size: tuple[int, int],
    form: str,
) -> None:
    token = token_of(post(world.stranger, content, **options))
    work_off(app)

    image = made(storage, world.stranger, token)

    assert (image.width, image.height) == size
    assert image.get("vips-loader").startswith(form)


@pytest.mark.parametrize("prefix", ["", "data:image/jpeg;base64,", "data:;base64,"])
def test_base64_is_taken_as_the_command_of_that_name_writes_it(
    app: Flask, world: World, storage: Storage, prefix: str
) -> None:
    written = subprocess.run(["base64"], input=PHOTO, capture_output=True, check=True).stdout.decode()
    assert "\n" in written.strip()

    answer = world.stranger.send("POST", URL, {"imageData": prefix + written}, Content_Type="application/json")

    work_off(app)
    assert made(storage, world.stranger, token_of(answer)).width == 100


# Where the bytes are


def test_the_image_lies_in_private_storage_and_not_in_the_job(app: Flask, world: World, storage: Storage) -> None:
    token = token_of(post(world.stranger, PHOTO + ZIP, width=50))

    name = f"jobs/{token}/input.jpg"
    assert files(storage) == [name]
    assert storage.read(name) == PHOTO, "and nothing of what followed it"
    (job,) = jobs(app)
    assert (str(job.id), job.parameters) == (token, {"image": name, "width": 50})
    assert (job.trigger, job.owner_id) == ("api", world.stranger.id)
    assert app.test_client().get(f"/files/{name}").status_code == 404


def test_two_of_the_same_image_are_two_jobs(world: World, storage: Storage) -> None:
    assert token_of(post(world.stranger)) != token_of(post(world.stranger))


@pytest.mark.parametrize("content", [PHOTO, BROKEN])
def test_the_image_is_deleted_when_its_job_has_ended(
    app: Flask, world: World, storage: Storage, content: bytes
) -> None:
    token = token_of(post(world.stranger, content))

    work_off(app)

    assert [name for name in files(storage) if name.startswith("jobs/")] == []
    retried = world.stranger.send("POST", f"/v1/jobs/{token}/retry")
    (error,) = retried.get_json(force=True)["errors"]
    assert (retried.status_code, error["code"]) == (409, "input-not-kept")
    assert error["detail"] == "The image that was sent is not kept: send it again."


def test_the_image_of_a_canceled_job_is_deleted_and_that_of_an_interrupted_one_is_kept(
    app: Flask, world: World, storage: Storage
) -> None:
    canceled, interrupted = token_of(post(world.stranger)), token_of(post(world.stranger))
    with app.app_context(), transaction(is_read=False):
        job = lifecycle.claim(UUID(interrupted), "tests", timedelta(seconds=60))
        assert job is not None
        consequences.follow(cast(JobRow, lifecycle.interrupt(job)))
        commit()
    world.stranger.send("POST", f"/v1/jobs/{canceled}/cancel")

    follow(app)

    assert files(storage) == [f"jobs/{interrupted}/input.jpg"]
    work_off(app)
    assert made(storage, world.stranger, interrupted).width == 100


@pytest.mark.parametrize("thief", ["other", "admin"])
def test_nobody_reads_the_image_of_another_by_its_name(app: Flask, world: World, storage: Storage, thief: str) -> None:
    token = token_of(post(world.stranger))
    parameters = {"image": f"jobs/{token}/input.jpg"}
    stolen = world.callers[thief].create("/v1/jobs", "job", {"kind": "resize-image", "parameters": parameters})

    work_off(app)

    job = next(job for job in jobs(app) if str(job.id) == stolen.get_json(force=True)["data"]["id"])
    assert job.error is not None
    assert job.error["code"] == "image-not-found"


def test_what_the_database_does_not_take_does_not_stay_in_storage(
    world: World, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OperationalError("", None, Exception())

    monkeypatch.setattr(resize_api.submission, "submit", fail)

    assert post(world.stranger).status_code == 503
    assert files(storage) == []


# What goes wrong


def test_an_image_that_cannot_be_decoded_is_a_failure_with_its_reason(
    app: Flask, world: World, storage: Storage
) -> None:
    token = token_of(post(world.stranger, BROKEN))

    work_off(app)

    detail = "The image is damaged: it cannot be decoded."
    expected = {"status": "FAILURE", "resized_image_url": None, "error": {"code": "broken-image", "detail": detail}}
    assert ask(world.stranger, token) == expected
    assert work_files(app) == []
    assert files(storage) == []


def test_a_canceled_one_is_a_failure_too(world: World, storage: Storage) -> None:
    token = token_of(post(world.stranger))
    world.stranger.send("POST", f"/v1/jobs/{token}/cancel")

    answer = ask(world.stranger, token)

    assert (answer["status"], answer["error"]["code"]) == ("FAILURE", "canceled")


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "broken-image"),
        (PHOTO[:-2], 422, "broken-image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported-image"),
        (pictures.png(50_000, 50_000), 413, "image-too-large"),
        (pictures.jpeg_of_scans(5_000, 5_000, 2_000), 413, "image-too-large"),
        (PHOTO + bytes(20 * 2**20), 413, "image-too-large"),
        (bytes(25_000_000), 413, "content-too-large"),
    ],
    ids=["empty", "cut", "svg", "bomb", "thousands of scans", "over 20 MiB", "25 MB"],
)
def test_an_image_that_is_not_taken_is_refused_before_the_202(
    app: Flask, world: World, storage: Storage, content: bytes, status: int, code: str
) -> None:
    answer = post(world.stranger, content)

    (error,) = errors_of(answer)
    assert (answer.status_code, error["code"]) == (status, code)
    assert jobs(app) == []
    assert files(storage) == []


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, "/imageData"),
        ({"imageData": None}, "/imageData"),
        ({"imageData": 1}, "/imageData"),
        ({"imageData": "***"}, "/imageData"),
        ({"imagedata": "AAAA"}, "/imageData"),
        ({"imageData": base64_of(PHOTO), "width": 0}, "/width"),
        ({"imageData": base64_of(PHOTO), "width": 2001}, "/width"),
        ({"imageData": base64_of(PHOTO), "width": "100"}, "/width"),
        ({"imageData": base64_of(PHOTO), "width": True}, "/width"),
        ({"imageData": base64_of(PHOTO), "height": 1.5}, "/height"),
        ({"imageData": base64_of(PHOTO), "height": 10**30}, "/height"),
        ({"imageData": base64_of(PHOTO), "format": "gif"}, "/format"),
        ({"imageData": base64_of(PHOTO), "format": ["png"]}, "/format"),
        ({"imageData": base64_of(PHOTO), "format": "x" * 70_000}, ""),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(
    app: Flask, world: World, storage: Storage, document: Any, expected: str
) -> None:
    answer = world.stranger.send("POST", URL, document, Content_Type="application/json")

    assert (answer.status_code, pointers(answer)) == (422, {expected})
    assert jobs(app) == []
    assert files(storage) == []


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
def test_what_is_no_json_object_is_refused(world: World, body: bytes, content_type: str, status: int) -> None:
    assert world.stranger.send("POST", URL, body, Content_Type=content_type).status_code == status


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
def test_a_token_that_is_none_is_404(world: World, token: str) -> None:
    assert world.admin.get(f"{URL}/{token or 'x'}").status_code == 404


def test_the_token_of_another_kind_of_job_is_none(world: World) -> None:
    slept = world.stranger.create("/v1/jobs", "job", {"kind": "sleep", "parameters": {"seconds": 0}})
    event = {"event": world.events["published"]}
    resized = world.owner.create("/v1/jobs", "job", {"kind": "resize-image", "parameters": event})

    for answer in (slept, resized):
        assert world.admin.get(f"{URL}/{answer.get_json(force=True)['data']['id']}").status_code == 404


# Who may


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
    world: World,
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
    public: str,
    sender: str,
    expected: dict[str, int] | None,
) -> None:
    monkeypatch.setitem(world.app.config, "RESIZE_PUBLIC", public == "1")

    answer = post(world.callers[sender])

    if expected is None:
        assert answer.status_code == 401
        assert files(storage) == []
        return
    path = f"{URL}/{token_of(answer)}"
    assert {name: world.callers[name].get(path).status_code for name in expected} == expected


def test_a_token_from_when_it_was_public_still_needs_somebody(
    world: World, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as public:
        public.setitem(world.app.config, "RESIZE_PUBLIC", True)
        path = f"{URL}/{token_of(post(world.anonymous))}"

    assert (world.anonymous.get(path).status_code, world.stranger.get(path).status_code) == (401, 200)


def test_a_bad_access_token_is_401_even_where_it_is_public(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(world.app.config, "RESIZE_PUBLIC", True)

    assert post(Caller(world.anonymous.client, "nonsense")).status_code == 401


@pytest.fixture
def counted(
    world: World,
    environment: dict[str, str],
    own_redis: embedded.Redis,  # noqa: F811  # the fixture
    redis_process: subprocess.Popen[bytes],  # noqa: F811  # same
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[FlaskClient]:
    """A client of a public resize API with limits on; the suite's own app has them off."""
    monkeypatch.setattr(limiter, "_storage_dead", False)  # one object for all apps
    app = Flask("counted")
    url = (tmp_path / "files").as_uri()
    app.config.update(
        config.read({**environment, "REDIS_URL": own_redis.url, "STORAGE_URL": url, "RATELIMIT_ENABLED": "1"}),
        RESIZE_PUBLIC=True,
    )
    for package in (bodies, database, throttle, storage):
        package.install(app)
    app.extensions["authenticate"] = auth.authenticate
    app.register_blueprint(resize_api.routes)
    errors.register(app)
    yield app.test_client()
    with app.app_context():
        db.engine.dispose()


def test_whoever_is_unknown_sends_twenty_a_minute(counted: FlaskClient, world: World) -> None:
    def send(**headers: str) -> TestResponse:
        return counted.post(URL, json={"imageData": base64_of(PHOTO)}, headers=headers)

    statuses = [send().status_code for _ in range(21)]

    assert statuses == [202] * 20 + [429]
    assert 0 < int(send().headers["Retry-After"]) <= 60
    assert counted.get(f"{URL}/{uuid4()}").status_code == 404, "asking is not counted"
    assert send(Authorization=f"JWT {world.stranger.token}").status_code == 202


# As it is described


def test_answers_are_as_openapi_describes_them(
    app: Flask,
    world: World,
    storage: Storage,
    described: Described,  # noqa: F811  # the fixture
) -> None:
    good, bad = (token_of(post(world.stranger, content)) for content in (PHOTO, BROKEN))
    upload = {"data": base64_of(PHOTO)}
    answers = [
        world.stranger.send("POST", "/v1/upload/image", document, Content_Type=media_type)
        for document, media_type in ((upload, "application/json"), ({}, "application/json"), (upload, "text/plain"))
    ]
    answers += [world.anonymous.send("POST", "/v1/upload/image", upload), post(world.stranger), post(world.anonymous)]
    answers += [post(world.stranger, b"<svg/>"), post(world.stranger, width=0), post(world.stranger, bytes(2**25))]
    answers += [world.stranger.get(f"{URL}/{token}") for token in (good, str(uuid4()))]
    work_off(app)
    answers += [world.stranger.get(f"{URL}/{token}") for token in (good, bad)]

    assert [(answer.request.path, faults) for answer in answers if (faults := described.faults(answer))] == []
    assert {answer.status_code for answer in answers} == {200, 202, 401, 404, 413, 415, 422}


def test_every_answer_to_a_shortcoming_of_the_original_is_there() -> None:
    text = (ROOT / "docs" / "resize-api.md").read_text()
    paths = re.findall(r"`([\w.]+/[\w./]*|[\w.]+\.py|\.env\.example)`", text)
    names = re.findall(r"`(test_\w+)`", text)
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))

    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert [name for name in names if f"def {name}(" not in tests] == []


def test_the_same_request_with_the_same_key_gets_the_same_token(world: World, storage: Storage) -> None:
    body = {"imageData": base64_of(PHOTO), "width": 100}
    sent = {"Content_Type": "application/json", "Idempotency_Key": "one"}

    first = world.stranger.send("POST", URL, body, **sent)
    before = files(storage)
    again = world.stranger.send("POST", URL, body, **sent)

    assert token_of(first) == token_of(again)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    for header in ("Location", "Retry-After", "Cache-Control"):
        assert first.headers[header] == again.headers[header]
    assert files(storage) == before
    assert len(jobs(world.app)) == 1

    other = world.stranger.send("POST", URL, {**body, "width": 90}, **sent)
    assert (other.status_code, errors_of(other)[0]["source"]) == (422, {"header": "Idempotency-Key"})
    assert files(storage) == before
    assert token_of(world.owner.send("POST", URL, body, **sent)) != token_of(first)


def test_a_key_of_nobody_is_refused(world: World, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(world.app.config, "RESIZE_PUBLIC", True)
    body = {"imageData": base64_of(PHOTO)}
    before = files(storage)

    answer = world.anonymous.send("POST", URL, body, Content_Type="application/json", Idempotency_Key="one")

    assert (answer.status_code, errors_of(answer)[0]["source"]) == (400, {"header": "Idempotency-Key"})
    assert files(storage) == before
