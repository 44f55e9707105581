"""Uploads of images: formats, limits, rotation and removed metadata; rejected images leave no files."""

import base64
import json
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from http.client import HTTPConnection
from typing import Any

import psutil
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.images import upload_view
from app.storage import Storage
from tests.conftest import Processes
from tests.dataset import ApiClient, Dataset, get_errors
from tests.images import sample_images
from tests.images.job_helpers import list_files
from tests.images.sample_images import GPS, ZIP, Image, add_metadata, encode_image, make_flag_image, make_plain_image
from tests.test_end_to_end import attempt_get

pytestmark = pytest.mark.long

JSON = "application/json"
FORM = "multipart/form-data; boundary=x"
URL = "/v1/upload/image"
SMALL = encode_image(make_flag_image(), "png")

Send = Callable[[ApiClient, bytes], TestResponse]


def send_as_data_url(caller: ApiClient, content: bytes) -> TestResponse:
    """Send an image as a data URL in JSON."""
    return post_json(caller, {"data": f"data:image/png;base64,{base64.b64encode(content).decode()}"})


def send_as_form(caller: ApiClient, content: bytes) -> TestResponse:
    """Send an image as a file of a form."""
    return post_form(caller, file=content)


def post_json(caller: ApiClient, document: Any, content_type: str = JSON) -> TestResponse:
    """Send a JSON body."""
    return caller.send("POST", URL, document, Content_Type=content_type)


def post_form(caller: ApiClient, **sent: bytes | str) -> TestResponse:
    """Send a multipart form; bytes become files, strings become text fields."""
    body = b"".join(_part(name, value) for name, value in sent.items()) + b"--x--\r\n"
    return post_json(caller, body, FORM)


def _part(name: str, value: bytes | str) -> bytes:
    is_file = isinstance(value, bytes)
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"' + ('; filename="../a.svg"' if is_file else "")
    return head.encode() + b"\r\n\r\n" + (value if isinstance(value, bytes) else value.encode()) + b"\r\n"


parametrize_send = pytest.mark.parametrize("send", [send_as_data_url, send_as_form])


def open_image(app: Flask, storage: Storage, response: TestResponse) -> Any:
    """Return the stored image at the URL of a response."""
    assert response.status_code == 200, response.text
    assert response.json is not None
    return Image.new_from_buffer(storage.read_file(storage.get_name_from_url(response.json["url"])), "")


@parametrize_send
@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
def test_an_image_gets_an_address_and_keeps_its_format(
    app: Flask, dataset: Dataset, storage: Storage, send: Send, form: str
) -> None:
    answer = send(dataset.stranger, encode_image(make_flag_image(), form))

    image = open_image(app, storage, answer)
    assert (image.width, image.height) == (80, 40)
    assert image.get("vips-loader").startswith(form)
    assert answer.content_type == JSON
    served = app.test_client().get(answer.get_json()["url"].removeprefix(app.config["PUBLIC_URL"]))
    suffix = "jpg" if form == "jpeg" else form
    assert list_files(storage) == [f"uploads/{sha256(served.data).hexdigest()}.{suffix}"]
    assert served.content_type == f"image/{form}"
    assert served.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert served.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", [URL, f"{URL}/"])
@pytest.mark.parametrize("content_type", [JSON, "application/vnd.api+json", "application/json; charset=utf-8"])
def test_json_comes_under_either_name_with_and_without_a_slash(
    dataset: Dataset, storage: Storage, path: str, content_type: str
) -> None:
    document = {"data": base64.b64encode(SMALL).decode()}

    assert dataset.stranger.send("POST", path, document, Content_Type=content_type).status_code == 200


@pytest.mark.parametrize(
    "written",
    {
        "plain": lambda text: text,
        "data URL": lambda text: f"data:image/png;base64,{text}",
        "data URL of another type": lambda text: f"DATA:text/plain;charset=utf-8;BASE64,{text}",
        "data URL without a type": lambda text: f"data:;base64,{text}",
        "lines": lambda text: "\n".join(textwrap.wrap(text, 76)) + "\n",
        "lines of Windows": lambda text: "data:image/png;base64," + "\r\n".join(textwrap.wrap(text, 64)),
        "spaces": lambda text: f" \t{text[:9]} {text[9:]} ",
        "without padding": lambda text: text.rstrip("="),
    }.items(),
    ids=lambda pair: pair[0],
)
def test_base64_is_taken_as_programs_write_it(
    app: Flask, dataset: Dataset, storage: Storage, written: tuple[str, Callable[[str], str]]
) -> None:
    content = SMALL + b"\0" * (-len(SMALL) % 3 + 1)  # so that there is padding

    answer = post_json(dataset.stranger, {"data": written[1](base64.b64encode(content).decode())})

    assert open_image(app, storage, answer).width == 80


