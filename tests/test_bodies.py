"""Clients that send their bodies slowly hold neither the database nor the probes."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import Processes
from tests.test_flow import attempt_get
from tests.world import World


@contextlib.contextmanager
def slow_clients(base: str, number: int, path: str, token: str) -> Iterator[list[socket.socket]]:
    """Connections that announce a body and send its first byte."""
    parts = urlsplit(base)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: JWT {token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 5000\r\n\r\n{"
    )
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(number):
            client = stack.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=10))
            client.sendall(head.encode())
            opened.append(client)
        yield opened


@pytest.fixture
def web(world: World, processes: Processes, wait_until: Callable[..., Any]) -> str:
    """A real web process."""
    processes.start("web")
    wait_until(lambda: attempt_get(f"{processes.base_url}/livez") == 200, 30)
    return processes.base_url


def test_slow_bodies_hold_no_connection_to_the_database(world: World, web: str) -> None:
    with slow_clients(web, 20, "/v1/events", str(world.owner.token)):
        assert attempt_get(f"{web}/v1/events") == 200


def test_slow_bodies_leave_threads_for_probes_and_reads(world: World, web: str) -> None:
    with slow_clients(web, 300, "/auth/session", "x"):
        assert attempt_get(f"{web}/livez") == 200
        assert attempt_get(f"{web}/v1/events") == 200


@pytest.mark.parametrize(("length", "status"), [(1000, b"401"), (3 * 2**20, b"413")])
def test_a_chunked_body_is_read_and_has_the_same_limit(world: World, web: str, length: int, status: bytes) -> None:
    body = b'{"email": "a@example.com", "password": "%s"}' % (b"x" * length)
    parts = urlsplit(web)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as client:
        client.sendall(b"POST /auth/session HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        client.sendall(b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            client.sendall(b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
        assert client.recv(1000).split()[1] == status
