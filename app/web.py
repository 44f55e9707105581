"""The web process: granian in front of the WSGI app."""

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

import structlog
from flask import Flask
from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels

from app import logs
from app.processes import address
from app.processes.orphans import forks_die_with_parent

STOP_SECONDS = 10
"""How long requests may take to end after SIGTERM."""

THREADS = 512
"""At most; they are made when they are needed. An open stream holds one, and must not keep requests waiting."""

log = structlog.get_logger(__name__)


class Server(Granian):  # type: ignore[misc,valid-type]  # its class is chosen at run time
    """Granian, which waits for open streams to end and tells nobody that they should."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.stopping, self._stop = os.pipe()
        """Readable in every worker, as nobody reads it, from when the server was told to stop."""

    def signal_handler_interrupt(self, *arguments: Any, **options: Any) -> None:
        """Told to stop, before any worker is."""
        os.write(self._stop, b".")
        super().signal_handler_interrupt(*arguments, **options)


def serve(settings: dict[str, Any], make_app: Callable[[], Flask]) -> None:
    """Serve HOST:PORT until SIGTERM; each of WEB_WORKERS makes an app, hence a pool, of its own."""
    address.check_free(settings)
    logs.configure(settings["LOG_FORMAT"], settings["LOG_LEVEL"])
    logs.log_uncaught_exceptions()
    multiprocessing.set_start_method("fork")  # granian would spawn where fork is not the default any more
    forks_die_with_parent()
    os.register_at_fork(after_in_child=_reset_signals)
    # It warns of so many threads at every start; THREADS says why.
    logging.getLogger("_granian").addFilter(lambda record: "Python threads" not in record.getMessage())
    host = f"[{settings['HOST']}]" if ":" in settings["HOST"] else settings["HOST"]
    server = Server(
        "app",
        address=settings["HOST"],
        port=settings["PORT"],
        interface=Interfaces.WSGI,
        # Not HTTP/2: streams that a client opened and abandoned held their threads in `wsgi.input.read` for ever.
        http=HTTPModes.http1,
        workers=settings["WEB_WORKERS"],
        websockets=False,
        blocking_threads=THREADS,
        backpressure=THREADS,
        respawn_failed_workers=True,
        respawn_interval=0.2,
        workers_kill_timeout=STOP_SECONDS,
        # No handlers of its own; the access line is ours.
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
        app.extensions["stopping"] = server.stopping
        return app

    server.serve(target_loader=load, wrap_loader=False)


def _reset_signals() -> None:
    """Let a worker end at SIGTERM while it loads the app: until granian serves, it has the handlers of its parent."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
