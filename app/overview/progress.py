"""Progress of a job in the format of the work queue: one JSON array, streamed element by element."""

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
"""Maximum streams of a process: less than the limit of the hub, so that anonymous clients leave some for users."""

MAX_STREAMS_PER_ADDRESS = 20

DEFAULT_ERRORS = {FAILED: "It failed.", CANCELED: "It was canceled."}
"""Errors by state, for a job that has no error of its own."""

_slots = SlotPool(MAX_STREAMS, MAX_STREAMS_PER_ADDRESS)


class ProgressElement(NamedTuple):
    """An element of the array, with the member names of the work queue."""

    n_ahead_in_queue: int = 0
    fraction: float = 0.0
    message: str | None = None
    returncode: int | None = None
    error: str | None = None


class ProgressStream(StreamBody):
    """Body of a response that streams the progress of a job from its current state to its end."""

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
        """Release the slot; the WSGI server calls this also after a disconnect. The job goes on."""
        super().close()
        _slots.release(self._slot)

    def _should_continue(self) -> bool:
        """Return whether the server is not stopping; anonymous clients have no session that could end."""
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
        last_position = None
        while self._should_continue():
            found = self._read(self._read_events)
            if found is None:
                yield None
                continue
            position, elements, job = found
            if job is None:
                return
            if position is not None and position != last_position:
                last_position = position
                yield ProgressElement(position, job.progress or 0.0, job.message)
            yield from self._build_progress_elements(elements, job)
            if elements and elements[-1].state in TERMINAL_STATES:
                return
            if not self.watcher.wait_for_change(
                KEEP_ALIVE_INTERVAL_SECONDS if position is None else POLL_INTERVAL_SECONDS
            ):
                yield None

    def _read_events(self) -> tuple[int | None, list[ProgressEvent], JobRow | None]:
        """Return the queue position, the events since the last call, and the job.

        The job is read last: it is at least as new as the position and the events.
        """
        position = get_queue_position(self.job_id)
        elements = list_events_after(self.job_id, self.seq)
        return position, elements, lifecycle.get_job(self.job_id)

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
    """Return the last element: the exit status of the program and, if it failed, its error."""
    if element.state == SUCCEEDED:
        return ProgressElement(0, 1.0, None, 0)
    error: dict[str, Any] = job.error or {}
    reason = error.get("stderr") or error.get("detail") or DEFAULT_ERRORS[element.state]
    return ProgressElement(0, element.fraction or 0.0, element.message, error.get("returncode"), reason)
