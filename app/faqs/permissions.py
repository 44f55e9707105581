"""Who may see and change FAQs and their types: the event decides."""

from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, exists, literal, select

from app.events.models import Event
from app.events.permissions import visible as event_visible
from app.events.team import TEAM, has_role
from app.jsonapi.permissions import Permissions, Scope, anyone
from app.jsonapi.viewer import Viewer


def visible_with_event(scope: Scope, table: FromClause) -> ColumnElement[bool]:
    """Those of the events that the viewer sees."""
    events = Event.__table__.alias()
    event = exists(select(literal(1)).where(events.c.id == table.c.event_id, event_visible(scope, events)))
    return and_(scope.live(table), event)


def coorganizer_of_the_event_named(viewer: Viewer, values: Any) -> bool:
    """Anybody in the team of the event the new resource names, or an admin."""
    return has_role(viewer, values["event_id"], *TEAM)


def coorganizer_of_its_event(viewer: Viewer, row: Any) -> bool:
    """Anybody in the team of the event, or an admin."""
    return has_role(viewer, row.event_id, *TEAM)


PERMISSIONS = Permissions(
    visible=visible_with_event,
    list=anyone,
    read=anyone,
    create=coorganizer_of_the_event_named,
    update=coorganizer_of_its_event,
    delete=coorganizer_of_its_event,
)
