"""Permissions for events and their resources."""

from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, exists, false, literal, or_, select, true

from app.events.models import Event, EventRole
from app.events.team import ORGANIZER, OWNER, TEAM, has_role, is_member
from app.jsonapi.current_user import CAPABILITY, CURRENT_USER_ID, CurrentUser, Role
from app.jsonapi.permissions import Permissions, VisibilityScope, admin, any_user, anyone
from app.jsonapi.resource_type import TYPES, ResourceType
from app.users.ownership import can_act_for

PAYMENT_DETAILS = frozenset({"paypal_email", "cheque_details", "bank_details", "onsite_details", "invoice_details"})
"""Attributes that decide who is paid: only the owner and admins can read and change them."""


def is_visible(scope: VisibilityScope, events: FromClause) -> ColumnElement[bool]:
    """Return the criterion for events that the current user can see.

    Published events that are public or named by their identifier, events of the own teams, and events whose ownership
    is offered to the current user; every event for admins.
    """
    if scope.role is Role.ADMIN:
        return scope.live_criterion(events)
    is_accessible = or_(events.c.privacy == "public", events.c.identifier == CAPABILITY)
    alternatives = [and_(events.c.state == "published", is_accessible)]
    if scope.role is Role.USER:
        roles = EventRole.__table__.alias()
        alternatives.append(
            exists(select(literal(1)).where(roles.c.event_id == events.c.id, roles.c.user_id == CURRENT_USER_ID))
        )
        alternatives.append(events.c.pending_owner_id == CURRENT_USER_ID)
    return and_(scope.live_criterion(events), or_(*alternatives))


def is_owned_by_viewer(scope: VisibilityScope, events: FromClause) -> ColumnElement[bool]:
    """Return the criterion for events that the current user owns; every event for admins."""
    if scope.role is Role.ADMIN:
        return true()
    return false() if scope.role is Role.ANONYMOUS else events.c.owner_id == CURRENT_USER_ID


def sees_pending_owner(scope: VisibilityScope, events: FromClause) -> ColumnElement[bool]:
    """Return the criterion for events that the current user owns or is offered; every event for admins."""
    is_offered = false() if scope.role is Role.ANONYMOUS else events.c.pending_owner_id == CURRENT_USER_ID
    return or_(is_owned_by_viewer(scope, events), is_offered)


def creator_or_owner(viewer: CurrentUser, event: Any) -> bool:
    """Return whether the current user creates the event or may act for its owner."""
    return event is None or can_act_for(viewer, event.owner_id)


def pending_owner(viewer: CurrentUser, event: Any) -> bool:
    """Return whether the current user is the pending owner."""
    return not viewer.is_anonymous and viewer.id == event.pending_owner_id


def owner_or_admin(viewer: CurrentUser, event: Any) -> bool:
    """Return whether the current user may act for the owner."""
    return can_act_for(viewer, event.owner_id)


def organizer_or_admin(viewer: CurrentUser, event: Any) -> bool:
    """Return whether the current user may act for the owner or is an organizer."""
    return can_act_for(viewer, event.owner_id) or is_member(viewer, event.id, OWNER, ORGANIZER)


def team_or_admin(viewer: CurrentUser, event: Any) -> bool:
    """Return whether the current user may act for the owner or is in the team."""
    return can_act_for(viewer, event.owner_id) or is_member(viewer, event.id, *TEAM)


def is_visible_with_event(scope: VisibilityScope, table: FromClause) -> ColumnElement[bool]:
    """Return the criterion for rows of events that the current user can see."""
    events = Event.__table__.alias()
    event = exists(select(literal(1)).where(events.c.id == table.c.event_id, is_visible(scope, events)))
    return and_(scope.live_criterion(table), event)


def list_types_of_events() -> list[ResourceType]:
    """Return the resource types that are visible with their event, by name."""
    return [type_ for _, type_ in sorted(TYPES.items()) if type_.permissions.visible is is_visible_with_event]


def team_of_named_event(viewer: CurrentUser, values: Any) -> bool:
    """Return whether the current user is an admin or in the team of the event of a new resource."""
    return has_role(viewer, values["event_id"], *TEAM)


def team_of_event(viewer: CurrentUser, row: Any) -> bool:
    """Return whether the current user is an admin or in the team of the event of a row."""
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
