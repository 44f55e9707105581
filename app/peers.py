"""The other end of the connection on which a request came."""

from flask import request


def find_peer() -> str:
    """Return the address of the client or a proxy, which ProxyFix replaces by that of the client."""
    environ = request.environ.get("werkzeug.proxy_fix.orig", request.environ)
    return str(environ.get("REMOTE_ADDR", ""))
