"""Load generator: keep-alive connections that each send one request after the other."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from time import perf_counter

CONNECTION_COUNT = 2


class UnexpectedStatus(Exception):
    """A response has an unexpected status; the message contains status and body."""


@dataclass(frozen=True)
class Request:
    """A request and its expected status."""

    method: str
    path: str
    body: bytes | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def send_request(connection: HTTPConnection, request: Request) -> bytes:
    """Send a request and return the body of the response; raise UnexpectedStatus for another than the expected one."""
    connection.request(request.method, request.path, request.body, dict(request.headers))
    response = connection.getresponse()
    body = response.read()
    if response.status != request.status:
        raise UnexpectedStatus(f"{request.method} {request.path}: {response.status} {body[:500]!r}")
    return body


def send_for_seconds(port: int, seconds: float, request: Callable[[], Request]) -> tuple[int, float]:
    """Send requests from `request` for this time; return the number of responses and the seconds."""
    started = perf_counter()
    deadline = started + seconds

    def until_then() -> Iterator[Request]:
        while perf_counter() < deadline:
            yield request()

    answered = _run_on_connections(port, lambda _number: until_then())
    return answered, perf_counter() - started


def send_all(port: int, requests: Iterable[Request]) -> int:
    """Send these requests over all connections; return the number of responses."""
    listed = list(requests)
    return _run_on_connections(port, lambda number: listed[number::CONNECTION_COUNT])


def _run_on_connections(port: int, requests: Callable[[int], Iterable[Request]]) -> int:
    def one(number: int) -> int:
        with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            return sum(1 for request in requests(number) if send_request(connection, request) is not None)

    with ThreadPoolExecutor(CONNECTION_COUNT) as pool:
        return sum(pool.map(one, range(CONNECTION_COUNT)))
