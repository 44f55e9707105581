"""Kinds of jobs for treatment tasks: one per task, available when the server has a processor."""

from collections.abc import Iterator
from functools import cache, partial

from flask import current_app

from app.jobs.kinds import KINDS, Kind, resource_id_schema
from app.jobs.records import JobRow
from app.processors import callbacks, polling
from app.processors.run_start import DOCUMENT_SET_PARAMETER, start_run
from app.processors.task_registry import BUILTIN_TASKS, get_parameter_schemas, load_tasks
from app.treatments import job_creation, notifications
from app.treatments.tasks import regions, similarity


class TaskKindProvider:
    """Provider of the kinds of treatment tasks."""

    def find_kind(self, name: str) -> Kind | None:
        """Return the kind of the task with this name, None when there is no such task."""
        return _build_kind(name) if name in load_tasks() else None

    def list_names(self) -> Iterator[str]:
        """Yield the names of all tasks."""
        yield from load_tasks()


def _has_processor() -> bool:
    return bool(current_app.config["PROCESSOR_URL"])


def _handle_end(job: JobRow) -> None:
    notifications.enqueue_mail(job)
    callbacks.schedule_cleanup(job)


@cache
def _build_kind(name: str) -> Kind:
    task = load_tasks()[name]
    schema = {
        "type": "object",
        "properties": {DOCUMENT_SET_PARAMETER: resource_id_schema("document-set"), **get_parameter_schemas(task)},
        "required": [DOCUMENT_SET_PARAMETER],
        "additionalProperties": False,
    }
    return Kind(
        name,
        partial(start_run, name, task),
        schema,
        title=(task.__doc__ or name).partition("\n")[0],
        runner="external",
        time_limit=polling.MAX_RUN_DURATION,
        is_available=_has_processor,
        created_by="treatment",
        on_end=_handle_end,
        on_cancel=polling.request_cancel,
        on_retry=job_creation.relaunch_treatment,
    )


BUILTIN_TASKS.update(regions=regions, similarity=similarity)
KINDS.sources.append(TaskKindProvider())
