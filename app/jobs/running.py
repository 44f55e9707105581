"""Running a job: how an attempt begins, lives and ends."""

import math
import os
import select
import shutil
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import structlog
from flask import Flask, current_app
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from app.actors import set_actor
from app.database import commit, transaction
from app.errors import LOCK_NOT_AVAILABLE, is_outage
from app.jobs import consequences, lifecycle, shares
from app.jobs.context import Canceled, Elsewhere, Interrupted, JobFailed, LeaseLost, Running
from app.jobs.kinds import KINDS, Kind
from app.jobs.models import CANCELING
from app.jobs.permissions import may_still
from app.jobs.records import JobRow
from app.processes.orphans import kill_descendants
from app.storage import StorageError

End = Callable[[], JobRow | None]
"""Writes an outcome down; None when the job had moved on."""

BEATS = 4
"""In a lease, at least."""
LONGEST_SILENCE = 3.0
"""Seconds between two beats: whoever cancels a job that says nothing waits no longer for it."""

GRACE = 1.0
"""Seconds a job has to end by itself when its worker stops, before it is given back."""

log = structlog.get_logger(__name__)


def run_next(worker: str) -> None:
    """Run one attempt of the queued job whose turn it is, if there is one that may begin."""
    full_kinds: set[str] = set()
    full_pools: set[int] = set()
    while (turn := _next_turn(full_kinds, full_pools)) is not None:
        try:
            job = _claim(turn.id, worker)
        except _KindFull:
            full_kinds.add(turn.kind)
        except _ShareFull:
            full_pools.add(turn.pool)
        else:
            if job is not None:
                _run_attempt(job)
                return


def run(job_id: UUID, worker: str) -> None:
    """Run one attempt of this job; do nothing when it is not queued, or its kind or its owner has no free slot."""
    try:
        job = _claim(job_id, worker)
    except (_KindFull, _ShareFull):
        return
    if job is not None:
        _run_attempt(job)


class _KindFull(Exception):
    """As many jobs of the kind are running as may run at once."""


class _ShareFull(Exception):
    """As many jobs of the pool of the share are running as may run at once, or another worker holds the lock."""


def _next_turn(full_kinds: Collection[str], full_pools: Collection[int]) -> shares.Turn | None:
    with transaction(is_read=True):
        return shares.next_turn(full_kinds, full_pools)


def _claim(job_id: UUID, worker: str) -> JobRow | None:
    """Begin an attempt in a transaction; None when the job is not queued. Raise _KindFull or _ShareFull."""
    with transaction(is_read=False):
        job = lifecycle.found(job_id)
        if job is None:
            return None
        # The share first, then the kind: in another order two workers could wait for each other.
        _require_free_share(job)
        _require_free_kind(job)
        claimed = lifecycle.claim(job_id, worker, _lease())
        commit()
    return claimed


def _require_free_share(job: JobRow) -> None:
    try:
        shares.lock(job.share)
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        raise _ShareFull from None
    if not shares.has_capacity(job.share):
        raise _ShareFull


def _require_free_kind(job: JobRow) -> None:
    kind = KINDS.get(job.kind)
    if kind is not None and kind.concurrency is not None and not lifecycle.has_room(kind.name, kind.concurrency):
        raise _KindFull


def _run_attempt(job: JobRow) -> None:
    """Run a claimed attempt to its end."""
    kind = KINDS.get(job.kind)
    set_actor(job.share)  # what follows from it is caused by its owner
    with structlog.contextvars.bound_contextvars(job_id=str(job.id), kind=job.kind, attempt=job.attempt):
        if kind is None:
            _end(job, lambda: lifecycle.fail(job, "unknown-kind", "This server does not know this kind of job."))
            return
        if not _may_begin(job, kind):
            _end(job, lambda: lifecycle.fail(job, "forbidden", "Its owner may not start this any more."))
            return
        _attempt(job, kind)


def _may_begin(job: JobRow, kind: Kind) -> bool:
    with transaction(is_read=True):
        return may_still(kind, job)


def _attempt(job: JobRow, kind: Kind) -> None:
    log.info("job begins")
    with _work_dir(job) as work_dir:
        running = Running(job, work_dir)
        with Heart(running, kind.time_limit + kind.grace):
            write_down = _outcome(running, kind)
        _end_children()
    _end(job, write_down)


def _end_children() -> None:
    """Nothing that the function has started outlives it; in a process that is the job's alone."""
    if current_app.extensions.get("owns_children") and (killed := kill_descendants()):
        log.warning("job left processes behind", killed=killed)


def _outcome(running: Running, kind: Kind) -> End:
    """Run the function; how to write down what became of it."""
    job = running.job
    try:
        result = kind.run(running)
        running.check()
    except Canceled:
        return partial(lifecycle.canceled, job)
    except LeaseLost:
        return _too_late
    except JobFailed as failed:
        return partial(lifecycle.fail, job, failed.code, failed.detail, **failed.more)
    except Elsewhere as elsewhere:
        return partial(_hand_over, job, elsewhere)
    except Interrupted:
        return partial(lifecycle.interrupt, job)
    except Exception as error:  # noqa: BLE001  # functions may raise anything; it is logged there
        return _broken(job, error)
    return partial(lifecycle.succeed, job, result, running.unsaid)


