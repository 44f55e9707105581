"""Web process: the WSGI app served by Granian."""

import logging
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from typing import Any

import structlog
from flask import Flask
from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels

from app import logs
from app.connections import ConnectionGuard
from app.health.listener import HealthListener
from app.processes import bind_address
from app.processes.database_connections import warn_of_few_connections
from app.processes.process_tree import set_pdeathsig_on_fork

STOP_TIMEOUT_SECONDS = 10
"""Time for requests to end after SIGTERM."""

MAX_THREADS = 1088
"""Threads for requests, created on demand.

Bodies, streams, files and large responses use up to 640 (`MAX_READERS`, `MAX_SUBSCRIBERS`, `MAX_FILE_STREAMS`,
`MAX_LARGE_RESPONSES` and the waiting ones), requests in progress and waiting ones 448 (`app/request_slots.py`).
"""

THREAD_IDLE_TIMEOUT_SECONDS = 5
"""Time after which an idle thread ends; the minimum of Granian."""

MAX_CONNECTIONS = 8192
"""Connections of one process; far more than threads, so that idle connections block no other clients."""

RESERVED_DESCRIPTORS = 1024
"""File descriptors for other uses than accepted connections: Granian stops accepting after it ran out of them."""

HEADER_TIMEOUT_SECONDS = 10
"""Time from opening a connection, or from its last response, until the next request header is complete."""

HEADER_BUFFER_BYTES = 2**16
"""Receive buffer of a connection; a header larger than twice this size is 431."""

log = structlog.get_logger(__name__)


class WebServer(Granian):  # type: ignore[misc,valid-type]  # its class is chosen at run time
    """Granian with a signal for open streams: it waits for them to end, but does not notify them."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.shutdown_fd, self._shutdown_write_fd = os.pipe()
        """Readable in every worker from the stop signal on, because its byte is never read."""

    def signal_handler_interrupt(self, *arguments: Any, **options: Any) -> None:
        """Make `shutdown_fd` readable, then stop the workers."""
        os.write(self._shutdown_write_fd, b".")
        super().signal_handler_interrupt(*arguments, **options)


def serve_app(settings: dict[str, Any], make_app: Callable[[], Flask]) -> None:
    """Serve HOST:PORT until SIGTERM; each of WEB_WORKERS processes creates its own app and connection pool."""
    bind_address.check_ports_free(settings)
    logs.configure_logging(settings["LOG_FORMAT"], settings["LOG_LEVEL"])
    logs.log_uncaught_exceptions()
    warn_of_few_connections(settings)
    multiprocessing.set_start_method("fork")  # Granian would spawn where fork is no longer the default
    set_pdeathsig_on_fork()
    os.register_at_fork(after_in_child=_reset_signals)
    # Granian warns of so many threads at every start; see MAX_THREADS for the reason.
    logging.getLogger("_granian").addFilter(lambda record: "Python threads" not in record.getMessage())
    max_connections = raise_descriptor_limit()
    host = f"[{settings['HOST']}]" if ":" in settings["HOST"] else settings["HOST"]
    server = WebServer(
        "app",
        address=settings["HOST"],
        port=settings["PORT"],
        interface=Interfaces.WSGI,
        # Not HTTP/2: a stream that a client abandoned would block its thread in `wsgi.input.read` for ever.
        http=HTTPModes.http1,
        workers=settings["WEB_WORKERS"],
        websockets=False,
        blocking_threads=MAX_THREADS,
        blocking_threads_idle_timeout=THREAD_IDLE_TIMEOUT_SECONDS,
        backpressure=max_connections,
        http1_settings=HTTP1Settings(
            header_read_timeout=HEADER_TIMEOUT_SECONDS * 1000, max_buffer_size=HEADER_BUFFER_BYTES
        ),
        respawn_failed_workers=True,
        respawn_interval=0.2,
        workers_kill_timeout=STOP_TIMEOUT_SECONDS,
        # No handlers of Granian: the app logs requests itself.
        log_dictconfig={
            "version": 1,
            "disable_existing_loggers": False,
            "loggers": {"_granian": {}, "granian.access": {}},
        },
        log_level=LogLevels(logging.getLevelName(logging.getLogger("_granian").level).lower()),
    )
    server.on_startup(lambda: log.info("listening", url=f"http://{host}:{settings['PORT']}"))

    def load() -> Flask:
        app = make_app()
        app.extensions["stopping"] = server.shutdown_fd
        if settings["HEALTH_ADDRESS"]:
            HealthListener(app, settings["HEALTH_ADDRESS"]).start_thread()
        has_proxy = bool(settings["TRUSTED_PROXIES"])
        ConnectionGuard(settings["PORT"], has_proxy=has_proxy, max_connections=max_connections).start()
        return app

    server.serve(target_loader=load, wrap_loader=False)


def raise_descriptor_limit() -> int:
    """Raise the limit of open files of this process and its children; return the maximum number of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + RESERVED_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(min(MAX_CONNECTIONS, wanted - RESERVED_DESCRIPTORS), wanted // 2)


def _reset_signals() -> None:
    """Reset the handlers that a worker inherits, so that SIGTERM ends it while it loads the app."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
