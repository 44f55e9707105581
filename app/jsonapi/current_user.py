"""The current user of a request and the attributes that permissions depend on."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from flask import current_app, g
from sqlalchemy import BigInteger, Text, bindparam

from app.errors import Unauthenticated

CURRENT_USER_ID = bindparam("viewer_id", type_=BigInteger())
"""Parameter of criteria: id of the current user, 0 for anonymous."""

CAPABILITY = bindparam("capability", type_=Text())
"""Parameter of criteria: identifier by which the URL names a private event, or null."""

TOKEN_REQUIRED = "This needs an Authorization header: JWT <access token>."  # noqa: S105 - a sentence, not a secret


class Role(StrEnum):
    """Role that selects the SQL of a read; the id of the user is the parameter CURRENT_USER_ID."""

    ANONYMOUS = "anonymous"
    USER = "user"
    ADMIN = "admin"


@dataclass(frozen=True)
class CurrentUser:
    """The account that authenticated the request; `id` is 0 for anonymous."""

    id: int = 0
    is_admin: bool = False
    is_super_admin: bool = False
    is_verified: bool = False
    is_recently_authenticated: bool = False
    """True if the user sent their password in this request or a few minutes ago."""
    sign_in_id: UUID | None = None

    @property
    def is_anonymous(self) -> bool:
        """Return whether the request is not authenticated."""
        return self.id == 0

    @property
    def role(self) -> Role:
        """Return the role of the user."""
        if self.is_admin:
            return Role.ADMIN
        return Role.ANONYMOUS if self.is_anonymous else Role.USER


ANONYMOUS_USER = CurrentUser()


def get_current_user() -> CurrentUser:
    """Return the current user, authenticated once per request; raise Unauthenticated if the token is invalid."""
    if "viewer" not in g:
        g.viewer = current_app.extensions["authenticate"]()
    viewer: CurrentUser = g.viewer
    return viewer


def require_current_user() -> CurrentUser:
    """Return the current user; raise Unauthenticated if the request is anonymous."""
    viewer = get_current_user()
    if viewer.is_anonymous:
        raise Unauthenticated(TOKEN_REQUIRED)
    return viewer
