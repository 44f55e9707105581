"""How many bytes a resource and an answer may have, and the refusal of an answer that would have more."""

from collections.abc import Sequence
from typing import Any

import orjson

from app import memory
from app.errors import BadRequest

MAX_RESOURCE_BYTES = 128 * 2**10
"""Bytes of the attributes of one resource as JSON when it is written: a page of the default size always fits."""

MAX_ANSWER_BYTES = 4 * 2**20
"""Bytes of any JSON:API document that is sent, whatever the method of the request."""

LONG_TEXT_LENGTH = 2048
"""Characters; an attribute that may hold more counts while rows are read, and costs patterns that search it."""


LARGE_ANSWER_BYTES = 2**20
"""Bytes of an answer from which on its request returns its memory to the system."""


class AnswerTooLarge(BadRequest):
    """The answer would be too large."""

    default_code = "too-large"


def make_size_error(detail: str, parameter: str | None = None) -> AnswerTooLarge:
    """Return the refusal of an answer that would be too large; what was read for it is returned to the system."""
    memory.schedule_memory_release()
    return AnswerTooLarge(detail, parameter=parameter)


def make_include_size_error(path: Sequence[str]) -> AnswerTooLarge:
    """Return the refusal of an answer that the resources included by this path would make too large."""
    return make_size_error(
        f"With include={'.'.join(path)} the answer would have more than {MAX_ANSWER_BYTES} bytes: "
        "leave it out, choose fewer fields, or ask for the related URL, page by page.",
        "include",
    )


def estimate_json_bytes(value: Any) -> int:
    """Return about how many bytes a value of a long attribute takes in JSON, at least."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode(errors="replace"))
    return 0 if value is None else len(orjson.dumps(value))
