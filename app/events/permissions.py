"""Who may see and change which event."""

from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, exists, literal, or_, select

from app.events.models import Event, EventRole
from app.events.team import ORGANIZER, OWNER, TEAM, has_role
from app.jsonapi.permissions import Permissions, Scope, anyone, signed_in
from app.jsonapi.viewer import CAPABILITY, VIEWER_ID, Role, Viewer


def visible(scope: Scope, events: FromClause) -> ColumnElement[bool]:
    """Published and public ones, private ones by their identifier, and those of one's own teams."""
    if scope.role is Role.ADMIN:
        return scope.live(events)
    reachable = or_(events.c.privacy == "public", events.c.identifier == CAPABILITY)
    ways = [and_(events.c.state == "published", reachable)]
    if scope.role is Role.USER:
        roles = EventRole.__table__.alias()
        ways.append(exists(select(literal(1)).where(roles.c.event_id == events.c.id, roles.c.user_id == VIEWER_ID)))
    return and_(scope.live(events), or_(*ways))


def owner(viewer: Viewer, event: Any) -> bool:
    """The owner, or an admin."""
    return has_role(viewer, event.id, OWNER)


def organizer(viewer: Viewer, event: Any) -> bool:
    """The owner, an organizer, or an admin."""
    return has_role(viewer, event.id, OWNER, ORGANIZER)


def coorganizer(viewer: Viewer, event: Any) -> bool:
    """A member of the team of the event, or an admin."""
    return has_role(viewer, event.id, *TEAM)


def visible_with_event(scope: Scope, table: FromClause) -> ColumnElement[bool]:
    """What belongs to an event that the viewer sees."""
    events = Event.__table__.alias()
    event = exists(select(literal(1)).where(events.c.id == table.c.event_id, visible(scope, events)))
    return and_(scope.live(table), event)


def coorganizer_of_the_event_named(viewer: Viewer, values: Any) -> bool:
    """A member of the team of the event that the new resource names, or an admin."""
    return has_role(viewer, values["event_id"], *TEAM)


def coorganizer_of_its_event(viewer: Viewer, row: Any) -> bool:
    """A member of the team of the event, or an admin."""
    return has_role(viewer, row.event_id, *TEAM)


PERMISSIONS = Permissions(
    visible=visible,
    list=anyone,
    read=anyone,
    create=signed_in,
    update=coorganizer,
    delete=coorganizer,
    relate={"owner": owner, "organizers": organizer, "coorganizers": organizer},
)
