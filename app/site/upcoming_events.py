"""The next events, for the home page."""

from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import select

from app.database import PreparedStatement, open_transaction
from app.events.models import Event
from app.events.permissions import is_visible
from app.events.resources import EVENT, is_upcoming
from app.jsonapi.current_user import ANONYMOUS_USER
from app.jsonapi.permissions import AccessContext, VisibilityScope

MAX_EVENTS = 5

_access = AccessContext(ANONYMOUS_USER, VisibilityScope(ANONYMOUS_USER.role))
_events = Event.__table__
_upcoming = PreparedStatement(
    select(_events.c.id, _events.c.name, _events.c.starts_at, _events.c.timezone, _events.c.location_name)
    .where(is_visible(_access.scope, _events), is_upcoming(_events))
    .order_by(_events.c.starts_at, _events.c.id)
    .limit(MAX_EVENTS)
)


class UpcomingEvent(NamedTuple):
    """An event on the home page."""

    url: str
    name: str
    starts_at: datetime
    """Start in the time zone of the event."""
    location: str | None


def list_upcoming_events() -> list[UpcomingEvent]:
    """Return the next public, published events, in the order in which they start."""
    with open_transaction(is_read=True):
        rows = _upcoming.fetch_rows(_access.sql_parameters())
    return [
        UpcomingEvent(f"{EVENT.path}/{id_}", name, starts_at.astimezone(ZoneInfo(timezone)), location)
        for id_, name, starts_at, timezone, location in rows
    ]
