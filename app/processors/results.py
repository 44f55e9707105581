"""The result files that a processor names, and when all of them are here."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, Text, Uuid, bindparam, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from uuid_utils.compat import uuid7

from app import outbox
from app.database import Prepared
from app.jobs import consequences, lifecycle
from app.jobs.models import ENDED
from app.jobs.records import JobRow
from app.processors import remote
from app.processors.models import PENDING, STORED, ResultFile

PAUSE = timedelta(seconds=2)
"""Before a file is fetched for the second time; twice as long before each time after it."""
MOST_FILES = 10_000
"""Of one attempt."""
LONGEST_DOC_ID = 200

_files = ResultFile.__table__


class File(NamedTuple):
    """A row of `result_files`: the columns of `models.ResultFile`, in their order (a test compares them)."""

    id: UUID
    job_id: UUID
    attempt: int
    number: int
    doc_id: str
    url: str
    final: bool
    state: str
    error: str | None


_OF_JOB = (
    _files.c.job_id == bindparam("job_id", type_=Uuid),
    _files.c.attempt == bindparam("attempt", type_=BigInteger),
)
_SAME = (*_OF_JOB, _files.c.url == bindparam("url", type_=Text))
_numbers = Prepared(select(func.coalesce(func.max(_files.c.number), 0)).where(*_OF_JOB))
_number = func.coalesce(
    select(_files.c.number).where(*_SAME).limit(1).scalar_subquery(),
    select(func.coalesce(func.max(_files.c.number), 0) + 1).where(*_OF_JOB).scalar_subquery(),
)
_name = Prepared(
    insert(ResultFile)
    .values(
        {
            "id": bindparam("id", type_=Uuid),
            "job_id": bindparam("job_id", type_=Uuid),
            "attempt": bindparam("attempt", type_=BigInteger),
            "number": _number,
            "doc_id": bindparam("doc_id", type_=Text),
            "url": bindparam("url", type_=Text),
            "final": bindparam("final", type_=Boolean),
            "state": literal(PENDING),
            "error": None,
        }
    )
    .on_conflict_do_nothing()
    .returning(_files.c.id)
)
_file = Prepared(select(*_files.c).where(_files.c.id == bindparam("id", type_=Uuid)))
_final = Prepared(select(_files.c.id).where(*_SAME, _files.c.final.is_(True), _files.c.state == STORED))
_close = Prepared(
    update(ResultFile)
    .where(_files.c.id == bindparam("id", type_=Uuid), _files.c.state == PENDING)
    .values(state=bindparam("new_state", type_=Text), error=bindparam("new_error", type_=Text))
    .returning(_files.c.id)
)
_is_stored, _is_pending = _files.c.state == STORED, _files.c.state == PENDING
_counts = Prepared(
    select(
        func.count().filter(_is_pending),
        func.count(_files.c.number.distinct()).filter(_is_stored),
        func.count(_files.c.number.distinct()),
    ).where(*_OF_JOB)
)


def order(job: JobRow, named: Sequence[Mapping[str, Any]], *, final: bool) -> None:
    """Have the files fetched that were not named before; the job is held."""
    if not named:
        return
    ((known,),) = _numbers.rows(_key(job))
    for each in named[: MOST_FILES - known]:
        doc_id = str(each.get("doc_id") or "")[:LONGEST_DOC_ID]
        values = {**_key(job), "id": uuid7(), "doc_id": doc_id, "url": each["result_url"], "final": final}
        for (file_id,) in _name.rows(values):
            order_fetch(file_id, 1)
    if len(named) > MOST_FILES - known:
        lifecycle.hear(job, f"Of all its results only {MOST_FILES} are fetched.", level="warning")


def order_fetch(file_id: UUID, time: int) -> None:
    """Have a file fetched, for the first time now, later for the others."""
    delay = PAUSE * 2 ** (time - 2) if time > 1 else timedelta(0)
    outbox.order(remote.FETCH, "result.named", {"id": str(file_id), "time": time}, delay=delay)


def wanted(file_id: UUID) -> tuple[File, JobRow] | None:
    """A file that has not been fetched, and its job, which waits for it."""
    for row in _file.rows({"id": file_id}):
        file = File(*row)
        job = lifecycle.found(file.job_id)
        if file.state == PENDING and job is not None and _is_its_own(job, file):
            return file, job
    return None


def held(file: File) -> JobRow | None:
    """The job of a file, nobody else's until this transaction ends; None where it does not wait any more."""
    job = lifecycle.locked(file.job_id)
    return job if job is not None and _is_its_own(job, file) else None


def close(file: File, state: str, error: str | None = None) -> bool:
    """Write down what has become of a file; False when that was done before."""
    return bool(_close.rows({"id": file.id, "new_state": state, "new_error": error}))


def is_outdone(file: File) -> bool:
    """Whether the same file, named at the end, is stored already."""
    values = {"job_id": file.job_id, "attempt": file.attempt, "url": file.url}
    return not file.final and bool(_final.rows(values))


def finish(job: JobRow) -> None:
    """End the job well when the processor is done, and every file has been fetched or refused; the job is held."""
    run = remote.run_of(job)
    ((pending, stored, named),) = _counts.rows(_key(job))
    if run is None or run.completed_at is None or pending:
        return
    ended = lifecycle.succeed(job, {"results": stored, "refused": named - stored}, "All results are here.")
    if ended is not None:
        consequences.follow(ended)


def _is_its_own(job: JobRow, file: File) -> bool:
    return job.state not in ENDED and job.attempt == file.attempt


def _key(job: JobRow) -> dict[str, Any]:
    return {"job_id": job.id, "attempt": job.attempt}
