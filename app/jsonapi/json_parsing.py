"""JSON parser of request bodies, with limits on nesting, containers and characters."""

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
"""Max objects and arrays of a JSON text, counted before it is parsed: a megabyte of `[]` takes a second and 75 MB."""

STRING_RE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""Pattern of a JSON string; an unterminated one extends to the end of the text."""

INVALID_TEXT_RE = re.compile("[\x00\ud800-\udfff]")


def parse_request_body() -> Any:
    """Return the JSON value of the body of this request, parsed once per request."""
    if "document" not in g:
        g.document = parse_json(request.get_data())
    return g.document


def _count_brackets(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")


def parse_json(body: bytes, *, max_containers: int = MAX_CONTAINERS) -> Any:
    """Parse a body.

    Raise BadRequest if it is not JSON, too deep or has more objects and arrays than `max_containers`; raise errors with
    a pointer for invalid text.
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
        pass  # parsed again below: the standard parser accepts lone surrogates, which get an error with a pointer
    try:
        # UTF-8 only (RFC 8259, section 8.1), and numbers as orjson parses them, so that they can be serialized again.
        return json.loads(body.decode(), parse_constant=_reject_constant, parse_int=_parse_number)
    except (ValueError, RecursionError):
        raise BadRequest("The body is not JSON.", code="invalid-json") from None


def _parse_number(text: str) -> int | float:
    """Return an integer of up to 64 bits, or the nearest float, which may be infinite."""
    is_short = len(text) <= len(str(2**64))
    return int(text) if is_short and -(2**63) <= int(text) < 2**64 else float(text)


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _find_errors(value: Any) -> Iterator[ApiError]:
    """Yield an error for each invalid text or number; queue only containers, as a body may have 8 million numbers."""
    yield from _find_scalar_errors(value, "")
    pending: list[tuple[Any, str, int]] = [(value, "", 0)]
    while pending:
        container, pointer, depth = pending.pop()
        for name, member in _iterate_members(container):
            if depth == MAX_NESTING_DEPTH:
                raise BadRequest(f"The body may be nested at most {MAX_NESTING_DEPTH} levels deep.", code="too-deep")
            if isinstance(name, str) and INVALID_TEXT_RE.search(name):
                yield Unprocessable(
                    "A member name contains a NUL or a lone surrogate, which are not allowed.", pointer=pointer
                )
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
        yield Unprocessable("Must not contain a NUL or a lone surrogate.", pointer=_extend_pointer(pointer, *name))
    elif isinstance(item, float) and not math.isfinite(item):
        yield BadRequest("A number is too large.", pointer=_extend_pointer(pointer, *name), code="invalid-json")


def _extend_pointer(pointer: str, *names: str | int) -> str:
    return pointer + "".join(f"/{escape_pointer(str(name))}" for name in names)


def escape_pointer(name: str) -> str:
    """Escape a member name for a JSON pointer (RFC 6901, section 3)."""
    return name.replace("~", "~0").replace("/", "~1")
