"""Size limits of resources and responses, and the error for a response that would be too large."""

from collections.abc import Sequence
from typing import Any

import orjson

from app import memory
from app.errors import BadRequest

MAX_RESOURCE_BYTES = 128 * 2**10
"""Max bytes of the attributes of one resource as JSON on a write: a page of the default size always fits."""

MAX_ANSWER_BYTES = 4 * 2**20
"""Max bytes of a JSON:API response document, for all methods."""

LONG_TEXT_LENGTH = 2048
"""Characters above which a text is long: its bytes are counted in reads, and patterns on it are costly."""


LARGE_ANSWER_BYTES = 2**20
"""Bytes of a response above which the process returns freed memory to the system."""


class AnswerTooLarge(BadRequest):
    """The response would be too large."""

    default_code = "too-large"


def make_size_error(detail: str, parameter: str | None = None) -> AnswerTooLarge:
    """Return the error for a too large response, and schedule the release of the memory that it took."""
    memory.schedule_memory_release()
    return AnswerTooLarge(detail, parameter=parameter)


def make_include_size_error(path: Sequence[str]) -> AnswerTooLarge:
    """Return the error for a response that the resources included by this path make too large."""
    return make_size_error(
        f"With include={'.'.join(path)} the response would have more than {MAX_ANSWER_BYTES} bytes: "
        "leave it out, choose fewer fields, or request the pages of the related URL.",
        "include",
    )


def estimate_json_bytes(value: Any) -> int:
    """Return a lower estimate of the JSON bytes of a value of a long attribute."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode(errors="replace"))
    return 0 if value is None else len(orjson.dumps(value))
