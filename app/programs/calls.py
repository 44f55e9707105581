"""How a program is called: its arguments and its environment, made of the parameters of a job."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from app.jsonapi.body import escaped
from app.programs.manifest import LONGEST_ARGUMENT, Manifest

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


SEPARATOR = "--"
"""Ends the options of a command line, by convention of POSIX."""


def arguments(manifest: Manifest, parameters: Mapping[str, Any]) -> list[str]:
    """The words after the name of the program, without the last one."""
    words = [word for name in manifest.arguments for word in _words(parameters.get(name))]
    return [SEPARATOR, *words] if manifest.separator else words


def environment(manifest: Manifest, parameters: Mapping[str, Any], work_dir: Path) -> dict[str, str]:
    """All variables that it sees."""
    home = str(work_dir)
    named = {
        variable: _word(parameters[name])
        for variable, name in manifest.environment.items()
        if parameters.get(name) is not None
    }
    return {**named, "PATH": PATH, "LANG": "C.UTF-8", "HOME": home, "TMPDIR": home}


def faults(manifest: Manifest, parameters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where a parameter fits its schema but no command line, and why."""
    for name, value in parameters.items():
        words = _words(value)
        for index, word in enumerate(words):
            path = f"/{escaped(name)}/{index}" if isinstance(value, list) else f"/{escaped(name)}"
            if len(word.encode(errors="replace")) > LONGEST_ARGUMENT:
                yield path, f"An argument has at most {LONGEST_ARGUMENT} bytes."
            if "\0" in word:
                yield path, "An argument holds no NUL."
            if word.startswith("-") and name in manifest.arguments and not manifest.separator:
                yield path, "An argument must not begin with '-': the program would take it for an option."


def _words(value: Any) -> list[str]:
    if value is None:
        return []
    return [_word(each) for each in value] if isinstance(value, list) else [_word(value)]


def _word(value: Any) -> str:
    """Text as it is, anything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
