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
from app.database import commit, open_transaction
from app.errors import LOCK_NOT_AVAILABLE, is_outage
from app.jobs import lifecycle, shares, state_hooks
from app.jobs.context import Canceled, HandedOff, Interrupted, JobContext, JobFailed, LeaseLost, Postponed
from app.jobs.kinds import KINDS, Kind
from app.jobs.models import CANCELING
from app.jobs.permissions import is_still_allowed
from app.jobs.records import JobRow
from app.processes.process_tree import kill_descendants
from app.storage import StorageError

OutcomeWriter = Callable[[], JobRow | None]
"""Writes an outcome down; None when the job had moved on."""

HEARTBEATS_PER_LEASE = 4
"""In a lease, at least."""
MAX_HEARTBEAT_INTERVAL_SECONDS = 3.0
"""Seconds between two beats: whoever cancels a job that says nothing waits no longer for it."""

SHUTDOWN_GRACE_SECONDS = 1.0
"""Seconds a job has to end by itself when its worker stops, before it is given back."""

MAX_POSTPONED_ATTEMPTS = 20
"""Attempts of a job whose work could not begin because another server had no room: a quarter of an hour."""
MAX_POSTPONE_BACKOFF = timedelta(minutes=1)
"""The longest pause between two of them."""

log = structlog.get_logger(__name__)


def run_next(worker: str) -> None:
    """Run one attempt of the queued job whose turn it is, if there is one that may begin."""
    full_kinds: set[str] = set()
    full_pools: set[int] = set()
    while (turn := _next_turn(full_kinds, full_pools)) is not None:
        try:
            job = _claim_job(turn.id, worker)
        except _KindFull:
            full_kinds.add(turn.kind)
        except _ShareFull:
            full_pools.add(turn.pool)
        else:
            if job is not None:
                _run_attempt(job)
                return


def run_job(job_id: UUID, worker: str) -> None:
    """Run one attempt of this job; do nothing when it is not queued, or its kind or its owner has no free slot."""
    try:
        job = _claim_job(job_id, worker)
    except (_KindFull, _ShareFull):
        return
    if job is not None:
        _run_attempt(job)


class _KindFull(Exception):
    """As many jobs of the kind are running as may run at once."""


class _ShareFull(Exception):
    """As many jobs of the pool of the share are running as may run at once, or another worker holds the lock."""


def _next_turn(full_kinds: Collection[str], full_pools: Collection[int]) -> shares.Turn | None:
    with open_transaction(is_read=True):
        return shares.find_next_turn(full_kinds, full_pools, KINDS.list_remote_names())


def _claim_job(job_id: UUID, worker: str) -> JobRow | None:
    """Begin an attempt in a transaction; None when the job is not queued. Raise _KindFull or _ShareFull."""
    with open_transaction(is_read=False):
        job = lifecycle.get_job(job_id)
        if job is None:
            return None
        # The share first, then the kind: in another order two workers could wait for each other.
        _require_free_share(job)
        _require_free_kind(job)
        claimed = lifecycle.claim_job(job_id, worker, _get_lease())
        commit()
    return claimed


def _require_free_share(job: JobRow) -> None:
    try:
        shares.lock_share(job.share)
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        raise _ShareFull from None
    if not shares.has_capacity(job.share):
        raise _ShareFull


def _require_free_kind(job: JobRow) -> None:
    kind = KINDS.get(job.kind)
    if kind is None:
        return
    if kind.concurrency is not None and not lifecycle.has_capacity(kind.name, kind.concurrency):
        raise _KindFull
    if kind.runner == "external" and not shares.has_free_run(
        job.share, KINDS.list_remote_names()
    ):  # taken since this turn was found
        raise _KindFull


