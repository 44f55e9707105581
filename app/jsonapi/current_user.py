"""Who looks: the caller of a request, as far as rights are concerned."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from flask import current_app, g
from sqlalchemy import BigInteger, Text, bindparam

from app.errors import Unauthenticated

CURRENT_USER_ID = bindparam("viewer_id", type_=BigInteger())
"""In a criterion: the id of the viewer, 0 for nobody."""

CAPABILITY = bindparam("capability", type_=Text())
"""In a criterion: the identifier by which a private event was named in the URL, or null."""

TOKEN_REQUIRED = "This needs an Authorization header: JWT <access token>."  # noqa: S105 - a sentence, not a secret


class Role(StrEnum):
    """What decides the shape of a statement; who it is exactly goes in as VIEWER_ID."""

    ANONYMOUS = "anonymous"
    USER = "user"
    ADMIN = "admin"


@dataclass(frozen=True)
class CurrentUser:
    """The caller; `id` 0 is nobody."""

    id: int = 0
    is_admin: bool = False
    is_super_admin: bool = False
    is_verified: bool = False
    is_recently_authenticated: bool = False
    """Whether the caller gave the password a few minutes ago at most, or in this request."""
    sign_in_id: UUID | None = None

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody is signed in."""
        return self.id == 0

    @property
    def role(self) -> Role:
        """The shape of statements this viewer gets."""
        if self.is_admin:
            return Role.ADMIN
        return Role.ANONYMOUS if self.is_anonymous else Role.USER


ANONYMOUS_USER = CurrentUser()


def get_current_user() -> CurrentUser:
    """The caller of this request, authenticated once; 401 when its token is no good."""
    if "viewer" not in g:
        g.viewer = current_app.extensions["authenticate"]()
    viewer: CurrentUser = g.viewer
    return viewer


def require_current_user() -> CurrentUser:
    """The caller, who must be signed in: 401 otherwise."""
    viewer = get_current_user()
    if viewer.is_anonymous:
        raise Unauthenticated(TOKEN_REQUIRED)
    return viewer
