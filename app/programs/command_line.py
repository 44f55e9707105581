"""Arguments and environment of a program, built from the parameters of a job."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from app.jsonapi.json_parsing import escape_pointer
from app.programs.manifest import MAX_ARGUMENT_BYTES, Manifest

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


END_OF_OPTIONS = "--"
"""Argument that ends the options of a command line (POSIX Utility Syntax Guidelines, 10)."""


def build_arguments(manifest: Manifest, parameters: Mapping[str, Any]) -> list[str]:
    """Return the arguments of the program, without the last one, the name of the output file."""
    words = [word for name in manifest.arguments for word in _format_values(parameters.get(name))]
    return [END_OF_OPTIONS, *words] if manifest.separator else words


def build_environment(manifest: Manifest, parameters: Mapping[str, Any], work_dir: Path) -> dict[str, str]:
    """Return all environment variables of the program."""
    home = str(work_dir)
    variables = {
        variable: _format_value(parameters[name])
        for variable, name in manifest.environment.items()
        if parameters.get(name) is not None
    }
    return {**variables, "PATH": DEFAULT_PATH, "LANG": "C.UTF-8", "HOME": home, "TMPDIR": home}


def find_argument_errors(manifest: Manifest, parameters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a JSON pointer and a detail for each parameter that is valid in its schema but not as an argument."""
    for name, value in parameters.items():
        words = _format_values(value)
        for index, word in enumerate(words):
            path = f"/{escape_pointer(name)}/{index}" if isinstance(value, list) else f"/{escape_pointer(name)}"
            if len(word.encode(errors="replace")) > MAX_ARGUMENT_BYTES:
                yield path, f"An argument must be at most {MAX_ARGUMENT_BYTES} bytes."
            if "\0" in word:
                yield path, "An argument must not contain NUL."
            if word.startswith("-") and name in manifest.arguments and not manifest.separator:
                yield path, "An argument must not begin with '-', because the program would treat it as an option."


def _format_values(value: Any) -> list[str]:
    if value is None:
        return []
    return [_format_value(each) for each in value] if isinstance(value, list) else [_format_value(value)]


def _format_value(value: Any) -> str:
    """Return a string unchanged, any other value as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
