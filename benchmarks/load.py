"""Load: a few keep-alive connections that send one request after the other for a while."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from time import perf_counter

CONNECTION_COUNT = 2


class UnexpectedStatus(Exception):
    """A server did not answer as it should; the message says what it said."""


@dataclass(frozen=True)
class Request:
    """One request and the status it should get."""

    method: str
    path: str
    body: bytes | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def send_request(connection: HTTPConnection, request: Request) -> bytes:
    """The body of the answer; raises Refused for another status than the one expected."""
    connection.request(request.method, request.path, request.body, dict(request.headers))
    response = connection.getresponse()
    body = response.read()
    if response.status != request.status:
        raise UnexpectedStatus(f"{request.method} {request.path}: {response.status} {body[:500]!r}")
    return body


def send_for_seconds(port: int, seconds: float, request: Callable[[], Request]) -> tuple[int, float]:
    """Send what `request` makes over all connections for so long; how many were answered, in how many seconds."""
    started = perf_counter()
    deadline = started + seconds

    def until_then() -> Iterator[Request]:
        while perf_counter() < deadline:
            yield request()

    answered = _run_on_connections(port, lambda _number: until_then())
    return answered, perf_counter() - started


def send_all(port: int, requests: Iterable[Request]) -> int:
    """Send these over all connections; how many were answered."""
    listed = list(requests)
    return _run_on_connections(port, lambda number: listed[number::CONNECTION_COUNT])


def _run_on_connections(port: int, requests: Callable[[int], Iterable[Request]]) -> int:
    def one(number: int) -> int:
        with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            return sum(1 for request in requests(number) if send_request(connection, request) is not None)

    with ThreadPoolExecutor(CONNECTION_COUNT) as pool:
        return sum(pool.map(one, range(CONNECTION_COUNT)))
