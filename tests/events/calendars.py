"""Calendar files of events in every time zone, and the times that parsers must read in them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

from app.events.calendar import to_icalendar
from app.events.models import Event

HOST = "events.example"
WRITTEN_AT = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)

YEARS = (1900, 1970, 2026, *range(2027, 2046), 2100, 9000)
"""Those that the API accepts begin with 1900 and end with 9000."""

NAME = "Grüße, Welt; \\ " + "ä" * 40 + "\nnew line"


def make_event(**columns: object) -> Event:
    """Make an event in Berlin, over the change to summer time."""
    return Event(
        **{
            "identifier": "abcdef12",
            "name": "Grüße, Welt; jetzt",
            "timezone": "Europe/Berlin",
            "starts_at": datetime(2027, 3, 27, 9, tzinfo=UTC),
            "ends_at": datetime(2027, 3, 28, 9, tzinfo=UTC),
            **columns,
        }
    )


@dataclass(frozen=True)
class Case:
    """A calendar file and what is in it."""

    name: str
    content: bytes
    starts_at: datetime
    ends_at: datetime

    @property
    def moments(self) -> list[int]:
        """Return the start and the end in seconds since 1970."""
        return [int(self.starts_at.timestamp()), int(self.ends_at.timestamp())]


def build_cases() -> Iterator[Case]:
    """Make a winter start and a summer end in every zone and year, and the hours at which clocks are changed."""
    for zone in sorted(available_timezones()):
        local = ZoneInfo(zone)
        for year in YEARS:
            yield _build_case(zone, datetime(year, 1, 15, 12, tzinfo=local), datetime(year, 7, 15, 12, tzinfo=local))
    for minutes in range(0, 24 * 60, 30):
        start = datetime(2027, 3, 28, tzinfo=UTC) + timedelta(minutes=minutes)  # the night that Europe loses an hour
        yield _build_case("Europe/Berlin", start, start + timedelta(hours=3))
        start = datetime(2027, 10, 31, tzinfo=UTC) + timedelta(minutes=minutes)  # the night that it gains one
        yield _build_case("Europe/Berlin", start, start + timedelta(minutes=45))
    for zone in ("Africa/Casablanca", "Africa/El_Aaiun"):
        for day in range(366):  # they leave summer time for Ramadan
            start = datetime(2027, 1, 1, 12, tzinfo=ZoneInfo(zone)) + timedelta(days=day)
            yield _build_case(zone, start, start + timedelta(hours=1))


def _build_case(zone: str, starts_at: datetime, ends_at: datetime) -> Case:
    starts_at, ends_at = starts_at.astimezone(UTC), ends_at.astimezone(UTC)
    event = make_event(name=NAME, timezone=zone, starts_at=starts_at, ends_at=ends_at)
    name = f"{zone} {starts_at:%Y-%m-%dT%H:%M}Z {ends_at:%Y-%m-%dT%H:%M}Z"
    return Case(name, to_icalendar(event, WRITTEN_AT, HOST), starts_at, ends_at)
