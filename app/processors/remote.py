"""The rows of what a processor was asked, and the tokens with which it calls back."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from flask import current_app
from sqlalchemy import BigInteger, LargeBinary, Text, Uuid, bindparam, delete, func, insert, or_, select, update

from app import outbox, signatures
from app.database import Prepared, connection
from app.documents.expansion import Document
from app.jobs.context import REPORTS_A_SECOND
from app.jobs.records import JobRow
from app.processors.models import JobDocument, RemoteRun
from app.url_tokens import token_hash

APPLY, TELL, POLL, CANCEL, CANCEL_DEADLINE, FETCH, CLEAR = (
    f"processors.{name}" for name in ("apply", "tell", "poll", "cancel", "cancel-deadline", "fetch", "clear")
)
"""The consumers, told of a job and its attempt; FETCH of a result file."""

_runs, _documents = RemoteRun.__table__, JobDocument.__table__
_MINE = (
    _runs.c.job_id == bindparam("job_id", type_=Uuid),
    _runs.c.attempt == bindparam("attempt", type_=BigInteger),
)


class Run(NamedTuple):
    """A row of `remote_runs`: the columns of `models.RemoteRun`, in their order (a test compares them)."""

    job_id: UUID
    attempt: int
    task: str
    token_hash: bytes
    tracking_id: str | None
    created_at: datetime
    begun_at: datetime | None
    heard_at: datetime
    unanswered: int
    completed_at: datetime | None
    told_at: datetime | None
    untold: bool


_run = Prepared(select(*_runs.c).where(*_MINE))
_begin = Prepared(
    insert(RemoteRun).values(
        {
            "job_id": bindparam("job_id", type_=Uuid),
            "attempt": bindparam("attempt", type_=BigInteger),
            "task": bindparam("task", type_=Text),
            "token_hash": bindparam("token_hash", type_=LargeBinary),
            "untold": False,
        }
    )
)
_track = Prepared(
    update(RemoteRun).where(*_MINE).values(tracking_id=bindparam("tracking_id", type_=Text), heard_at=func.now())
)
_heard = Prepared(
    update(RemoteRun)
    .where(*_MINE)
    .values(heard_at=func.now(), unanswered=0, begun_at=func.coalesce(_runs.c.begun_at, func.now()))
    .returning(*_runs.c)
)
_alive = Prepared(update(RemoteRun).where(*_MINE).values(heard_at=func.now(), unanswered=0))
_unanswered = Prepared(
    update(RemoteRun).where(*_MINE).values(unanswered=_runs.c.unanswered + 1).returning(_runs.c.unanswered)
)
_complete = Prepared(update(RemoteRun).where(*_MINE).values(completed_at=func.now()))
_BETWEEN_REPORTS = timedelta(seconds=1 / REPORTS_A_SECOND)
_is_due = or_(_runs.c.told_at.is_(None), _runs.c.told_at <= func.now() - _BETWEEN_REPORTS)
_tell = Prepared(
    update(RemoteRun).where(*_MINE, _is_due).values(told_at=func.now(), untold=False).returning(_runs.c.job_id)
)
_leave = Prepared(
    update(RemoteRun).where(*_MINE, _runs.c.untold.is_(False)).values(untold=True).returning(_runs.c.job_id)
)


def run_of(job: JobRow) -> Run | None:
    """What the processor has of the present attempt of a job."""
    return next((Run(*row) for row in _run.rows(_key(job))), None)


def begin(job: JobRow, task: str, token: str, documents: Sequence[Document]) -> None:
    """Write down what the processor is about to be asked: it may call back before it has answered."""
    _begin.run({**_key(job), "task": task, "token_hash": token_hash(token)})
    connection().execute(delete(JobDocument).where(_documents.c.job_id == job.id))  # of the attempt before
    rows = [
        {**document._asdict(), "job_id": job.id, "position": position} for position, document in enumerate(documents)
    ]
    connection().execute(insert(JobDocument), rows)


def track(job: JobRow, tracking_id: str) -> None:
    """Write down the name that the processor has given to the run."""
    _track.run({**_key(job), "tracking_id": tracking_id})


def hear(job: JobRow) -> Run:
    """Note that the processor is at work, and has just said so."""
    (row,) = _heard.rows(_key(job))
    return Run(*row)


def hear_alive(job_id: UUID, attempt: int) -> None:
    """Note that the processor knows of a run, whatever it says of it."""
    _alive.run({"job_id": job_id, "attempt": attempt})


def count_silence(job: JobRow) -> int:
    """Note a question without an answer; how many there were in a row."""
    ((unanswered,),) = _unanswered.rows(_key(job))
    return int(unanswered)


def complete(job: JobRow) -> None:
    """Note that the processor is done."""
    _complete.run(_key(job))


def tell(job: JobRow) -> bool:
    """Note that what it says of its progress becomes an event now; False while the last one is too new for that."""
    return bool(_tell.rows(_key(job)))


def tell_later(job: JobRow) -> None:
    """Order that what it has said of its progress by then becomes an event, once that may be."""
    if _leave.rows(_key(job)):
        order(TELL, job, delay=_BETWEEN_REPORTS)


def callback_url(job: JobRow, token: str) -> str:
    """Where the processor calls back: whoever knows it can."""
    return f"{current_app.config['PUBLIC_URL']}/v1/jobs/{job.id}/callback?token={token}"


def signing(job_id: UUID, attempt: int, hashed_token: bytes) -> bytes:
    """What the secret of the callbacks of an attempt is about."""
    return b"processors.callback\n%s\n%d\n" % (str(job_id).encode(), attempt) + hashed_token


def secret(job: JobRow, token: str) -> str:
    """With which the processor may sign its callbacks."""
    return signatures.secret(signing(job.id, job.attempt, token_hash(token)))


def order(consumer: str, job: JobRow, *, delay: timedelta = timedelta(0)) -> None:
    """Order something to be done about an attempt."""
    outbox.order(consumer, f"job.{job.state}", {"job_id": str(job.id), "attempt": job.attempt}, delay=delay)


def poll_pause() -> timedelta:
    """How long the processor may be silent before it is asked."""
    return timedelta(seconds=current_app.config["PROCESSOR_POLL_SECONDS"])


def _key(job: JobRow) -> dict[str, Any]:
    return {"job_id": job.id, "attempt": job.attempt}
