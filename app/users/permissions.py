"""Who may see and change which user.

A user sees himself whole and admins see everybody; others see at most a public profile. Events are named by type, not
imported: they stand above users.
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
"""What others may read of a user who shows himself."""

PRIVATE_ATTRIBUTES = frozenset(UserSchema().fields) - PUBLIC_PROFILE


def alias_event_roles() -> FromClause:
    """The table of who is what in which event, under a name of its own."""
    between = TYPES["user"].relations["events"].secondary
    if between is None:
        raise TypeError("users and events are related through a table")
    return between.alias()


def is_self(scope: VisibilityScope, users: FromClause) -> ColumnElement[bool]:
    """The viewer's own row; every row for admins."""
    if scope.role is Role.ADMIN:
        return true()
    return false() if scope.role is Role.ANONYMOUS else users.c.id == CURRENT_USER_ID


def is_live_self(scope: VisibilityScope, users: FromClause) -> ColumnElement[bool]:
    """The rows reached at /v1/users/{id}."""
    return and_(scope.live_criterion(users), is_self(scope, users))


def is_live(scope: VisibilityScope, users: FromClause) -> ColumnElement[bool]:
    """Every user that is not in the trash: ids in teams are no secret to those who see the event."""
    return scope.live_criterion(users)


def is_visible_profile(scope: VisibilityScope, users: FromClause) -> ColumnElement[bool]:
    """Oneself, and public profiles: of members of one's teams, and of owners of an event that the viewer sees.

    A private profile is not shown to a team: its owner or an organizer puts users into it without asking them.
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
    known = or_(owns, _shares_team(users)) if scope.role is Role.USER else owns
    return and_(scope.live_criterion(users), or_(is_self(scope, users), and_(users.c.is_profile_public, known)))


def _shares_team(users: FromClause) -> ColumnElement[bool]:
    theirs, mine = alias_event_roles(), alias_event_roles()
    return exists(
        select(literal(1)).where(
            theirs.c.user_id == users.c.id, mine.c.event_id == theirs.c.event_id, mine.c.user_id == CURRENT_USER_ID
        )
    )


def self_or_admin(viewer: CurrentUser, row: Any) -> bool:
    """The user, or an admin; for a super admin only a super admin."""
    return viewer.id == row.id or (viewer.is_admin and (viewer.is_super_admin or not row.is_super_admin))


def admin_after_create(viewer: CurrentUser, row: Any) -> bool:
    """An admin, for an existing user."""
    return row is not None and viewer.is_admin


def super_admin_after_create(viewer: CurrentUser, row: Any) -> bool:
    """A super admin, for an existing user."""
    return row is not None and super_admin(viewer, row)


def only_on_update(_viewer: CurrentUser, row: Any) -> bool:
    """With an existing user only."""
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
