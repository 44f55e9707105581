"""Limits of request bodies: slow bodies block neither the database nor probes, and large ones are refused."""

import base64
import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.request_bodies import (
    LARGE_BODY_SLOT_TIMEOUT_SECONDS,
    MAX_BODY_BYTES,
    MAX_DISCARDED_BYTES,
    MAX_LARGE_BODIES,
    MAX_LARGE_BODIES_PER_HOLDER,
)
from tests.conftest import Processes
from tests.dataset import Dataset
from tests.images.sample_images import encode_image, make_flag_image
from tests.test_end_to_end import attempt_get, build_document, send_request

pytestmark = [pytest.mark.faults, pytest.mark.long]

UPLOAD = "/v1/upload/image"
SMALL = encode_image(make_flag_image(), "png")


@contextlib.contextmanager
def slow_clients(
    base: str, number: int, path: str, token: str, length: int = 5000, source: str = "127.0.0.1"
) -> Iterator[list[socket.socket]]:
    """Open connections that announce a body and send its first byte."""
    parts = urlsplit(base)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: JWT {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{{"
    )
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(number):
            connection = socket.create_connection((parts.hostname, parts.port), timeout=10, source_address=(source, 0))
            client = stack.enter_context(connection)
            client.sendall(head.encode())
            opened.append(client)
        yield opened


@pytest.fixture
def web(dataset: Dataset, processes: Processes, wait_until: Callable[..., Any]) -> str:
    """Start a web process and return its URL."""
    processes.start("web")
    wait_until(lambda: attempt_get(f"{processes.base_url}/livez") == 200, 30)
    return processes.base_url


def test_slow_bodies_hold_no_connection_to_the_database(dataset: Dataset, web: str) -> None:
    with slow_clients(web, 20, "/v1/events", str(dataset.owner.token)):
        assert attempt_get(f"{web}/v1/events") == 200


def test_slow_bodies_leave_threads_for_probes_and_reads(dataset: Dataset, web: str) -> None:
    with slow_clients(web, 300, "/auth/session", "x"):
        assert attempt_get(f"{web}/livez") == 200
        assert attempt_get(f"{web}/v1/events") == 200


def test_a_chunked_body_is_read_and_has_the_same_limit(dataset: Dataset, web: str) -> None:
    for path, length, status in (
        ("/auth/session", 1000, 401),
        ("/auth/session", 3 * 2**20, 413),
        (UPLOAD, 3 * 2**20, 200),
        (UPLOAD, 25 * 2**20, 413),
    ):
        image, account = {"data": encode_padded_image(length)}, {"email": "a@example.com", "password": "x" * length}
        body = json.dumps(image if path == UPLOAD else account).encode()
        assert send_chunked(web, path, str(dataset.stranger.token), body) == status


def test_web_http2_preface_is_refused(web: str) -> None:
    parts = urlsplit(web)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as client:
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")  # SETTINGS
        answer = client.recv(1000)

    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


def send_chunked(base: str, path: str, token: str, body: bytes) -> int:
    """Return the status of a POST request without Content-Length."""
    parts = urlsplit(base)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as client:
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode())
        client.sendall(f"Authorization: JWT {token}\r\n".encode())
        client.sendall(b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.sendall(b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
        return int(client.recv(1000).split()[1])


def encode_padded_image(length: int) -> str:
    """Return an image followed by padding, as base64."""
    return base64.b64encode(SMALL + bytes(length)).decode()


def send_body(base: str, path: str, token: str, body: bytes, source: str = "127.0.0.1") -> int:
    """Return the status of a POST request of a client that reads only after sending the complete body."""
    address = urlsplit(base).netloc
    with contextlib.closing(HTTPConnection(address, timeout=20, source_address=(source, 0))) as connection:
        connection.request("POST", path, body, {"Content-Type": "application/json", "Authorization": f"JWT {token}"})
        return connection.getresponse().status


def upload_image(base: str, token: str, length: int, source: str = "127.0.0.1") -> int:
    """Return the status of an upload of an image with padding."""
    return send_body(base, UPLOAD, token, json.dumps({"data": encode_padded_image(length)}).encode(), source)


@pytest.mark.parametrize("path", ["/v1/events", "/v1/operations", "/v1/jobs"])
def test_only_images_may_be_large(dataset: Dataset, path: str) -> None:
    def status(length: int) -> int:
        return dataset.owner.send("POST", path, b"{" + b" " * (length - 1), Content_Type="application/json").status_code

    assert status(MAX_BODY_BYTES) in (400, 415)
    assert status(MAX_BODY_BYTES + 1) == 413


def test_a_refusal_is_heard_by_whoever_sends_all_first(dataset: Dataset, web: str) -> None:
    for path, token, status in (
        ("/v1/events", str(dataset.owner.token), 413),
        (UPLOAD, str(dataset.owner.token), 413),
        (UPLOAD, "nonsense", 401),
    ):
        assert send_body(web, path, token, bytes(MAX_DISCARDED_BYTES)) == status
    with slow_clients(web, 1, "/v1/events", str(dataset.owner.token), MAX_DISCARDED_BYTES + 1) as (client,):
        assert client.recv(1000).split()[1] == b"413", "a body above MAX_DISCARDED_BYTES is not read"


def test_only_so_many_large_bodies_are_here_at_once(dataset: Dataset, web: str, wait_until: Callable[..., Any]) -> None:
    token = str(dataset.stranger.token)
    with slow_clients(web, 2 * MAX_LARGE_BODIES, UPLOAD, "nonsense", 2 * MAX_BODY_BYTES):
        assert upload_image(web, token, MAX_BODY_BYTES) == 200, "anonymous clients hold no slots of users"

    with (
        slow_clients(web, MAX_LARGE_BODIES_PER_HOLDER, UPLOAD, token, 2 * MAX_BODY_BYTES),
        slow_clients(
            web, MAX_LARGE_BODIES_PER_HOLDER, UPLOAD, str(dataset.owner.token), 2 * MAX_BODY_BYTES, "127.0.0.2"
        ),
    ):
        other = str(dataset.admin.token)
        wait_until(
            lambda: upload_image(web, token, MAX_BODY_BYTES, "127.0.0.4") == 429, 3 * LARGE_BODY_SLOT_TIMEOUT_SECONDS
        )
        assert upload_image(web, other, MAX_BODY_BYTES, "127.0.0.3") == 200, "two accounts on two addresses leave some"
        assert upload_image(web, token, 0) == 200, "a small one needs no room"
        assert attempt_get(f"{web}/v1/events") == 200

    assert upload_image(web, token, MAX_BODY_BYTES) == 200


def test_slow_large_bodies_of_four_accounts_give_way_to_one_that_waits(dataset: Dataset, web: str) -> None:
    accounts = {}
    for number in range(4):
        credentials = {"email": f"slow{number}@example.com", "password": "correct horse"}
        assert send_request(f"{web}/v1/users", "POST", build_document("user", credentials))[0] == 201
        accounts[f"127.0.3.{number}"] = send_request(f"{web}/v1/auth/login", "POST", credentials)[1]["access_token"]
    with contextlib.ExitStack() as stack:
        for each in (*accounts.items(), *accounts.items()):
            stack.enter_context(slow_clients(web, 1, UPLOAD, each[1], 2 * MAX_BODY_BYTES, each[0]))
        assert 2 * len(accounts) == MAX_LARGE_BODIES
        answers = [upload_image(web, str(dataset.owner.token), MAX_BODY_BYTES, "127.0.0.9") for _ in range(3)]

    assert answers == [200] * 3


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/v1", 405)])
def test_body_that_no_route_takes_leaves_the_connection_usable(web: str, path: str, status: int) -> None:
    with contextlib.closing(HTTPConnection(urlsplit(web).netloc, timeout=20)) as connection:
        for _ in range(20):
            connection.request("POST", path, bytes(200_000), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status
