"""HEALTH_ADDRESS: the health endpoints on a port of their own, with threads that no other request can take."""

import socket
import sys
from collections.abc import Iterable
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from threading import BoundedSemaphore, Thread
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from flask import Flask

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PATHS = frozenset({"/livez", "/readyz", "/health-check"})

MAX_PROBES = 32
"""Connections at once; others wait."""

PROBE_TIMEOUT_SECONDS = 5
"""How long a client may take to send its request, and to read the answer."""


log = structlog.get_logger(__name__)


class _Handler(WSGIRequestHandler):
    timeout = PROBE_TIMEOUT_SECONDS

    def log_message(self, *_: Any) -> None:
        """Write nothing: the app logs its requests."""


class HealthListener(ThreadingMixIn, WSGIServer):
    """A server of this process; the web processes of one server share the port."""

    daemon_threads = True
    allow_reuse_port = True
    request_queue_size = 128

    def __init__(self, app: Flask, address: tuple[str, int]) -> None:
        self.address_family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
        self._slots = BoundedSemaphore(MAX_PROBES)
        super().__init__(address, _Handler)
        self.set_app(_only_health(app))

    def server_bind(self) -> None:
        """Bind without asking DNS for the name of the address, as the base class does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def start(self) -> None:
        """Answer in a thread of its own."""
        Thread(target=self.serve_forever, name="health-listener", daemon=True).start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer one connection in a thread of its own."""
        self._slots.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """Log that a client went away, instead of a traceback on stderr."""
        log.debug("health client failed", address=str(client_address[0]), error=type(sys.exception()).__name__)


def _only_health(app: Flask) -> Any:
    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["PATH_INFO"].rstrip("/") in PATHS and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return app(environ, start_response)
        start_response(f"{HTTPStatus.NOT_FOUND.value} Not Found", [("Content-Length", "0")])
        return []

    return answer
