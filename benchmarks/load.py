"""Load: a few keep-alive connections that send one request after the other for a while."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection
from time import perf_counter

CONNECTIONS = 2


class Refused(Exception):
    """A server did not answer as it should; the message says what it said."""


@dataclass(frozen=True)
class Request:
    """One request and the status it should get."""

    method: str
    path: str
    body: bytes | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def send(connection: HTTPConnection, request: Request) -> bytes:
    """The body of the answer; raises Refused for another status than the one expected."""
    connection.request(request.method, request.path, request.body, dict(request.headers))
    response = connection.getresponse()
    body = response.read()
    if response.status != request.status:
        raise Refused(f"{request.method} {request.path}: {response.status} {body[:500]!r}")
    return body


def send_for(port: int, seconds: float, request: Callable[[], Request]) -> tuple[int, float]:
    """Send what `request` makes over all connections for so long; how many were answered, in how many seconds."""

    def one_connection(_number: int) -> int:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        answered = 0
        while perf_counter() < deadline:
            send(connection, request())
            answered += 1
        connection.close()
        return answered

    started = perf_counter()
    deadline = started + seconds
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        answered = sum(pool.map(one_connection, range(CONNECTIONS)))
    return answered, perf_counter() - started