def _broken(job: JobRow, error: Exception) -> End:
    """What becomes of an attempt that neither ended nor said why."""
    if isinstance(error, StorageError) or is_outage(error):
        log.warning("job lost the database or the storage", error=type(error).__name__)
        what = "The database or the storage did not answer"  # not its fault: another attempt, where there is one left
        return partial(lifecycle.expire, job, lifecycle.UNAVAILABLE, what)
    log.error("job failed", exc_info=error)
    detail = f"This is our fault ({type(error).__name__}); the log has more."
    return partial(lifecycle.fail, job, "failed", detail)


def _hand_over(job: JobRow, elsewhere: Elsewhere) -> JobRow | None:
    waiting = lifecycle.wait(job)
    if waiting is not None:
        elsewhere.note(waiting)
    return waiting


def _too_late() -> None:
    """Another attempt has it, or it has ended: nothing is written."""


def _end(job: JobRow, write_down: End) -> None:
    """Write the end down; while the database is away nothing can, and the lease runs out."""
    with transaction(is_read=False):
        ended = write_down()
        if ended is not None:
            consequences.follow(ended)
        commit()
    if ended is None:
        log.warning("job belongs to another attempt now")
    else:
        log.info("attempt over", state=ended.state, error=(ended.error or {}).get("code"))


@contextmanager
def _work_dir(job: JobRow) -> Iterator[Path]:
    """A directory for this attempt alone, gone when it has ended."""
    work = Path(current_app.config["VAR_DIR"]) / "work"
    _tidy(work)
    path = work / f"{job.id}-{job.attempt}"
    path.mkdir(parents=True, mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _tidy(work: Path) -> None:
    """Remove what attempts that were killed have left on this machine."""
    for path in work.glob("*-*-*-*-*-*"):
        job_id, _, attempt = path.name.rpartition("-")
        with transaction(is_read=True):
            is_held = lifecycle.is_held(UUID(job_id), int(attempt))
        if not is_held:
            shutil.rmtree(path, ignore_errors=True)


class Heart:
    """Beats for an attempt from a thread of its own, watches its deadline, and learns there what was asked of it."""

    def __init__(self, running: Running, time_limit: timedelta) -> None:
        self.running = running
        self.app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # the documented way to hand it to a thread
        self.lease = _lease()
        self.deadline = time.monotonic() + time_limit.total_seconds()
        self.interrupted_at = math.inf
        self.over, self._end = os.pipe()
        stopping: int | None = self.app.extensions.get("stopping")
        self.stopping = [] if stopping is None else [stopping]
        """Readable from when the worker was told to stop."""
        self.thread = threading.Thread(target=self._beat, name="heart", daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        os.close(self._end)
        self.thread.join()
        os.close(self.over)

    def _beat(self) -> None:
        last = time.monotonic()
        while not self._is_over():
            now = time.monotonic()
            if now >= self.deadline:
                self._time_out()
            if now >= self.interrupted_at:
                self.interrupted_at = math.inf
                self.running.end(Interrupted)
            try:
                state = self._say()
            except SQLAlchemyError as error:
                log.warning("job cannot beat", error=type(error).__name__)
                if time.monotonic() - last > self.lease.total_seconds():
                    self.running.end(LeaseLost)
                continue
            last = time.monotonic()
            if state is None:
                self.running.end(LeaseLost)
            elif state == CANCELING:
                self.running.end(Canceled)

    def _is_over(self) -> bool:
        """Whether the attempt ends before the next beat is due."""
        now = time.monotonic()
        beat = min(self.lease.total_seconds() / BEATS, LONGEST_SILENCE)
        seconds = min(beat, self.deadline - now, self.interrupted_at - now)
        readable, _, _ = select.select([self.over, *self.stopping], [], [], max(seconds, 0.0))
        if self.stopping and self.stopping[0] in readable:
            self.stopping = []
            self.interrupted_at = time.monotonic() + GRACE
        return self.over in readable

    def _say(self) -> str | None:
        with self.app.app_context(), transaction(is_read=False):
            state = lifecycle.beat(self.running.job, self.lease)
            commit()
        return state

    def _time_out(self) -> None:
        """Functions cannot be stopped from outside: the process of the worker ends with this one, and is replaced."""
        job = self.running.job
        with self.app.app_context():
            try:
                _end(job, partial(lifecycle.fail, job, lifecycle.TIMED_OUT, "It took longer than its kind may take."))
            except SQLAlchemyError as error:  # its lease runs out
                log.warning("job cannot be ended", error=type(error).__name__)
            _end_children()
        shutil.rmtree(self.running.work_dir, ignore_errors=True)
        log.error("job is out of time", job_id=str(job.id), kind=job.kind)
        os.kill(os.getpid(), signal.SIGKILL)


def _lease() -> timedelta:
    return timedelta(seconds=current_app.config["JOB_LEASE_SECONDS"])
