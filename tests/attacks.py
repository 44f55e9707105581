"""Clients that attack a server, each in its own thread until it is stopped.

`with SlowBodies(base_url, 300, "/v1/events"): ...`, or `start()` and `stop()`. Each attack comes from one address of
127.0.0.0/8, and reopens a connection that the server has closed. `Bystander` is a client at another address that
measures its response times during an attack.
"""

import contextlib
import errno
import multiprocessing
import re
import select
import selectors
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from itertools import count
from time import monotonic
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

ATTACKER = "127.0.0.2"
BYSTANDER = "127.0.0.3"

TICK_SECONDS = 0.05
REOPEN_BACKOFF_SECONDS = 0.5
"""Time before a connection that the server closed is opened again."""


CLOSED = getattr(select, "POLLRDHUP", 0)
"""Poll event for a connection that the server has closed; only Linux has it."""


class _Connection:
    """One connection of an attack."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.opens_at = 0.0
        self.sends_at = 0.0
        self.is_begun = False


class Attack:
    """Keep `number` connections open; subclasses define what they send and when."""

    receive_buffer: int | None = None
    reads = True

    def __init__(self, base_url: str, number: int, *, source: str = ATTACKER) -> None:
        parts = urlsplit(base_url)
        self.address = (str(parts.hostname), int(parts.port or 80))
        self.number = number
        self.source = source
        self.opened = 0
        self.closed_by_server = 0
        self.statuses: Counter[int] = Counter()
        """Status codes of the responses that were read."""
        self._connections = [_Connection() for _ in range(number)]
        self._by_descriptor: dict[int, _Connection] = {}
        self._poll = select.poll()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def first_bytes(self) -> bytes:
        """Return the bytes to send when a connection is open."""
        return b""

    def next_bytes(self) -> tuple[bytes, float] | None:
        """Return the next bytes to send and the seconds before them; None to send nothing more."""
        return None

    @property
    def count_open_connections(self) -> int:
        """Return the number of open connections."""
        return len(self._by_descriptor)

    def start(self) -> None:
        """Begin the attack."""
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close all connections."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(30)

    def __enter__(self) -> Self:
        """Begin the attack."""
        self.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Stop the attack."""
        self.stop()

    def _run(self) -> None:
        while not self._stopping.is_set():
            now = monotonic()
            for connection in self._connections:
                if connection.socket is None and connection.opens_at <= now:
                    self._open(connection)
                elif connection.is_begun and connection.sends_at <= now:
                    self._send_next(connection)
            for descriptor, events in self._poll.poll(TICK_SECONDS * 1000):
                self._handle(self._by_descriptor[descriptor], events)
            self._stopping.wait(TICK_SECONDS)
        for connection in self._connections:
            self._close(connection)

    def _open(self, connection: _Connection) -> None:
        opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if self.receive_buffer is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        opened.setblocking(False)
        try:
            opened.bind((self.source, 0))
        except OSError:  # no port is free
            opened.close()
            connection.opens_at = monotonic() + REOPEN_BACKOFF_SECONDS
            return
        status = opened.connect_ex(self.address)
        if status not in (0, errno.EINPROGRESS):
            opened.close()
            connection.opens_at = monotonic() + REOPEN_BACKOFF_SECONDS
            return
        connection.socket, connection.is_begun = opened, False
        self._by_descriptor[opened.fileno()] = connection
        self._poll.register(opened, select.POLLOUT)

    def _handle(self, connection: _Connection, events: int) -> None:
        if connection.socket is None:
            return
        if events & (select.POLLERR | select.POLLHUP | CLOSED):
            self._record_closed(connection)
        elif events & select.POLLOUT and not connection.is_begun:
            self.opened += 1
            connection.is_begun = True
            self._poll.modify(connection.socket, select.POLLIN if self.reads else CLOSED)
            self._send(connection, self.first_bytes())
            self._plan(connection)
        elif events & select.POLLIN:
            self._read(connection)

    def _read(self, connection: _Connection, size: int = 65536) -> None:
        assert connection.socket is not None
        try:
            received = connection.socket.recv(size)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if received.startswith(b"HTTP/1.1 "):
            self.statuses[int(received[9:12])] += 1
        if not received:
            self._record_closed(connection)

    def _send_next(self, connection: _Connection) -> None:
        more = self.next_bytes()
        if more is None:
            connection.sends_at = float("inf")
            return
        self._send(connection, more[0])
        connection.sends_at = monotonic() + more[1]

    def _plan(self, connection: _Connection) -> None:
        more = self.next_bytes()
        connection.sends_at = float("inf") if more is None else monotonic() + more[1]

    def _send(self, connection: _Connection, content: bytes) -> None:
        if connection.socket is None or not content:
            return
        try:
            connection.socket.send(content)
        except BlockingIOError:
            return
        except OSError:
            self._record_closed(connection)

    def _record_closed(self, connection: _Connection) -> None:
        self.closed_by_server += connection.is_begun
        self._close(connection)
        connection.opens_at = monotonic() + REOPEN_BACKOFF_SECONDS

    def _close(self, connection: _Connection) -> None:
        if connection.socket is None:
            return
        self._by_descriptor.pop(connection.socket.fileno(), None)
        with contextlib.suppress(KeyError, ValueError):
            self._poll.unregister(connection.socket)
        connection.socket.close()
        connection.socket, connection.is_begun = None, False


