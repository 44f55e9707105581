"""HTTP client for URLs that users can influence: only public addresses, with a deadline and a maximum size.

The host name is resolved once, all its addresses are checked, and the connection goes to one of them, so that a later
change of the DNS record has no effect (DNS rebinding). The httpx transport is used directly: it has no redirects,
cookies, proxies or netrc. `fetch_url` follows redirects on request and checks each target like the first URL.
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
"""Seconds from the start of a request to the last byte of the response."""
DEFAULT_MAX_BYTES = 64 * 1024
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})

UNREACHABLE_DELAY_SECONDS = CONNECT_TIMEOUT_SECONDS
"""Seconds after which a request fails when its address is not allowed or refuses the connection: the time does not
reveal which of these it was."""

NAT64 = IPv6Network("64:ff9b::/96")
ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""Third 32 bits of the IPv6 address of an ISATAP tunnel (RFC 5214); the last 32 bits are an IPv4 address."""
NON_PUBLIC_NETWORKS = tuple(
    ip_network(text)
    for text in (
        # All ranges of the IANA special-purpose address registries, and all that are not unicast.
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",  # includes 192.0.0.192, a cloud metadata service
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
        "168.63.129.16/32",  # platform services of Azure, reachable only from its own machines
        "::/3",  # with the two below, all that is not global unicast: mapped and compatible IPv4, translations
        "4000::/2",
        "8000::/1",  # private, link-local, site-local, multicast
        "2001::/23",  # protocol assignments, such as Teredo, which embeds an IPv4 address
        "2001:db8::/32",
        "2002::/16",  # 6to4, which embeds an IPv4 address
        "2620:4f:8000::/48",
        "3ffe::/16",
        "3fff::/20",
    )
)
"""Networks that are not public, independent of `is_global`, which differs between Python versions."""


class OutboundError(Exception):
    """The request failed; the message has the reason, without the URL, which may contain a secret."""


class UrlNotAllowed(OutboundError):
    """The URL is not valid or not allowed."""


class Unreachable(OutboundError):
    """The address is not allowed, cannot be resolved or cannot be connected to: the error does not reveal which."""

    def __init__(self) -> None:
        super().__init__("The address is not allowed or cannot be reached.")


class TimedOut(OutboundError):
    """The request exceeded its deadline."""


class RequestFailed(OutboundError):
    """There was no complete HTTP response."""


class NotConnected(RequestFailed):
    """A trusted server could not be connected to: nothing was sent."""


@dataclass(frozen=True)
class HttpResponse:
    """A response of any status; the names in `headers` are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    """The body as received; a compressed one is not decoded, although the request accepts only `identity`."""


class TooManyRedirects(OutboundError):
    """The redirects form a loop or exceed `max_redirects`."""


class ResponseTooLarge(OutboundError):
    """The body is larger than the limit; `answer` contains its beginning."""

    def __init__(self, answer: HttpResponse) -> None:
        super().__init__(f"The response is larger than {len(answer.content)} bytes.")
        self.answer = answer


@dataclass(frozen=True)
class RequestLimits:
    """Limits of a request."""

    largest: int = DEFAULT_MAX_BYTES
    """Bytes of the response body."""
    seconds: float | None = None
    """Seconds until the deadline; TOTAL_TIMEOUT_SECONDS for None."""
    trusted: bool = False
    """True for URLs from settings, which may lead to any address."""


DEFAULT_LIMITS = RequestLimits()


def fetch_url(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    limits: RequestLimits = DEFAULT_LIMITS,
    max_redirects: int = 0,
) -> HttpResponse:
    """GET a URL and return the response of any status; raise OutboundError.

    At most `max_redirects` redirects are followed, within the same deadline. Their targets must be public, get none of
    `headers`, and must not lead from https to http. With 0, the response may be a redirect.
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
    """Return the absolute URL of the target of a redirect; None for any other response."""
    if answer.status not in REDIRECT_STATUSES or not (location := answer.headers.get("Location")):
        return None
    try:
        source = httpx.URL(url)
        target = source.join(location)
    except (httpx.InvalidURL, ValueError):
        raise UrlNotAllowed("The Location of the redirect is not a URL.") from None
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
    """POST bytes or JSON and return the response of any status, also a redirect; raise OutboundError."""
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
        raise TimedOut("The server did not respond in time.") from None
    except (httpx.HTTPError, OSError) as error:
        raise RequestFailed(f"The request failed: {type(error).__name__}.") from error


class _NotConnected(Exception):
    """There is no connection to the address; only users of trusted URLs see the message with the reason."""


def _parse_url(url: str, limits: RequestLimits) -> httpx.URL:
    must_encrypt = current_app.config["APP_ENV"] == "production" and not limits.trusted
    schemes = ("https",) if must_encrypt else ("https", "http")
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise UrlNotAllowed("This is not a URL.") from None
    if parsed.scheme not in schemes:
        raise UrlNotAllowed(f"The URL must begin with {' or '.join(schemes)}.")
    if not parsed.raw_host or not 0 < (parsed.port or 443) < 65536:
        raise UrlNotAllowed("The URL must have a host and a port from 1 to 65535.")
    if parsed.userinfo:
        raise UrlNotAllowed("The URL must not contain a user name or password.")
    return parsed


def _resolve_host(host: bytes, limits: RequestLimits, until: float) -> list[str]:
    """Return the addresses of a host; raise _NotConnected unless all are allowed.

    The look-up has no timeout of its own, so it runs in a thread.
    """
    results: SimpleQueue[list[str] | OSError] = SimpleQueue()
    Thread(target=lambda: results.put(_lookup_addresses(host)), daemon=True).start()
    try:
        addresses = results.get(timeout=max(0.0, until - monotonic()))
    except Empty:
        raise _NotConnected("The DNS look-up of the host timed out.") from None
    if isinstance(addresses, OSError):
        raise _NotConnected("The host name cannot be resolved.")
    if not limits.trusted and not all(_is_allowed(ip_address(address)) for address in addresses):
        raise _NotConnected("The host has an address that is not public.")
    return addresses


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
    """Return the IPv4 address that a NAT64 (RFC 6052) or ISATAP address leads to; None for any other address.

    All other forms with an embedded IPv4 address are in NON_PUBLIC_NETWORKS.
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
    """Return a request to an address, with the name of the host in the Host header and for the certificate check."""
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
    """Return the response from the first address that can be connected to."""
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

    Close the connections of the request when the deadline cancels it: httpcore does not, during a TLS handshake.
    """
    streams: list[AsyncNetworkStream] = []

    async def record_stream(event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            streams.append(info["return_value"])

    request.extensions["trace"] = record_stream
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        if streams:
            raise
        raise _NotConnected(f"The connection failed: {type(error).__name__}.") from error
    except asyncio.CancelledError:
        for stream in streams:
            await stream.aclose()
        raise


@cache
def _load_certificates() -> SSLContext:
    """Return the TLS context, loaded once, because that takes 20 ms."""
    return httpx.create_ssl_context(trust_env=False)
