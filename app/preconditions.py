"""If-Match and If-None-Match (RFC 9110, 13.1).

Tags are compared weakly in both: a proxy that compresses an answer makes `W/"x"` of the tag `"x"`, and clients send
that back. It names the same version, because every version of a resource has a tag of its own.
"""

from flask import Response, request

from app.errors import PreconditionFailed


def require_preconditions(tag: str | None) -> None:
    """Raise 412 unless the conditions of this write hold; `tag` is that of the current version, None without one."""
    if "If-Match" in request.headers:
        _require_match(tag)
    if "If-None-Match" in request.headers and tag is not None and request.if_none_match.contains_weak(tag):
        detail = "If-None-Match matches the current version of this resource."
        raise PreconditionFailed(detail, header="If-None-Match")


def apply_preconditions(response: Response) -> None:
    """Make a response to a GET or HEAD that has a tag the 304 that If-None-Match asks for; raise 412 by If-Match."""
    environ = request.environ
    if "If-Match" in request.headers:
        _require_match(response.get_etag()[0])
        environ = {name: value for name, value in environ.items() if name != "HTTP_IF_MATCH"}  # Werkzeug's is strong
    response.make_conditional(environ)


def _require_match(tag: str | None) -> None:
    if tag is None or not request.if_match.contains_weak(tag):
        raise PreconditionFailed("If-Match does not match the current version of this resource.", header="If-Match")