class SilentConnections(Attack):
    """Connect and send nothing."""


class HalfHeaders(Attack):
    """Send half of the header, then nothing."""

    def first_bytes(self) -> bytes:
        """Return a header that does not end."""
        return b"GET /v1/events HTTP/1.1\r\nHost: x\r\nAccept: appl"


class CleartextHttp2(Attack):
    """Open streams of cleartext HTTP/2 that announce a body, and send none."""

    def first_bytes(self) -> bytes:
        """Return the preface, SETTINGS and the HEADERS of 199 requests."""
        path, length = b"/v1/auth/login", b"1000"
        # HPACK (RFC 7541): indexed `:method POST` and `:scheme http`; the others as literals without indexing.
        block = b"\x83\x86\x04" + bytes([len(path)]) + path + b"\x01\x01x" + b"\x0f\x0d" + bytes([len(length)]) + length
        streams = b"".join(_frame(1, 4, number, block) for number in range(1, 2 * 199, 2))
        return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"") + streams


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


class SlowBodies(Attack):
    """Announce a body of `content_length` bytes and send one byte every `interval_seconds`; None: none at all."""

    def __init__(
        self,
        base_url: str,
        number: int,
        path: str = "/v1/auth/login",
        *,
        token: str | None = None,
        content_length: int = 1000,
        interval_seconds: float | None = 2.0,
        source: str = ATTACKER,
    ) -> None:
        super().__init__(base_url, number, source=source)
        self.interval_seconds = interval_seconds
        credentials = f"Authorization: JWT {token}\r\n" if token else ""
        self.head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\n{credentials}Content-Type: application/json\r\n"
            f"Content-Length: {content_length}\r\n\r\n"
        ).encode()

    def first_bytes(self) -> bytes:
        """Return the header and the first byte of the body."""
        return self.head + b"{"

    def next_bytes(self) -> tuple[bytes, float] | None:
        """Return the next byte."""
        return None if self.interval_seconds is None else (b" ", self.interval_seconds)


class SlowReaders(Attack):
    """Request a large response and do not read it."""

    receive_buffer = 4096
    reads = False

    def __init__(
        self,
        base_url: str,
        number: int,
        path: str,
        *,
        token: str | None = None,
        accept: str = "*/*",
        source: str = ATTACKER,
    ) -> None:
        super().__init__(base_url, number, source=source)
        credentials = f"Authorization: JWT {token}\r\n" if token else ""
        self.head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n{credentials}\r\n".encode()

    def first_bytes(self) -> bytes:
        """Return the request."""
        return self.head


class TricklingReaders(SlowReaders):
    """Request a large response and read 1,500 bytes per second."""

    def next_bytes(self) -> tuple[bytes, float] | None:
        """Return nothing to send, and the pause before the next bytes are read."""
        return b"", 1.0

    def _send_next(self, connection: _Connection) -> None:
        self._plan(connection)
        self._read(connection, 1500)


