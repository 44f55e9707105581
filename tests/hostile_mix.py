"""Hostile clients for the soak test, in phases: silent, half-open, slow, HTTP/2, large and many.

Meanwhile a bystander at another address measures log-in, GET requests and the health endpoints.
"""

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from time import sleep
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.attacks import (
    Attack,
    Bystander,
    CleartextHttp2,
    HalfHeaders,
    OpenStreams,
    Request,
    SilentConnections,
    SlowBodies,
    SlowReaders,
)

PHASE_SECONDS = 15
ATTACKS_AT_ONCE = 3


class Flood:
    """Repeat the same request from several threads of one address."""

    def __init__(self, base_url: str, request: Request, threads: int, *, source: str) -> None:
        self.netloc = urlsplit(base_url).netloc
        self.request = request
        self.source = source
        self.statuses: dict[int, int] = {}
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Self:
        """Begin to send."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Stop after the current requests."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self) -> None:
        while not self._stopping.is_set():
            connection = HTTPConnection(self.netloc, timeout=10, source_address=(self.source, 0))
            try:
                connection.request(
                    self.request.method, self.request.path, self.request.body, dict(self.request.headers)
                )
                status = connection.getresponse().status
            except (OSError, HTTPException):
                status = 0
            finally:
                connection.close()
            self.statuses[status] = self.statuses.get(status, 0) + 1


@dataclass(frozen=True)
class AttackTarget:
    """The server, an account, and its most expensive resources."""

    base_url: str
    email: str
    password: str
    token: str
    large_path: str
    """Path of a large public file."""
    stream_path: str
    """Path of a stream that does not end soon."""


@dataclass(frozen=True)
class AttackResult:
    """Figures of a bystander and the attackers."""

    p50: float
    p99: float
    requests: int
    failures: list[str]
    server_errors: int
    """Number of responses to attackers with status 500."""


@contextmanager
def _run_phase(makers: list[Callable[[str], Any]], number: int) -> Iterator[list[Any]]:
    attacks = [make(f"127.0.{1 + number}.{10 + place}") for place, make in enumerate(makers)]
    for attack in attacks:
        attack.__enter__()
    try:
        yield attacks
    finally:
        for attack in attacks:
            attack.__exit__(None, None, None)


def _attack_kinds(target: AttackTarget) -> list[Callable[[str], Any]]:
    base_url, token = target.base_url, target.token
    nested = Request(
        "POST", "/v1/auth/login", (), b"[" * 400_000 + b"]" * 400_000, {"Content-Type": "application/json"}
    )
    wide = Request("POST", "/v1/auth/login", (), b"[" + b"[]," * 300_000 + b"[]]", {"Content-Type": "application/json"})
    large = Request(
        "POST",
        "/v1/events",
        (),
        b"x" * 2**20,
        {"Content-Type": "application/vnd.api+json", "Authorization": f"JWT {token}"},
    )
    include = Request("GET", "/v1/events?include=faqs.faq-type,owner&page%5Bsize%5D=100", ())
    pattern = (
        "/v1/events?filter="
        + "%5B"
        + "%2C".join(
            f"%7B%22name%22%3A%22name%22%2C%22op%22%3A%22ilike%22%2C%22val%22%3A%22%25{letter}%25%22%7D"
            for letter in "abcde"
        )
        + "%5D"
    )
    return [
        lambda source: SilentConnections(base_url, 700, source=source),
        lambda source: HalfHeaders(base_url, 520, source=source),
        lambda source: CleartextHttp2(base_url, 50, source=source),
        lambda source: SlowBodies(base_url, 250, source=source),
        lambda source: SlowBodies(base_url, 250, interval_seconds=None, source=source),
        lambda source: SlowBodies(
            base_url, 8, "/v1/upload/image", token=token, content_length=10 * 2**20, source=source
        ),
        lambda source: SlowReaders(base_url, 515, target.large_path, source=source),
        lambda source: OpenStreams(
            base_url, 240, target.stream_path, token=token, accept="text/event-stream", source=source
        ),
        lambda source: Flood(base_url, nested, 4, source=source),
        lambda source: Flood(base_url, wide, 4, source=source),
        lambda source: Flood(base_url, large, 4, source=source),
        lambda source: Flood(base_url, include, 8, source=source),
        lambda source: Flood(base_url, Request("GET", pattern, ()), 8, source=source),
    ]


def attack_server(target: AttackTarget, seconds: float) -> AttackResult:
    """Attack the server for this time with several kinds at once; return the measurements of a bystander."""
    credentials = json.dumps({"email": target.email, "password": target.password}).encode()
    bystander = Bystander(
        target.base_url,
        [
            Request("GET", "/livez", (200,)),
            Request("GET", "/health-check", (200,)),
            Request("GET", "/v1/events?page%5Bsize%5D=5", (200,)),
            Request("POST", "/v1/auth/login", (200,), credentials, {"Content-Type": "application/json"}),
        ],
    )
    kinds = itertools.cycle(_attack_kinds(target))
    errors = 0
    with bystander:
        for number in range(max(1, int(seconds / PHASE_SECONDS))):
            with _run_phase([next(kinds) for _ in range(ATTACKS_AT_ONCE)], number) as attacks:
                sleep(PHASE_SECONDS)
            errors += sum(_count_server_errors(attack) for attack in attacks)
    times = bystander.all_seconds
    return AttackResult(times[len(times) // 2], bystander.p99, len(times), bystander.failures, errors)


def _count_server_errors(attack: Attack | Flood) -> int:
    return attack.statuses.get(500, 0)