@pytest.mark.parametrize("fields", [{"file": SMALL}, {"image": SMALL}, {"picture": SMALL, "title": "words"}])
def test_a_form_may_name_its_file_as_it_likes(
    app: Flask, dataset: Dataset, storage: Storage, fields: dict[str, bytes | str]
) -> None:
    assert open_image(app, storage, post_form(dataset.stranger, **fields)).width == 80


@parametrize_send
def test_an_image_is_upright_and_says_nothing_of_where_it_was_taken(
    app: Flask, dataset: Dataset, storage: Storage, send: Send
) -> None:
    content = encode_image(add_metadata(make_flag_image(800, 400).rot270(), 6), "jpeg") + ZIP

    image = open_image(app, storage, send(dataset.stranger, content))

    assert (image.width, image.height) == (800, 400)
    assert image(20, 20)[2] > 250, "blue above on the left"
    (name,) = list_files(storage)
    assert not [word for word in (GPS.encode(), b"GPS", b"Exif", b"PK\x03\x04") if word in storage.read_file(name)]


def test_a_large_image_is_made_smaller_and_what_is_transparent_stays_so(
    app: Flask, dataset: Dataset, storage: Storage
) -> None:
    clear = make_plain_image(8_192, 2_048).bandjoin(Image.black(8_192, 2_048)).copy(interpretation="srgb")

    image = open_image(app, storage, send_as_form(dataset.stranger, encode_image(clear, "png")))

    assert (image.width, image.height) == (4_096, 1_024)
    assert image(5, 5)[3] == 0


def test_the_same_image_has_the_same_address(dataset: Dataset, storage: Storage) -> None:
    first, again = send_as_data_url(dataset.stranger, SMALL), send_as_form(dataset.owner, SMALL + ZIP)

    assert first.get_json()["url"] == again.get_json()["url"]
    assert len(list_files(storage)) == 1


def test_upload_url_can_be_set_as_event_image(dataset: Dataset, storage: Storage) -> None:
    url = send_as_data_url(dataset.stranger, SMALL).get_json()["url"]

    answer = dataset.stranger.update(f"/v1/users/{dataset.stranger.id}", "user", {"avatar-url": url})

    assert answer.status_code == 200


# Rejected requests


@parametrize_send
def test_anonymous_upload_is_401(dataset: Dataset, storage: Storage, send: Send) -> None:
    answer = send(dataset.anonymous, SMALL)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"]
    assert list_files(storage) == []


