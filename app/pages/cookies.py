"""The cookies of the pages: who is signed in, for whom a form was made, and who was signed in here before.

Nothing else here reads cookies.

That of the sign-in is signed, not encrypted: it names a row of `sign_ins`, which log-out, a new password and blocking
end at once. It is no access token, and an access token is no such cookie.
"""

import base64
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from flask import Response, current_app, g, request
from itsdangerous import BadData, URLSafeTimedSerializer

from app.errors import Unauthenticated
from app.jsonapi.viewer import Viewer
from app.users.auth import viewer_of
from app.users.tokens import CLOCK_LEEWAY_SECONDS, Access

SIGN_IN, FORM, DEVICE = "jobs-sign-in", "jobs-form", "jobs-device"

LIFE = timedelta(hours=12)
LEEWAY = timedelta(seconds=CLOCK_LEEWAY_SECONDS)
DEVICE_LIFE = timedelta(days=90)
FORM_LIFE = timedelta(hours=1)

_NONCE = re.compile(r"[A-Za-z0-9_-]{22}", re.ASCII)


@dataclass(frozen=True)
class SignedIn:
    """Whoever a cookie names, and until when."""

    viewer: Viewer
    cookie: str
    ends_at: datetime

    @property
    def token(self) -> str:
        """What each form of his carries."""
        return token_for(self.cookie)


def signed_in() -> SignedIn:
    """Whom the cookie of this request names; 401 when it is none of ours, too old, or its sign-in has ended."""
    cookie = request.cookies.get(_named(SIGN_IN), "")
    try:
        (user_id, sign_in_id), signed_at = _serializer().loads(cookie, return_timestamp=True)
    except BadData:
        raise Unauthenticated("Sign in first.") from None
    if not -LEEWAY <= now() - signed_at <= LIFE:  # `max_age` would take nothing of a clock that is ahead
        raise Unauthenticated("Sign in first.")
    g.viewer = viewer_of(Access(user_id, UUID(sign_in_id), is_fresh=False))
    return SignedIn(g.viewer, cookie, signed_at + LIFE)


def keep(response: Response, access: Access) -> None:
    """Let the browser remember a sign-in, also when it has ended, and forget the form."""
    signed = _serializer().dumps([access.user_id, str(access.sign_in_id)])
    _set(response, SIGN_IN, signed, LIFE)
    _set(response, DEVICE, _serializer(DEVICE).dumps(str(access.sign_in_id)), DEVICE_LIFE)
    _delete(response, FORM)


def forget(response: Response) -> None:
    """Let the browser forget the sign-in."""
    _delete(response, SIGN_IN)


def earlier_sign_in() -> UUID | None:
    """Return the id of the last sign-in in this browser, which opens nothing; None where it knows of none."""
    try:
        return UUID(_serializer(DEVICE).loads(request.cookies.get(_named(DEVICE), "")))
    except BadData:
        return None


def form_cookie() -> str:
    """What the form for signing in is bound to, "" where the browser has sent nothing of the kind."""
    cookie = request.cookies.get(_named(FORM), "")
    return cookie if _NONCE.fullmatch(cookie) else ""


def new_form_cookie() -> str:
    """For a browser that has none."""
    return secrets.token_urlsafe(16)


def keep_form(response: Response, cookie: str) -> None:
    """Let the browser remember that it was given the form."""
    _set(response, FORM, cookie, FORM_LIFE)


def token_for(cookie: str) -> str:
    """What proves that a form was made for the holder of this cookie."""
    key = current_app.config["SECRET_KEY"].encode()
    digest = hmac.digest(key, b"form of:" + cookie.encode(), "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def now() -> datetime:
    """As the signatures tell the time."""
    return datetime.now(UTC)


def _serializer(cookie: str = SIGN_IN) -> URLSafeTimedSerializer:
    more = {"key_derivation": "hmac", "digest_method": sha256}
    return URLSafeTimedSerializer(current_app.config["SECRET_KEY"], salt=cookie, signer_kwargs=more)


def _is_https() -> bool:
    return str(current_app.config["PUBLIC_URL"]).startswith("https:")


def _named(name: str) -> str:
    # With the prefix a browser takes it from this host alone, over HTTPS, for all paths: no neighbour can plant one.
    return f"__Host-{name}" if _is_https() else name


def _attributes() -> dict[str, Any]:
    # Lax: who follows a link in a mail is signed in. What changes something is a POST, with which it is not sent
    # from elsewhere, and which needs a token.
    is_https = _is_https()
    return {"path": "/" if is_https else "/jobs", "secure": is_https, "httponly": True, "samesite": "Lax"}


def _set(response: Response, name: str, value: str, life: timedelta) -> None:
    response.set_cookie(_named(name), value, max_age=life, **_attributes())


def _delete(response: Response, name: str) -> None:
    response.delete_cookie(_named(name), **_attributes())
