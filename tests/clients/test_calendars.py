"""The calendars of events, read with ical.js, which Thunderbird and many web calendars are made with."""

import json

import pytest

from tests.clients import programs
from tests.events.calendars import NAME, build_cases


@programs.skip_unless_runnable(".js")
@pytest.mark.timeout(300)
def test_ical_js_reads_the_right_moments_in_every_zone_and_year() -> None:
    cases = list(build_cases())
    files = {case.name: case.content.decode() for case in cases}

    read = json.loads(programs.run_program(programs.DIRECTORY / "javascript" / "parse_calendars.js", json.dumps(files)))

    wrong = [case.name for case in cases if read[case.name] != [*case.moments, NAME]]
    assert not wrong, f"{len(wrong)} of {len(cases)}, such as {wrong[:5]}"
