"""Reauthentication: what gives lasting power over an account needs its password, not only a token."""

from flask import g

from app.errors import Forbidden
from app.jsonapi.current_user import CurrentUser
from app.users.tokens import MAX_AUTHENTICATION_AGE_SECONDS


def mark_password_confirmed() -> None:
    """Remember for this request that the caller has sent the own password."""
    g.has_confirmed_password = True


def require_password(viewer: CurrentUser, pointer: str | None = None) -> None:
    """403 unless the caller has given the own password in this request or a few minutes ago.

    `pointer` is that of a member beside which `current-password` can be sent; without it only a recent log-in helps.
    """
    if viewer.is_recently_authenticated or g.get("has_confirmed_password"):
        return
    way = f"use the access token of a log-in in the last {MAX_AUTHENTICATION_AGE_SECONDS // 60} minutes"
    way = f"send current-password, or {way}" if pointer else way
    header = None if pointer else "Authorization"
    detail = f"This needs your password: {way}."
    raise Forbidden(detail, pointer=pointer, header=header, code="password-required")
