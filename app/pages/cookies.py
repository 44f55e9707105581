"""The cookies of the pages: session, log-in form and last session of the browser. No other module reads cookies.

The session cookie is signed, not encrypted: it contains the id of a row of `login_sessions`, which log-out, a new
password and blocking revoke at once. It is not valid as an access token, and an access token is not valid as cookie.
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
    """User of a session cookie, with the time at which the cookie expires."""

    viewer: CurrentUser
    cookie: str
    expires_at: datetime

    @property
    def csrf_token(self) -> str:
        """Return the CSRF token for forms of this session."""
        return derive_csrf_token(self.cookie)


def require_page_session() -> PageSession:
    """Return the session of the request's cookie; raise Unauthenticated if it is invalid, expired or revoked."""
    cookie = request.cookies.get(_get_cookie_name(SESSION_COOKIE), "")
    try:
        (user_id, sign_in_id), signed_at = _build_serializer().loads(cookie, return_timestamp=True)
    except BadData:
        raise Unauthenticated("Sign in first.") from None
    # `max_age` of itsdangerous would allow no clock skew.
    if not -CLOCK_LEEWAY <= get_current_time() - signed_at <= SESSION_LIFETIME:
        raise Unauthenticated("Sign in first.")
    g.viewer = load_user(AccessClaims(user_id, UUID(sign_in_id), is_fresh=False))
    return PageSession(g.viewer, cookie, signed_at + SESSION_LIFETIME)


def set_session_cookies(response: Response, access: AccessClaims) -> None:
    """Set the session cookie and the device cookie, which outlives the session; delete the form cookie."""
    signed_value = _build_serializer().dumps([access.user_id, str(access.sign_in_id)])
    _set_cookie(response, SESSION_COOKIE, signed_value, SESSION_LIFETIME)
    _set_cookie(
        response, DEVICE_COOKIE, _build_serializer(DEVICE_COOKIE).dumps(str(access.sign_in_id)), DEVICE_COOKIE_LIFETIME
    )
    _delete_cookie(response, FORM_COOKIE)


def delete_session_cookie(response: Response) -> None:
    """Delete the session cookie."""
    _delete_cookie(response, SESSION_COOKIE)


def get_previous_session_id() -> UUID | None:
    """Return the id of the last session in this browser, which gives no access; None if there is none."""
    try:
        return UUID(_build_serializer(DEVICE_COOKIE).loads(request.cookies.get(_get_cookie_name(DEVICE_COOKIE), "")))
    except BadData:
        return None


def get_form_cookie() -> str:
    """Return the form cookie, to which the log-in form is bound; "" without a valid one."""
    cookie = request.cookies.get(_get_cookie_name(FORM_COOKIE), "")
    return cookie if _NONCE.fullmatch(cookie) else ""


def generate_form_cookie() -> str:
    """Return a random value for the form cookie."""
    return secrets.token_urlsafe(16)


def set_form_cookie(response: Response, cookie: str) -> None:
    """Set the form cookie."""
    _set_cookie(response, FORM_COOKIE, cookie, FORM_COOKIE_LIFETIME)


def derive_csrf_token(cookie: str) -> str:
    """Return the CSRF token for a session cookie or a form cookie: an HMAC of its value."""
    return base64.urlsafe_b64encode(derive_key(b"form of:" + cookie.encode())).decode().rstrip("=")


def get_current_time() -> datetime:
    """Return the current time in UTC, as in the signatures."""
    return datetime.now(UTC)


def _build_serializer(cookie: str = SESSION_COOKIE) -> URLSafeTimedSerializer:
    more = {"key_derivation": "hmac", "digest_method": sha256}
    return URLSafeTimedSerializer(current_app.config["SECRET_KEY"], salt=cookie, signer_kwargs=more)


def _is_https() -> bool:
    return str(current_app.config["PUBLIC_URL"]).startswith("https:")


def _get_cookie_name(name: str) -> str:
    # With this prefix a browser accepts the cookie only from this host, over HTTPS: a sibling domain cannot set it.
    return f"__Host-{name}" if _is_https() else name


def _get_cookie_attributes() -> dict[str, Any]:
    # Lax: users who follow a link in a mail are signed in. Changes are POST requests, with which other sites do not
    # send the cookie, and which need a CSRF token.
    is_https = _is_https()
    return {"path": "/" if is_https else "/jobs", "secure": is_https, "httponly": True, "samesite": "Lax"}


def _set_cookie(response: Response, name: str, value: str, lifetime: timedelta) -> None:
    response.set_cookie(_get_cookie_name(name), value, max_age=lifetime, **_get_cookie_attributes())


def _delete_cookie(response: Response, name: str) -> None:
    response.delete_cookie(_get_cookie_name(name), **_get_cookie_attributes())
