"""Bytes of a request body -> JSON that cannot hurt: limits first, meaning later."""

import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import orjson
from flask import g, request

from app.errors import ApiError, BadRequest, Unprocessable, raise_errors

MAX_NESTING_DEPTH = 32
MAX_CONTAINERS = 50_000
"""Objects and arrays of a JSON text, counted before it is parsed: a megabyte of `[]` takes a second and 75 MB."""

STRING_RE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A string of a JSON text that is read from the left; one without an end goes on to the end of the text."""

INVALID_TEXT_RE = re.compile("[\x00\ud800-\udfff]")


def parse_request_body() -> Any:
    """Return the JSON value of this request's body, which is parsed once however often it is asked for."""
    if "document" not in g:
        g.document = parse_json(request.get_data())
    return g.document


def _count_brackets(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")


def parse_json(body: bytes, *, max_containers: int = MAX_CONTAINERS) -> Any:
    """Return the JSON value of a body.

    Raise 400 for what is not JSON, too deep or has more objects and arrays than `max_containers`, and 422 with a
    pointer for text that cannot be stored.
    """
    if _count_brackets(body) > max_containers and _count_brackets(STRING_RE.sub(b"", body)) > max_containers:
        raise BadRequest(f"The body has more than {max_containers} objects and arrays.", code="too-large")
    value = _load_json(body)
    raise_errors(_find_errors(value))
    return value


def _load_json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass  # said below: the standard parser lets lone surrogates through, which get a pointer
    try:
        # UTF-8 and nothing else (RFC 8259, section 8.1); numbers as orjson takes them, or nobody could read them again.
        return json.loads(body.decode(), parse_constant=_reject_constant, parse_int=_parse_number)
    except (ValueError, RecursionError):
        raise BadRequest("The body is not JSON.", code="invalid-json") from None


def _parse_number(text: str) -> int | float:
    """A whole number of up to 64 bits, else the nearest one that is not whole, which may be infinite."""
    is_short = len(text) <= len(str(2**64))
    return int(text) if is_short and -(2**63) <= int(text) < 2**64 else float(text)


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _find_errors(value: Any) -> Iterator[ApiError]:
    """Of containers alone is kept where they are: a body of 16 MiB may hold eight million numbers."""
    yield from _find_scalar_errors(value, "")
    pending: list[tuple[Any, str, int]] = [(value, "", 0)]
    while pending:
        container, pointer, depth = pending.pop()
        for name, member in _iterate_members(container):
            if depth == MAX_NESTING_DEPTH:
                raise BadRequest(f"The body is nested deeper than {MAX_NESTING_DEPTH} levels.", code="too-deep")
            if isinstance(name, str) and INVALID_TEXT_RE.search(name):
                yield Unprocessable("A member name holds a character that is no text.", pointer=pointer)
            elif isinstance(member, (dict, list)):
                pending.append((member, _extend_pointer(pointer, name), depth + 1))
            elif isinstance(member, (str, float)):
                yield from _find_scalar_errors(member, pointer, name)


def _iterate_members(value: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def _find_scalar_errors(item: Any, pointer: str, *name: str | int) -> Iterator[ApiError]:
    if isinstance(item, str) and INVALID_TEXT_RE.search(item):
        yield Unprocessable(
            "Holds a NUL or a lone surrogate, which is no text.", pointer=_extend_pointer(pointer, *name)
        )
    elif isinstance(item, float) and not math.isfinite(item):
        yield BadRequest("A number is too large.", pointer=_extend_pointer(pointer, *name), code="invalid-json")


def _extend_pointer(pointer: str, *names: str | int) -> str:
    return pointer + "".join(f"/{escape_pointer(str(name))}" for name in names)


def escape_pointer(name: str) -> str:
    """A member name inside a JSON pointer (RFC 6901, section 3)."""
    return name.replace("~", "~0").replace("/", "~1")
