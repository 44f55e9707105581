"""Where the web process listens."""

import json
import socket
import time
from errno import EADDRINUSE
from http.client import HTTPConnection, HTTPException
from typing import Any

BIND_TIMEOUT_SECONDS = 2.0
"""Seconds to wait for a server that is just going."""

LOOPBACK_OF_WILDCARD = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where to ask a server that listens everywhere


class PortInUse(Exception):
    """Nobody can listen there; the message is one line that says why."""


def check_ports_free(settings: dict[str, Any]) -> None:
    """Raise Taken when we cannot listen on HOST and PORT: granian would share them with another server of ours."""
    _check_port_free(settings["HOST"], settings["PORT"], "set HOST or PORT to another one")
    if settings["HEALTH_ADDRESS"]:
        host, port = settings["HEALTH_ADDRESS"]
        _check_port_free(host, port, "set HEALTH_ADDRESS to another one")


def _check_port_free(host: str, port: int, remedy: str) -> None:
    deadline = time.monotonic() + BIND_TIMEOUT_SECONDS
    while (error := _find_bind_error(host, port)) is not None:
        # Only a port becomes free by waiting; an address that this machine does not have stays foreign.
        if error.errno != EADDRINUSE or time.monotonic() > deadline:
            raise PortInUse(f"cannot listen on {host}:{port} ({error.strerror}); {remedy}")
        time.sleep(0.1)


def is_healthy(settings: dict[str, Any]) -> bool:
    """Whether every check of /health-check passes, none of them by its grace alone."""
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
            # As servers do: what lingers of the connections of an earlier one does not count.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        return error
    return None
