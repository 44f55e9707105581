"""Addresses of clients, from the headers of trusted proxies, and of the peers of connections."""

import re
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from flask import request
from werkzeug.middleware.proxy_fix import ProxyFix

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

UNKNOWN_ADDRESS = "unknown"
"""Address of every client for which a proxy sent no valid address; limits count them as one client."""

# 192.0.2.1:4711, [2001:db8::1]:4711 or [2001:db8::1]; without a port an address matches neither form.
_ADDRESS_WITH_PORT_RE = re.compile(
    r"([0-9.]+):[0-9]{1,5}|\[([0-9a-f:.]+(?:%[^\]]*)?)\](?::[0-9]{1,5})?", re.ASCII | re.IGNORECASE
)


def trust_proxies(wsgi_app: "WSGIApplication", hops: int) -> ProxyFix:
    """Return an app that takes the client's address and scheme from the last `hops` entries of X-Forwarded-*."""

    def call(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["werkzeug.proxy_fix.orig"]["REMOTE_ADDR"] != environ["REMOTE_ADDR"]:
            environ["REMOTE_ADDR"] = parse_address(environ["REMOTE_ADDR"])
        return wsgi_app(environ, start_response)

    return ProxyFix(call, x_for=hops, x_proto=hops, x_host=0)


def parse_address(forwarded: str) -> str:
    """Return the IP address in an entry of X-Forwarded-For; UNKNOWN_ADDRESS if it has none."""
    match = _ADDRESS_WITH_PORT_RE.fullmatch(forwarded)
    text = match[1] or match[2] if match else forwarded
    try:
        address = ip_address(text.partition("%")[0])  # the zone has no meaning here, and may be long
    except ValueError:
        return UNKNOWN_ADDRESS
    return str(address.ipv4_mapped or address) if isinstance(address, IPv6Address) else str(address)


def find_peer() -> str:
    """Return the address of the connection, a client or a proxy, before ProxyFix replaced it."""
    environ = request.environ.get("werkzeug.proxy_fix.orig", request.environ)
    return str(environ.get("REMOTE_ADDR", ""))
