"""The cookies of the pages: who is signed in, for whom a form was made, and who was signed in here before.

Nothing else here reads cookies.

The cookie of the log-in is signed, not encrypted: it names a row of `sign_ins`, which log-out, a new password
and blocking end at once. It is no access token, and an access token is no such cookie.
"""

import base64
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from flask import Response, current_app, g, request
from itsdangerous import BadData, URLSafeTimedSerializer

from app.derived_keys import derive_key
from app.errors import Unauthenticated
from app.jsonapi.current_user import CurrentUser
from app.users.auth import load_user
from app.users.tokens import CLOCK_LEEWAY_SECONDS, AccessClaims

SESSION_COOKIE, FORM_COOKIE, DEVICE_COOKIE = "jobs-sign-in", "jobs-form", "jobs-device"

SESSION_LIFETIME = timedelta(hours=12)
CLOCK_LEEWAY = timedelta(seconds=CLOCK_LEEWAY_SECONDS)
DEVICE_COOKIE_LIFETIME = timedelta(days=90)
FORM_COOKIE_LIFETIME = timedelta(hours=1)

_NONCE = re.compile(r"[A-Za-z0-9_-]{22}", re.ASCII)


@dataclass(frozen=True)
class PageSession:
    """Whoever a cookie names, and until when."""

    viewer: CurrentUser
    cookie: str
    expires_at: datetime

    @property
    def csrf_token(self) -> str:
        """What each form of his carries."""
        return derive_csrf_token(self.cookie)


def require_page_session() -> PageSession:
    """Whom the cookie of this request names; 401 when it is none of ours, too old, or its sign-in has ended."""
    cookie = request.cookies.get(_get_cookie_name(SESSION_COOKIE), "")
    try:
        (user_id, sign_in_id), signed_at = _build_serializer().loads(cookie, return_timestamp=True)
    except BadData:
        raise Unauthenticated("Sign in first.") from None
    if (
        not -CLOCK_LEEWAY <= get_current_time() - signed_at <= SESSION_LIFETIME
    ):  # `max_age` would take nothing of a clock that is ahead
        raise Unauthenticated("Sign in first.")
    g.viewer = load_user(AccessClaims(user_id, UUID(sign_in_id), is_fresh=False))
    return PageSession(g.viewer, cookie, signed_at + SESSION_LIFETIME)


def set_session_cookies(response: Response, access: AccessClaims) -> None:
    """Let the browser remember a sign-in, also when it has ended, and forget the form."""
    signed = _build_serializer().dumps([access.user_id, str(access.sign_in_id)])
    _set_cookie(response, SESSION_COOKIE, signed, SESSION_LIFETIME)
    _set_cookie(
        response, DEVICE_COOKIE, _build_serializer(DEVICE_COOKIE).dumps(str(access.sign_in_id)), DEVICE_COOKIE_LIFETIME
    )
    _delete_cookie(response, FORM_COOKIE)


def delete_session_cookie(response: Response) -> None:
    """Let the browser forget the sign-in."""
    _delete_cookie(response, SESSION_COOKIE)


def get_previous_session_id() -> UUID | None:
    """Return the id of the last sign-in in this browser, which opens nothing; None where it knows of none."""
    try:
        return UUID(_build_serializer(DEVICE_COOKIE).loads(request.cookies.get(_get_cookie_name(DEVICE_COOKIE), "")))
    except BadData:
        return None


def get_form_cookie() -> str:
    """What the form for signing in is bound to, "" where the browser has sent nothing of the kind."""
    cookie = request.cookies.get(_get_cookie_name(FORM_COOKIE), "")
    return cookie if _NONCE.fullmatch(cookie) else ""


def generate_form_cookie() -> str:
    """For a browser that has none."""
    return secrets.token_urlsafe(16)


def set_form_cookie(response: Response, cookie: str) -> None:
    """Let the browser remember that it was given the form."""
    _set_cookie(response, FORM_COOKIE, cookie, FORM_COOKIE_LIFETIME)


def derive_csrf_token(cookie: str) -> str:
    """What proves that a form was made for the holder of this cookie."""
    return base64.urlsafe_b64encode(derive_key(b"form of:" + cookie.encode())).decode().rstrip("=")


def get_current_time() -> datetime:
    """As the signatures tell the time."""
    return datetime.now(UTC)


def _build_serializer(cookie: str = SESSION_COOKIE) -> URLSafeTimedSerializer:
    more = {"key_derivation": "hmac", "digest_method": sha256}
    return URLSafeTimedSerializer(current_app.config["SECRET_KEY"], salt=cookie, signer_kwargs=more)


def _is_https() -> bool:
    return str(current_app.config["PUBLIC_URL"]).startswith("https:")


def _get_cookie_name(name: str) -> str:
    # With the prefix a browser takes it from this host alone, over HTTPS, for all paths: no neighbour can plant one.
    return f"__Host-{name}" if _is_https() else name


def _get_cookie_attributes() -> dict[str, Any]:
    # Lax: who follows a link in a mail is signed in. What changes something is a POST, with which it is not sent
    # from elsewhere, and which needs a token.
    is_https = _is_https()
    return {"path": "/" if is_https else "/jobs", "secure": is_https, "httponly": True, "samesite": "Lax"}


def _set_cookie(response: Response, name: str, value: str, life: timedelta) -> None:
    response.set_cookie(_get_cookie_name(name), value, max_age=life, **_get_cookie_attributes())


def _delete_cookie(response: Response, name: str) -> None:
    response.delete_cookie(_get_cookie_name(name), **_get_cookie_attributes())
