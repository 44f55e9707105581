"""Whether two JSON values have the same structure: the same keys and types all the way down."""

from collections.abc import Iterator
from typing import Any


def differences(documented: Any, answered: Any, pointer: str = "") -> Iterator[str]:
    """One line for every place where the answer is not built like the documented value."""
    if _kind(documented) != _kind(answered):
        yield f"{pointer or '/'}: documented as {_kind(documented)}, answered with {_kind(answered)}: {answered!r:.80}"
    elif isinstance(documented, dict):
        yield from _key_differences(documented, answered, pointer)
        for name in documented.keys() & answered.keys():
            yield from differences(documented[name], answered[name], f"{pointer}/{name}")
    elif isinstance(documented, list):
        if len(documented) != len(answered):
            yield f"{pointer}: documented with {len(documented)} elements, answered with {len(answered)}"
        for index, (one, other) in enumerate(zip(documented, answered, strict=False)):
            yield from differences(one, other, f"{pointer}/{index}")


def _key_differences(documented: dict[str, Any], answered: dict[str, Any], pointer: str) -> Iterator[str]:
    for name in sorted(documented.keys() - answered.keys()):
        yield f"{pointer}/{name}: documented, but not in the answer"
    for name in sorted(answered.keys() - documented.keys()):
        yield f"{pointer}/{name}: in the answer, but not documented"


def _kind(value: Any) -> str:
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return kinds.get(type(value), "null")
