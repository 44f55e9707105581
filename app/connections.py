"""Connection guard: a thread that closes connections of clients that are too slow or have too many of them.

A thread that receives a body or sends a response has no time limit; it continues when the connection is closed. Twice a
second the guard reads the byte counts that the kernel keeps for each connection (TCP_INFO), so requests need no
extra work. Granian itself limits incomplete headers and idle connections (`app/web.py`).
"""

import math
import os
import socket
import stat
import struct
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from app import large_responses, request_bodies
from app.request_bodies import BODY_TIMEOUT_SECONDS, OpenBody
from app.slots import NETWORK_FACTOR, Slot, address_holder, address_holders

SCAN_INTERVAL_SECONDS = 0.5
CROWDED_SCAN_INTERVAL_SECONDS = 0.1
"""Interval after a scan that found most connections in use: clients that open many reopen them immediately."""

MAX_CONNECTIONS_PER_ADDRESS = 200
"""Connections of one client address, if there is no proxy; those with the longest idle time are closed.

An IPv6 network (/48) may have twice as many.
"""

MIN_CONNECTIONS_PER_HOLDER = 8
"""Connections that an address, or IPv6 network (/48), always keeps when most connections of the process are in use."""

MIN_BYTES_PER_SECOND = 1024
"""Minimum rate of a body or response, measured over RATE_WINDOW_SECONDS; slower ones are ended."""

RATE_WINDOW_SECONDS = 35.0

MIN_LARGE_BYTES_PER_SECOND = 2**15
"""Minimum rate of a large body or response while others wait for its slot, measured over CROWDED_WINDOW_SECONDS."""

CROWDED_WINDOW_SECONDS = 5.0
"""Time over which rates are measured when others wait for the slots, or most readers of bodies are in use."""

MIN_RESPONSE_BYTES_PER_SECOND = 2**13
"""Minimum rate of a large response, which is held in memory, measured over RESPONSE_WINDOW_SECONDS."""

RESPONSE_WINDOW_SECONDS = 15.0

END_TIMEOUT_SECONDS = 5.0
"""Time for a connection to close after the guard closed it for reading."""

LOG_INTERVAL_SECONDS = 10.0
"""Time between two log lines with the same reason."""

DESCRIPTORS_DIR = "/proc/self/fd"

# struct tcp_info (linux/tcp.h): tcpi_unacked, tcpi_bytes_acked, tcpi_bytes_received, tcpi_notsent_bytes.
_TCP_INFO_STRUCT = struct.Struct("=24xI92xQQ8xI")

log = structlog.get_logger(__name__)


class Peer(NamedTuple):
    """Address and port of the other end of a connection."""

    address: str
    port: int


class SocketIdentity(NamedTuple):
    """Identity of an open connection in the kernel."""

    descriptor: int
    inode: int
    """Unique for each connection, even if descriptor and peer are reused."""
    peer: Peer


class RateRule(NamedTuple):
    """Minimum rate at which a client must send a body or read a response, and the time it is measured over."""

    window_seconds: float
    min_bytes_per_second: int


class Traffic(NamedTuple):
    """Byte counts of a connection at one time."""

    received_bytes: int
    acknowledged_bytes: int
    """Sent bytes that the client has acknowledged."""
    is_sending: bool
    """True while bytes are unsent or unacknowledged."""


