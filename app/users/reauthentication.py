"""Reauthentication: changes with a lasting effect on an account need its password, not only an access token."""

from flask import g

from app.errors import Forbidden
from app.jsonapi.current_user import CurrentUser
from app.users.tokens import MAX_AUTHENTICATION_AGE_SECONDS


def mark_password_confirmed() -> None:
    """Record that this request contains the correct password of the current user."""
    g.has_confirmed_password = True


def require_password(viewer: CurrentUser, pointer: str | None = None) -> None:
    """Raise Forbidden unless the current user has sent their password in this request or has just logged in.

    `pointer` names the attribute beside which `current-password` can be sent; without it only a recent log-in counts.
    """
    if viewer.is_recently_authenticated or g.get("has_confirmed_password"):
        return
    remedy = f"use the access token of a log-in in the last {MAX_AUTHENTICATION_AGE_SECONDS // 60} minutes"
    remedy = f"send current-password, or {remedy}" if pointer else remedy
    header = None if pointer else "Authorization"
    detail = f"This needs your password: {remedy}."
    raise Forbidden(detail, pointer=pointer, header=header, code="password-required")
