"""HEALTH_ADDRESS: the health endpoints on a separate port, with threads that no other request can occupy."""

import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from threading import BoundedSemaphore, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from flask import Flask

from app.request_slots import SLOT_EXEMPT_KEY

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PATHS = frozenset({"/livez", "/readyz", "/health-check"})

MAX_PROBES = 32
"""Concurrent connections; others wait."""

PROBE_TIMEOUT_SECONDS = 5
"""Seconds for which a client may send nothing or read nothing."""

MAX_CONNECTION_SECONDS = 10.0
"""Seconds that a connection may last, including the response."""

DEADLINE_INTERVAL_SECONDS = 0.5
"""Seconds between two searches for connections beyond their deadline."""

log = structlog.get_logger(__name__)


class _Handler(WSGIRequestHandler):
    timeout = PROBE_TIMEOUT_SECONDS
    server: "HealthListener"

    def parse_request(self) -> bool:
        """Read the headers and mark the request as complete: it has no body."""
        is_valid = super().parse_request()
        self.server.mark_request_complete(self.connection)
        return is_valid

    def log_message(self, *_: Any) -> None:
        """Log nothing: the app logs requests."""


class HealthListener(ThreadingMixIn, WSGIServer):
    """WSGI server for health endpoints in a web process; the web processes of one server share the port."""

    daemon_threads = True
    allow_reuse_port = True
    request_queue_size = 128

    def __init__(self, app: Flask, address: tuple[str, int]) -> None:
        self.address_family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
        self._slots = BoundedSemaphore(MAX_PROBES)
        self._deadlines: dict[socket.socket, float] = {}
        """Open connections, with the monotonic time at which each is closed."""
        self._reading: dict[socket.socket, bool] = {}
        """Open connections whose request is not complete, oldest first."""
        super().__init__(address, _Handler)
        self.set_app(_make_health_app(app))

    def server_bind(self) -> None:
        """Bind without the DNS lookup of the base class."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def start_thread(self) -> None:
        """Serve in a separate thread."""
        loop = {"poll_interval": DEADLINE_INTERVAL_SECONDS}
        Thread(target=self.serve_forever, kwargs=loop, name="health-listener", daemon=True).start()

    def service_actions(self) -> None:
        """Close connections beyond their deadline; the server loop calls this regularly."""
        now = monotonic()
        for request, deadline in list(self._deadlines.items()):
            if deadline <= now:
                _shut_down_socket(request)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection in a separate thread; if none is free, close the oldest incomplete request."""
        if not self._slots.acquire(blocking=False):
            self._close_slowest()
            while not self._slots.acquire(timeout=DEADLINE_INTERVAL_SECONDS):
                self.service_actions()
        self._deadlines[request] = monotonic() + MAX_CONNECTION_SECONDS
        self._reading[request] = True
        try:
            super().process_request(request, client_address)
        except BaseException:  # the thread could not be started
            self._forget_connection(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget_connection(request)

    def mark_request_complete(self, request: socket.socket) -> None:
        """Record that the request of this connection is complete, so that only its deadline closes it."""
        self._reading.pop(request, None)

    def _close_slowest(self) -> None:
        """Close the oldest connection whose request is not complete."""
        if slowest := next(iter(list(self._reading)), None):
            _shut_down_socket(slowest)

    def _forget_connection(self, request: socket.socket) -> None:
        self._reading.pop(request, None)
        del self._deadlines[request]
        self._slots.release()

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """Log a failed connection without the traceback that the base class prints to stderr."""
        log.debug("health client failed", address=str(client_address[0]), error=type(sys.exception()).__name__)


def _shut_down_socket(request: socket.socket) -> None:
    """Shut down a socket; the thread that reads or writes it then closes it."""
    with suppress(OSError):  # already closed by its thread
        request.shutdown(socket.SHUT_RDWR)


def _make_health_app(app: Flask) -> Any:
    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["PATH_INFO"].rstrip("/") in PATHS and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            environ[SLOT_EXEMPT_KEY] = True
            return app(environ, start_response)
        start_response(f"{HTTPStatus.NOT_FOUND.value} Not Found", [("Content-Length", "0")])
        return []

    return answer