@dataclass
class ClientConnection:
    """An accepted connection while it is open."""

    socket_identity: SocketIdentity
    traffic: Traffic
    active_at: float
    """Time at which bytes were last received or acknowledged."""
    response_due_since: float
    """Time since which nothing has been sent: the client waits for a response, or the server for a request."""
    body_checkpoint: tuple[float, int]
    """A time, and the bytes received until then."""
    response_checkpoint: tuple[float, int] | None = None
    """A time since which there were always unsent bytes, and the bytes acknowledged until then."""
    ended_at: float | None = None
    """Time at which the guard closed it for reading, so that its body ends and a response can still be sent."""

    def update_traffic(self, now: float, traffic: Traffic) -> None:
        """Set the current byte counts, and the times and checkpoints that depend on them."""
        before, self.traffic = self.traffic, traffic
        if traffic.acknowledged_bytes != before.acknowledged_bytes:
            self.response_due_since = now
            self.body_checkpoint = now, traffic.received_bytes
        if traffic[:2] != before[:2]:
            self.active_at = now
        if not traffic.is_sending:
            self.response_checkpoint = None
        elif self.response_checkpoint is None:
            self.response_checkpoint = now, traffic.acknowledged_bytes

    def sends_too_slowly(self, now: float, rule: "RateRule | None" = None, body_seconds: float = math.inf) -> bool:
        """Return whether the client has sent fewer bytes than the rule requires.

        `body_seconds` is the age of its body at most: earlier the client could not send it.
        """
        rule = rule or RateRule(RATE_WINDOW_SECONDS, MIN_BYTES_PER_SECOND)
        since, received = self.body_checkpoint
        if now - since < rule.window_seconds:
            return False
        if self.traffic.received_bytes - received < min(now - since, body_seconds) * rule.min_bytes_per_second:
            return True
        self.body_checkpoint = now, self.traffic.received_bytes
        return False

    def reads_too_slowly(self, now: float, rule: "RateRule | None" = None) -> bool:
        """Return whether the client has acknowledged fewer bytes than the rule requires."""
        rule = rule or RateRule(RATE_WINDOW_SECONDS, MIN_BYTES_PER_SECOND)
        if self.response_checkpoint is None or now - self.response_checkpoint[0] < rule.window_seconds:
            return False
        seconds = now - self.response_checkpoint[0]
        if self.traffic.acknowledged_bytes - self.response_checkpoint[1] < seconds * rule.min_bytes_per_second:
            return True
        self.response_checkpoint = now, self.traffic.acknowledged_bytes
        return False


