"""The progress of a run as clients of the work queue know it: one JSON array, streamed element by element."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson
from flask import request

from app.jobs import lifecycle
from app.jobs.models import CANCELED, ENDED, FAILED, SUCCEEDED
from app.jobs.progress import KEEP_ALIVE, LOOK_SECONDS, Element, Stream, elements_after
from app.jobs.queue import place
from app.jobs.records import JobRow
from app.jobs.watching import current_hub
from app.jsonapi.viewer import ANONYMOUS
from app.slots import SlotPool, caller_holders

MOST_STREAMS = 60
"""Of one process: clients without an account must leave some for those who have one."""

MAX_STREAMS_PER_ADDRESS = 20

WORDS = {FAILED: "It failed.", CANCELED: "It was canceled."}
"""Where nothing more is known."""

_slots = SlotPool(MOST_STREAMS, MAX_STREAMS_PER_ADDRESS)


class Progress(NamedTuple):
    """An element, with the names of the original."""

    n_ahead_in_queue: int = 0
    fraction: float = 0.0
    message: str | None = None
    returncode: int | None = None
    error: str | None = None


class ProgressStream(Stream):
    """What a run says from its present state to its end; nothing for one that had succeeded before."""

    def __init__(self, job: JobRow) -> None:
        self._slot = current_hub().take_slot(_slots, *caller_holders(request.remote_addr))
        self.job_id = job.id
        self.seq = max(job.last_seq - 1, 0)
        try:
            super().__init__(ANONYMOUS, job.id)
        except BaseException:
            _slots.release(self._slot)
            raise

    def close(self) -> None:
        """Called by the server, also when the client has gone away; the run goes on."""
        super().close()
        _slots.release(self._slot)

    def _goes_on(self) -> bool:
        """Nobody has signed in who could log out."""
        return not self.watcher.hub.is_stopping

    def _write(self) -> Iterator[str]:
        separator = "["
        for progress in self._while_it_can(self._news()):
            if progress is None:
                yield " "
                continue
            yield separator + orjson.dumps(progress._asdict()).decode()
            separator = ","
        yield "]" if separator == "," else "[]"

    def _news(self) -> Iterator[Progress | None]:
        ahead = None
        while self._goes_on():
            with self._reading():  # each by itself: what begins or ends in between is whole in what is read last
                waits = place(self.job_id)
                elements = elements_after(self.job_id, self.seq)
                job = lifecycle.found(self.job_id)
            if job is None:
                return
            if waits is not None and waits != ahead:
                ahead = waits
                yield Progress(waits, job.progress or 0.0, job.message)
            yield from self._told(elements, job)
            if elements and elements[-1].state in ENDED:
                return
            if not self.watcher.wait(KEEP_ALIVE if waits is None else LOOK_SECONDS):
                yield None

    def _told(self, elements: list[Element], job: JobRow) -> Iterator[Progress]:
        for element in elements:
            self.seq = element.seq
            is_end = element.state in ENDED
            yield _ended(element, job) if is_end else Progress(0, element.fraction or 0.0, element.message)


def _ended(element: Element, job: JobRow) -> Progress:
    """The last element: how the program ended, and what it said of why."""
    if element.state == SUCCEEDED:
        return Progress(0, 1.0, None, 0)
    error: dict[str, Any] = job.error or {}
    why = error.get("stderr") or error.get("detail") or WORDS[element.state]
    return Progress(0, element.fraction or 0.0, element.message, error.get("returncode"), why)
