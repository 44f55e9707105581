"""Bytes of a request body -> JSON that cannot hurt: limits first, meaning later."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import orjson

from app.errors import ApiError, BadRequest, Unprocessable, raise_all

DEEPEST = 32
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def read_json(body: bytes) -> Any:
    """The JSON value of a body; 400 for what is not JSON or too deep, 422 with a pointer for text nobody can store."""
    value = _parse(body)
    raise_all(_faults(value))
    return value


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass  # said below: the standard parser lets lone surrogates through, which get a pointer
    try:
        return json.loads(body.decode(), parse_constant=_refuse)  # UTF-8 and nothing else (RFC 8259, section 8.1)
    except (ValueError, RecursionError):
        raise BadRequest("The body is not JSON.", code="invalid-json") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _faults(value: Any) -> Iterator[ApiError]:
    pending: list[tuple[Any, str, int]] = [(value, "", 0)]
    while pending:
        item, pointer, depth = pending.pop()
        if depth > DEEPEST:
            raise BadRequest(f"The body is nested deeper than {DEEPEST} levels.", code="too-deep")
        if isinstance(item, dict):
            for name, member in item.items():
                if UNSTORABLE.search(name):
                    yield Unprocessable("A member name holds a character that is no text.", pointer=pointer)
                    continue
                pending.append((member, f"{pointer}/{escaped(name)}", depth + 1))
        elif isinstance(item, list):
            pending.extend((member, f"{pointer}/{index}", depth + 1) for index, member in enumerate(item))
        else:
            yield from _scalar_faults(item, pointer)


def _scalar_faults(item: Any, pointer: str) -> Iterator[ApiError]:
    if isinstance(item, str) and UNSTORABLE.search(item):
        yield Unprocessable("Holds a NUL or a lone surrogate, which is no text.", pointer=pointer)
    elif isinstance(item, float) and not math.isfinite(item):
        yield BadRequest("A number is too large.", pointer=pointer, code="invalid-json")


def escaped(name: str) -> str:
    """A member name inside a JSON pointer (RFC 6901, section 3)."""
    return name.replace("~", "~0").replace("/", "~1")
