"""Conditional requests: If-Match and If-None-Match (RFC 9110, section 13.1).

Both compare entity tags weakly: a proxy that compresses a response changes the tag `"x"` to `W/"x"`, and clients send
that back. Both tags name the same version, because each version of a resource has its own tag.
"""

from flask import Response, request

from app.errors import PreconditionFailed


def require_preconditions(tag: str | None) -> None:
    """Raise PreconditionFailed unless the conditions of this write hold for the current `tag`, None without one."""
    if "If-Match" in request.headers:
        _require_match(tag)
    if "If-None-Match" in request.headers and tag is not None and request.if_none_match.contains_weak(tag):
        detail = "If-None-Match matches the current version of this resource."
        raise PreconditionFailed(detail, header="If-None-Match")


def apply_preconditions(response: Response) -> None:
    """Make a GET or HEAD response 304 if If-None-Match matches; raise PreconditionFailed if If-Match does not."""
    environ = request.environ
    if "If-Match" in request.headers:
        _require_match(response.get_etag()[0])
        environ = {
            name: value for name, value in environ.items() if name != "HTTP_IF_MATCH"
        }  # Werkzeug compares strongly
    response.make_conditional(environ)


def _require_match(tag: str | None) -> None:
    if tag is None or not request.if_match.contains_weak(tag):
        raise PreconditionFailed("If-Match does not match the current version of this resource.", header="If-Match")
