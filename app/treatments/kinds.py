"""Each task that is installed is a kind of job, where the server has a processor."""

from collections.abc import Iterator
from functools import cache, partial

from flask import current_app

from app.jobs.kinds import KINDS, Kind, id_of
from app.jobs.records import JobRow
from app.processors import asking, callbacks
from app.processors.modules import TASKS, installed, properties
from app.processors.starting import DOCUMENT_SET, start
from app.treatments import launching, mailing
from app.treatments.tasks import regions, similarity


class Tasks:
    """A source of kinds."""

    def find(self, name: str) -> Kind | None:
        """The kind that has the name of a task."""
        return _kind(name) if name in installed() else None

    def names(self) -> Iterator[str]:
        """Of all tasks."""
        yield from installed()


def _has_processor() -> bool:
    return bool(current_app.config["PROCESSOR_URL"])


def _end(job: JobRow) -> None:
    mailing.tell(job)
    callbacks.order_clearing(job)


@cache
def _kind(name: str) -> Kind:
    task = installed()[name]
    schema = {
        "type": "object",
        "properties": {DOCUMENT_SET: id_of("document-set"), **properties(task)},
        "required": [DOCUMENT_SET],
        "additionalProperties": False,
    }
    return Kind(
        name,
        partial(start, name, task),
        schema,
        title=(task.__doc__ or name).partition("\n")[0],
        runner="external",
        time_limit=asking.LONGEST,
        offered=_has_processor,
        part_of="treatment",
        ended=_end,
        asked_to_end=asking.ask_to_cancel,
        again=launching.again,
    )


TASKS.update(regions=regions, similarity=similarity)
KINDS.sources.append(Tasks())
