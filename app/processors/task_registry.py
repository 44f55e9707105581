"""What a processor can be asked to do: each task is a module, one of ours or of a package that is installed beside us.

A module says what the task takes (`PARAMETERS`, the properties of a JSON Schema with their defaults), what is sent
(`prepare_request`) and what becomes of a result (`process_results`). Others are found by the entry point group
`open_event.tasks`, as their name there.
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
    """A document as the processor is told of it; `src` can be fetched as long as the job lives."""

    type: str
    src: str
    uid: str


@dataclass(frozen=True)
class Payload:
    """One result file: of which job and document, and the JSON in it."""

    job: JobRow
    doc_id: str
    content: Any


class InvalidResult(Exception):
    """The content is not what the task makes; the message says why, and becomes a warning of the job."""


class Task(Protocol):
    """A module that is a task; the first line of its docstring is its title."""

    PARAMETERS: Mapping[str, Mapping[str, Any]]
    """The schema of each parameter, by name."""

    def prepare_request(self, documents: Sequence[RequestDocument], job: JobRow) -> Mapping[str, Any]:
        """`documents` to be sent, and the parameters beside them; raises JobFailed when there is nothing to do."""

    def process_results(self, payload: Payload, completed: bool) -> None:
        """Store a result in the current transaction, in place of what was stored of the document; raises Unfit."""


BUILTIN_TASKS: dict[str, Task] = {}
"""Ours, by name."""


@cache
def load_tasks() -> dict[str, Task]:
    """All tasks by name; one that cannot be imported is told of in the log, and is none."""
    found = dict(BUILTIN_TASKS)
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            found[entry.name] = _check_task(entry.load())
        except Exception:  # somebody else's module may raise anything; the server starts without it
            log.exception("task not loaded", task=entry.name)
    return found


def _check_task(task: Task) -> Task:
    if get_secret_names({"properties": task.PARAMETERS}):
        raise TypeError("PARAMETERS have secrets, which treatments cannot keep")
    return task


def get_parameter_schemas(task: Task) -> dict[str, Any]:
    """The schemas of its parameters."""
    return {name: dict(schema) for name, schema in task.PARAMETERS.items()}


def add_defaults(task: Task, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, over what each parameter is by default."""
    defaults = {name: schema["default"] for name, schema in task.PARAMETERS.items() if "default" in schema}
    return {**defaults, **given}