def _run_attempt(job: JobRow) -> None:
    """Run a claimed attempt to its end."""
    kind = KINDS.get(job.kind)
    set_actor(job.share)  # what follows from it is caused by its owner
    with structlog.contextvars.bound_contextvars(job_id=str(job.id), kind=job.kind, attempt=job.attempt):
        if kind is None:
            _write_outcome(
                job, lambda: lifecycle.finish_failed(job, "unknown-kind", "This server does not know this kind of job.")
            )
            return
        if not _may_begin(job, kind):
            _write_outcome(
                job, lambda: lifecycle.finish_failed(job, "forbidden", "Its owner may not start this any more.")
            )
            return
        _execute_attempt(job, kind)


def _may_begin(job: JobRow, kind: Kind) -> bool:
    with open_transaction(is_read=True):
        return is_still_allowed(kind, job)


def _execute_attempt(job: JobRow, kind: Kind) -> None:
    log.info("job begins")
    with _work_dir(job) as work_dir:
        running = JobContext(job, work_dir)
        with LeaseKeeper(running, kind.time_limit + kind.grace):
            write_down = _execute_kind(running, kind)
        _kill_children()
    _write_outcome(job, write_down)


def _kill_children() -> None:
    """Nothing that the function has started outlives it; in a process that is the job's alone."""
    if current_app.extensions.get("owns_children") and (killed := kill_descendants()):
        log.warning("job left processes behind", killed=killed)


def _execute_kind(running: JobContext, kind: Kind) -> OutcomeWriter:
    """Run the function; how to write down what became of it."""
    job = running.job
    try:
        result = kind.run(running)
        running.raise_if_ending()
    except Canceled:
        return partial(lifecycle.finish_canceled, job)
    except LeaseLost:
        return _write_nothing
    except JobFailed as failed:
        return partial(lifecycle.finish_failed, job, failed.code, failed.detail, **failed.more)
    except Postponed as postponed:
        return partial(_postpone_job, job, postponed)
    except HandedOff as elsewhere:
        return partial(_hand_off, job, elsewhere)
    except Interrupted:
        return partial(lifecycle.interrupt_attempt, job)
    except Exception as error:  # noqa: BLE001  # functions may raise anything; it is logged there
        return _classify_exception(job, error)
    return partial(lifecycle.finish_succeeded, job, result, running.pending_message)


def _classify_exception(job: JobRow, error: Exception) -> OutcomeWriter:
    """What becomes of an attempt that neither ended nor said why."""
    if isinstance(error, StorageError) or is_outage(error):
        log.warning("job lost the database or the storage", error=type(error).__name__)
        what = "The database or the storage did not answer"  # not its fault: another attempt, where there is one left
        return partial(lifecycle.expire_attempt, job, lifecycle.UNAVAILABLE, what)
    log.error("job failed", exc_info=error)
    detail = f"This is our fault ({type(error).__name__}); the log has more."
    return partial(lifecycle.finish_failed, job, "failed", detail)


def _hand_off(job: JobRow, elsewhere: HandedOff) -> JobRow | None:
    waiting = lifecycle.start_waiting(job)
    if waiting is not None:
        elsewhere.note(waiting)
    return waiting


def _postpone_job(job: JobRow, postponed: Postponed) -> JobRow | None:
    """Queue the job again, after a pause that doubles with each attempt, or fail it after the last one."""
    if job.attempt >= MAX_POSTPONED_ATTEMPTS:
        return lifecycle.finish_failed(job, postponed.code, postponed.detail)
    pause = min(timedelta(seconds=2**job.attempt), MAX_POSTPONE_BACKOFF)
    message = f"{postponed.detail} It starts again in {pause.seconds} s."
    return lifecycle.requeue_job(job, postponed.code, message, uncounted=1, delay=pause)


def _write_nothing() -> None:
    """Another attempt has it, or it has ended: nothing is written."""


def _write_outcome(job: JobRow, write_down: OutcomeWriter) -> None:
    """Write the end down; while the database is away nothing can, and the lease runs out."""
    with open_transaction(is_read=False):
        ended = write_down()
        if ended is not None:
            state_hooks.on_state_change(ended)
        commit()
    if ended is None:
        log.warning("job belongs to another attempt now")
    else:
        log.info("attempt over", state=ended.state, error=(ended.error or {}).get("code"))


