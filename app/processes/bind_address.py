"""Address on which the web process listens: check that it is free, and that the server there is healthy."""

import json
import socket
import time
from errno import EADDRINUSE
from http.client import HTTPConnection, HTTPException
from typing import Any

BIND_TIMEOUT_SECONDS = 2.0
"""Time to wait for the port of a server that is stopping."""

LOOPBACK_OF_WILDCARD = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # address to connect to a wildcard listener


class PortInUse(Exception):
    """The server cannot listen on its address; the message is one line with the reason."""


def check_ports_free(settings: dict[str, Any]) -> None:
    """Raise PortInUse if HOST:PORT or HEALTH_ADDRESS is in use: Granian would share it with another Granian server."""
    _check_port_free(settings["HOST"], settings["PORT"], "set HOST or PORT to another one")
    if settings["HEALTH_ADDRESS"]:
        host, port = settings["HEALTH_ADDRESS"]
        _check_port_free(host, port, "set HEALTH_ADDRESS to another one")


def _check_port_free(host: str, port: int, remedy: str) -> None:
    deadline = time.monotonic() + BIND_TIMEOUT_SECONDS
    while (error := _find_bind_error(host, port)) is not None:
        # Waiting helps only for a port in use, not for an address that this machine does not have.
        if error.errno != EADDRINUSE or time.monotonic() > deadline:
            raise PortInUse(f"cannot listen on {host}:{port} ({error.strerror}); {remedy}")
        time.sleep(0.1)


def is_healthy(settings: dict[str, Any]) -> bool:
    """Return whether every check of /health-check passes; a failure within its grace period is a failure here."""
    host = LOOPBACK_OF_WILDCARD.get(settings["HOST"], settings["HOST"])
    connection = HTTPConnection(host, settings["PORT"], timeout=3)
    try:
        connection.request("GET", "/health-check")
        answer = connection.getresponse()
        report = json.loads(answer.read())
        return answer.status == 200 and all(result["passed"] for result in report["results"])
    except (OSError, HTTPException, ValueError):
        return False
    finally:
        connection.close()


def _find_bind_error(host: str, port: int) -> OSError | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            # Like servers: connections of an earlier server in TIME_WAIT do not block the port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        return error
    return None
