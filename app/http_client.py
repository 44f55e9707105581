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
from time import monotonic, sleep
from typing import Any

import httpx
from flask import current_app
from httpcore import AsyncNetworkStream

CONNECT_TIMEOUT_SECONDS = 3.0
TOTAL_TIMEOUT_SECONDS = 15.0
"""From the first look at the URL to the last byte of the answer, however slowly they drip."""
DEFAULT_MAX_BYTES = 64 * 1024
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})

UNREACHABLE_DELAY_SECONDS = CONNECT_TIMEOUT_SECONDS
"""Seconds after which an exchange fails whose address is not allowed or cannot be connected to: the time does not tell
which of these it is."""

NAT64 = IPv6Network("64:ff9b::/96")
ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""The third quarter of an IPv6 address of an ISATAP tunnel (RFC 5214); the fourth is the IPv4 address it leads to."""
NON_PUBLIC_NETWORKS = tuple(
    ip_network(text)
    for text in (
        # Every range of the IANA special-purpose address registries, and what is not unicast.
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",  # one cloud's metadata lives at 192.0.0.192
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "168.63.129.16/32",  # Azure's door to its own machines, a global address only by its number
        "::/3",  # with the two below, all that is not global unicast: mapped and compatible IPv4, translations
        "4000::/2",
        "8000::/1",  # private, link-local, site-local, multicast
        "2001::/23",  # protocol assignments, such as Teredo, which has an IPv4 address inside
        "2001:db8::/32",
        "2002::/16",  # 6to4: an IPv4 address inside
        "2620:4f:8000::/48",
        "3ffe::/16",
        "3fff::/20",
    )
)
"""Networks of which no address is public, also where `ipaddress` of one Python or another says that it is global."""


class OutboundError(Exception):
    """The exchange failed; the message says how without the address, which may hold a secret."""


class UrlNotAllowed(OutboundError):
    """The URL itself is not one that we send requests to."""


class Unreachable(OutboundError):
    """The address is not allowed, has no meaning, or cannot be connected to: one error for all of these."""

    def __init__(self) -> None:
        super().__init__("The address is not allowed or cannot be reached.")


class TimedOut(OutboundError):
    """The other side took too long."""


class RequestFailed(OutboundError):
    """No answer that is HTTP from beginning to end."""


class NotConnected(RequestFailed):
    """A trusted server could not be connected to: nothing was sent."""


@dataclass(frozen=True)
class HttpResponse:
    """The answer, whatever its status. `headers` do not mind case."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    """As it came: compressed although we ask for `identity`, it stays so."""


class TooManyRedirects(OutboundError):
    """The redirects form a loop, or are more than the caller follows."""


class ResponseTooLarge(OutboundError):
    """The answer is longer than the caller wants; `answer` holds its beginning."""

    def __init__(self, answer: HttpResponse) -> None:
        super().__init__(f"The answer is larger than {len(answer.content)} bytes.")
        self.answer = answer


@dataclass(frozen=True)
class RequestLimits:
    """What an exchange may cost; `trusted` ones go wherever the operator's own settings send us."""

    largest: int = DEFAULT_MAX_BYTES
    seconds: float | None = None
    """TOTAL_TIMEOUT_SECONDS where nothing is said."""
    trusted: bool = False


DEFAULT_LIMITS = RequestLimits()


def fetch_url(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    limits: RequestLimits = DEFAULT_LIMITS,
    max_redirects: int = 0,
) -> HttpResponse:
    """GET this URL; raises one of the errors above, and no other.

    With `max_redirects` the target of a redirect is fetched next, within the same deadline. It is checked like a URL
    that a user gave, gets none of `headers`, and must not lead from https to http. Without, a redirect is an answer
    like any other.
    """
    until = _compute_deadline(limits)
    answer = _send_request("GET", url, headers, limits, until)
    visited = [url]
    while max_redirects and (target := _redirect_target(visited[-1], answer)):
        if target in visited:
            raise TooManyRedirects("The redirects form a loop.")
        if len(visited) > max_redirects:
            raise TooManyRedirects(f"More than {max_redirects} redirects.")
        visited.append(target)
        answer = _fetch_redirect(target, replace(limits, trusted=False), until)
    return answer


def _redirect_target(url: str, answer: HttpResponse) -> str | None:
    """Return the absolute URL that a redirect leads to; None for any other answer."""
    if answer.status not in REDIRECT_STATUSES or not (location := answer.headers.get("Location")):
        return None
    try:
        source = httpx.URL(url)
        target = source.join(location)
    except (httpx.InvalidURL, ValueError):
        raise UrlNotAllowed("The redirect leads to no URL.") from None
    if source.scheme == "https" and target.scheme == "http":
        raise UrlNotAllowed("The redirect leads from https to http.")
    return str(target)


def _fetch_redirect(url: str, limits: RequestLimits, until: float) -> HttpResponse:
    try:
        return _send_request("GET", url, None, limits, until)
    except UrlNotAllowed as error:
        raise UrlNotAllowed(f"The redirect leads to an address that is not allowed. {error}") from None


def post(
    url: str,
    *,
    content: bytes | None = None,
    json: Any = None,
    headers: Mapping[str, str] | None = None,
    limits: RequestLimits = DEFAULT_LIMITS,
) -> HttpResponse:
    """POST these bytes, or this as JSON; raises as `fetch` does. A redirect is an answer like any other."""
    return _send_request("POST", url, headers, limits, _compute_deadline(limits), content=content, json=json)


def _compute_deadline(limits: RequestLimits) -> float:
    return monotonic() + (limits.seconds or TOTAL_TIMEOUT_SECONDS)


