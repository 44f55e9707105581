"""How a program says on stdout how far it is: `0.25`, `0.25<TAB>message`, or a JSON object, a line each."""

import json
import re
from typing import Any, NamedTuple

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:nan|inf|infinity)", re.ASCII | re.IGNORECASE)


class Report(NamedTuple):
    """What a line says; nothing, perhaps."""

    fraction: float | None
    """0 to 1."""
    message: str | None


class NotUnderstood(Exception):
    """The line is none of these."""


def read(line: str) -> Report:
    """What a line says; raises NotUnderstood."""
    stripped = line.strip()
    if stripped.startswith("{"):
        return _object(stripped)
    number, _, message = stripped.partition("\t")
    if not stripped:
        return Report(None, None)
    if not _NUMBER.fullmatch(number.strip()):
        raise NotUnderstood
    return Report(_clamped(float(number)), message.strip() or None)


def _object(line: str) -> Report:
    try:
        said: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError):
        raise NotUnderstood from None
    fraction = said.get("fraction", said.get("progress"))
    message = said.get("message")
    if isinstance(fraction, bool) or not isinstance(fraction, int | float | None):
        raise NotUnderstood
    if not isinstance(message, str | None):
        raise NotUnderstood
    return Report(None if fraction is None else _clamped(fraction), message or None)


def _clamped(fraction: float) -> float:
    """Within 0 to 1, which NaN is not on either side of; an integer may be too large to become a float first."""
    return float(min(max(0, fraction), 1))