@contextmanager
def _work_dir(job: JobRow) -> Iterator[Path]:
    """A directory for this attempt alone, gone when it has ended."""
    work = Path(current_app.config["VAR_DIR"]) / "work"
    _remove_stale_work_dirs(work)
    path = work / f"{job.id}-{job.attempt}"
    path.mkdir(parents=True, mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _remove_stale_work_dirs(work: Path) -> None:
    """Remove what attempts that were killed have left on this machine."""
    for path in work.glob("*-*-*-*-*-*"):
        job_id, _, attempt = path.name.rpartition("-")
        with open_transaction(is_read=True):
            is_held = lifecycle.is_attempt_active(UUID(job_id), int(attempt))
        if not is_held:
            shutil.rmtree(path, ignore_errors=True)


class LeaseKeeper:
    """Beats for an attempt from a thread of its own, watches its deadline, and learns there what was asked of it."""

    def __init__(self, running: JobContext, time_limit: timedelta) -> None:
        self.running = running
        self.app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # the documented way to hand it to a thread
        self.lease = _get_lease()
        self.deadline = time.monotonic() + time_limit.total_seconds()
        self.interrupted_at = math.inf
        self.over_fd, self._over_writer = os.pipe()
        stopping: int | None = self.app.extensions.get("stopping")
        self.stopping = [] if stopping is None else [stopping]
        """Readable from when the worker was told to stop."""
        self.thread = threading.Thread(target=self._run_heartbeat, name="heart", daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        os.close(self._over_writer)
        self.thread.join()
        os.close(self.over_fd)

    def _run_heartbeat(self) -> None:
        last = time.monotonic()
        while not self._wait_for_end():
            now = time.monotonic()
            if now >= self.deadline:
                self._enforce_time_limit()
            if now >= self.interrupted_at:
                self.interrupted_at = math.inf
                self.running.request_end(Interrupted)
            try:
                state = self._renew_lease()
            except SQLAlchemyError as error:
                log.warning("job cannot beat", error=type(error).__name__)
                if time.monotonic() - last > self.lease.total_seconds():
                    self.running.request_end(LeaseLost)
                continue
            last = time.monotonic()
            if state is None:
                self.running.request_end(LeaseLost)
            elif state == CANCELING:
                self.running.request_end(Canceled)

    def _wait_for_end(self) -> bool:
        """Whether the attempt ends before the next beat is due."""
        now = time.monotonic()
        beat = min(self.lease.total_seconds() / HEARTBEATS_PER_LEASE, MAX_HEARTBEAT_INTERVAL_SECONDS)
        seconds = min(beat, self.deadline - now, self.interrupted_at - now)
        readable, _, _ = select.select([self.over_fd, *self.stopping], [], [], max(seconds, 0.0))
        if self.stopping and self.stopping[0] in readable:
            self.stopping = []
            self.interrupted_at = time.monotonic() + SHUTDOWN_GRACE_SECONDS
        return self.over_fd in readable

    def _renew_lease(self) -> str | None:
        with self.app.app_context(), open_transaction(is_read=False):
            state = lifecycle.renew_lease(self.running.job, self.lease)
            commit()
        return state

    def _enforce_time_limit(self) -> None:
        """Functions cannot be stopped from outside: the process of the worker ends with this one, and is replaced."""
        job = self.running.job
        with self.app.app_context():
            try:
                _write_outcome(
                    job,
                    partial(
                        lifecycle.finish_failed, job, lifecycle.TIMED_OUT, "It took longer than its kind may take."
                    ),
                )
            except SQLAlchemyError as error:  # its lease runs out
                log.warning("job cannot be ended", error=type(error).__name__)
            _kill_children()
        shutil.rmtree(self.running.work_dir, ignore_errors=True)
        log.error("job is out of time", job_id=str(job.id), kind=job.kind)
        os.kill(os.getpid(), signal.SIGKILL)


def _get_lease() -> timedelta:
    return timedelta(seconds=current_app.config["JOB_LEASE_SECONDS"])
