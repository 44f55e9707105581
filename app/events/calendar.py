"""iCalendar file of an event (RFC 5545), with times in UTC (docs/decisions/0018)."""

import re
from datetime import UTC, datetime, timedelta

from icalendar import Calendar
from icalendar import Event as Component
from icalendar.prop import vInline

from app.events.models import Event

MEDIA_TYPE = "text/calendar; charset=utf-8"

# Characters that some parser takes for the end of a line; `\r\n` is one line break.
_LINE_BREAK = re.compile(r"\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")


def to_icalendar(event: Event, written_at: datetime, host: str) -> bytes:
    """Return the file for an event that has dates; `host` makes its UID globally unique (RFC 7986, 5.3)."""
    calendar = Calendar()
    calendar.add("prodid", "-//Open Event//Open Event API server//EN")
    calendar.add("version", "2.0")
    calendar.add("x-wr-timezone", event.timezone)
    calendar.add_component(_build_component(event, written_at, host))
    return bytes(calendar.to_ical())


def _build_component(event: Event, written_at: datetime, host: str) -> Component:
    component = Component()
    component.add("uid", f"{event.identifier}@{host}")
    component.add("dtstamp", written_at)
    component.add("last-modified", written_at)
    component.add("summary", _remove_controls(event.name))
    if event.starts_at is not None:
        component.add("dtstart", _floor_to_second(event.starts_at))
    if event.ends_at is not None:
        component.add("dtend", _ceil_to_second(event.ends_at))
    if location := event.location_name or event.searchable_location_name:
        component.add("location", _remove_controls(location))
    if event.latitude is not None and event.longitude is not None:
        # Not as floats: `icalendar` writes small ones with an exponent.
        component.add("geo", vInline(f"{event.latitude:.6f};{event.longitude:.6f}"))
    if event.external_event_url:
        component.add("url", event.external_event_url)
    return component


def _floor_to_second(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)


def _ceil_to_second(moment: datetime) -> datetime:
    """Round up to a whole second, so that the end of a short event stays after its start."""
    return _floor_to_second(moment + timedelta(seconds=1) - timedelta.resolution)


def _remove_controls(text: str) -> str:
    """Return the text without control characters, which no text property may hold (RFC 5545, 3.3.11)."""
    return _CONTROL.sub("", _LINE_BREAK.sub("\n", text))
