"""The progress of a run as clients of the work queue know it: one JSON array, streamed element by element."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson
from flask import request

from app.jobs import lifecycle
from app.jobs.models import CANCELED, FAILED, SUCCEEDED, TERMINAL_STATES
from app.jobs.notify_hub import current_hub
from app.jobs.progress_stream import (
    KEEP_ALIVE_INTERVAL_SECONDS,
    POLL_INTERVAL_SECONDS,
    ProgressEvent,
    StreamBody,
    list_events_after,
)
from app.jobs.queue_position import get_queue_position
from app.jobs.records import JobRow
from app.jsonapi.current_user import ANONYMOUS_USER
from app.slots import SlotPool, caller_holders

MAX_STREAMS = 60
"""Of one process: clients without an account must leave some for those who have one."""

MAX_STREAMS_PER_ADDRESS = 20

DEFAULT_ERRORS = {FAILED: "It failed.", CANCELED: "It was canceled."}
"""Where nothing more is known."""

_slots = SlotPool(MAX_STREAMS, MAX_STREAMS_PER_ADDRESS)


class ProgressElement(NamedTuple):
    """An element, with the names of the original."""

    n_ahead_in_queue: int = 0
    fraction: float = 0.0
    message: str | None = None
    returncode: int | None = None
    error: str | None = None


class ProgressStream(StreamBody):
    """What a run says from its present state to its end; nothing for one that had succeeded before."""

    def __init__(self, job: JobRow) -> None:
        self._slot = current_hub().take_slot(_slots, *caller_holders(request.remote_addr))
        self.job_id = job.id
        self.seq = max(job.last_seq - 1, 0)
        try:
            super().__init__(ANONYMOUS_USER, job.id)
        except BaseException:
            _slots.release(self._slot)
            raise

    def close(self) -> None:
        """Called by the server, also when the client has gone away; the run goes on."""
        super().close()
        _slots.release(self._slot)

    def _should_continue(self) -> bool:
        """Nobody has signed in who could log out."""
        return not self.watcher.hub.is_stopping

    def _write_chunks(self) -> Iterator[str]:
        separator = "["
        for progress in self._until_database_error(self._generate_progress()):
            if progress is None:
                yield " "
                continue
            yield separator + orjson.dumps(progress._asdict()).decode()
            separator = ","
        yield "]" if separator == "," else "[]"

    def _generate_progress(self) -> Iterator[ProgressElement | None]:
        ahead = None
        while self._should_continue():
            found = self._read(self._read_events)
            if found is None:
                yield None
                continue
            waits, elements, job = found
            if job is None:
                return
            if waits is not None and waits != ahead:
                ahead = waits
                yield ProgressElement(waits, job.progress or 0.0, job.message)
            yield from self._build_progress_elements(elements, job)
            if elements and elements[-1].state in TERMINAL_STATES:
                return
            if not self.watcher.wait_for_change(
                KEEP_ALIVE_INTERVAL_SECONDS if waits is None else POLL_INTERVAL_SECONDS
            ):
                yield None

    def _read_events(self) -> tuple[int | None, list[ProgressEvent], JobRow | None]:
        """The place in the queue, the events since, and the job.

        Each statement by itself: what begins or ends in between is whole in what is read last.
        """
        waits = get_queue_position(self.job_id)
        elements = list_events_after(self.job_id, self.seq)
        return waits, elements, lifecycle.get_job(self.job_id)

    def _build_progress_elements(self, elements: list[ProgressEvent], job: JobRow) -> Iterator[ProgressElement]:
        for element in elements:
            self.seq = element.seq
            is_end = element.state in TERMINAL_STATES
            yield (
                _build_final_element(element, job)
                if is_end
                else ProgressElement(0, element.fraction or 0.0, element.message)
            )


def _build_final_element(element: ProgressEvent, job: JobRow) -> ProgressElement:
    """The last element: how the program ended, and what it said of why."""
    if element.state == SUCCEEDED:
        return ProgressElement(0, 1.0, None, 0)
    error: dict[str, Any] = job.error or {}
    why = error.get("stderr") or error.get("detail") or DEFAULT_ERRORS[element.state]
    return ProgressElement(0, element.fraction or 0.0, element.message, error.get("returncode"), why)
