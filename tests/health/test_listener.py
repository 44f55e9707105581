"""The port of HEALTH_ADDRESS: clients that send slowly do not hold its connections."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from threading import Event, Thread
from typing import Any

import pytest
from flask import Flask

from app.health import listener
from app.health.listener import MAX_PROBES, HealthListener

INTERVAL_SECONDS = 0.1


@pytest.fixture
def server(app: Flask) -> Iterator[HealthListener]:
    """Start a listener of the app."""
    listener = HealthListener(app, ("127.0.0.1", 0))
    listener.start_thread()
    yield listener
    listener.shutdown()
    listener.server_close()


def get_status(server: HealthListener) -> int:
    """Return the status of /livez on the listener."""
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status
    finally:
        connection.close()


def send_slowly(connections: list[socket.socket], stop: Event) -> None:
    """Send one byte of a header on each connection, again and again, until all are closed."""
    while not stop.wait(INTERVAL_SECONDS):
        for connection in connections:
            try:
                connection.sendall(b"a")
            except OSError:
                continue


def is_closed(connection: socket.socket) -> bool:
    """Return whether the server has closed the connection."""
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


@contextmanager
def slow_clients(server: HealthListener, count: int) -> Iterator[list[socket.socket]]:
    """Open `count` connections that send their headers byte by byte."""
    stop = Event()
    with ExitStack() as stack:
        connections = []
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.server_port), timeout=0.01))
            connection.sendall(b"GET /livez HTTP/1.1\r\nX-Slow: ")
            connections.append(connection)
        sender = Thread(target=send_slowly, args=(connections, stop))
        sender.start()
        stack.callback(sender.join)
        stack.callback(stop.set)
        yield connections


def test_connections_that_send_a_byte_now_and_then_are_closed(
    server: HealthListener, wait_until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "MAX_CONNECTION_SECONDS", 1.0)
    with slow_clients(server, 3) as connections:
        wait_until(lambda: all(is_closed(connection) for connection in connections), 10)


def test_a_probe_does_not_wait_for_connections_that_send_slowly(server: HealthListener) -> None:
    with slow_clients(server, MAX_PROBES):
        started_at = time.monotonic()

        assert [get_status(server) for _ in range(3)] == [200] * 3

        assert time.monotonic() - started_at < listener.PROBE_TIMEOUT_SECONDS


def test_a_connection_within_the_deadline_is_answered(server: HealthListener) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
        for part in (b"GET /li", b"vez HTTP/1.0\r\n", b"Host: a\r\n\r\n"):
            connection.sendall(part)
        assert connection.recv(12) == b"HTTP/1.0 200"