class RepeatedRequests:
    """Repeat one request on `number` connections, in a separate process, and discard the responses.

    With `number` 0 each request has its own connection, which is closed at once.
    """

    def __init__(self, base_url: str, number: int, head: str, *, source: str = ATTACKER) -> None:
        parts = urlsplit(base_url)
        context = multiprocessing.get_context("spawn")
        self.statuses: Counter[int] = Counter()
        """Status codes of the responses, available after the attack has stopped."""
        self._answered = context.Event()
        self._stopping = context.Event()
        self._counts = context.SimpleQueue()
        address = (str(parts.hostname), int(parts.port or 80))
        request = f"{head} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        arguments = (address, number, request, source, self._answered, self._stopping, self._counts)
        self._process = context.Process(target=_repeat if number else _abandon, args=arguments, daemon=True)

    def __enter__(self) -> Self:
        """Start the attack, and wait for its first response."""
        self._process.start()
        assert self._answered.wait(60), "the attack gets no response"
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Stop the attack."""
        self._stopping.set()
        self.statuses = self._counts.get()
        self._process.join(30)


class _RepeatedRequest:
    """Connection that repeats its request."""

    def __init__(self, address: tuple[str, int], request: bytes, source: str) -> None:
        self.request = request
        self.has_body = not request.startswith(b"HEAD")
        self.socket = socket.create_connection(address, timeout=30, source_address=(source, 0))
        self.socket.setblocking(False)
        self.head = b""
        self.left = 0
        self.socket.send(request)

    def receive(self) -> int | None:
        """Read available bytes; return the status when a header is complete. Raise OSError at the end."""
        received = self.socket.recv(2**20)
        if not received:
            raise ConnectionResetError
        status = None
        if self.left:
            self.left -= len(received)
        else:
            self.head += received
            head, is_complete, body = self.head.partition(b"\r\n\r\n")
            if not is_complete:
                return None
            self.head = b""
            length = re.search(rb"(?i)content-length: (\d+)", head)
            self.left = int(length[1]) - len(body) if length and self.has_body else 0
            status = int(head[9:12])
        if not self.left:
            self.socket.send(self.request)
        return status


def _repeat(
    address: tuple[str, int], number: int, request: bytes, source: str, answered: Any, stopping: Any, counts: Any
) -> None:
    statuses: Counter[int] = Counter()
    with selectors.DefaultSelector() as selector:
        for _ in range(number):
            opened = _RepeatedRequest(address, request, source)
            selector.register(opened.socket, selectors.EVENT_READ, opened)
        while not stopping.is_set():
            for key, _events in selector.select(0.5):
                try:
                    status = key.data.receive()
                except OSError:
                    selector.unregister(key.fileobj)
                    key.data.socket.close()
                    opened = _RepeatedRequest(address, request, source)
                    selector.register(opened.socket, selectors.EVENT_READ, opened)
                    continue
                if status is not None:
                    statuses[status] += 1
                    answered.set()
        for key in list(selector.get_map().values()):
            key.data.socket.close()
    counts.put(statuses)


def _abandon(
    address: tuple[str, int], _number: int, request: bytes, source: str, started: Any, stopping: Any, counts: Any
) -> None:
    sent: Counter[int] = Counter()
    while not stopping.is_set():
        with (
            contextlib.suppress(OSError),
            socket.create_connection(address, timeout=30, source_address=(source, 0)) as opened,
        ):
            opened.sendall(request)
            sent[0] += 1
            started.set()
    counts.put(sent)


class OpenStreams(SlowReaders):
    """Request a stream and read it."""

    receive_buffer = None
    reads = True


@dataclass(frozen=True)
class Request:
    """Request of a bystander with its expected statuses."""

    method: str
    path: str
    expected: tuple[int, ...]
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return its name in figures."""
        return f"{self.method} {self.path}"


class Bystander:
    """Send these requests in turn, each on a new connection, and measure them until stopped."""

    def __init__(
        self, base_url: str, requests: Sequence[Request], *, source: str = BYSTANDER, timeout_seconds: float = 20
    ) -> None:
        self.netloc = urlsplit(base_url).netloc
        self.requests = requests
        self.source = source
        self.timeout_seconds = timeout_seconds
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.statuses: Counter[int] = Counter()
        self.failures: list[str] = []
        self.rounds = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bystander", daemon=True)

    def __enter__(self) -> Self:
        """Begin to send."""
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Stop after the current request."""
        self._stopping.set()
        self._thread.join(60)

    @property
    def all_seconds(self) -> list[float]:
        """Return the seconds of all requests, sorted."""
        return sorted(seconds for each in self.seconds.values() for seconds in each)

    @property
    def p99(self) -> float:
        """Return the seconds within which 99 of 100 requests were answered."""
        seconds = self.all_seconds
        return seconds[int(len(seconds) * 0.99)] if seconds else float("inf")

    def _run(self) -> None:
        while not self._stopping.is_set():
            for request in self.requests:
                self._send(request)
            self.rounds += 1

    def _send(self, request: Request) -> None:
        begun = monotonic()
        connection = HTTPConnection(self.netloc, timeout=self.timeout_seconds, source_address=(self.source, 0))
        try:
            connection.request(request.method, request.path, request.body, dict(request.headers))
            answer = connection.getresponse()
            content = answer.read()
            self.statuses[answer.status] += 1
            if answer.status not in request.expected:
                self.failures.append(f"{request.name}: {answer.status} {content[:300]!r}")
        except (OSError, HTTPException) as error:
            self.failures.append(f"{request.name}: {error!r} after {monotonic() - begun:.1f} s")
        finally:
            connection.close()
        self.seconds[request.name].append(monotonic() - begun)


REFUSAL_BACKOFF_SECONDS = 1.0
"""Time a flood thread waits after a 429 or 503: without it the flood would keep the processor of the tests busy."""


class Flood:
    """Send requests from several threads, each on a new connection, until stopped; `make` gets the request's number."""

    def __init__(self, base_url: str, threads: int, make: Callable[[int], Request], *, source: str = ATTACKER) -> None:
        self.netloc = urlsplit(base_url).netloc
        self.make = make
        self.source = source
        self.statuses: Counter[int] = Counter()
        self._numbers = count()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, name="flood", daemon=True) for _ in range(threads)]

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
            thread.join(60)

    def _run(self) -> None:
        while not self._stopping.is_set():
            request = self.make(next(self._numbers))
            connection = HTTPConnection(self.netloc, timeout=30, source_address=(self.source, 0))
            try:
                connection.request(request.method, request.path, request.body, dict(request.headers))
                answer = connection.getresponse()
                answer.read()
                self.statuses[answer.status] += 1
                if answer.status in (429, 503):
                    self._stopping.wait(REFUSAL_BACKOFF_SECONDS)
            except (OSError, HTTPException):
                self.statuses[0] += 1
            finally:
                connection.close()
