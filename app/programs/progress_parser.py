"""Parser of progress lines on the stdout of a program: `0.25`, `0.25<TAB>message`, or a JSON object."""

import json
import re
from typing import Any, NamedTuple

_NUMBER_RE = re.compile(
    r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:nan|inf|infinity)", re.ASCII | re.IGNORECASE
)


class ProgressReport(NamedTuple):
    """Progress and message of a line; both are None for an empty line."""

    fraction: float | None
    """Progress, 0 to 1."""
    message: str | None


class ProgressParseError(Exception):
    """The line has none of the three formats."""


def parse_progress(line: str) -> ProgressReport:
    """Return the report in a line; raise ProgressParseError if it has none of the formats."""
    stripped = line.strip()
    if stripped.startswith("{"):
        return _parse_object(stripped)
    number, _, message = stripped.partition("\t")
    if not stripped:
        return ProgressReport(None, None)
    if not _NUMBER_RE.fullmatch(number.strip()):
        raise ProgressParseError
    return ProgressReport(_clamp_fraction(float(number)), message.strip() or None)


def _parse_object(line: str) -> ProgressReport:
    try:
        members: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError):
        raise ProgressParseError from None
    fraction = members.get("fraction", members.get("progress"))
    message = members.get("message")
    if isinstance(fraction, bool) or not isinstance(fraction, int | float | None):
        raise ProgressParseError
    if not isinstance(message, str | None):
        raise ProgressParseError
    return ProgressReport(None if fraction is None else _clamp_fraction(fraction), message or None)


def _clamp_fraction(fraction: float) -> float:
    """Return the number limited to 0 to 1, and 0 for NaN; limit first, because a large integer has no float."""
    return float(min(max(0, fraction), 1))
