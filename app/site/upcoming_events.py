"""The next events, for the home page."""

from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import select

from app.database import Prepared, transaction
from app.events.models import Event
from app.events.permissions import visible
from app.events.resources import EVENT, not_over
from app.jsonapi.permissions import Access, Scope
from app.jsonapi.viewer import ANONYMOUS

MAX_EVENTS = 5

_access = Access(ANONYMOUS, Scope(ANONYMOUS.role))
_events = Event.__table__
_upcoming = Prepared(
    select(_events.c.id, _events.c.name, _events.c.starts_at, _events.c.timezone, _events.c.location_name)
    .where(visible(_access.scope, _events), not_over(_events))
    .order_by(_events.c.starts_at, _events.c.id)
    .limit(MAX_EVENTS)
)


class UpcomingEvent(NamedTuple):
    """An event as the home page shows it."""

    url: str
    name: str
    starts_at: datetime
    """In the time zone of the event."""
    location: str | None


def list_upcoming_events() -> list[UpcomingEvent]:
    """Return the next public, published events, in the order in which they start."""
    with transaction(is_read=True):
        rows = _upcoming.rows(_access.parameters())
    return [
        UpcomingEvent(f"{EVENT.path}/{id_}", name, starts_at.astimezone(ZoneInfo(timezone)), location)
        for id_, name, starts_at, timezone, location in rows
    ]
