"""Result files of a run: registration, state, and the end of the job once all are stored or refused."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import count
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, Text, Uuid, and_, bindparam, func, insert, or_, select, update
from uuid_utils.compat import uuid7

from app import outbox
from app.database import PreparedStatement, unnest_param
from app.jobs import lifecycle, state_hooks
from app.jobs.models import TERMINAL_STATES
from app.jobs.records import JobRow
from app.processors import runs
from app.processors.models import PENDING, REFUSED, REPLACED, STORED, ResultFile

RETRY_DELAY = timedelta(seconds=2)
"""Delay before the second download attempt; it doubles before each further one."""
MAX_FILES = 10_000
"""Result files of one attempt."""
MAX_DOC_ID_LENGTH = 200

_files = ResultFile.__table__


class ResultFileRow(NamedTuple):
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


_RUN_CRITERIA = (
    _files.c.job_id == bindparam("job_id", type_=Uuid),
    _files.c.attempt == bindparam("attempt", type_=BigInteger),
)
_select_known_files = PreparedStatement(select(_files.c.url, _files.c.number, _files.c.final).where(*_RUN_CRITERIA))
_select_file = PreparedStatement(select(*_files.c).where(_files.c.id == bindparam("id", type_=Uuid)))


_VALUES = {
    "id": unnest_param("ids", Uuid),
    "job_id": bindparam("job_id", type_=Uuid),
    "attempt": bindparam("attempt", type_=BigInteger),
    "number": unnest_param("numbers", BigInteger),
    "doc_id": unnest_param("doc_ids", Text),
    "url": unnest_param("urls", Text),
    "final": bindparam("final", type_=Boolean),
}
_insert_files = PreparedStatement(
    insert(ResultFile).from_select([*_VALUES], select(*_VALUES.values()), include_defaults=False)
)
_update_outcome = PreparedStatement(
    update(ResultFile)
    .where(_files.c.id == bindparam("id", type_=Uuid))
    .values(state=bindparam("new_state", type_=Text), error=bindparam("new_error", type_=Text))
)
_doc_id = bindparam("doc_id", type_=Text)
_mark_replaced = PreparedStatement(
    update(ResultFile)
    .where(
        *_RUN_CRITERIA,
        _files.c.final.is_(False),
        _files.c.state == PENDING,
        or_(_files.c.url == bindparam("url", type_=Text), and_(_files.c.doc_id == _doc_id, _files.c.doc_id != "")),
    )
    .values(state=REPLACED)
)
_select_pending_file = PreparedStatement(select(_files.c.id).where(*_RUN_CRITERIA, _files.c.state == PENDING).limit(1))
_latest_files = (
    select(_files.c.state)
    .distinct(_files.c.number)
    .where(*_RUN_CRITERIA, _files.c.state != REPLACED)
    .order_by(_files.c.number, _files.c.final.desc())
    .subquery()
)
_count_outcomes = PreparedStatement(
    select(func.count().filter(_latest_files.c.state == STORED), func.count()).select_from(_latest_files)
)


def register_files(job: JobRow, files: Sequence[Mapping[str, Any]], *, final: bool) -> bool:
    """Enqueue the download of new result files of a locked job; return False when some exceed MAX_FILES."""
    doc_ids = _map_doc_ids(files)
    known = _select_known_files.fetch_rows(_build_key(job)) if files else ()
    numbers: dict[str, int] = {url: number for url, number, _ in known}
    room = MAX_FILES - max(numbers.values(), default=0)
    new = [url for url in doc_ids if url not in numbers]
    numbers.update(zip(new[: max(room, 0)], count(MAX_FILES - room + 1), strict=False))
    repeated = {url for url, _, was_final in known if was_final == final}  # processors repeat all URLs each time
    urls = [url for url in doc_ids if url in numbers and url not in repeated]
    if urls:
        values = {"urls": urls, "numbers": [numbers[url] for url in urls], "doc_ids": [doc_ids[url] for url in urls]}
        _store_files(job, {**values, "final": final}, [uuid7() for _ in urls])
    return len(new) <= room


def _map_doc_ids(files: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the document ids by result URL; of repeated URLs the first counts."""
    doc_ids: dict[str, str] = {}
    for each in files:
        doc_id = each.get("doc_id")
        doc_ids.setdefault(each["result_url"], "" if doc_id is None else str(doc_id)[:MAX_DOC_ID_LENGTH])
    return doc_ids


def _store_files(job: JobRow, values: Mapping[str, Any], ids: Sequence[UUID]) -> None:
    _insert_files.run({**_build_key(job), **values, "ids": ids})
    outbox.enqueue_entries(runs.FETCH, "result.named", [{"id": str(file_id), "time": 1} for file_id in ids])


def schedule_download(file_id: UUID, time: int) -> None:
    """Enqueue a download attempt: the first at once, each further one after a longer delay."""
    delay = RETRY_DELAY * 2 ** (time - 2) if time > 1 else timedelta(0)
    outbox.enqueue_entry(runs.FETCH, "result.named", {"id": str(file_id), "time": time}, delay=delay)


def get_pending(file_id: UUID) -> tuple[ResultFileRow, JobRow] | None:
    """Return a pending file and its unfinished job; None when the file is not needed any more."""
    for row in _select_file.fetch_rows({"id": file_id}):
        file = ResultFileRow(*row)
        job = lifecycle.get_job(file.job_id)
        if job is not None and _is_waiting_for(job, file):
            return file, job
    return None


def lock_job(file: ResultFileRow) -> JobRow | None:
    """Lock and return the job of a file; None when the file is not needed any more."""
    job = lifecycle.get_job_for_update(file.job_id)
    now = (ResultFileRow(*row) for row in _select_file.fetch_rows({"id": file.id}))
    return job if job is not None and any(_is_waiting_for(job, each) for each in now) else None


def set_outcome(file: ResultFileRow, fault: str | None) -> None:
    """Set a file to stored, or to refused with the fault; a stored final file replaces earlier versions of it."""
    _update_outcome.run({"id": file.id, "new_state": REFUSED if fault else STORED, "new_error": fault})
    if file.final and not fault:
        of_job = {"job_id": file.job_id, "attempt": file.attempt}
        _mark_replaced.run({**of_job, "url": file.url, "doc_id": file.doc_id})


def complete_if_done(job: JobRow) -> None:
    """Finish a locked job as succeeded when its run has completed and no result file is pending."""
    run = runs.get_run(job)
    if run is None or run.completed_at is None or _select_pending_file.fetch_rows(_build_key(job)):
        return
    ((stored, total),) = _count_outcomes.fetch_rows(_build_key(job))
    message = "All results are stored." if stored == total else f"{stored} of {total} results are stored."
    ended = lifecycle.finish_succeeded(job, {"results": stored, "refused": total - stored}, message)
    if ended is not None:
        state_hooks.on_state_change(ended)


def _is_waiting_for(job: JobRow, file: ResultFileRow) -> bool:
    return file.state == PENDING and job.state not in TERMINAL_STATES and job.attempt == file.attempt


def _build_key(job: JobRow) -> dict[str, Any]:
    return {"job_id": job.id, "attempt": job.attempt}
