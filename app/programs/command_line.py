"""How a program is called: its arguments and its environment, made of the parameters of a job."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from app.jsonapi.json_parsing import escape_pointer
from app.programs.manifest import MAX_ARGUMENT_BYTES, Manifest

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


END_OF_OPTIONS = "--"
"""Ends the options of a command line, by convention of POSIX."""


def build_arguments(manifest: Manifest, parameters: Mapping[str, Any]) -> list[str]:
    """The words after the name of the program, without the last one."""
    words = [word for name in manifest.arguments for word in _format_values(parameters.get(name))]
    return [END_OF_OPTIONS, *words] if manifest.separator else words


def build_environment(manifest: Manifest, parameters: Mapping[str, Any], work_dir: Path) -> dict[str, str]:
    """All variables that it sees."""
    home = str(work_dir)
    named = {
        variable: _format_value(parameters[name])
        for variable, name in manifest.environment.items()
        if parameters.get(name) is not None
    }
    return {**named, "PATH": DEFAULT_PATH, "LANG": "C.UTF-8", "HOME": home, "TMPDIR": home}


def find_argument_errors(manifest: Manifest, parameters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where a parameter fits its schema but no command line, and why."""
    for name, value in parameters.items():
        words = _format_values(value)
        for index, word in enumerate(words):
            path = f"/{escape_pointer(name)}/{index}" if isinstance(value, list) else f"/{escape_pointer(name)}"
            if len(word.encode(errors="replace")) > MAX_ARGUMENT_BYTES:
                yield path, f"An argument has at most {MAX_ARGUMENT_BYTES} bytes."
            if "\0" in word:
                yield path, "An argument holds no NUL."
            if word.startswith("-") and name in manifest.arguments and not manifest.separator:
                yield path, "An argument must not begin with '-': the program would take it for an option."


def _format_values(value: Any) -> list[str]:
    if value is None:
        return []
    return [_format_value(each) for each in value] if isinstance(value, list) else [_format_value(value)]


def _format_value(value: Any) -> str:
    """Text as it is, anything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