def _send_request(
    method: str, url: str, headers: Mapping[str, str] | None, limits: RequestLimits, until: float, **body: Any
) -> HttpResponse:
    started = monotonic()
    target = _parse_url(url, limits)
    try:
        connect_until = min(until, started + CONNECT_TIMEOUT_SECONDS)
        addresses = _resolve_host(target.raw_host, limits, connect_until)
        seconds = max(0.01, (connect_until - monotonic()) / len(addresses))
        requests = [_build_request(method, target, address, headers, seconds, body) for address in addresses]
        return asyncio.run(_send_to_first_reachable(requests, limits.largest, until - monotonic()))
    except _NotConnected as error:
        if limits.trusted:
            raise NotConnected(str(error)) from None
        sleep(max(0.0, min(until, started + UNREACHABLE_DELAY_SECONDS) - monotonic()))
        raise Unreachable from None
    except (TimeoutError, httpx.TimeoutException):
        raise TimedOut("The other side takes too long.") from None
    except (httpx.HTTPError, OSError) as error:
        raise RequestFailed(f"The exchange failed: {type(error).__name__}.") from error


class _NotConnected(Exception):
    """There is no connection to the address; the message says why, for exchanges with servers of the operator's."""


def _parse_url(url: str, limits: RequestLimits) -> httpx.URL:
    must_encrypt = current_app.config["APP_ENV"] == "production" and not limits.trusted
    schemes = ("https",) if must_encrypt else ("https", "http")
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise UrlNotAllowed("This is no URL.") from None
    if parsed.scheme not in schemes:
        raise UrlNotAllowed(f"The URL must begin with {' or '.join(schemes)}.")
    if not parsed.raw_host or not 0 < (parsed.port or 443) < 65536:
        raise UrlNotAllowed("The URL names no host, or a port that cannot be.")
    if parsed.userinfo:
        raise UrlNotAllowed("The URL must not hold a user name or password.")
    return parsed


def _resolve_host(host: bytes, limits: RequestLimits, until: float) -> list[str]:
    """The addresses of this host, all of them allowed; a name server that hangs keeps a thread waiting, not us."""
    answers: SimpleQueue[list[str] | OSError] = SimpleQueue()
    Thread(target=lambda: answers.put(_lookup_addresses(host)), daemon=True).start()
    try:
        found = answers.get(timeout=max(0.0, until - monotonic()))
    except Empty:
        raise _NotConnected("The name of the host takes too long to look up.") from None
    if isinstance(found, OSError):
        raise _NotConnected("The name of the host leads nowhere.")
    if not limits.trusted and not all(_is_allowed(ip_address(address)) for address in found):
        raise _NotConnected("The host has an address that is not public.")
    return found


def _lookup_addresses(host: bytes) -> list[str] | OSError:
    try:
        return [str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except OSError as error:
        return error


def _is_allowed(address: IPv4Address | IPv6Address) -> bool:
    allowed: tuple[IPv4Network | IPv6Network, ...] = current_app.config["OUTBOUND_ALLOW"]
    return any(address in network for network in allowed) or _is_public(address)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address) and (embedded := _get_embedded_address(address)) is not None:
        return _is_public(embedded) and (address in NAT64 or _is_public_unembedded(address))
    return _is_public_unembedded(address)


def _is_public_unembedded(address: IPv4Address | IPv6Address) -> bool:
    return address.is_global and not any(address in network for network in NON_PUBLIC_NETWORKS)


def _get_embedded_address(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that packets to this address reach in the end; None where there is none.

    NAT64 is how an IPv6-only network reaches IPv4 (RFC 6052); other forms with one inside are never public.
    """
    is_isatap = int.from_bytes(address.packed[8:12], "big") in ISATAP
    return IPv4Address(address.packed[-4:]) if address in NAT64 or is_isatap else None


def _build_request(
    method: str,
    target: httpx.URL,
    address: str,
    headers: Mapping[str, str] | None,
    connect_seconds: float,
    body: Mapping[str, Any],
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
            "timeout": httpx.Timeout(TOTAL_TIMEOUT_SECONDS, connect=connect_seconds).as_dict(),
        },
        **body,
    )


async def _send_to_first_reachable(requests: list[httpx.Request], largest: int, seconds: float) -> HttpResponse:
    """The answer from the first address that can be connected to; nothing was sent to those before it."""
    async with (
        asyncio.timeout(seconds),
        httpx.AsyncHTTPTransport(verify=_load_certificates(), trust_env=False) as transport,
    ):
        for request in requests[:-1]:
            try:
                return await _read_response(transport, request, largest)
            except _NotConnected:
                continue
        return await _read_response(transport, requests[-1], largest)


async def _read_response(transport: httpx.AsyncHTTPTransport, request: httpx.Request, largest: int) -> HttpResponse:
    async with _translate_connect_errors(request):
        response = await transport.handle_async_request(request)
    content = bytearray()
    async with aclosing(response):
        async for part in response.aiter_raw():
            content += part
            if len(content) > largest:
                break
    answer = HttpResponse(response.status_code, response.headers, bytes(content[:largest]))
    if len(content) > largest:
        raise ResponseTooLarge(answer)
    return answer


@asynccontextmanager
async def _translate_connect_errors(request: httpx.Request) -> AsyncIterator[None]:
    """Raise _NotConnected when there is no TCP connection.

    Close what was connected for this request when the deadline ends it: httpcore forgets it during a handshake.
    """
    connected: list[AsyncNetworkStream] = []

    async def note(event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            connected.append(info["return_value"])

    request.extensions["trace"] = note
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        if connected:
            raise
        raise _NotConnected(f"The connection failed: {type(error).__name__}.") from error
    except asyncio.CancelledError:
        for stream in connected:
            await stream.aclose()
        raise


@cache
def _load_certificates() -> SSLContext:
    """Read once: it takes 20 ms."""
    return httpx.create_ssl_context(trust_env=False)
