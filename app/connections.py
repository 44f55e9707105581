"""The guard of connections: a thread that ends those on which a client is too slow, or of which it has too many.

A thread that waits for the rest of a body, or to send the rest of an answer, waits without a deadline: it goes on when
its connection ends. The guard reads what the kernel has counted of each connection (TCP_INFO) twice a second, so that
requests cost nothing. Headers that do not end, and idle connections, are the server's own matter (`app/web.py`).
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
"""After a scan that found most connections taken: clients that open many do so again at once."""

MAX_CONNECTIONS_PER_ADDRESS = 200
"""Where no proxy is in front, and the address is that of the client; those that are idle for longest are closed.

A network (/48) of IPv6 may have twice as many.
"""

MIN_CONNECTIONS_PER_HOLDER = 8
"""So many of one address, or network (/48) of IPv6, are left where most connections of the process are taken."""

MIN_BYTES_PER_SECOND = 1024
"""Slower than that for RATE_WINDOW_SECONDS, a body or an answer is given up."""

RATE_WINDOW_SECONDS = 35.0

MIN_LARGE_BYTES_PER_SECOND = 2**15
"""Slower than that for CROWDED_WINDOW_SECONDS, a large body or answer is given up while others wait for its slot."""

CROWDED_WINDOW_SECONDS = 5.0
"""Over how long rates are measured of large bodies and answers whose slots others wait for, and of the many bodies of
one client where most readers are taken."""

MIN_RESPONSE_BYTES_PER_SECOND = 2**13
"""Slower than that for RESPONSE_WINDOW_SECONDS, a large answer is given up, which memory is kept for."""

RESPONSE_WINDOW_SECONDS = 15.0

END_TIMEOUT_SECONDS = 5.0
"""How long a connection whose body was ended may take to close, and a body may take to end with it."""

LOG_INTERVAL_SECONDS = 10.0
"""Between two log lines of the same reason."""

DESCRIPTORS_DIR = "/proc/self/fd"

# struct tcp_info (linux/tcp.h): tcpi_unacked, tcpi_bytes_acked, tcpi_bytes_received, tcpi_notsent_bytes.
_TCP_INFO_STRUCT = struct.Struct("=24xI92xQQ8xI")

log = structlog.get_logger(__name__)


class Peer(NamedTuple):
    """The other end of a connection."""

    address: str
    port: int


class SocketIdentity(NamedTuple):
    """An open connection as the kernel knows it."""

    descriptor: int
    inode: int
    """Another one for each connection, also when descriptor and peer are the same again."""
    peer: Peer


class RateRule(NamedTuple):
    """How fast a body has to be sent, or an answer to be read, measured over so many seconds."""

    window_seconds: float
    min_bytes_per_second: int


class Traffic(NamedTuple):
    """The counts of one connection at one moment."""

    received_bytes: int
    acknowledged_bytes: int
    """Bytes sent that the client has acknowledged."""
    is_sending: bool
    """Whether bytes wait to be sent or to be acknowledged."""


@dataclass
class ClientConnection:
    """One accepted connection, as long as it is open."""

    socket_identity: SocketIdentity
    traffic: Traffic
    active_at: float
    """When bytes were last received or acknowledged."""
    response_due_since: float
    """Since when nothing has been sent to the client: an answer is due, or the rest of a request."""
    body_checkpoint: tuple[float, int]
    """A moment, and the bytes received until then."""
    response_checkpoint: tuple[float, int] | None = None
    """A moment since when bytes always waited to be sent, and the bytes acknowledged until then."""
    ended_at: float | None = None
    """When the guard closed it for reading, so that its body ends and it can still be answered."""

    def update_traffic(self, now: float, traffic: Traffic) -> None:
        """Take over the counts of this moment."""
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
        """Return whether the client has sent too little since an answer was last sent to it.

        `body_seconds` is for how long its body has been read at most: before that it could not be sent.
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
        """Return whether the client has acknowledged too little of what waits to be sent."""
        rule = rule or RateRule(RATE_WINDOW_SECONDS, MIN_BYTES_PER_SECOND)
        if self.response_checkpoint is None or now - self.response_checkpoint[0] < rule.window_seconds:
            return False
        seconds = now - self.response_checkpoint[0]
        if self.traffic.acknowledged_bytes - self.response_checkpoint[1] < seconds * rule.min_bytes_per_second:
            return True
        self.response_checkpoint = now, self.traffic.acknowledged_bytes
        return False


