"""Signed tokens (JWT): access tokens and mail tokens, distinguished by the `typ` header."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID, uuid4

import jwt
from flask import current_app

ALGORITHM = "HS256"
MAX_TOKEN_LENGTH = 2048
"""Characters of a token; longer ones are refused without being decoded."""

CLOCK_LEEWAY_SECONDS = 10
"""Seconds that `iat` and `nbf` may be in the future, for clock skew (RFC 7519, 4.1.5); `exp` has no leeway."""

ACCESS = "at+jwt"
VERIFY_EMAIL = "verify-email+jwt"
RESET_PASSWORD = "reset-password+jwt"  # noqa: S105  # the name of a kind of token

ACCESS_TOKEN_LIFETIME = timedelta(minutes=15)
MAX_AUTHENTICATION_AGE_SECONDS = 300
"""Seconds after a log-in in which its access token may be used where a password is required."""

MAIL_TOKEN_LIFETIMES = {VERIFY_EMAIL: timedelta(hours=24), RESET_PASSWORD: timedelta(hours=1)}

COMMON_CLAIMS = ["iss", "aud", "sub", "exp", "iat", "jti"]
REQUIRED_CLAIMS = {
    ACCESS: [*COMMON_CLAIMS, "nbf", "sid", "fresh"],
    VERIFY_EMAIL: [*COMMON_CLAIMS, "fingerprint"],
    RESET_PASSWORD: [*COMMON_CLAIMS, "fingerprint"],
}


class InvalidToken(Exception):
    """The token was not issued by this server, or was changed."""


class ExpiredToken(InvalidToken):
    """The token was issued by this server and has expired."""


@dataclass(frozen=True)
class AccessClaims:
    """Claims of a valid access token."""

    user_id: int
    sign_in_id: UUID
    is_fresh: bool
    """True for the token of a log-in, false for that of a refresh."""
    authenticated_at: int = 0
    """Unix time of the log-in in seconds; 0 when it is unknown."""

    @property
    def is_recently_authenticated(self) -> bool:
        """Return whether the token is of a log-in in the last MAX_AUTHENTICATION_AGE_SECONDS."""
        return self.is_fresh and time.time() - self.authenticated_at <= MAX_AUTHENTICATION_AGE_SECONDS


def new_access_token(access: AccessClaims) -> str:
    """Return an access token (RFC 9068) that is valid for ACCESS_TOKEN_LIFETIME."""
    now = int(time.time())
    claims = {"iat": now, "nbf": now, "exp": now + int(ACCESS_TOKEN_LIFETIME.total_seconds()), "jti": uuid4().hex}
    session = {"sid": str(access.sign_in_id), "fresh": access.is_fresh, "auth_time": access.authenticated_at}
    return _encode_token(ACCESS, {**claims, "sub": str(access.user_id), **session})


def read_access_token(token: str, *, forgive_expiry: bool = False) -> AccessClaims:
    """Return the claims of an access token; raise InvalidToken or, unless expiry is forgiven, ExpiredToken."""
    claims = _decode_token(ACCESS, token, forgive_expiry=forgive_expiry)
    try:
        return AccessClaims(
            get_user_id(claims), UUID(claims["sid"]), claims["fresh"] is True, int(claims.get("auth_time", 0))
        )
    except (ValueError, AttributeError, TypeError):
        raise InvalidToken from None


def new_mail_token(kind: str, *, user_id: int, sent_at: datetime, jti: UUID, fingerprint: str) -> str:
    """Return a mail token; the same arguments give the same token, so that a repeated mail has the same bytes."""
    issued = sent_at.timestamp()
    life = {"iat": issued, "exp": issued + MAIL_TOKEN_LIFETIMES[kind].total_seconds()}
    return _encode_token(kind, {**life, "sub": str(user_id), "jti": str(jti), "fingerprint": fingerprint})


def read_mail_token(kind: str, token: str) -> dict[str, Any]:
    """Return the claims of a mail token of this kind; raise InvalidToken or ExpiredToken."""
    return _decode_token(kind, token)


def get_user_id(claims: Mapping[str, Any]) -> int:
    """Return the user id in the claim `sub`; raise ValueError when it is not an id."""
    subject = claims["sub"]
    if not subject.isascii() or not subject.isdigit() or len(subject) > 18:
        raise ValueError("sub is not an id")
    return int(subject)


def _encode_token(kind: str, claims: dict[str, Any]) -> str:
    key = current_app.config["JWT_KEYS"][0]
    issuer = current_app.config["PUBLIC_URL"]
    return jwt.encode(
        {"iss": issuer, "aud": issuer, **claims}, key.secret, ALGORITHM, headers={"kid": key.kid, "typ": kind}
    )


def _decode_token(kind: str, token: str, *, forgive_expiry: bool = False) -> dict[str, Any]:
    if len(token) > MAX_TOKEN_LENGTH:
        raise InvalidToken
    issuer = current_app.config["PUBLIC_URL"]
    try:
        decoded = jwt.decode_complete(
            token,
            _get_key(token),
            algorithms=[ALGORITHM],
            audience=issuer,
            issuer=issuer,
            leeway=CLOCK_LEEWAY_SECONDS,
            options={"require": REQUIRED_CLAIMS[kind], "strict_aud": True, "verify_exp": False},
        )
    except jwt.PyJWTError:
        raise InvalidToken from None
    if decoded["header"].get("typ") != kind:
        raise InvalidToken
    claims: dict[str, Any] = decoded["payload"]
    # Last, so that only tokens of this server can be expired; and here, because PyJWT would apply the leeway to `exp`.
    if not forgive_expiry and _is_expired(claims["exp"]):
        raise ExpiredToken
    return claims


def _is_expired(exp: Any) -> bool:
    try:
        return int(exp) <= time.time()
    except (TypeError, ValueError, OverflowError):
        raise InvalidToken from None


@lru_cache(maxsize=16)
def _get_key_id(header: str) -> Any:
    # Cached by header, which all tokens of one key share; PyJWT reads it only from a complete token.
    return jwt.get_unverified_header(f"{header}.e30.e30").get("kid")


def _get_key(token: str) -> bytes:
    kid = _get_key_id(token.partition(".")[0])
    for key in current_app.config["JWT_KEYS"]:
        if key.kid == kid:
            secret: bytes = key.secret
            return secret
    raise InvalidToken