class ConnectionGuard:
    """Guard of the connections that this process accepted at one port."""

    def __init__(self, port: int, *, has_proxy: bool, max_connections: int) -> None:
        self.port = port
        self.has_proxy = has_proxy
        self.max_connections = max_connections
        self._connections: dict[int, ClientConnection] = {}
        """By inode."""
        self._log_at: dict[str, float] = {}
        self._closed_counts: Counter[str] = Counter()
        self._is_crowded = False

    def start(self) -> None:
        """Start the thread; without TCP_INFO only log a warning."""
        if not has_tcp_info():
            log.warning("connection guard disabled: this system has no TCP_INFO")
            return
        threading.Thread(target=self._run_thread, name="connection-guard", daemon=True).start()

    def _run_thread(self) -> None:
        while True:
            time.sleep(CROWDED_SCAN_INTERVAL_SECONDS if self._is_crowded else SCAN_INTERVAL_SECONDS)
            try:
                self.scan_connections()
            except Exception:  # the guard must continue: without it one client could block the service
                log.exception("connection guard failed")

    def scan_connections(self) -> None:
        """Scan all connections once and end those that break a rule."""
        now = time.monotonic()
        self._refresh_connections(now)
        by_holder: defaultdict[str, list[ClientConnection]] = defaultdict(list)
        by_site: defaultdict[str, list[ClientConnection]] = defaultdict(list)
        for connection in self._connections.values():
            holder, *sites = address_holders(connection.socket_identity.peer.address)
            by_holder[holder].append(connection)
            by_site[sites[0] if sites else holder].append(connection)
            if connection.reads_too_slowly(now):
                self._end_connection(connection, "response is read too slowly")
            elif connection.ended_at is not None and now - connection.ended_at >= END_TIMEOUT_SECONDS:
                self._end_connection(connection, "connection does not close")
        self._end_slow_bodies(now, by_holder)
        crowding = [(each, each.slot) for each in request_bodies.list_crowding_bodies()]
        self._end_contended_bodies(now, by_holder, crowding, RateRule(CROWDED_WINDOW_SECONDS, MIN_BYTES_PER_SECOND))
        awaited = [(each, each.large_slot) for each in request_bodies.list_awaited_bodies() if each.large_slot]
        self._end_contended_bodies(
            now, by_holder, awaited, RateRule(CROWDED_WINDOW_SECONDS, MIN_LARGE_BYTES_PER_SECOND)
        )
        self._end_slow_responses(now, by_holder)
        if not self.has_proxy:
            for held in by_holder.values():
                self._end_excess(held, MAX_CONNECTIONS_PER_ADDRESS, "too many connections from one address")
            for held in by_site.values():
                limit = MAX_CONNECTIONS_PER_ADDRESS * NETWORK_FACTOR
                self._end_excess(held, limit, "too many connections from one network")
            self._end_largest_shares(by_site.values())
        self._log_closed_connections(now)

    def _refresh_connections(self, now: float) -> None:
        seen = {}
        for accepted, traffic in _iter_connections(self.port):
            connection = self._connections.get(accepted.inode)
            if connection is None:
                connection = ClientConnection(accepted, traffic, now, now, (now, traffic.received_bytes))
            connection.socket_identity = accepted
            connection.update_traffic(now, traffic)
            seen[accepted.inode] = connection
        self._connections = seen

    def _end_slow_bodies(self, now: float, by_holder: dict[str, list[ClientConnection]]) -> None:
        """End connections whose clients send too slowly; of an address at most as many as it has overdue bodies.

        The connection of a body is unknown: a client that waits for its response looks like one that does not send the
        rest of its body, but no response takes that long.
        """
        overdue: defaultdict[str, list[OpenBody]] = defaultdict(list)
        for open_body in tuple(request_bodies.open_bodies):
            is_ending = open_body.ended_at is not None and now - open_body.ended_at < END_TIMEOUT_SECONDS
            if open_body.slot.age_seconds >= RATE_WINDOW_SECONDS and not is_ending:
                overdue[address_holder(open_body.peer)].append(open_body)
        for holder, open_bodies in overdue.items():
            open_bodies.sort(key=lambda each: each.slot.taken_at)
            is_late = open_bodies[0].slot.age_seconds >= BODY_TIMEOUT_SECONDS
            slow = [
                each
                for each in by_holder.get(holder, [])
                if each.ended_at is None
                and (each.sends_too_slowly(now) or (is_late and now - each.response_due_since >= BODY_TIMEOUT_SECONDS))
            ]
            slow.sort(key=lambda each: each.response_due_since)
            self._end_bodies(now, slow, open_bodies)

    def _end_contended_bodies(
        self,
        now: float,
        by_holder: dict[str, list[ClientConnection]],
        candidates: list[tuple[OpenBody, Slot]],
        rule: RateRule,
    ) -> None:
        """End slow bodies that block other requests, by a stricter rule."""
        open_bodies: defaultdict[str, list[tuple[OpenBody, Slot]]] = defaultdict(list)
        for open_body, slot in candidates:
            if slot.age_seconds >= rule.window_seconds and open_body.ended_at is None:
                open_bodies[address_holder(open_body.peer)].append((open_body, slot))
        for holder, held in open_bodies.items():
            held.sort(key=lambda each: each[1].taken_at)
            oldest = held[0][1].age_seconds
            slow = [
                each
                for each in by_holder.get(holder, [])
                if each.ended_at is None and each.sends_too_slowly(now, rule, oldest)
            ]
            slow.sort(key=lambda each: each.response_due_since)
            self._end_bodies(now, slow, [open_body for open_body, _ in held])

    def _end_bodies(self, now: float, slow: list[ClientConnection], open_bodies: list[OpenBody]) -> None:
        for connection, open_body in zip(slow, open_bodies, strict=False):
            connection.ended_at = open_body.ended_at = now
            self._end_connection(connection, "body is sent too slowly", is_body=True)

    def _end_slow_responses(self, now: float, by_holder: dict[str, list[ClientConnection]]) -> None:
        """End connections that read large responses too slowly; of an address at most as many as it has responses.

        The connection of a response is unknown: one that loads a file looks the same.
        """
        rule = RateRule(RESPONSE_WINDOW_SECONDS, MIN_RESPONSE_BYTES_PER_SECOND)
        if large_responses.response_slots.is_awaited or large_responses.response_slots.is_crowded:
            rule = RateRule(CROWDED_WINDOW_SECONDS, MIN_LARGE_BYTES_PER_SECOND)
        loading = Counter(
            address_holder(each.peer)
            for each in tuple(large_responses.open_responses)
            if each.slot.age_seconds >= rule.window_seconds
        )
        for holder, count in loading.items():
            slow = [each for each in by_holder.get(holder, []) if each.reads_too_slowly(now, rule)]
            for connection in slow[:count]:
                self._end_connection(connection, "large response is read too slowly")

    def _end_largest_shares(self, by_site: Collection[list[ClientConnection]]) -> None:
        """End connections of the largest holders down to half of the maximum if more than three quarters are in use."""
        counts = [len(held) for held in by_site]
        self._is_crowded = sum(counts) > self.max_connections - self.max_connections // 4
        if not self._is_crowded:
            return
        limit = max(MIN_CONNECTIONS_PER_HOLDER, compute_even_share(counts, self.max_connections // 2))
        for held in by_site:
            self._end_excess(held, limit, "too many connections in total")

    def _end_excess(self, held: list[ClientConnection], limit: int, reason: str) -> None:
        """End the connections of one address or network above the limit, the longest idle first."""
        excess = len(held) - limit
        if excess > 0:
            for connection in sorted(held, key=lambda each: (each.active_at, each.traffic.received_bytes))[:excess]:
                self._end_connection(connection, reason)

    def _end_connection(self, connection: ClientConnection, reason: str, *, is_body: bool = False) -> None:
        if end_connection(connection.socket_identity, is_body=is_body):
            self._closed_counts[reason] += 1

    def _log_closed_connections(self, now: float) -> None:
        for reason, count in list(self._closed_counts.items()):
            if now >= self._log_at.get(reason, 0.0):
                log.warning("connections closed", reason=reason, connections=count)
                self._log_at[reason] = now + LOG_INTERVAL_SECONDS
                del self._closed_counts[reason]


def compute_even_share(counts: Iterable[int], size: int) -> int:
    """Return the largest limit per holder with which all holders together have at most `size` connections."""
    rest, left = size, sorted(counts)
    for number, count in enumerate(left):
        share = rest // (len(left) - number)
        if count > share:
            return share
        rest -= count
    return max(left, default=0)


def has_tcp_info() -> bool:
    """Return whether the kernel counts the bytes of each connection (TCP_INFO of Linux)."""
    return hasattr(socket, "TCP_INFO") and os.path.isdir(DESCRIPTORS_DIR)


def _iter_connections(port: int) -> Iterator[tuple[SocketIdentity, Traffic]]:
    """Yield the connections that this process accepted at this port, each with its byte counts."""
    for descriptor in map(int, os.listdir(DESCRIPTORS_DIR)):
        with _duplicate_socket(descriptor) as connection:
            try:
                if connection is not None and connection.getsockname()[1:2] == (port,):
                    yield _identify_socket(descriptor, connection), _read_traffic(connection)
            except OSError:  # a listening socket, or one that has just been closed
                continue


@contextmanager
def _duplicate_socket(descriptor: int) -> Iterator[socket.socket | None]:
    """Duplicate a socket, so that it stays valid if the original is closed; yield None if it is not a socket.

    A file must not be duplicated: closing the duplicate would release the locks of the process on it (fcntl(2)).
    """
    try:
        is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
        duplicate = socket.socket(fileno=os.dup(descriptor)) if is_socket else None
    except OSError:  # closed in the meantime
        duplicate = None
    if duplicate is None:
        yield None
        return
    with duplicate:
        yield duplicate


def _identify_socket(descriptor: int, connection: socket.socket) -> SocketIdentity:
    address, port = connection.getpeername()[:2]
    return SocketIdentity(descriptor, os.fstat(connection.fileno()).st_ino, Peer(address, port))


def _read_traffic(connection: socket.socket) -> Traffic:
    unacknowledged, acknowledged, received, unsent = _TCP_INFO_STRUCT.unpack(
        connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_STRUCT.size)
    )
    return Traffic(received, acknowledged, bool(unacknowledged or unsent))


def end_connection(accepted: SocketIdentity, *, is_body: bool) -> bool:
    """Shut down a connection if it is still open; one that sends a body can still get its response.

    Return whether it was open.
    """
    with _duplicate_socket(accepted.descriptor) as connection:
        try:
            if connection is None or _identify_socket(accepted.descriptor, connection) != accepted:
                return False
            if is_body:
                connection.shutdown(socket.SHUT_RD)
            else:
                # Discard unsent bytes: the kernel would keep them for a client that does not read.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.shutdown(socket.SHUT_RDWR)
        except OSError:  # it has ended
            return False
    return True
