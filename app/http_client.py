"""The only way out to an address that a user can influence: public ones alone, within a deadline and a size.

The name is resolved once, all its addresses are judged, and the connection goes to one of those: what the name means a
moment later does not matter. Beneath is httpx's bare transport, which knows no redirects, cookies, proxies or netrc:
`fetch` follows redirects for callers that ask for it, and checks each target as it checks the first URL.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from queue import Empty, SimpleQueue
from ssl import SSLContext
from threading import Thread
from time import monotonic
from typing import Any

import httpx
from flask import current_app
from httpcore import AsyncNetworkStream

CONNECT_SECONDS = 3.0
TOTAL_SECONDS = 15.0
"""From the first look at the URL to the last byte of the answer, however slowly they drip."""
LARGEST = 64 * 1024
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})

NAT64 = IPv6Network("64:ff9b::/96")
NOT_PUBLIC = tuple(
    ip_network(text)
    for text in (
        "192.0.0.0/24",  # special purposes (RFC 6890); one cloud's metadata lives at 192.0.0.192
        "168.63.129.16/32",  # Azure's door to its own machines, a global address only by its number
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "::/3",  # with the two below, all that is not global unicast: mapped and compatible IPv4, translations
        "4000::/2",
        "8000::/1",  # private, link-local, site-local, multicast
        "2002::/16",  # 6to4: an IPv4 address inside
    )
)
"""What `ipaddress` of one Python or another calls global, and is not."""


class OutboundError(Exception):
    """The exchange failed; the message says how without the address, which may hold a secret."""


class Refused(OutboundError):
    """We do not go to this address."""


class TimedOut(OutboundError):
    """The other side took too long."""


class Failed(OutboundError):
    """No connection, or no answer that is HTTP from beginning to end."""


@dataclass(frozen=True)
class Fetched:
    """The answer, whatever its status. `headers` do not mind case."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    """As it came: compressed although we ask for `identity`, it stays so."""


class TooManyRedirects(OutboundError):
    """The redirects form a loop, or are more than the caller follows."""


class TooLarge(OutboundError):
    """The answer is longer than the caller wants; `answer` holds its beginning."""

    def __init__(self, answer: Fetched) -> None:
        super().__init__(f"The answer is larger than {len(answer.content)} bytes.")
        self.answer = answer


@dataclass(frozen=True)
class Limits:
    """What an exchange may cost; `trusted` ones go wherever the operator's own settings send us."""

    largest: int = LARGEST
    seconds: float | None = None
    """TOTAL_SECONDS where nothing is said."""
    trusted: bool = False


ORDINARY = Limits()


def fetch(
    url: str, *, headers: Mapping[str, str] | None = None, limits: Limits = ORDINARY, max_redirects: int = 0
) -> Fetched:
    """GET this URL; raises one of the errors above, and no other.

    With `max_redirects` the target of a redirect is fetched next, within the same deadline. It is checked like a URL
    that a user gave, gets none of `headers`, and must not lead from https to http. Without, a redirect is an answer
    like any other.
    """
    until = _deadline(limits)
    answer = _send("GET", url, headers, limits, until)
    visited = [url]
    while max_redirects and (target := _redirect_target(visited[-1], answer)):
        if target in visited:
            raise TooManyRedirects("The redirects form a loop.")
        if len(visited) > max_redirects:
            raise TooManyRedirects(f"More than {max_redirects} redirects.")
        visited.append(target)
        answer = _follow(target, replace(limits, trusted=False), until)
    return answer


def _redirect_target(url: str, answer: Fetched) -> str | None:
    """Return the absolute URL that a redirect leads to; None for any other answer."""
    if answer.status not in REDIRECT_STATUSES or not (location := answer.headers.get("Location")):
        return None
    try:
        source = httpx.URL(url)
        target = source.join(location)
    except (httpx.InvalidURL, ValueError):
        raise Refused("The redirect leads to no URL.") from None
    if source.scheme == "https" and target.scheme == "http":
        raise Refused("The redirect leads from https to http.")
    return str(target)


def _follow(url: str, limits: Limits, until: float) -> Fetched:
    try:
        return _send("GET", url, None, limits, until)
    except Refused as error:
        raise Refused(f"The redirect leads to an address that is not allowed. {error}") from None


def post(
    url: str,
    *,
    content: bytes | None = None,
    json: Any = None,
    headers: Mapping[str, str] | None = None,
    limits: Limits = ORDINARY,
) -> Fetched:
    """POST these bytes, or this as JSON; raises as `fetch` does. A redirect is an answer like any other."""
    return _send("POST", url, headers, limits, _deadline(limits), content=content, json=json)


def _deadline(limits: Limits) -> float:
    return monotonic() + (limits.seconds or TOTAL_SECONDS)