@parametrize_send
@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "broken-image"),
        (SMALL[:-1], 422, "broken-image"),
        (SMALL[:5], 422, "broken-image"),
        (sample_images.make_webp_claiming_size(400, 300), 422, "broken-image"),
        (sample_images.make_png(3_000, 9_000), 422, "broken-image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported-image"),
        (sample_images.make_animation("gif"), 415, "unsupported-image"),
        (ZIP + SMALL, 415, "unsupported-image"),
        (sample_images.make_png(50_000, 50_000), 413, "image-too-large"),
        (sample_images.make_jpeg_claiming_size(40_000, 25_000), 413, "image-too-large"),
        (sample_images.make_progressive_jpeg(5_000, 5_000, 2_000), 413, "image-too-large"),
        (sample_images.make_animation("webp"), 413, "image-too-large"),
        (SMALL + bytes(20 * 2**20), 413, "image-too-large"),
        (bytes(25_000_000), 413, None),
    ],
    ids=[
        "empty",
        "cut at its end",
        "cut in its beginning",
        "webp with a false canvas",
        "png without pixels",
        "svg",
        "gif",
        "zip with an image in it",
        "bomb",
        "gigapixel",
        "thousands of scans",
        "animated",
        "just over 20 MiB",
        "25 MB",
    ],
)
def test_unsupported_upload_is_refused_and_leaves_no_file(
    dataset: Dataset, storage: Storage, send: Send, content: bytes, status: int, code: str | None
) -> None:
    answer = send(dataset.stranger, content)

    (error,) = get_errors(answer)
    assert answer.status_code == status
    assert error["detail"].endswith(".")
    if code is not None:
        assert error["code"] == code
        assert error.get("source") == (None if send is send_as_form else {"pointer": "/data"})
    assert list_files(storage) == []


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({}, "/data"),
        ({"data": None}, "/data"),
        ({"data": 5}, "/data"),
        ({"data": {"type": "image"}}, "/data"),
        ({"data": "No base64!"}, "/data"),
        ({"data": "ä"}, "/data"),
        ({"data": "A"}, "/data"),
        ({"data": "AAAA=AAA"}, "/data"),
        ({"data": "AA\0A"}, "/data"),
        ({"data": "data:image/svg+xml,%3Csvg/%3E"}, "/data"),
        ({"data": "https://example.com/a.png"}, "/data"),
    ],
)
def test_invalid_base64_is_422(dataset: Dataset, storage: Storage, document: Any, pointer: str) -> None:
    answer = post_json(dataset.stranger, document)

    assert answer.status_code == 422
    assert [error["source"] for error in get_errors(answer)] == [{"pointer": pointer}]
    assert list_files(storage) == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"a"', b"\xff", b'{"data": "\\ud800"}', b"[" * 5_000, b'{"data": NaN}']
)
def test_body_other_than_json_object_is_400(dataset: Dataset, body: bytes) -> None:
    assert post_json(dataset.stranger, body).status_code == 400


def test_a_body_of_a_million_values_is_not_even_read(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.images.request_images.orjson.loads", lambda _body: pytest.fail("it was read"))

    for body in (b'{"data": [' + b"[]," * 9_000_000 + b"0]}", b'{"a":' * 2_000 + b"0" + b"}" * 2_000):
        answer = post_json(dataset.stranger, body)
        assert (answer.status_code, get_errors(answer)[0]["code"]) == (400, "too-large")


@pytest.mark.parametrize("content_type", ["image/png", "text/plain", "application/x-www-form-urlencoded"])
def test_another_media_type_is_415(dataset: Dataset, content_type: str) -> None:
    answer = post_json(dataset.stranger, SMALL, content_type)

    assert answer.status_code == 415
    assert get_errors(answer)[0]["source"] == {"header": "Content-Type"}


@pytest.mark.parametrize("fields", [{}, {"file": "words"}, {"one": SMALL, "two": SMALL}])
def test_form_without_exactly_one_file_is_422(
    dataset: Dataset, storage: Storage, fields: dict[str, bytes | str]
) -> None:
    assert post_form(dataset.stranger, **fields).status_code == 422
    assert list_files(storage) == []


@pytest.mark.parametrize("body", [b"", b"--x", b"--x\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n"])
@pytest.mark.parametrize("boundary", ["; boundary=x", ""])
def test_invalid_form_is_rejected(dataset: Dataset, storage: Storage, body: bytes, boundary: str) -> None:
    answer = post_json(dataset.stranger, body, f"multipart/form-data{boundary}")

    assert answer.status_code in (400, 422)
    assert list_files(storage) == []


def test_upload_over_configured_limit_is_413(
    dataset: Dataset, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dataset.app.config, "MAX_UPLOAD_MB", 1)

    for send in (send_as_data_url, send_as_form):
        assert send(dataset.stranger, SMALL + bytes(2**20)).status_code == 413
        assert send(dataset.stranger, SMALL + bytes(2**20 - len(SMALL))).status_code == 200


def test_one_client_has_one_of_the_images_that_are_decoded_at_once(
    dataset: Dataset, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_view, "DECODER_SLOT_TIMEOUT_SECONDS", 0.05)
    working, go_on = threading.Semaphore(0), threading.Event()
    real = upload_view.make_variants

    def make(*arguments: Any) -> Any:
        working.release()
        go_on.wait(20)
        return real(*arguments)

    def send(caller: ApiClient, address: str) -> TestResponse:
        return send_from_address(caller, address, lambda: send_as_data_url(caller, SMALL))

    monkeypatch.setattr(upload_view, "make_variants", make)
    with ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(send, dataset.stranger, "192.0.2.1")]
        assert working.acquire(timeout=20)
        same_user = send(dataset.stranger, "192.0.2.2")
        same_address = send(dataset.owner, "192.0.2.1")
        busy.append(pool.submit(send, dataset.owner, "192.0.2.3"))
        assert working.acquire(timeout=20), "others have the second one"
        full = send(dataset.admin, "192.0.2.4")
        go_on.set()

        for refused, status in ((same_user, 429), (same_address, 429), (full, 503)):
            assert (refused.status_code, refused.headers["Retry-After"]) == (status, "5")
        assert [future.result().status_code for future in busy] == [200, 200]
    assert send(dataset.stranger, "192.0.2.1").status_code == 200


