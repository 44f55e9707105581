"""Registry of treatment tasks: modules of this server, and modules that other packages install.

A module defines the parameters of the task (`PARAMETERS`, the properties of a JSON Schema with their defaults), the
start request (`prepare_request`) and the processing of a result (`process_results`). Modules of other packages are
entry points of the group `open_event.tasks`; the name of the entry point is the name of the task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, NamedTuple, Protocol

import structlog

from app.jobs.kinds import get_secret_names
from app.jobs.records import JobRow

ENTRY_POINT_GROUP = "open_event.tasks"

log = structlog.get_logger(__name__)


class RequestDocument(NamedTuple):
    """A document in a start request; `src` is a URL that is valid until the job ends."""

    type: str
    src: str
    uid: str


@dataclass(frozen=True)
class Payload:
    """A result file: its job, its document, and its parsed JSON."""

    job: JobRow
    doc_id: str
    content: Any


class InvalidResult(Exception):
    """The content is not valid for the task; the message has the reason and becomes a warning of the job."""


class Task(Protocol):
    """Interface of a task module; the first line of its docstring is its title."""

    PARAMETERS: Mapping[str, Mapping[str, Any]]
    """JSON Schema of each parameter, by name."""

    def prepare_request(self, documents: Sequence[RequestDocument], job: JobRow) -> Mapping[str, Any]:
        """Return `documents` and further members of the start request; raise JobFailed when there is nothing to do."""

    def process_results(self, payload: Payload, completed: bool) -> None:
        """Store a result in the current transaction and replace earlier ones of the document; raise InvalidResult."""


BUILTIN_TASKS: dict[str, Task] = {}
"""Tasks of this server, by name."""


@cache
def load_tasks() -> dict[str, Task]:
    """Return all tasks by name; log and skip those that cannot be imported."""
    tasks = dict(BUILTIN_TASKS)
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            tasks[entry.name] = _check_task(entry.load())
        except Exception:  # a module of another package may raise any exception; the server starts without it
            log.exception("task import failed", task=entry.name)
    return tasks


def _check_task(task: Task) -> Task:
    if get_secret_names({"properties": task.PARAMETERS}):
        raise TypeError("PARAMETERS must not have secrets, because treatments cannot store them encrypted")
    return task


def get_parameter_schemas(task: Task) -> dict[str, Any]:
    """Return a copy of the JSON Schemas of the parameters of a task."""
    return {name: dict(schema) for name, schema in task.PARAMETERS.items()}


def add_defaults(task: Task, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the default of each parameter, overridden by the given ones."""
    defaults = {name: schema["default"] for name, schema in task.PARAMETERS.items() if "default" in schema}
    return {**defaults, **given}
