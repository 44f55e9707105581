"""Two Python parsers read the right moments in our calendars; `tests/clients` asks one in JavaScript."""

from collections.abc import Callable
from typing import Any

import icalendar
import pytest
import vobject

from tests.events.calendars import NAME, Case, build_cases

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """Return all cases, built once."""
    return list(build_cases())


def read_with_vobject(content: bytes) -> tuple[Any, Any, str]:
    """Return the start, the end and the name that vobject finds."""
    event = vobject.readOne(content.decode()).vevent
    return event.dtstart.value, event.dtend.value, event.summary.value


def read_with_icalendar(content: bytes) -> tuple[Any, Any, str]:
    """Return the start, the end and the name that icalendar finds."""
    (event,) = icalendar.Calendar.from_ical(content).walk("VEVENT")
    return event["DTSTART"].dt, event["DTEND"].dt, str(event["SUMMARY"])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("read", [read_with_vobject, read_with_icalendar])
def test_calendar_in_every_zone_and_year_is_read_right(
    cases: list[Case], read: Callable[[bytes], tuple[Any, Any, str]]
) -> None:
    wrong = [case.name for case in cases if read(case.content) != (case.starts_at, case.ends_at, NAME)]

    assert not wrong, f"{len(wrong)} of {len(cases)}, such as {wrong[:5]}"