class ConnectionGuard:
    """The guard of the connections that this process accepted at one port."""

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
        """Start the thread; without TCP_INFO there is none."""
        if not has_tcp_info():
            log.warning("connections are not guarded: this system does not count their bytes (TCP_INFO of Linux)")
            return
        threading.Thread(target=self._run_thread, name="connection-guard", daemon=True).start()

    def _run_thread(self) -> None:
        while True:
            time.sleep(CROWDED_SCAN_INTERVAL_SECONDS if self._is_crowded else SCAN_INTERVAL_SECONDS)
            try:
                self.scan_connections()
            except Exception:  # without the guard one client could stop the service: it goes on whatever it is
                log.exception("connection guard failed")

    def scan_connections(self) -> None:
        """Look at all connections once and end those that break a rule."""
        now = time.monotonic()
        self._refresh_connections(now)
        by_holder: defaultdict[str, list[ClientConnection]] = defaultdict(list)
        by_site: defaultdict[str, list[ClientConnection]] = defaultdict(list)
        for connection in self._connections.values():
            holder, *sites = address_holders(connection.socket_identity.peer.address)
            by_holder[holder].append(connection)
            by_site[sites[0] if sites else holder].append(connection)
            if connection.reads_too_slowly(now):
                self._end_connection(connection, "answer is read too slowly")
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
                most = MAX_CONNECTIONS_PER_ADDRESS * NETWORK_FACTOR
                self._end_excess(held, most, "too many connections from one network")
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
        """End connections that are slow to send, at most as many of an address as bodies of it are read for long.

        Which connection a body belongs to is not known: one that waits for its answer looks like one that waits for
        the rest of its body, but no answer takes that long.
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
        """End bodies that others wait for, by a stricter rule than that of all bodies, in the same way."""
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
        """End connections on which large answers are read too slowly, at most as many of an address as it loads.

        Which connection an answer is sent on is not known: one that loads a file looks the same.
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
                self._end_connection(connection, "large answer is read too slowly")

    def _end_largest_shares(self, by_site: Collection[list[ClientConnection]]) -> None:
        """End connections of those that have most, where more than three quarters of all are taken, until half are."""
        counts = [len(held) for held in by_site]
        self._is_crowded = sum(counts) > self.max_connections - self.max_connections // 4
        if not self._is_crowded:
            return
        most = max(MIN_CONNECTIONS_PER_HOLDER, compute_even_share(counts, self.max_connections // 2))
        for held in by_site:
            self._end_excess(held, most, "too many connections in all")

    def _end_excess(self, held: list[ClientConnection], most: int, reason: str) -> None:
        """End what one address or network has beyond its cap, those that are idle for longest first."""
        excess = len(held) - most
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
    """Return the largest cap with which holders of so many things have no more than `size` of them together."""
    rest, left = size, sorted(counts)
    for number, count in enumerate(left):
        share = rest // (len(left) - number)
        if count > share:
            return share
        rest -= count
    return max(left, default=0)


def has_tcp_info() -> bool:
    """Return whether this system counts the bytes of connections."""
    return hasattr(socket, "TCP_INFO") and os.path.isdir(DESCRIPTORS_DIR)


def _iter_connections(port: int) -> Iterator[tuple[SocketIdentity, Traffic]]:
    """Return the connections that this process accepted at this port."""
    for descriptor in map(int, os.listdir(DESCRIPTORS_DIR)):
        with _duplicate_socket(descriptor) as connection:
            try:
                if connection is not None and connection.getsockname()[1:2] == (port,):
                    yield _identify_socket(descriptor, connection), _read_traffic(connection)
            except OSError:  # it listens, or ends at this moment
                continue


@contextmanager
def _duplicate_socket(descriptor: int) -> Iterator[socket.socket | None]:
    """Open a descriptor of our own for a socket, which stays the same whatever is closed meanwhile; None if it is none.

    A file must not be duplicated: closing the duplicate would give up the locks that the process has on it.
    """
    try:
        is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
        duplicate = socket.socket(fileno=os.dup(descriptor)) if is_socket else None
    except OSError:  # closed meanwhile
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
    """Shut a connection down if it is still open; one that sends a body can still get its answer."""
    with _duplicate_socket(accepted.descriptor) as connection:
        try:
            if connection is None or _identify_socket(accepted.descriptor, connection) != accepted:
                return False
            if is_body:
                connection.shutdown(socket.SHUT_RD)
            else:
                # What is unsent is dropped with it: the kernel would keep it, for a client that does not read.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.shutdown(socket.SHUT_RDWR)
        except OSError:  # it has ended
            return False
    return True
