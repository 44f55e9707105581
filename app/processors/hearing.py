"""What the processor says becomes what the job is: forward only, each thing once, in the order of its arrival.

All of this happens in one transaction that holds the job.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Text, Uuid, bindparam, func, select, update

from app.database import Prepared
from app.jobs import consequences, lifecycle
from app.jobs.models import CANCELING, ENDED, JobEvent
from app.jobs.records import JobRow
from app.processors import remote, results
from app.processors.models import Callback
from app.processors.remote import Run

BY_THE_PROCESSOR = "processor-error"
MOST_WORDS = 2_000
"""Characters of what it says that are kept."""

_callbacks, _events = Callback.__table__, JobEvent.__table__
_IS_OPEN = (_callbacks.c.job_id == bindparam("job_id", type_=Uuid), _callbacks.c.applied_at.is_(None))
_open = Prepared(
    select(_callbacks.c.id, _callbacks.c.event, _callbacks.c.payload)
    .where(*_IS_OPEN, _callbacks.c.attempt == bindparam("attempt", type_=BigInteger))
    .order_by(_callbacks.c.id)
)
_warned = Prepared(
    select(_events.c.seq)
    .where(
        _events.c.job_id == bindparam("job_id", type_=Uuid),
        _events.c.level == "warning",
        _events.c.message == bindparam("words", type_=Text),
    )
    .limit(1)
)
_close = Prepared(
    update(Callback).where(_callbacks.c.id == bindparam("id", type_=BigInteger)).values(applied_at=func.now())
)


def hear(job_id: UUID, attempt: int) -> None:
    """Apply what was called back and not applied yet; before the start has been answered, it waits for that."""
    held = held_run(job_id, attempt)
    if held is None:
        return
    for id_, event, payload in _open.rows({"job_id": job_id, "attempt": attempt}):
        apply(job_id, event, payload)
        _close.run({"id": id_})  # each by itself: others may have come since they were read


def held_run(job_id: UUID, attempt: int) -> tuple[JobRow, Run] | None:
    """A job that has not ended and its run at the processor, nobody else's until this transaction ends."""
    job = lifecycle.locked(job_id)
    if job is None or job.attempt != attempt or job.state in ENDED:
        return None
    run = remote.run_of(job)
    return None if run is None or run.tracking_id is None else (job, run)


def apply(job_id: UUID, event: str, payload: Mapping[str, Any]) -> None:
    """Let one word of the processor count; after the end none does."""
    job = lifecycle.locked(job_id)
    if job is not None and job.state not in ENDED:
        EVENTS[event](job, remote.hear(job), payload)


def _started(job: JobRow, _run: Run, payload: Mapping[str, Any]) -> None:
    lifecycle.hear(job, _words(payload) or "The processor has begun.", fraction=_fraction(payload))


def _progress(job: JobRow, run: Run, payload: Mapping[str, Any]) -> None:
    if run.completed_at is not None:
        return  # late: all that it names was named at the end
    lifecycle.hear(job, _words(payload), fraction=_fraction(payload))
    _take_output(job, payload, final=False)


def _success(job: JobRow, run: Run, payload: Mapping[str, Any]) -> None:
    if run.completed_at is not None:
        return
    remote.complete(job)
    lifecycle.hear(job, _words(payload) or "The processor is done; its results are fetched.", finalizing=True)
    _take_output(job, payload, final=True)
    results.finish(job)


def _error(job: JobRow, run: Run, payload: Mapping[str, Any]) -> None:
    words = _words(payload) or _error_words(payload) or "The processor gives no reason."
    if run.completed_at is not None:
        lifecycle.hear(job, f"After its SUCCESS, which counts, the processor said ERROR: {words}", level="warning")
    elif payload.get("completed", True):
        _take_output(job, payload, final=False)
        end(lifecycle.fail(job, BY_THE_PROCESSOR, words))
    else:
        lifecycle.hear(job, words, level="warning")
        _take_output(job, payload, final=False)


def _canceled(job: JobRow, run: Run, _payload: Mapping[str, Any]) -> None:
    if run.completed_at is None:
        if job.state != CANCELING:
            lifecycle.hear(job, "The processor canceled this by itself.", level="warning")
        end(lifecycle.canceled(job))


EVENTS: Mapping[str, Callable[[JobRow, Run, Mapping[str, Any]], None]] = {
    "STARTED": _started,
    "PROGRESS": _progress,
    "SUCCESS": _success,
    "ERROR": _error,
    "CANCELLED": _canceled,
    "CANCELED": _canceled,
}


def end(job: JobRow | None) -> None:
    """What follows from the end of a job."""
    if job is not None:
        consequences.follow(job)


def _take_output(job: JobRow, payload: Mapping[str, Any], *, final: bool) -> None:
    output = payload.get("output") or {}
    for words in dict.fromkeys(each[:MOST_WORDS] for each in _said_errors(output.get("error"))):
        if not _warned.rows({"job_id": job.id, "words": words}):  # processors repeat all of them each time
            lifecycle.hear(job, words, level="warning")
    results.order(job, output.get("results_url") or [], final=final)


def _said_errors(errors: Any) -> Iterator[str]:
    """What stands in `output.error`: a text, or a list of what may be anything."""
    listed = errors if isinstance(errors, list) else [errors] if errors else []
    for each in listed[:20]:
        yield each if isinstance(each, str) else str(each)


def _words(payload: Mapping[str, Any]) -> str | None:
    return (payload.get("message") or "")[:MOST_WORDS] or None


def _error_words(payload: Mapping[str, Any]) -> str:
    return " ".join(_said_errors(payload.get("error")))[:MOST_WORDS]


def _fraction(payload: Mapping[str, Any]) -> float | None:
    fraction = payload.get("fraction")
    return None if fraction is None else min(max(float(fraction), 0.0), 1.0)
