"""Parser of the blueprint's sources that lists actions and transactions, independent of drafter."""

import re
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = Path(__file__).resolve().parents[2] / "docs" / "api-blueprint"
SOURCE = DIRECTORY / "api_blueprint_source.apib"

_INCLUDE = re.compile(r"<!-- include\((.+?)\) -->")
_RESOURCE = re.compile(r"## .+ \[(/\S*)\]")
_ACTION = re.compile(r"### (.+) \[([A-Z]+)\]")


@dataclass(frozen=True)
class Action:
    """One method of one URL template, with its heading."""

    title: str
    method: str
    template: str

    @property
    def path(self) -> str:
        """Return the template with unnamed variables and without a query."""
        return strip_parameter_names(self.template)


@dataclass(frozen=True)
class BlueprintExample:
    """A documented request and its response; the title is unique in its action."""

    action: Action
    title: str

    def __str__(self) -> str:
        return f"{self.action.method} {self.action.path}: {self.title}"


def strip_parameter_names(template: str) -> str:
    """`/v1/users/{id}{?sort}` and `/v1/users/<id>/` are both `/v1/users/{}`."""
    path = re.sub(r"\{\?[^}]*\}", "", template).rstrip("/")
    return re.sub(r"\{[^}]*\}|<[^>]*>", "{}", path)


def list_files() -> list[Path]:
    """Return the root file of the blueprint and the files that it includes, in order."""
    return [SOURCE, *(DIRECTORY / name for name in _INCLUDE.findall(SOURCE.read_text()))]


def read_blueprint() -> str:
    """Return the complete blueprint as one text."""
    return _INCLUDE.sub(lambda found: (DIRECTORY / found[1]).read_text(), SOURCE.read_text())


def list_actions() -> list[Action]:
    """Return all actions in order, including those without a response."""
    return list(dict.fromkeys(action for action, _line in _iterate_action_lines()))


def list_examples() -> list[BlueprintExample]:
    """Return all requests with a response, in order."""
    found, title = [], ""
    for action, line in _iterate_action_lines():
        if line.startswith("+ Request "):
            title = line.removeprefix("+ Request ").partition(" (")[0]
        elif line.startswith("+ Response "):
            found.append(BlueprintExample(action, title))
            title = ""
    return found


def _iterate_action_lines() -> list[tuple[Action, str]]:
    """Return all lines inside actions, each with its action."""
    template, action, lines = "", None, []
    for line in read_blueprint().splitlines():
        if resource := _RESOURCE.fullmatch(line):
            template, action = resource[1], None
        elif line.startswith("# "):
            action = None
        elif heading := _ACTION.fullmatch(line):
            action = Action(heading[1], heading[2], template)
        if action:
            lines.append((action, line))
    return lines
