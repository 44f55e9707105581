"""HTTP client for untrusted URLs: address checks, limits, and servers that misbehave."""

import contextlib
import gzip
import logging
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import orjson
import pytest
import trustme
from flask import Flask

import config
from app import http_client
from app.http_client import (
    HttpResponse,
    OutboundError,
    RequestFailed,
    RequestLimits,
    ResponseTooLarge,
    TimedOut,
    TooManyRedirects,
    Unreachable,
    UrlNotAllowed,
    fetch_url,
    post,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Behaviour = Callable[[socket.socket], None]


def respond_with(*parts: bytes) -> Behaviour:
    """Return a behaviour that sends these bytes and closes the connection."""
    return lambda connection: connection.sendall(b"".join(parts))


class Receiver:
    """A server that reads one request and then executes a behaviour."""

    def __init__(self, host: str = "", behave: Behaviour | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.behave, self.tls = behave or respond_with(OK), tls
        self.connections = 0
        self.requests: list[bytes] = []
        family = socket.AF_INET if host else socket.AF_INET6
        self.listener = socket.create_server((host, 0), family=family, dualstack_ipv6=not host)
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed at the end of the test
            while True:
                connection, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        # The client may hang up, or not like our certificate.
        with (
            contextlib.suppress(OSError),
            self.tls.wrap_socket(connection, server_side=True) if self.tls else connection as stream,
        ):
            self.requests.append(_read_request(stream))
            self.behave(stream)


def _read_request(stream: socket.socket) -> bytes:
    """Return the head, and the body unless it is large."""
    read = b""
    while (end := read.find(b"\r\n\r\n") + 4) < 4 and (more := stream.recv(65536)):
        read += more
    announced = re.search(rb"\r\nContent-Length: (\d{1,4})\r\n", read[:end])
    while announced and len(read) < end + int(announced[1]) and (more := stream.recv(65536)):
        read += more
    return read


@pytest.fixture
def receivers() -> Iterator[Callable[..., Receiver]]:
    """Return a function that starts a Receiver on a free port; without a host on every address of this machine."""
    started: list[Receiver] = []

    def start(*arguments: Any, **more: Any) -> Receiver:
        started.append(Receiver(*arguments, **more))
        return started[-1]

    yield start
    for receiver in started:
        # Wakes the thread that accepts, which `close` alone does not.
        with contextlib.suppress(OSError):
            receiver.listener.shutdown(socket.SHUT_RDWR)
        receiver.listener.close()


@pytest.fixture
def use_settings(tmp_path: Path) -> Iterator[Callable[..., Flask]]:
    """Return a function that pushes the context of an app with these settings."""
    with contextlib.ExitStack() as stack:

        def enter(**settings: str) -> Flask:
            app = Flask(__name__)
            app.config.update(config.read_config({"APP_ENV": "testing", "VAR_DIR": str(tmp_path), **settings}))
            stack.enter_context(app.app_context())
            return app

        yield enter


@pytest.fixture
def allow_localhost(use_settings: Callable[..., Flask]) -> Flask:
    """Allow requests to this machine."""
    return use_settings(OUTBOUND_ALLOW="127.0.0.0/8, ::1/128")


@pytest.fixture
def dns_answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Return the scripted look-ups by name: each result once, the last repeatedly. Numbers are resolved as usual."""
    meanings: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **more: Any) -> list[Any]:
        name = host.decode("ascii") if isinstance(host, bytes) else host
        if name not in meanings:
            return real(host, port, *arguments, **{**more, "flags": more.get("flags", 0) | socket.AI_NUMERICHOST})
        meaning = meanings[name].pop(0) if len(meanings[name]) > 1 else meanings[name][0]
        return [(0, socket.SOCK_STREAM, 6, "", (address, port or 0)) for address in meaning]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return meanings


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let requests to unreachable addresses fail without delay."""
    monkeypatch.setattr(http_client, "UNREACHABLE_DELAY_SECONDS", 0.0)


@pytest.fixture
def short_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the deadline to a second."""
    monkeypatch.setattr(http_client, "TOTAL_TIMEOUT_SECONDS", 1.0)


def test_get_brings_status_headers_and_content(allow_localhost: Flask, receivers: Callable[..., Receiver]) -> None:
    receiver = receivers(behave=respond_with(b"HTTP/1.1 404 Gone\r\nX-Word: hi\r\nContent-Length: 5\r\n\r\nhello"))

    answer = fetch_url(f"{receiver.url}/path?query=1#fragment", headers={"X-Ours": "1"})

    assert (answer.status, answer.headers["x-word"], answer.content) == (404, "hi", b"hello")
    request = receiver.requests[0]
    assert request.startswith(b"GET /path?query=1 HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{receiver.port}\r\n".encode() in request
    assert b"X-Ours: 1\r\n" in request
    assert b"Accept-Encoding: identity\r\n" in request
    assert b"User-Agent: open-event-api-server (+http://127.0.0.1:5000)\r\n" in request


def test_post_sends_bytes_or_json(allow_localhost: Flask, receivers: Callable[..., Receiver]) -> None:
    receiver = receivers()

    post(receiver.url, content=b"bytes", headers={"Content-Type": "text/plain"})
    post(receiver.url, json={"a": [1, "ä"]})

    plain, document = receiver.requests
    assert plain.startswith(b"POST / HTTP/1.1\r\n")
    assert plain.endswith(b"\r\n\r\nbytes")
    assert b"Content-Type: application/json\r\n" in document
    assert orjson.loads(document.partition(b"\r\n\r\n")[2]) == {"a": [1, "ä"]}


def test_a_redirect_is_an_answer_and_not_followed(allow_localhost: Flask, receivers: Callable[..., Receiver]) -> None:
    private = receivers("127.0.0.2")
    redirect = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2:%d/\r\nContent-Length: 0\r\n\r\n" % private.port
    receiver = receivers("127.0.0.1", respond_with(redirect))

    assert fetch_url(receiver.url).status == 302
    assert private.connections == 0


def test_cookies_are_not_kept(allow_localhost: Flask, receivers: Callable[..., Receiver]) -> None:
    receiver = receivers(behave=respond_with(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"))

    fetch_url(receiver.url)
    fetch_url(receiver.url)

    assert b"cookie" not in receiver.requests[1].lower()


def test_the_environment_names_no_proxy_and_no_password(
    allow_localhost: Flask, receivers: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proxy, receiver = receivers("127.0.0.2"), receivers("127.0.0.1")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.2:{proxy.port}")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    fetch_url(receiver.url)

    assert proxy.connections == 0
    assert b"authorization" not in receiver.requests[0].lower()


def test_nothing_of_the_address_is_logged(
    allow_localhost: Flask, receivers: Callable[..., Receiver], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    fetch_url(f"{receivers().url}/hunter2")

    assert caplog.text == ""


# What is said about the content


def test_an_answer_of_the_largest_size_is_whole(allow_localhost: Flask, receivers: Callable[..., Receiver]) -> None:
    receiver = receivers(behave=respond_with(b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n", b"x" * 65536))

    assert len(fetch_url(receiver.url).content) == 65536


@pytest.mark.parametrize("head", [b"Content-Length: 99999999", b"Content-Length: 65537", b"X-Until: the end"])
def test_a_larger_answer_is_cut(allow_localhost: Flask, receivers: Callable[..., Receiver], head: bytes) -> None:
    def behave(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 201 Created\r\n" + head + b"\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    receiver = receivers(behave=behave)

    with pytest.raises(ResponseTooLarge, match="larger than 65536 bytes") as refused:
        fetch_url(receiver.url)

    assert (refused.value.answer.status, len(refused.value.answer.content)) == (201, 65536)


def test_body_limit_can_be_raised_by_caller(allow_localhost: Flask, receivers: Callable[..., Receiver]) -> None:
    receiver = receivers(behave=respond_with(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n", b"x" * 300000))

    assert len(fetch_url(receiver.url, limits=RequestLimits(300_000)).content) == 300_000
    with pytest.raises(ResponseTooLarge):
        fetch_url(receiver.url, limits=RequestLimits(299_999))


def test_a_bomb_is_not_unpacked(allow_localhost: Flask, receivers: Callable[..., Receiver]) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    receiver = receivers(behave=respond_with(head, bomb))

    assert fetch_url(receiver.url, limits=RequestLimits(len(bomb))).content == bomb
    with pytest.raises(ResponseTooLarge) as refused:
        fetch_url(receiver.url, limits=RequestLimits(1000))
    assert refused.value.answer.content == bomb[:1000]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"hello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFFFFF\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 100_000 + b"\r\n",
        b"HTTP/1.1 999999 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x00\xff\xfe" * 100,
    ],
)
def test_malformed_response_fails(allow_localhost: Flask, receivers: Callable[..., Receiver], answer: bytes) -> None:
    receiver = receivers(behave=respond_with(answer))

    with pytest.raises(RequestFailed):
        fetch_url(receiver.url)


def test_bytes_beyond_content_length_are_ignored(allow_localhost: Flask, receivers: Callable[..., Receiver]) -> None:
    assert fetch_url(receivers(behave=respond_with(OK, b"and more")).url).content == b"ok"


def test_a_port_that_nobody_listens_on_fails(allow_localhost: Flask, receivers: Callable[..., Receiver]) -> None:
    receiver = receivers("127.0.0.1")

    with pytest.raises(Unreachable):
        fetch_url(f"http://127.0.0.9:{receiver.port}/")
    with pytest.raises(Unreachable):
        fetch_url("http://127.0.0.1:0/")
    with pytest.raises(RequestFailed, match=r"^The connection failed: ConnectError\.$"):
        fetch_url(f"http://127.0.0.9:{receiver.port}/", limits=RequestLimits(trusted=True))


# Deadlines


def _drip_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
    _repeat_forever(connection, b"x")


def _drip_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    _repeat_forever(connection, b"X: x\r\n")


def _drip_interim_answers(connection: socket.socket) -> None:
    _repeat_forever(connection, b"HTTP/1.1 103 Early Hints\r\n\r\n")


def _repeat_forever(connection: socket.socket, what: bytes) -> None:
    while True:
        connection.sendall(what)
        sleep(0.05)


def _say_nothing(connection: socket.socket) -> None:
    connection.settimeout(10)
    connection.recv(1)


@pytest.mark.usefixtures("short_deadline")
@pytest.mark.parametrize("behave", [_drip_body, _drip_headers, _drip_interim_answers, _say_nothing])
def test_the_deadline_is_for_all_of_it(
    allow_localhost: Flask, receivers: Callable[..., Receiver], behave: Behaviour
) -> None:
    receiver = receivers(behave=behave)
    started = monotonic()

    with pytest.raises(TimedOut):
        fetch_url(receiver.url)

    assert 0.9 < monotonic() - started < 2


@pytest.mark.usefixtures("short_deadline")
def test_a_receiver_that_does_not_read_does_not_hold_us(
    allow_localhost: Flask, receivers: Callable[..., Receiver]
) -> None:
    def sip(connection: socket.socket) -> None:
        while connection.recv(1000):
            sleep(0.05)

    receiver = receivers(behave=sip)
    started = monotonic()

    with pytest.raises(TimedOut):
        post(receiver.url, content=bytes(50_000_000))

    assert monotonic() - started < 2


@pytest.mark.usefixtures("short_deadline")
def test_a_handshake_that_never_ends_does_not_hold_us(
    allow_localhost: Flask, receivers: Callable[..., Receiver]
) -> None:
    receiver = receivers(behave=_say_nothing)
    started = monotonic()

    with pytest.raises(TimedOut):
        fetch_url(f"https://127.0.0.1:{receiver.port}/")

    assert monotonic() - started < 2


@pytest.mark.usefixtures("short_deadline")
def test_a_name_server_that_hangs_does_not_hold_us(allow_localhost: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(30) and [])
    started = monotonic()

    with pytest.raises(Unreachable):
        fetch_url("http://slow.example.com/")

    assert monotonic() - started < 2
    over.set()


def test_a_connection_that_is_not_answered_is_given_up_early(
    allow_localhost: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "CONNECT_TIMEOUT_SECONDS", 0.3)
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # no accept: the kernel completes no further handshakes
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        started = monotonic()

        with pytest.raises(Unreachable):
            fetch_url(f"http://127.0.0.1:{full.getsockname()[1]}/")

    assert monotonic() - started < 1.5


# Where it goes

HOSTS = [
    "127.0.0.1",
    "127.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0x7f.1",
    "017700000001",
    "0177.0.0.1",
    "0177.0.0.01",
    "127.0.0.1.",
    "0",
    "0.0.0.0",  # noqa: S104  # not bound
    "00000000",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",  # full stops of another script, which IDNA takes for ours
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]",
    "[2001:0:7f00:1::1]",
    "[2001:db8::1]",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[fe80::1%eth0]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[100::1]",
    "[5f00::1]",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "192.88.99.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.175.48.1",
    "198.51.100.1",
    "203.0.113.1",
    "[2001:1::1]",
    "[2001:20::1]",
    "[2620:4f:8000::1]",
    "[3ffe::1]",
    "[3fff::1]",
    "[2606:2800:220:1:0:5efe:10.0.0.1]",
    "[2606:2800:220:1:200:5efe:127.0.0.1]",
    "[2606:2800:220:1:0:5efe:192.88.99.1]",
    "[64:ff9b::192.88.99.1]",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "2852039166",
    "0xa9fea9fe",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.168.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "me@127.0.0.1",
    "public.example.com@127.0.0.1",
    "public.example.com:80@127.0.0.1",
    "public.example.com\\@127.0.0.1",
    "public.example.com%2f@127.0.0.1",
    "public.example.com%00@127.0.0.1",
    "127.0.0.1%2f@public.example.com",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "sub.localhost",
    "private.example.com",
    "metadata.google.internal",
    "mapped.example.com",
    "translated.example.com",
    "half.example.com",
    "other-half.example.com",
    "",
    ".",
    "..",
    "%",
    "%31%32%37.0.0.1",
    "127.0.0.1 ",
    " 127.0.0.1",
    "127.0.0.1\t",
    "127.0.0.1\r\nHost: public.example.com",
    "127.0.0.1\x00.example.com",
    "a" * 70 + ".example.com",
    "[",
    "[]",
    "[::1",
    "[127.0.0.1]",
    "[::1]:80@[::1]",
    "\ud800",
    "127.0.0.1:80:80",
    "xn--",
    "xn--a.example.com",
]
NAMES = {
    "localhost": ["127.0.0.1", "::1"],
    "localhost.": ["127.0.0.1"],
    "sub.localhost": ["::1"],
    "private.example.com": ["127.0.0.1"],
    "metadata.google.internal": ["169.254.169.254"],
    "mapped.example.com": ["::ffff:127.0.0.1"],
    "translated.example.com": ["64:ff9b::7f00:1"],
    "half.example.com": ["93.184.216.34", "127.0.0.1"],
    "other-half.example.com": ["127.0.0.1", "2606:2800:220:1::1"],
}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", HOSTS)
def test_no_private_address_is_reached(
    use_settings: Callable[..., Flask],
    receivers: Callable[..., Receiver],
    dns_answers: dict[str, list[list[str]]],
    host: str,
    scheme: str,
) -> None:
    use_settings()
    dns_answers.update({name: [meaning] for name, meaning in NAMES.items()})
    receiver = receivers()

    for act in (fetch_url, post):
        with pytest.raises((UrlNotAllowed, Unreachable)):
            act(f"{scheme}://{host}:{receiver.port}/")  # type: ignore[operator]  # either takes a URL

    assert receiver.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/",
        "//127.0.0.1/",
        "127.0.0.1",
        "http:127.0.0.1",
        "http:/127.0.0.1/",
        "http:///127.0.0.1/",
        "https://",
        "ftp://93.184.216.34/",
        "file:///etc/passwd",
        "gopher://93.184.216.34/",
        "unix:///run/docker.sock",
        "http+unix://%2Frun%2Fdocker.sock/",
        "data:text/plain,hello",
        "javascript:alert(1)",
        "https://93.184.216.34:65536/",
        "https://93.184.216.34:99999999999999999999/",
        "https://93.184.216.34:-1/",
        "https://me:hunter2@93.184.216.34/",
        "https://93.184.216.34/\ud800",
        "https://93.184.216.34/\x00",
        "https://93.184.216.34/" + "x" * 100_000,
    ],
)
def test_invalid_url_is_refused(use_settings: Callable[..., Flask], url: str) -> None:
    use_settings()

    with pytest.raises(UrlNotAllowed) as refused:
        fetch_url(url)

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        *("93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "168.63.129.17", "192.88.98.1"),
        "2606:2800:220:1:0:5efe:5db8:d822",
    ],
)
def test_a_public_address_is_allowed(
    use_settings: Callable[..., Flask], dns_answers: dict[str, list[list[str]]], address: str
) -> None:
    use_settings()
    dns_answers["public.example.com"] = [[address]]

    assert http_client._resolve_host(b"public.example.com", RequestLimits(), monotonic() + 5) == [
        address
    ]  # tests do not go there


def test_an_address_that_is_not_allowed_fails_as_one_that_cannot_be_reached(
    use_settings: Callable[..., Flask], dns_answers: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "UNREACHABLE_DELAY_SECONDS", 0.5)
    use_settings(OUTBOUND_ALLOW="127.0.0.9/32")
    dns_answers["inside.example.com"] = [["10.0.0.1"]]
    said, took = set(), []

    for host in ("10.0.0.1", "inside.example.com", "missing.example.com", "127.0.0.9:1", "127.0.0.1:1"):
        started = monotonic()
        with pytest.raises(Unreachable) as failed:
            fetch_url(f"http://{host}/")
        said.add((type(failed.value), str(failed.value)))
        took.append(monotonic() - started)

    assert said == {(Unreachable, "The address is not allowed or cannot be reached.")}
    assert all(0.5 <= seconds < 1.0 for seconds in took), took


def test_a_redirect_to_the_inside_fails_as_one_to_nowhere(
    use_settings: Callable[..., Flask], receivers: Callable[..., Receiver]
) -> None:
    use_settings(OUTBOUND_ALLOW="127.0.0.2/32")
    said = set()

    for target in ("http://10.0.0.1/", "http://127.0.0.2:1/", "http://missing.example.com/"):
        with pytest.raises(Unreachable) as failed:
            fetch_url(f"http://127.0.0.2:{receivers(behave=redirect_to(target)).port}/", max_redirects=1)
        said.add(str(failed.value))

    assert len(said) == 1


def test_allowed_networks_are_reached_and_no_others(
    use_settings: Callable[..., Flask], receivers: Callable[..., Receiver]
) -> None:
    use_settings(OUTBOUND_ALLOW="127.0.0.2/32")
    receiver = receivers()

    assert fetch_url(f"http://127.0.0.2:{receiver.port}/").content == b"ok"
    for host in ("127.0.0.1", "[::1]", "[::ffff:127.0.0.2]", "[64:ff9b::127.0.0.2]"):
        with pytest.raises(Unreachable):
            fetch_url(f"http://{host}:{receiver.port}/")
    assert receiver.connections == 1


def test_ipv6_is_reached_by_its_own_name(allow_localhost: Flask, receivers: Callable[..., Receiver]) -> None:
    receiver = receivers()

    assert fetch_url(f"http://[::1]:{receiver.port}/").content == b"ok"
    assert f"Host: [::1]:{receiver.port}\r\n".encode() in receiver.requests[0]


def test_a_name_that_changes_its_meaning_is_looked_up_once(
    use_settings: Callable[..., Flask], receivers: Callable[..., Receiver], dns_answers: dict[str, list[list[str]]]
) -> None:
    use_settings(OUTBOUND_ALLOW="127.0.0.2/32")
    receiver = receivers()
    dns_answers["rebinding.example.com"] = [["127.0.0.2"], ["127.0.0.1"]]

    answer = fetch_url(f"http://rebinding.example.com:{receiver.port}/")

    assert answer.content == b"ok"
    assert f"Host: rebinding.example.com:{receiver.port}\r\n".encode() in receiver.requests[0]
    assert dns_answers["rebinding.example.com"] == [["127.0.0.1"]]
    with pytest.raises(Unreachable):
        fetch_url(f"http://rebinding.example.com:{receiver.port}/")
    assert receiver.connections == 1


def test_the_next_address_is_tried_when_one_cannot_be_connected_to(
    allow_localhost: Flask, receivers: Callable[..., Receiver], dns_answers: dict[str, list[list[str]]]
) -> None:
    receiver = receivers("127.0.0.3")
    dns_answers["two.example.com"] = [["127.0.0.9", "127.0.0.3"]]

    assert fetch_url(f"http://two.example.com:{receiver.port}/").content == b"ok"


def test_a_request_that_was_sent_is_not_sent_again_elsewhere(
    allow_localhost: Flask, receivers: Callable[..., Receiver], dns_answers: dict[str, list[list[str]]]
) -> None:
    receiver = receivers(behave=respond_with(b""))
    dns_answers["two.example.com"] = [["127.0.0.2", "127.0.0.3"]]

    with pytest.raises(RequestFailed):
        post(f"http://two.example.com:{receiver.port}/", content=b"once")

    assert receiver.connections == 1


# Redirects


def redirect_to(location: str, status: int = 302) -> Behaviour:
    """Send the client to another URL."""
    head = f"HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
    return respond_with(head.encode())


def start_redirect_chain(receivers: Callable[..., Receiver], redirects: int) -> str:
    """Return the first URL of so many redirects, each on a server of its own, that end at an answer."""
    url = receivers("127.0.0.1").url
    for _ in range(redirects):
        url = receivers("127.0.0.1", redirect_to(url)).url
    return url


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_followed_where_the_caller_asks_for_it(
    allow_localhost: Flask, receivers: Callable[..., Receiver], status: int
) -> None:
    target = receivers("127.0.0.1")
    receiver = receivers("127.0.0.1", redirect_to(f"{target.url}/b?c=d#e", status))

    answer = fetch_url(receiver.url, headers={"Authorization": "hunter2"}, max_redirects=3)

    assert (answer.status, answer.content) == (200, b"ok")
    assert b"hunter2" in receiver.requests[0]
    (request,) = target.requests
    assert request.startswith(b"GET /b?c=d HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{target.port}\r\n".encode() in request
    for secret in (b"hunter2", b"authorization", b"cookie", b"referer"):
        assert secret not in request.lower()


@pytest.mark.parametrize("location", ["/b?c=d", "b?c=d", "//127.0.0.1:{port}/b?c=d"])
def test_redirect_to_a_relative_url_is_followed(
    allow_localhost: Flask, receivers: Callable[..., Receiver], location: str
) -> None:
    def behave(connection: socket.socket) -> None:
        is_first = len(receiver.requests) == 1
        (redirect_to(location.format(port=receiver.port)) if is_first else respond_with(OK))(connection)

    receiver = receivers("127.0.0.1", behave)

    assert fetch_url(f"{receiver.url}/a", max_redirects=1).content == b"ok"
    assert receiver.requests[1].startswith(b"GET /b?c=d HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "head", [b"304 Not Modified", b"300 Choices\r\nLocation: /b", b"302 Found", b"302 Found\r\nLocation:"]
)
def test_answer_that_leads_nowhere_is_the_answer(
    allow_localhost: Flask, receivers: Callable[..., Receiver], head: bytes
) -> None:
    receiver = receivers(behave=respond_with(b"HTTP/1.1 " + head + b"\r\nContent-Length: 0\r\n\r\n"))

    assert fetch_url(receiver.url, max_redirects=3).status == int(head[:3])
    assert receiver.connections == 1


def test_redirects_up_to_the_limit_are_followed_and_no_more(
    allow_localhost: Flask, receivers: Callable[..., Receiver]
) -> None:
    assert fetch_url(start_redirect_chain(receivers, 3), max_redirects=3).content == b"ok"
    with pytest.raises(TooManyRedirects, match=r"^More than 3 redirects\.$"):
        fetch_url(start_redirect_chain(receivers, 4), max_redirects=3)


def test_redirects_that_form_a_loop_are_refused(allow_localhost: Flask, receivers: Callable[..., Receiver]) -> None:
    there = receivers("127.0.0.1", lambda connection: redirect_to(f"{back.url}/")(connection))
    back = receivers("127.0.0.1", redirect_to(f"{there.url}/"))

    with pytest.raises(TooManyRedirects, match="loop"):
        fetch_url(f"{there.url}/", max_redirects=20)

    assert (there.connections, back.connections) == (1, 1)


@pytest.mark.parametrize("host", [host for host in HOSTS if not set(host) & set("\ud800\r\x00")])
def test_redirect_to_a_private_address_is_refused(
    use_settings: Callable[..., Flask],
    receivers: Callable[..., Receiver],
    dns_answers: dict[str, list[list[str]]],
    host: str,
) -> None:
    use_settings(OUTBOUND_ALLOW="127.0.0.2/32")
    dns_answers.update({name: [meaning] for name, meaning in NAMES.items()})
    target = receivers()
    receiver = receivers("127.0.0.2", redirect_to(f"http://{host}:{target.port}/"))

    with pytest.raises((UrlNotAllowed, Unreachable)):
        fetch_url(f"http://127.0.0.2:{receiver.port}/", max_redirects=3)

    assert (receiver.connections, target.connections) == (1, 0)


@pytest.mark.parametrize(
    ("location", "detail"),
    [
        ("ftp://93.184.216.34/", "not allowed. The URL must begin with https or http."),
        ("file:///etc/passwd", "not allowed. The URL must begin with https or http."),
        ("data:text/plain,hello", "not allowed. The URL must begin with https or http."),
        ("http://me:hunter2@93.184.216.34/", "not allowed. The URL must not contain a user name or password."),
        ("http://93.184.216.34:99999/", "not allowed. The URL must have a host and a port from 1 to 65535."),
        ("http://[::1", "The Location of the redirect is not a URL."),
    ],
)
def test_redirect_that_is_not_allowed_is_refused_in_clear_words(
    allow_localhost: Flask, receivers: Callable[..., Receiver], location: str, detail: str
) -> None:
    receiver = receivers(behave=redirect_to(location))

    with pytest.raises(UrlNotAllowed, match=re.escape(detail)) as refused:
        fetch_url(receiver.url, max_redirects=3)

    assert "hunter2" not in str(refused.value)


def test_redirect_of_a_trusted_server_is_not_trusted(
    use_settings: Callable[..., Flask], receivers: Callable[..., Receiver]
) -> None:
    use_settings()
    target = receivers("127.0.0.1")
    receiver = receivers("127.0.0.1", redirect_to(target.url))

    with pytest.raises(Unreachable):
        fetch_url(receiver.url, limits=RequestLimits(trusted=True), max_redirects=3)

    assert target.connections == 0


def test_redirect_of_a_post_is_not_followed(allow_localhost: Flask, receivers: Callable[..., Receiver]) -> None:
    target = receivers("127.0.0.1")

    assert post(receivers("127.0.0.1", redirect_to(target.url, 307)).url, json={}).status == 307
    assert target.connections == 0


@pytest.mark.usefixtures("short_deadline")
def test_deadline_is_for_all_redirects_together(allow_localhost: Flask, receivers: Callable[..., Receiver]) -> None:
    def slowly(behave: Behaviour) -> Behaviour:
        return lambda connection: (sleep(0.4), behave(connection))[1]

    url = receivers("127.0.0.1", slowly(respond_with(OK))).url
    for _ in range(3):
        url = receivers("127.0.0.1", slowly(redirect_to(url))).url
    started = monotonic()

    with pytest.raises(TimedOut):
        fetch_url(url, max_redirects=3)

    assert 0.9 < monotonic() - started < 2


def test_redirect_target_larger_than_allowed_is_cut(allow_localhost: Flask, receivers: Callable[..., Receiver]) -> None:
    target = receivers("127.0.0.1", respond_with(b"HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n", b"x" * 65537))

    with pytest.raises(ResponseTooLarge):
        fetch_url(receivers("127.0.0.1", redirect_to(target.url)).url, max_redirects=3)


# TLS


@pytest.fixture
def certificate_authority(monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """Return a certificate authority that the client trusts."""
    certificate_authority = trustme.CA()
    trusting = ssl.create_default_context()
    certificate_authority.configure_trust(trusting)
    monkeypatch.setattr(http_client, "_load_certificates", lambda: trusting)
    return certificate_authority


def _serve_tls(certificate_authority: trustme.CA, *hosts: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate_authority.issue_cert(*hosts).configure_cert(context)
    return context


def test_the_certificate_is_for_the_name_not_the_address(
    allow_localhost: Flask,
    receivers: Callable[..., Receiver],
    dns_answers: dict[str, list[list[str]]],
    certificate_authority: trustme.CA,
) -> None:
    asked: list[str | None] = []
    tls = _serve_tls(certificate_authority, "hooks.example.com")
    tls.sni_callback = lambda _socket, name, _context: asked.append(name)
    receiver = receivers(tls=tls)
    dns_answers.update(
        {name: [["127.0.0.1"]] for name in ("hooks.example.com", "hooks.example.com.", "other.example.com")}
    )

    assert fetch_url(f"https://hooks.example.com:{receiver.port}/").content == b"ok"
    assert fetch_url(f"https://hooks.example.com.:{receiver.port}/").content == b"ok"
    for host in ("other.example.com", "127.0.0.1"):
        with pytest.raises(RequestFailed):
            fetch_url(f"https://{host}:{receiver.port}/")
    assert asked == ["hooks.example.com", "hooks.example.com", "other.example.com", None]


def test_a_certificate_of_nobody_we_know_fails(
    allow_localhost: Flask, receivers: Callable[..., Receiver], dns_answers: dict[str, list[list[str]]]
) -> None:
    receiver = receivers(tls=_serve_tls(trustme.CA(), "hooks.example.com"))
    dns_answers["hooks.example.com"] = [["127.0.0.1"]]

    with pytest.raises(RequestFailed):
        fetch_url(f"https://hooks.example.com:{receiver.port}/")

    assert receiver.requests == []


def test_production_speaks_https_alone(
    use_settings: Callable[..., Flask], receivers: Callable[..., Receiver], certificate_authority: trustme.CA
) -> None:
    app = use_settings(OUTBOUND_ALLOW="127.0.0.0/8")
    app.config["APP_ENV"] = "production"
    receiver = receivers(tls=_serve_tls(certificate_authority, "127.0.0.1"))

    with pytest.raises(UrlNotAllowed, match="must begin with https"):
        fetch_url(receiver.url)
    assert fetch_url(f"https://127.0.0.1:{receiver.port}/").content == b"ok"
    assert receiver.connections == 1


def test_every_error_is_of_one_family() -> None:
    assert all(issubclass(kind, OutboundError) for kind in (UrlNotAllowed, TimedOut, RequestFailed, ResponseTooLarge))
    assert str(ResponseTooLarge(HttpResponse(200, {}, b"abc"))) == "The response is larger than 3 bytes."


def test_redirect_from_https_to_http_is_refused_and_to_https_is_followed(
    allow_localhost: Flask, receivers: Callable[..., Receiver], certificate_authority: trustme.CA
) -> None:
    tls = _serve_tls(certificate_authority, "127.0.0.1")
    plain = receivers("127.0.0.1")
    secure = receivers("127.0.0.1", tls=tls)
    downgrade = receivers("127.0.0.1", redirect_to(plain.url), tls)
    upgrade = receivers("127.0.0.1", redirect_to(f"https://127.0.0.1:{secure.port}/"))

    with pytest.raises(UrlNotAllowed, match="from https to http"):
        fetch_url(f"https://127.0.0.1:{downgrade.port}/", max_redirects=3)

    assert plain.connections == 0
    assert fetch_url(upgrade.url, max_redirects=3).content == b"ok"
