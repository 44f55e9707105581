"""Connection guard: minimum rates, limits of connections, and the byte counts of the kernel."""

import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app import connections, large_responses, request_bodies
from app.connections import (
    MAX_CONNECTIONS_PER_ADDRESS,
    MIN_BYTES_PER_SECOND,
    RATE_WINDOW_SECONDS,
    ClientConnection,
    ConnectionGuard,
    Peer,
    SocketIdentity,
    Traffic,
    compute_even_share,
)
from app.large_responses import OpenResponse
from app.request_bodies import OpenBody
from app.slots import SlotPool
from tests.conftest import ROOT

WINDOW = RATE_WINDOW_SECONDS
RATE = MIN_BYTES_PER_SECOND


def accept_connection(now: float = 0.0) -> ClientConnection:
    """Return a connection that has just been accepted."""
    return ClientConnection(SocketIdentity(5, 7, Peer("192.0.2.1", 1234)), Traffic(0, 0, False), now, now, (now, 0))


@pytest.mark.parametrize(("rate", "is_slow"), [(0.5, True), (RATE - 1, True), (RATE + 1, False), (5000, False)])
def test_body_below_the_minimum_rate_is_slow(rate: float, is_slow: bool) -> None:
    sender = accept_connection()
    found = []
    for second in range(1, int(3 * WINDOW)):
        sender.update_traffic(second, Traffic(int(second * rate), 0, False))
        found.append(sender.sends_too_slowly(second))
    assert any(found) == is_slow
    assert not any(found[: int(WINDOW) - 1]), "there is time to begin"


def test_body_that_stops_after_a_fast_start_is_slow() -> None:
    sender = accept_connection()
    found = []
    for second in range(1, int(3 * WINDOW)):
        sender.update_traffic(second, Traffic(min(second, 5) * 10**6, 0, False))
        found.append(sender.sends_too_slowly(second))
    assert any(found)


@pytest.mark.parametrize(("rate", "is_slow"), [(0, True), (RATE - 1, True), (RATE + 1, False), (5000, False)])
def test_answer_read_below_the_minimum_rate_is_slow(rate: int, is_slow: bool) -> None:
    reader = accept_connection()
    found = []
    for second in range(1, int(3 * WINDOW)):
        reader.update_traffic(second, Traffic(100, second * rate, is_sending=True))
        found.append(reader.reads_too_slowly(second))
    assert any(found) == is_slow


