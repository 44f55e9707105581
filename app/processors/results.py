"""The result files that a processor names, and when all of them are here."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import count
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Text, Uuid, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert
from uuid_utils.compat import uuid7

from app import outbox
from app.database import Prepared, connection
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
_known = Prepared(select(_files.c.url, _files.c.number).where(*_OF_JOB))
_file = Prepared(select(*_files.c).where(_files.c.id == bindparam("id", type_=Uuid)))
_final = Prepared(select(_files.c.id).where(*_SAME, _files.c.final.is_(True), _files.c.state == STORED))
_close = Prepared(
    update(ResultFile)
    .where(_files.c.id == bindparam("id", type_=Uuid), _files.c.state == PENDING)
    .values(state=bindparam("new_state", type_=Text), error=bindparam("new_error", type_=Text))
    .returning(_files.c.id)
)
_pending = Prepared(select(_files.c.id).where(*_OF_JOB, _files.c.state == PENDING).limit(1))
_counts = Prepared(
    select(
        func.count(_files.c.number.distinct()).filter(_files.c.state == STORED),
        func.count(_files.c.number.distinct()),
    ).where(*_OF_JOB)
)


def order(job: JobRow, named: Sequence[Mapping[str, Any]], *, final: bool) -> None:
    """Have the files fetched that were not named before; the job is held."""
    if not named:
        return
    numbers = {str(url): int(number) for url, number in _known.rows(_key(job))}
    before = max(numbers.values(), default=0)
    new = dict.fromkeys(each["result_url"] for each in named if each["result_url"] not in numbers)
    numbers.update(zip(list(new)[: max(MOST_FILES - before, 0)], count(before + 1), strict=False))
    rows = [_row(job, each, numbers, final=final) for each in named if each["result_url"] in numbers]
    if rows:
        statement = insert(ResultFile).on_conflict_do_nothing().returning(ResultFile.id)
        stored = connection().execute(statement, rows).scalars().all()
        outbox.order_many(remote.FETCH, "result.named", [{"id": str(file_id), "time": 1} for file_id in stored])
    if len(new) > MOST_FILES - before:
        lifecycle.hear(job, f"Of all its results only {MOST_FILES} are fetched.", level="warning")


def _row(job: JobRow, named: Mapping[str, Any], numbers: Mapping[str, int], *, final: bool) -> dict[str, Any]:
    url = named["result_url"]
    doc_id = str(named.get("doc_id") or "")[:LONGEST_DOC_ID]
    return {**_key(job), "id": uuid7(), "number": numbers[url], "doc_id": doc_id, "url": url, "final": final}


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
    if run is None or run.completed_at is None or _pending.rows(_key(job)):
        return
    ((stored, named),) = _counts.rows(_key(job))
    words = "All results are here." if stored == named else f"Of {named} results {stored} are here."
    ended = lifecycle.succeed(job, {"results": stored, "refused": named - stored}, words)
    if ended is not None:
        consequences.follow(ended)


def _is_its_own(job: JobRow, file: File) -> bool:
    return job.state not in ENDED and job.attempt == file.attempt


def _key(job: JobRow) -> dict[str, Any]:
    return {"job_id": job.id, "attempt": job.attempt}
