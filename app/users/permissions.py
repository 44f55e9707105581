"""Permissions for users.

Users can read all attributes of their own account, admins those of every account; others can read at most a public
profile. Events are looked up by type, not imported, because the package `events` imports `users`.
"""

from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, exists, false, literal, or_, select, true

from app.jsonapi.current_user import CURRENT_USER_ID, CurrentUser, Role
from app.jsonapi.permissions import Permissions, VisibilityScope, admin, anyone, super_admin
from app.jsonapi.resource_type import TYPES
from app.users.schemas import UserSchema

PUBLIC_PROFILE = frozenset(
    {
        "public_name",
        "details",
        "avatar_url",
        "original_image_url",
        "thumbnail_image_url",
        "small_image_url",
        "icon_image_url",
        "facebook_url",
        "twitter_url",
        "instagram_url",
        "google_plus_url",
    }
)
"""Attributes of a public profile."""

PRIVATE_ATTRIBUTES = frozenset(UserSchema().fields) - PUBLIC_PROFILE


def alias_event_roles() -> FromClause:
    """Return a new alias of the table of event roles."""
    roles = TYPES["user"].relations["events"].secondary
    if roles is None:
        raise TypeError("users and events are related through a table")
    return roles.alias()


def is_self(scope: VisibilityScope, users: FromClause) -> ColumnElement[bool]:
    """Return the criterion for the row of the current user; every row for admins."""
    if scope.role is Role.ADMIN:
        return true()
    return false() if scope.role is Role.ANONYMOUS else users.c.id == CURRENT_USER_ID


def is_live_self(scope: VisibilityScope, users: FromClause) -> ColumnElement[bool]:
    """Return the criterion for users that the current user can read at /v1/users/{id}."""
    return and_(scope.live_criterion(users), is_self(scope, users))


def is_live(scope: VisibilityScope, users: FromClause) -> ColumnElement[bool]:
    """Return the criterion for linkage: every user not in the trash, because a team is visible with its event."""
    return scope.live_criterion(users)


def is_visible_profile(scope: VisibilityScope, users: FromClause) -> ColumnElement[bool]:
    """Return the criterion for users that the current user can read through relationships.

    The own account, and public profiles of members of the own teams and of owners of visible, published events. A
    private profile is not visible to the team: users are added to teams without their consent.
    """
    event = TYPES["event"]
    events = event.table.alias()
    owns = exists(
        select(literal(1)).where(
            events.c.owner_id == users.c.id,
            events.c.state == "published",
            event.permissions.visibility_criterion(scope, events, related=True),
        )
    )
    is_related = or_(owns, _shares_team(users)) if scope.role is Role.USER else owns
    return and_(scope.live_criterion(users), or_(is_self(scope, users), and_(users.c.is_profile_public, is_related)))


def _shares_team(users: FromClause) -> ColumnElement[bool]:
    theirs, mine = alias_event_roles(), alias_event_roles()
    return exists(
        select(literal(1)).where(
            theirs.c.user_id == users.c.id, mine.c.event_id == theirs.c.event_id, mine.c.user_id == CURRENT_USER_ID
        )
    )


def self_or_admin(viewer: CurrentUser, row: Any) -> bool:
    """Return whether the current user is this user or an admin; only super admins may change super admins."""
    return viewer.id == row.id or (viewer.is_admin and (viewer.is_super_admin or not row.is_super_admin))


def admin_after_create(viewer: CurrentUser, row: Any) -> bool:
    """Return whether the current user is an admin and the row exists already."""
    return row is not None and viewer.is_admin


def super_admin_after_create(viewer: CurrentUser, row: Any) -> bool:
    """Return whether the current user is a super admin and the row exists already."""
    return row is not None and super_admin(viewer, row)


def only_on_update(_viewer: CurrentUser, row: Any) -> bool:
    """Return whether the row exists already."""
    return row is not None


PERMISSIONS = Permissions(
    visible=is_live_self,
    visible_related=is_visible_profile,
    linkable=is_live,
    private=PRIVATE_ATTRIBUTES,
    sees_private=is_self,
    list=admin,
    read=anyone,
    create=anyone,
    update=self_or_admin,
    delete=self_or_admin,
    write={
        "current_password": only_on_update,
        "is_super_admin": super_admin_after_create,
        **dict.fromkeys(("is_admin", "is_verified", "is_blocked", "is_sales_admin", "is_marketer"), admin_after_create),
    },
)
