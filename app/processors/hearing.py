"""What the processor says becomes what the job is: forward only, each thing once, in the order of its arrival.

All of this happens in transactions that hold the job.
"""

from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import BigInteger, Text, Uuid, bindparam, func, select, update

from app.database import Prepared
from app.errors import is_outage
from app.extensions import db
from app.jobs import consequences, lifecycle
from app.jobs.models import CANCELING, ENDED, JobEvent
from app.jobs.records import JobRow
from app.processors import remote, results
from app.processors.models import Callback
from app.processors.remote import APPLY, Run

BY_THE_PROCESSOR = "processor-error"
MOST_WORDS = 2_000
"""Characters of what it says that are kept."""

AT_ONCE = 0.5
"""Seconds for which the job is held to hear: whoever else wants it, or calls back, waits for 2 s (`lock_timeout`)."""

log = structlog.get_logger(__name__)

_callbacks, _events = Callback.__table__, JobEvent.__table__
_IS_OPEN = (_callbacks.c.job_id == bindparam("job_id", type_=Uuid), _callbacks.c.applied_at.is_(None))
_next = Prepared(  # one at a time: each may be as large as a body
    select(_callbacks.c.id, _callbacks.c.event, _callbacks.c.payload)
    .where(*_IS_OPEN, _callbacks.c.attempt == bindparam("attempt", type_=BigInteger))
    .order_by(_callbacks.c.id)
    .limit(1)
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
_last = Prepared(
    select(_events.c.fraction, _events.c.message).where(
        _events.c.job_id == bindparam("job_id", type_=Uuid), _events.c.seq == bindparam("seq", type_=BigInteger)
    )
)
_close = Prepared(
    update(Callback).where(_callbacks.c.id == bindparam("id", type_=BigInteger)).values(applied_at=func.now())
)


def hear(job_id: UUID, attempt: int) -> bool:
    """Apply what was called back and not applied yet, and order the rest when that takes long; whether it was all.

    Before the start has been answered, it waits for that.
    """
    held = held_run(job_id, attempt)
    if held is None:
        return False
    until = monotonic() + AT_ONCE
    while monotonic() < until:
        if not _hear_next(held[0]):
            return True
    remote.order(APPLY, held[0])
    return False


def _hear_next(job: JobRow) -> bool:
    """Apply what was called back first of all that was not applied yet; False where there is nothing."""
    found = _next.rows({"job_id": job.id, "attempt": job.attempt})
    for id_, event, payload in found:
        _apply_or_warn(job, event, payload)
        _close.run({"id": id_})
    return bool(found)


def _apply_or_warn(job: JobRow, event: str, payload: Mapping[str, Any]) -> None:
    """One that we cannot apply must not keep all that follow it from being heard."""
    try:
        with db.session.begin_nested():
            apply(job.id, event, payload)
    except Exception as error:
        if is_outage(error):
            raise
        log.exception("callback not applied", event_word=event)
        words = f"A word of the processor ({event}) is passed over: this is our fault ({type(error).__name__})."
        lifecycle.hear(job, words, level="warning")


def tell(job_id: UUID, attempt: int) -> None:
    """Let what was last said of its progress become an event, where none has come after it."""
    held = held_run(job_id, attempt)
    if held is None or not held[1].untold or held[1].completed_at is not None or not remote.tell(held[0]):
        return
    job = held[0]
    ((progress, message),) = _last.rows({"job_id": job.id, "seq": job.last_seq})
    if (progress, message) != (job.progress, job.message):
        lifecycle.hear(job, job.message)


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
    words, fraction = _words(payload), _fraction(payload)
    if remote.tell(job):
        lifecycle.hear(job, words, fraction=fraction)
    else:  # as of functions, not all that is said becomes an event
        lifecycle.note(job, words, fraction)
        remote.tell_later(job)
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
    faults = [each[:MOST_WORDS] for each in _said_errors(output.get("error"))]
    if not results.order(job, output.get("results_url") or [], final=final):
        faults.append(f"Of all its results only {results.MOST_FILES} are fetched.")
    for words in dict.fromkeys(faults):
        if not _warned.rows({"job_id": job.id, "words": words}):  # processors repeat all of them each time
            lifecycle.hear(job, words, level="warning")


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