def send_from_address(caller: ApiClient, address: str, send: Callable[[], TestResponse]) -> TestResponse:
    """Send a request from a client address."""
    caller.client.environ_base["REMOTE_ADDR"] = address
    return send()


# With a real web process


@pytest.fixture
def web(dataset: Dataset, processes: Processes, wait_until: Callable[..., Any]) -> str:
    """Start a web process; return its URL."""
    processes.start("web")
    wait_until(lambda: attempt_get(f"{processes.base_url}/livez") == 200, 30)
    return processes.base_url


def post_over_http(base_url: str, content: bytes, token: str | None) -> int:
    """Return the status of an upload, by a client that reads only after it has sent everything."""
    connection = HTTPConnection(base_url.removeprefix("http://"), timeout=30)
    try:
        body = json.dumps({"data": base64.b64encode(content).decode()})
        connection.request("POST", URL, body, {"Content-Type": JSON, "Authorization": f"JWT {token}"})
        return connection.getresponse().status
    finally:
        connection.close()


def test_large_upload_is_read_before_413_or_401(dataset: Dataset, web: str) -> None:
    for size, status in ((15_000_000, 200), (25_000_000, 413), (40_000_000, 413)):
        assert post_over_http(web, SMALL + bytes(size), dataset.stranger.token) == status
        assert post_over_http(web, SMALL + bytes(size), "not a token") == 401


def test_many_uploads_at_once_are_accepted_or_rejected_and_free_their_memory(
    dataset: Dataset, web: str, processes: Processes
) -> None:
    content, token = SMALL + bytes(15_000_000), dataset.stranger.token
    assert post_over_http(web, SMALL, token) == 200
    before = get_memory_megabytes(processes)

    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda _: post_over_http(web, content, token), range(24)))
        assert attempt_get(f"{web}/livez") == 200

    assert set(statuses) <= {200, 429, 503}
    assert statuses.count(200) >= 4
    assert post_over_http(web, SMALL, token) == 200
    assert get_memory_megabytes(processes) - before < 150


def get_memory_megabytes(processes: Processes) -> float:
    """Return the memory of the web processes in megabytes."""
    web = psutil.Process(processes.children[0].pid)
    return sum(process.memory_info().rss for process in (web, *web.children())) / 2**20


def test_the_same_upload_with_the_same_key_gets_the_same_answer(dataset: Dataset) -> None:
    body = {"data": base64.b64encode(encode_image(make_flag_image(80, 40), "png")).decode()}
    sent = {"Content_Type": "application/json", "Idempotency_Key": "one"}

    first = dataset.stranger.send("POST", "/v1/upload/image", body, **sent)
    again = dataset.stranger.send("POST", "/v1/upload/image", body, **sent)
    other = {"data": base64.b64encode(encode_image(make_flag_image(40, 80), "png")).decode()}
    refused = dataset.stranger.send("POST", "/v1/upload/image", other, **sent)

    assert (first.status_code, first.data) == (again.status_code, again.data)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert refused.status_code == 422


def test_the_same_form_with_another_boundary_is_the_same_request(dataset: Dataset) -> None:
    def send(image: bytes, boundary: str) -> TestResponse:
        body = (_part("file", image) + b"--x--\r\n").replace(b"--x", f"--{boundary}".encode())
        form = f"multipart/form-data; boundary={boundary}"
        return dataset.stranger.send("POST", "/v1/upload/image", body, Content_Type=form, Idempotency_Key="one")

    image = encode_image(make_flag_image(80, 40), "png")
    first, again, refused = send(image, "x"), send(image, "y"), send(encode_image(make_flag_image(40, 80), "png"), "z")

    assert (first.status_code, first.data) == (200, again.data)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert refused.status_code == 422
