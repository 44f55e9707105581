"""An event as an iCalendar file (RFC 5545)."""

from datetime import datetime
from zoneinfo import ZoneInfo

from icalendar import Calendar
from icalendar import Event as Component

from app.events.models import Event

MEDIA_TYPE = "text/calendar; charset=utf-8"


def to_icalendar(event: Event, written_at: datetime, host: str) -> bytes:
    """The file for an event that has dates; `host` makes its UID unique in the world (RFC 7986, 5.3)."""
    calendar = Calendar()
    calendar.add("prodid", "-//Open Event//Open Event API server//EN")
    calendar.add("version", "2.0")
    calendar.add_component(_component(event, written_at, host))
    calendar.add_missing_timezones()
    return bytes(calendar.to_ical())


def _component(event: Event, written_at: datetime, host: str) -> Component:
    component = Component()
    component.add("uid", f"{event.identifier}@{host}")
    component.add("dtstamp", written_at)
    component.add("last-modified", written_at)
    component.add("summary", event.name)
    zone = ZoneInfo(event.timezone)
    for name, moment in (("dtstart", event.starts_at), ("dtend", event.ends_at)):
        if moment is not None:
            component.add(name, moment.astimezone(zone))
    if location := event.location_name or event.searchable_location_name:
        component.add("location", location)
    if event.latitude is not None and event.longitude is not None:
        component.add("geo", (event.latitude, event.longitude))
    if event.external_event_url:
        component.add("url", event.external_event_url)
    return component
