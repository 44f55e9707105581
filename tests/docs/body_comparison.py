"""Comparison of the structure of two JSON values: equal keys and types at all levels."""

from collections.abc import Iterator
from typing import Any


def find_differences(documented: Any, answered: Any, pointer: str = "") -> Iterator[str]:
    """Yield a line for every place where the structure of the response differs from the documented value."""
    if _get_json_type(documented) != _get_json_type(answered):
        types = f"documented as {_get_json_type(documented)}, answered with {_get_json_type(answered)}"
        yield f"{pointer or '/'}: {types}: {answered!r:.80}"
    elif isinstance(documented, dict):
        yield from _find_key_differences(documented, answered, pointer)
        for name in documented.keys() & answered.keys():
            yield from find_differences(documented[name], answered[name], f"{pointer}/{name}")
    elif isinstance(documented, list):
        if len(documented) != len(answered):
            yield f"{pointer}: documented with {len(documented)} elements, answered with {len(answered)}"
        for index, (one, other) in enumerate(zip(documented, answered, strict=False)):
            yield from find_differences(one, other, f"{pointer}/{index}")


def _find_key_differences(documented: dict[str, Any], answered: dict[str, Any], pointer: str) -> Iterator[str]:
    for name in sorted(documented.keys() - answered.keys()):
        yield f"{pointer}/{name}: documented, but not in the answer"
    for name in sorted(answered.keys() - documented.keys()):
        yield f"{pointer}/{name}: in the answer, but not documented"


def _get_json_type(value: Any) -> str:
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return kinds.get(type(value), "null")
