"""The result files that a processor names, and when all of them are here."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import count
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, Text, Uuid, and_, bindparam, func, insert, or_, select, update
from uuid_utils.compat import uuid7

from app import outbox
from app.database import Prepared, unnested
from app.jobs import consequences, lifecycle
from app.jobs.models import ENDED
from app.jobs.records import JobRow
from app.processors import remote
from app.processors.models import PENDING, REFUSED, REPLACED, STORED, ResultFile

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
_known = Prepared(select(_files.c.url, _files.c.number, _files.c.final).where(*_OF_JOB))
_file = Prepared(select(*_files.c).where(_files.c.id == bindparam("id", type_=Uuid)))


_VALUES = {
    "id": unnested("ids", Uuid),
    "job_id": bindparam("job_id", type_=Uuid),
    "attempt": bindparam("attempt", type_=BigInteger),
    "number": unnested("numbers", BigInteger),
    "doc_id": unnested("doc_ids", Text),
    "url": unnested("urls", Text),
    "final": bindparam("final", type_=Boolean),
}
_name = Prepared(insert(ResultFile).from_select([*_VALUES], select(*_VALUES.values()), include_defaults=False))
_close = Prepared(
    update(ResultFile)
    .where(_files.c.id == bindparam("id", type_=Uuid))
    .values(state=bindparam("new_state", type_=Text), error=bindparam("new_error", type_=Text))
)
_doc_id = bindparam("doc_id", type_=Text)
_replace = Prepared(
    update(ResultFile)
    .where(
        *_OF_JOB,
        _files.c.final.is_(False),
        _files.c.state == PENDING,
        or_(_files.c.url == bindparam("url", type_=Text), and_(_files.c.doc_id == _doc_id, _files.c.doc_id != "")),
    )
    .values(state=REPLACED)
)
_pending = Prepared(select(_files.c.id).where(*_OF_JOB, _files.c.state == PENDING).limit(1))
_named_last = (
    select(_files.c.state)
    .distinct(_files.c.number)
    .where(*_OF_JOB, _files.c.state != REPLACED)
    .order_by(_files.c.number, _files.c.final.desc())
    .subquery()
)
_counts = Prepared(select(func.count().filter(_named_last.c.state == STORED), func.count()).select_from(_named_last))


def order(job: JobRow, named: Sequence[Mapping[str, Any]], *, final: bool) -> bool:
    """Have the files fetched that were not named before, and whether all of them are; the job is held."""
    doc_ids = _doc_ids(named)
    known = _known.rows(_key(job)) if named else ()
    numbers: dict[str, int] = {url: number for url, number, _ in known}
    room = MOST_FILES - max(numbers.values(), default=0)
    new = [url for url in doc_ids if url not in numbers]
    numbers.update(zip(new[: max(room, 0)], count(MOST_FILES - room + 1), strict=False))
    again = {url for url, _, was_final in known if was_final == final}  # processors repeat all of them each time
    urls = [url for url in doc_ids if url in numbers and url not in again]
    if urls:
        files = {"urls": urls, "numbers": [numbers[url] for url in urls], "doc_ids": [doc_ids[url] for url in urls]}
        _store(job, {**files, "final": final}, [uuid7() for _ in urls])
    return len(new) <= room


def _doc_ids(named: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The documents by the URLs of their results; of two the first counts."""
    found: dict[str, str] = {}
    for each in named:
        doc_id = each.get("doc_id")
        found.setdefault(each["result_url"], "" if doc_id is None else str(doc_id)[:LONGEST_DOC_ID])
    return found


def _store(job: JobRow, files: Mapping[str, Any], ids: Sequence[UUID]) -> None:
    _name.run({**_key(job), **files, "ids": ids})
    outbox.order_many(remote.FETCH, "result.named", [{"id": str(file_id), "time": 1} for file_id in ids])


def order_fetch(file_id: UUID, time: int) -> None:
    """Have a file fetched, for the first time now, later for the others."""
    delay = PAUSE * 2 ** (time - 2) if time > 1 else timedelta(0)
    outbox.order(remote.FETCH, "result.named", {"id": str(file_id), "time": time}, delay=delay)


def wanted(file_id: UUID) -> tuple[File, JobRow] | None:
    """A file that has neither been fetched nor replaced, and its job, which waits for it."""
    for row in _file.rows({"id": file_id}):
        file = File(*row)
        job = lifecycle.found(file.job_id)
        if job is not None and _waits_for(job, file):
            return file, job
    return None


def held(file: File) -> JobRow | None:
    """The job of a file, nobody else's until this transaction ends; None where it waits for the file no longer."""
    job = lifecycle.locked(file.job_id)
    now = (File(*row) for row in _file.rows({"id": file.id}))
    return job if job is not None and any(_waits_for(job, each) for each in now) else None


def close(file: File, fault: str | None) -> None:
    """Write down what has become of a file; one that was named at the end takes the place of those before it."""
    _close.run({"id": file.id, "new_state": REFUSED if fault else STORED, "new_error": fault})
    if file.final and not fault:
        of_job = {"job_id": file.job_id, "attempt": file.attempt}
        _replace.run({**of_job, "url": file.url, "doc_id": file.doc_id})


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


def _waits_for(job: JobRow, file: File) -> bool:
    return file.state == PENDING and job.state not in ENDED and job.attempt == file.attempt


def _key(job: JobRow) -> dict[str, Any]:
    return {"job_id": job.id, "attempt": job.attempt}