def _send(
    method: str, url: str, headers: Mapping[str, str] | None, limits: Limits, until: float, **body: Any
) -> Fetched:
    target = _parsed(url, limits)
    addresses = _resolved(target.raw_host, limits, until)
    requests = [_request(method, target, address, headers, body) for address in addresses]
    try:
        return asyncio.run(_exchange(requests, limits.largest, until - monotonic()))
    except (TimeoutError, httpx.TimeoutException):
        raise TimedOut("The other side takes too long.") from None
    except (httpx.HTTPError, OSError) as error:
        raise Failed(f"The exchange failed: {type(error).__name__}.") from error


def _parsed(url: str, limits: Limits) -> httpx.URL:
    must_encrypt = current_app.config["APP_ENV"] == "production" and not limits.trusted
    schemes = ("https",) if must_encrypt else ("https", "http")
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise Refused("This is no URL.") from None
    if parsed.scheme not in schemes:
        raise Refused(f"The URL must begin with {' or '.join(schemes)}.")
    if not parsed.raw_host or not 0 < (parsed.port or 443) < 65536:
        raise Refused("The URL names no host, or a port that cannot be.")
    if parsed.userinfo:
        raise Refused("The URL must not hold a user name or password.")
    return parsed


def _resolved(host: bytes, limits: Limits, until: float) -> list[str]:
    """The addresses of this host, all of them allowed; a name server that hangs keeps a thread waiting, not us."""
    answers: SimpleQueue[list[str] | OSError] = SimpleQueue()
    Thread(target=lambda: answers.put(_looked_up(host)), daemon=True).start()
    try:
        found = answers.get(timeout=max(0.0, until - monotonic()))
    except Empty:
        raise TimedOut("The name of the host takes too long to look up.") from None
    if isinstance(found, OSError):
        raise Failed("The name of the host leads nowhere.")
    if not limits.trusted and not all(_is_allowed(ip_address(address)) for address in found):
        raise Refused("The host has an address that is not public.")
    return found


def _looked_up(host: bytes) -> list[str] | OSError:
    try:
        return [str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except OSError as error:
        return error


def _is_allowed(address: IPv4Address | IPv6Address) -> bool:
    allowed: tuple[IPv4Network | IPv6Network, ...] = current_app.config["OUTBOUND_ALLOW"]
    return any(address in network for network in allowed) or _is_public(address)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if address in NAT64:  # how an IPv6-only network reaches IPv4 (RFC 6052): judged by where it leads
        address = IPv4Address(address.packed[-4:])
    return address.is_global and not any(address in network for network in NOT_PUBLIC)


def _request(
    method: str, target: httpx.URL, address: str, headers: Mapping[str, str] | None, body: Mapping[str, Any]
) -> httpx.Request:
    """To the address; the name goes into the Host header, and is what the certificate must be for."""
    all_headers = httpx.Headers(headers)
    all_headers["Host"] = target.netloc.decode("ascii")
    all_headers["User-Agent"] = f"open-event-api-server (+{current_app.config['PUBLIC_URL']})"
    all_headers["Accept-Encoding"] = "identity"
    return httpx.Request(
        method,
        target.copy_with(host=address),
        headers=all_headers,
        extensions={
            "sni_hostname": target.raw_host.decode("ascii").rstrip("."),
            "timeout": httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS).as_dict(),
        },
        **body,
    )


async def _exchange(requests: list[httpx.Request], largest: int, seconds: float) -> Fetched:
    """The answer from the first address that can be connected to; nothing was sent to those before it."""
    async with (
        asyncio.timeout(seconds),
        httpx.AsyncHTTPTransport(verify=_certificates(), trust_env=False) as transport,
    ):
        for request in requests[:-1]:
            try:
                return await _answer(transport, request, largest)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await _answer(transport, requests[-1], largest)


async def _answer(transport: httpx.AsyncHTTPTransport, request: httpx.Request, largest: int) -> Fetched:
    async with _closing(request):
        response = await transport.handle_async_request(request)
    content = bytearray()
    async with aclosing(response):
        async for part in response.aiter_raw():
            content += part
            if len(content) > largest:
                break
    answer = Fetched(response.status_code, response.headers, bytes(content[:largest]))
    if len(content) > largest:
        raise TooLarge(answer)
    return answer


@asynccontextmanager
async def _closing(request: httpx.Request) -> AsyncIterator[None]:
    """Close what was connected for this request when the deadline ends it: httpcore forgets it during a handshake."""
    connected: list[AsyncNetworkStream] = []

    async def note(event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            connected.append(info["return_value"])

    request.extensions["trace"] = note
    try:
        yield
    except asyncio.CancelledError:
        for stream in connected:
            await stream.aclose()
        raise


@cache
def _certificates() -> SSLContext:
    """Read once: it takes 20 ms."""
    return httpx.create_ssl_context(trust_env=False)
