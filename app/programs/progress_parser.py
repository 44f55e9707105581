"""How a program says on stdout how far it is: `0.25`, `0.25<TAB>message`, or a JSON object, a line each."""

import json
import re
from typing import Any, NamedTuple

_NUMBER_RE = re.compile(
    r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:nan|inf|infinity)", re.ASCII | re.IGNORECASE
)


class ProgressReport(NamedTuple):
    """What a line says; nothing, perhaps."""

    fraction: float | None
    """0 to 1."""
    message: str | None


class ProgressParseError(Exception):
    """The line is none of these."""


def parse_progress(line: str) -> ProgressReport:
    """What a line says; raises NotUnderstood."""
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
        said: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError):
        raise ProgressParseError from None
    fraction = said.get("fraction", said.get("progress"))
    message = said.get("message")
    if isinstance(fraction, bool) or not isinstance(fraction, int | float | None):
        raise ProgressParseError
    if not isinstance(message, str | None):
        raise ProgressParseError
    return ProgressReport(None if fraction is None else _clamp_fraction(fraction), message or None)


def _clamp_fraction(fraction: float) -> float:
    """Within 0 to 1, which NaN is not on either side of; an integer may be too large to become a float first."""
    return float(min(max(0, fraction), 1))