def test_stream_of_few_bytes_that_the_client_reads_is_not_slow() -> None:
    stream = accept_connection()
    for second in range(1, int(5 * WINDOW)):
        stream.update_traffic(second, Traffic(100, second // 15, is_sending=second % 15 == 0))
        assert not stream.reads_too_slowly(second)
        assert not stream.sends_too_slowly(second)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Yield a listening socket of this process."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        yield listening


def test_guard_closes_what_one_address_has_beyond_its_cap_and_nothing_of_others(listener: socket.socket) -> None:
    guard = ConnectionGuard(listener.getsockname()[1], has_proxy=False, max_connections=8192)
    number = MAX_CONNECTIONS_PER_ADDRESS + 10
    held = []
    try:
        for source in ["127.0.0.2"] * number + ["127.0.0.3"] * 5:
            client = socket.create_connection(listener.getsockname(), source_address=(source, 0))
            held.append((client, listener.accept()[0]))
        busy = held[0]
        busy[0].sendall(b"x")
        guard.scan_connections()
        busy[0].sendall(b"more")
        guard.scan_connections()

        assert sum(is_closed(client) for client, _ in held[:number]) >= 10
        assert not is_closed(busy[0]), "those that are idle for longest go first"
        assert not any(is_closed(client) for client, _ in held[number:])
    finally:
        for pair in held:
            for each in pair:
                each.close()


@pytest.mark.parametrize(
    ("counts", "size", "share"),
    [([5, 5, 5], 9, 3), ([1, 1, 100], 12, 10), ([1, 5, 6], 9, 4), ([3], 9, 3), ([], 9, 0), ([2, 2, 2], 2, 0)],
)
def test_share_evenly_is_the_largest_cap_that_fits(counts: list[int], size: int, share: int) -> None:
    assert compute_even_share(counts, size) == share


@pytest.fixture
def closings(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return the number of connections that the guard has ended, by address; no real connection is closed."""
    numbers: Counter[str] = Counter()

    def end(accepted: SocketIdentity, *, is_body: bool) -> bool:
        assert not is_body
        numbers[accepted.peer.address] += 1
        return True

    monkeypatch.setattr(connections, "end_connection", end)
    return numbers


def accept_connections(monkeypatch: pytest.MonkeyPatch, addresses: list[str]) -> None:
    """Replace the connections of the kernel by one of each of these addresses."""
    accepted = [
        (SocketIdentity(number, number, Peer(address, number)), Traffic(0, 0, False))
        for number, address in enumerate(addresses)
    ]
    monkeypatch.setattr(connections, "_iter_connections", lambda _port: iter(accepted))


def test_guard_closes_what_one_ipv6_site_has_beyond_twice_the_cap(
    monkeypatch: pytest.MonkeyPatch, closings: Counter[str]
) -> None:
    site = [f"2001:db8:1:{number % 60:x}::1" for number in range(60 * 10)]
    accept_connections(monkeypatch, site + ["2001:db8:2::1", "192.0.2.1"] * 10)

    ConnectionGuard(80, has_proxy=False, max_connections=8192).scan_connections()

    assert closings.total() == 60 * 10 - 2 * MAX_CONNECTIONS_PER_ADDRESS
    assert set(closings) <= set(site)


def test_guard_closes_connections_of_those_that_have_most_where_most_are_taken(
    monkeypatch: pytest.MonkeyPatch, closings: Counter[str]
) -> None:
    large = [f"192.0.2.{number % 4}" for number in range(4 * 190)]
    small = ["198.51.100.1"] * 20 + ["198.51.100.2"]
    guard = ConnectionGuard(80, has_proxy=False, max_connections=1000)
    accept_connections(monkeypatch, large[:720] + small)
    guard.scan_connections()
    assert not closings, "a quarter is free"

    accept_connections(monkeypatch, large + small)
    guard.scan_connections()

    assert set(closings) == set(large)
    assert set(closings.values()) == {190 - (500 - len(small)) // 4}


def test_guard_behind_a_proxy_has_no_cap_for_its_address(listener: socket.socket) -> None:
    guard = ConnectionGuard(listener.getsockname()[1], has_proxy=True, max_connections=8192)
    held = []
    try:
        for _ in range(MAX_CONNECTIONS_PER_ADDRESS + 10):
            client = socket.create_connection(listener.getsockname())
            held.append((client, listener.accept()[0]))
        guard.scan_connections()
        assert not any(is_closed(client) for client, _ in held)
    finally:
        for pair in held:
            for each in pair:
                each.close()


def is_closed(client: socket.socket) -> bool:
    """Return whether the other side has closed the connection."""
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_guard_ends_the_slow_body_of_an_address_and_lets_it_be_answered(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., Any]
) -> None:
    monkeypatch.setattr(connections, "RATE_WINDOW_SECONDS", 0.2)
    guard = ConnectionGuard(listener.getsockname()[1], has_proxy=False, max_connections=8192)
    pool = SlotPool(5, 5)
    with (
        socket.create_connection(listener.getsockname(), source_address=("127.0.0.2", 0)) as slow,
        listener.accept()[0] as accepted,
        socket.create_connection(listener.getsockname(), source_address=("127.0.0.3", 0)) as other,
        listener.accept()[0],
    ):
        slow.sendall(b"POST / HTTP/1.1\r\n")
        open_body = OpenBody(pool.acquire("127.0.0.2"), "127.0.0.2")
        monkeypatch.setattr(request_bodies, "open_bodies", {open_body})

        def is_ended() -> bool:
            guard.scan_connections()
            return open_body.ended_at is not None

        wait_until(is_ended, 10)
        assert accepted.recv(100) == b"POST / HTTP/1.1\r\n"
        assert accepted.recv(100) == b"", "nothing more is read of it"
        accepted.sendall(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        slow.settimeout(10)
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
        assert not is_closed(other)


@pytest.mark.parametrize("is_large", [True, False])
def test_guard_ends_bodies_early_where_others_want_their_slots(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., Any], is_large: bool
) -> None:
    monkeypatch.setattr(connections, "CROWDED_WINDOW_SECONDS", 0.2)
    guard = ConnectionGuard(listener.getsockname()[1], has_proxy=False, max_connections=8192)
    readers, large = SlotPool(16, 11), SlotPool(1, 1)
    monkeypatch.setattr(request_bodies, "reader_slots", readers)
    monkeypatch.setattr(request_bodies, "_large_body_slots", large)
    with (
        socket.create_connection(listener.getsockname(), source_address=("127.0.0.2", 0)) as slow,
        listener.accept()[0],
    ):
        slow.sendall(b"POST / HTTP/1.1\r\n")
        open_body = OpenBody(readers.acquire("127.0.0.2"), "127.0.0.2")
        monkeypatch.setattr(request_bodies, "open_bodies", {open_body})
        if is_large:
            open_body.large_slot = large.acquire("127.0.0.2")
        wait_until(lambda: open_body.slot.age_seconds > 0.4, 10)
        guard.scan_connections()
        assert open_body.ended_at is None, "no other wants its slot"

        if is_large:
            waiting = threading.Thread(target=large.acquire, args=["127.0.0.3"], kwargs={"timeout_seconds": 30})
            waiting.start()
            wait_until(lambda: large.is_awaited)
        else:
            for holder in ["127.0.0.2"] * 10 + ["127.0.0.3"]:
                readers.acquire(holder)

        def is_ended() -> bool:
            guard.scan_connections()
            return open_body.ended_at is not None

        wait_until(is_ended, 10)
        if open_body.large_slot:
            large.release(open_body.large_slot)
            waiting.join(30)


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 1), (3, 2)])
def test_guard_ends_slow_readers_of_large_answers_and_nothing_else(
    listener: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[..., Any],
    count: int,
    expected: int,
) -> None:
    monkeypatch.setattr(connections, "RESPONSE_WINDOW_SECONDS", 0.3)
    guard = ConnectionGuard(listener.getsockname()[1], has_proxy=False, max_connections=8192)
    pool = SlotPool(8, 8)
    monkeypatch.setattr(large_responses, "response_slots", pool)
    answers = {OpenResponse(pool.acquire("127.0.0.2"), "127.0.0.2") for _ in range(count)}
    monkeypatch.setattr(large_responses, "open_responses", answers)
    held = []
    try:
        for source in ("127.0.0.2", "127.0.0.2", "127.0.0.2", "127.0.0.3"):
            client = socket.create_connection(listener.getsockname(), source_address=(source, 0))
            held.append((client, listener.accept()[0]))
        for _, accepted in (held[0], held[1], held[3]):  # these read nothing of what is sent
            accepted.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while accepted.send(bytes(2**16)):
                    pass
        begun = time.monotonic()

        def is_over() -> bool:
            guard.scan_connections()
            return time.monotonic() - begun > 1 and sum(is_reset(accepted) for _, accepted in held) >= expected

        wait_until(is_over, 20)
        guard.scan_connections()
        assert sum(is_reset(accepted) for _, accepted in held) == expected
        assert not is_reset(held[2][1])
        assert not is_reset(held[3][1])
    finally:
        for pair in held:
            for each in pair:
                each.close()


def is_reset(accepted: socket.socket) -> bool:
    """Return whether the guard has shut a connection down."""
    try:
        return accepted.send(b"x") == 0
    except BlockingIOError:
        return False
    except (BrokenPipeError, ConnectionResetError):
        return True


def test_guard_leaves_a_descriptor_that_was_used_anew_alone(listener: socket.socket) -> None:
    with (
        socket.create_connection(listener.getsockname()) as first,
        listener.accept()[0] as accepted,
        socket.create_connection(listener.getsockname()) as second,
        listener.accept()[0] as other,
    ):
        descriptor = accepted.fileno()
        old = connections._identify_socket(descriptor, accepted)
        os.dup2(other.fileno(), descriptor)

        assert not connections.end_connection(old, is_body=False)
        assert not is_closed(second)
        first.close()


def test_guard_reads_thousands_of_connections_quickly(listener: socket.socket, figure: Callable[[str], None]) -> None:
    guard = ConnectionGuard(listener.getsockname()[1], has_proxy=True, max_connections=8192)
    held: list[socket.socket] = []
    try:
        for _ in range(2000):
            held += [socket.create_connection(listener.getsockname()), listener.accept()[0]]
        guard.scan_connections()
        begun = time.thread_time()
        guard.scan_connections()
        took = time.thread_time() - begun
    finally:
        for each in held:
            each.close()
    figure(f"connection guard: {took * 1000:.0f} ms of the processor for 2000 connections")
    assert took < 1


@pytest.mark.parametrize(("hard_limit", "connections_allowed"), [(1024, 512), (4096, 3072), (20000, 8192)])
def test_descriptor_limit_is_raised_and_leaves_descriptors_for_other_files(
    hard_limit: int, connections_allowed: int
) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard_limit:
        pytest.skip(f"this machine permits less than {hard_limit} open files")
    code = (
        "import resource; from app.web import raise_descriptor_limit;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (256, {hard_limit}));"
        "print(raise_descriptor_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == [str(connections_allowed), str(min(hard_limit, 8192 + 1024))]
