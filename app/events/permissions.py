"""Who may see and change which event."""

from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, exists, false, literal, or_, select, true

from app.events.models import Event, EventRole
from app.events.team import ORGANIZER, OWNER, TEAM, has_role, is_member
from app.jsonapi.current_user import CAPABILITY, CURRENT_USER_ID, CurrentUser, Role
from app.jsonapi.permissions import Permissions, VisibilityScope, admin, any_user, anyone
from app.jsonapi.resource_type import TYPES, ResourceType
from app.users.ownership import can_act_for

PAYMENT_DETAILS = frozenset({"paypal_email", "cheque_details", "bank_details", "onsite_details", "invoice_details"})
"""Where money goes: the owner's to see and to change."""


def is_visible(scope: VisibilityScope, events: FromClause) -> ColumnElement[bool]:
    """Published public ones, private ones by their identifier, those of the own teams, those that are offered."""
    if scope.role is Role.ADMIN:
        return scope.live_criterion(events)
    reachable = or_(events.c.privacy == "public", events.c.identifier == CAPABILITY)
    ways = [and_(events.c.state == "published", reachable)]
    if scope.role is Role.USER:
        roles = EventRole.__table__.alias()
        ways.append(
            exists(select(literal(1)).where(roles.c.event_id == events.c.id, roles.c.user_id == CURRENT_USER_ID))
        )
        ways.append(events.c.pending_owner_id == CURRENT_USER_ID)
    return and_(scope.live_criterion(events), or_(*ways))


def is_owned_by_viewer(scope: VisibilityScope, events: FromClause) -> ColumnElement[bool]:
    """Those that the viewer owns; every event for admins."""
    if scope.role is Role.ADMIN:
        return true()
    return false() if scope.role is Role.ANONYMOUS else events.c.owner_id == CURRENT_USER_ID


def sees_pending_owner(scope: VisibilityScope, events: FromClause) -> ColumnElement[bool]:
    """Those that the viewer owns or is asked to take over; every event for admins."""
    asked = false() if scope.role is Role.ANONYMOUS else events.c.pending_owner_id == CURRENT_USER_ID
    return or_(is_owned_by_viewer(scope, events), asked)


def creator_or_owner(viewer: CurrentUser, event: Any) -> bool:
    """The creator, on creation; the owner, or an admin; for what a super admin owns only a super admin."""
    return event is None or can_act_for(viewer, event.owner_id)


def pending_owner(viewer: CurrentUser, event: Any) -> bool:
    """The user who is named in pending-owner."""
    return not viewer.is_anonymous and viewer.id == event.pending_owner_id


def owner_or_admin(viewer: CurrentUser, event: Any) -> bool:
    """The owner, or an admin; for what a super admin owns only a super admin."""
    return can_act_for(viewer, event.owner_id)


def organizer_or_admin(viewer: CurrentUser, event: Any) -> bool:
    """The owner, an organizer, or an admin; for what a super admin owns no other admin."""
    return can_act_for(viewer, event.owner_id) or is_member(viewer, event.id, OWNER, ORGANIZER)


def team_or_admin(viewer: CurrentUser, event: Any) -> bool:
    """A member of the team of the event, or an admin; for what a super admin owns no other admin."""
    return can_act_for(viewer, event.owner_id) or is_member(viewer, event.id, *TEAM)


def is_visible_with_event(scope: VisibilityScope, table: FromClause) -> ColumnElement[bool]:
    """What belongs to an event that the viewer sees."""
    events = Event.__table__.alias()
    event = exists(select(literal(1)).where(events.c.id == table.c.event_id, is_visible(scope, events)))
    return and_(scope.live_criterion(table), event)


def list_types_of_events() -> list[ResourceType]:
    """Return the types whose resources belong to events and are visible with them, by name."""
    return [type_ for _, type_ in sorted(TYPES.items()) if type_.permissions.visible is is_visible_with_event]


def team_of_named_event(viewer: CurrentUser, values: Any) -> bool:
    """A member of the team of the event that the new resource names, or an admin."""
    return has_role(viewer, values["event_id"], *TEAM)


def team_of_event(viewer: CurrentUser, row: Any) -> bool:
    """A member of the team of the event, or an admin."""
    return has_role(viewer, row.event_id, *TEAM)


PERMISSIONS = Permissions(
    visible=is_visible,
    list=anyone,
    read=anyone,
    create=any_user,
    update=team_or_admin,
    delete=organizer_or_admin,
    private=PAYMENT_DETAILS,
    sees_private=is_owned_by_viewer,
    keeps_links=True,
    sees_link={"pending_owner": sees_pending_owner},
    relate={
        "owner": owner_or_admin,
        "pending_owner": owner_or_admin,
        "organizers": organizer_or_admin,
        "coorganizers": organizer_or_admin,
    },
    write={
        **dict.fromkeys(PAYMENT_DETAILS, creator_or_owner),
        **dict.fromkeys(("is_featured", "is_promoted", "is_demoted"), admin),
    },
)
