"""Execution of attempts: claiming a job, running its function, keeping its lease and writing its outcome."""

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
"""Write the outcome of an attempt; return the job, or None if the attempt no longer owns it."""

HEARTBEATS_PER_LEASE = 4
"""Minimum number of heartbeats during a lease."""
MAX_HEARTBEAT_INTERVAL_SECONDS = 3.0
"""Seconds between two heartbeats, and so until a job that reports no progress notices its cancellation."""

SHUTDOWN_GRACE_SECONDS = 1.0
"""Seconds that a job has to finish after its worker was told to stop, before it is interrupted."""

MAX_POSTPONED_ATTEMPTS = 20
"""Attempts of a job whose work could not start because the processor was busy; about a quarter of an hour."""
MAX_POSTPONE_BACKOFF = timedelta(minutes=1)
"""Longest pause between two of these attempts."""

log = structlog.get_logger(__name__)


def run_next(worker: str) -> None:
    """Run one attempt of the queued job whose turn it is; do nothing if no queued job may begin."""
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
    """Run one attempt of this job; do nothing if it is not queued, or its kind or its owner has no free slot."""
    try:
        job = _claim_job(job_id, worker)
    except (_KindFull, _ShareFull):
        return
    if job is not None:
        _run_attempt(job)


class _KindFull(Exception):
    """The kind has reached its concurrency limit."""


class _ShareFull(Exception):
    """The pool of the share has reached its limit of running jobs, or another worker holds its lock."""


def _next_turn(full_kinds: Collection[str], full_pools: Collection[int]) -> shares.Turn | None:
    with open_transaction(is_read=True):
        return shares.find_next_turn(full_kinds, full_pools, KINDS.list_remote_names())


def _claim_job(job_id: UUID, worker: str) -> JobRow | None:
    """Begin an attempt in a transaction; return None if the job is not queued.

    Raise _KindFull or _ShareFull if a limit is reached.
    """
    with open_transaction(is_read=False):
        job = lifecycle.get_job(job_id)
        if job is None:
            return None
        # Lock the share before the kind, always in this order, to avoid a deadlock of two workers.
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
    set_actor(job.share)  # entries and jobs that it creates count for its owner
    with structlog.contextvars.bound_contextvars(job_id=str(job.id), kind=job.kind, attempt=job.attempt):
        if kind is None:
            _write_outcome(
                job, lambda: lifecycle.finish_failed(job, "unknown-kind", "This server does not have this kind of job.")
            )
            return
        if not _may_begin(job, kind):
            _write_outcome(
                job, lambda: lifecycle.finish_failed(job, "forbidden", "Its owner may no longer start this kind.")
            )
            return
        _execute_attempt(job, kind)


def _may_begin(job: JobRow, kind: Kind) -> bool:
    with open_transaction(is_read=True):
        return is_still_allowed(kind, job)


def _execute_attempt(job: JobRow, kind: Kind) -> None:
    log.info("attempt started")
    with _work_dir(job) as work_dir:
        context = JobContext(job, work_dir)
        with LeaseKeeper(context, kind.time_limit + kind.grace):
            write_outcome = _execute_kind(context, kind)
        _kill_children()
    _write_outcome(job, write_outcome)


def _kill_children() -> None:
    """Kill processes that the job function has left, if this worker process runs nothing else."""
    if current_app.extensions.get("owns_children") and (killed := kill_descendants()):
        log.warning("processes left by job killed", killed=killed)


def _execute_kind(context: JobContext, kind: Kind) -> OutcomeWriter:
    """Run the function of the kind; return a function that writes the outcome."""
    job = context.job
    try:
        result = kind.run(context)
        context.raise_if_ending()
    except Canceled:
        return partial(lifecycle.finish_canceled, job)
    except LeaseLost:
        return _write_nothing
    except JobFailed as error:
        return partial(lifecycle.finish_failed, job, error.code, error.detail, **error.more)
    except Postponed as postponed:
        return partial(_postpone_job, job, postponed)
    except HandedOff as handoff:
        return partial(_hand_off, job, handoff)
    except Interrupted:
        return partial(lifecycle.interrupt_attempt, job)
    except Exception as error:  # noqa: BLE001  # functions may raise any error; `_classify_exception` logs it
        return _classify_exception(job, error)
    return partial(lifecycle.finish_succeeded, job, result, context.pending_message)


def _classify_exception(job: JobRow, error: Exception) -> OutcomeWriter:
    """Return the outcome for an unexpected exception: another attempt after an outage, otherwise failure."""
    if isinstance(error, StorageError) or is_outage(error):
        log.warning("database or storage unavailable for job", error=type(error).__name__)
        reason = "The database or the storage did not answer"
        return partial(lifecycle.expire_attempt, job, lifecycle.UNAVAILABLE, reason)
    log.error("job failed", exc_info=error)
    detail = f"Internal error ({type(error).__name__}); details are in the server log."
    return partial(lifecycle.finish_failed, job, "failed", detail)


def _hand_off(job: JobRow, handoff: HandedOff) -> JobRow | None:
    waiting = lifecycle.start_waiting(job)
    if waiting is not None:
        handoff.note(waiting)
    return waiting


def _postpone_job(job: JobRow, postponed: Postponed) -> JobRow | None:
    """Queue the job again, after a pause that doubles with each attempt, or fail it after the last one."""
    if job.attempt >= MAX_POSTPONED_ATTEMPTS:
        return lifecycle.finish_failed(job, postponed.code, postponed.detail)
    pause = min(timedelta(seconds=2**job.attempt), MAX_POSTPONE_BACKOFF)
    message = f"{postponed.detail} It starts again in {pause.seconds} s."
    return lifecycle.requeue_job(job, postponed.code, message, uncounted=1, delay=pause)


def _write_nothing() -> None:
    """Write no outcome: the attempt no longer owns the job."""


def _write_outcome(job: JobRow, write: OutcomeWriter) -> None:
    """Write the outcome and call the state hooks in one transaction; if the database is down, the lease expires."""
    with open_transaction(is_read=False):
        changed = write()
        if changed is not None:
            state_hooks.on_state_change(changed)
        commit()
    if changed is None:
        log.warning("attempt no longer owns its job")
    else:
        log.info("attempt ended", state=changed.state, error=(changed.error or {}).get("code"))


@contextmanager
def _work_dir(job: JobRow) -> Iterator[Path]:
    """Create a working directory for this attempt; remove it at the end."""
    work = Path(current_app.config["VAR_DIR"]) / "work"
    _remove_stale_work_dirs(work)
    path = work / f"{job.id}-{job.attempt}"
    path.mkdir(parents=True, mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _remove_stale_work_dirs(work: Path) -> None:
    """Remove the working directories of attempts that were killed on this machine."""
    for path in work.glob("*-*-*-*-*-*"):
        job_id, _, attempt = path.name.rpartition("-")
        with open_transaction(is_read=True):
            is_active = lifecycle.is_attempt_active(UUID(job_id), int(attempt))
        if not is_active:
            shutil.rmtree(path, ignore_errors=True)


class LeaseKeeper:
    """Thread that renews the lease of an attempt, enforces its time limit, and notices cancellation and shutdown."""

    def __init__(self, context: JobContext, time_limit: timedelta) -> None:
        self.context = context
        self.app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # the documented way to hand it to a thread
        self.lease = _get_lease()
        self.deadline = time.monotonic() + time_limit.total_seconds()
        self.interrupted_at = math.inf
        self.over_fd, self._over_writer = os.pipe()
        stopping: int | None = self.app.extensions.get("stopping")
        self.stopping = [] if stopping is None else [stopping]
        """File descriptor that becomes readable when the worker must stop; empty if there is none, or after that."""
        self.thread = threading.Thread(target=self._run_heartbeat, name="lease-keeper", daemon=True)

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
                self.context.request_end(Interrupted)
            try:
                state = self._renew_lease()
            except SQLAlchemyError as error:
                log.warning("lease renewal failed", error=type(error).__name__)
                if time.monotonic() - last > self.lease.total_seconds():
                    self.context.request_end(LeaseLost)
                continue
            last = time.monotonic()
            if state is None:
                self.context.request_end(LeaseLost)
            elif state == CANCELING:
                self.context.request_end(Canceled)

    def _wait_for_end(self) -> bool:
        """Wait until the next heartbeat is due; return whether the attempt ended before."""
        now = time.monotonic()
        interval = min(self.lease.total_seconds() / HEARTBEATS_PER_LEASE, MAX_HEARTBEAT_INTERVAL_SECONDS)
        seconds = min(interval, self.deadline - now, self.interrupted_at - now)
        readable, _, _ = select.select([self.over_fd, *self.stopping], [], [], max(seconds, 0.0))
        if self.stopping and self.stopping[0] in readable:
            self.stopping = []
            self.interrupted_at = time.monotonic() + SHUTDOWN_GRACE_SECONDS
        return self.over_fd in readable

    def _renew_lease(self) -> str | None:
        with self.app.app_context(), open_transaction(is_read=False):
            state = lifecycle.renew_lease(self.context.job, self.lease)
            commit()
        return state

    def _enforce_time_limit(self) -> None:
        """Fail the job and kill this worker process, which Celery replaces: a thread cannot be stopped from outside."""
        job = self.context.job
        with self.app.app_context():
            try:
                _write_outcome(
                    job,
                    partial(
                        lifecycle.finish_failed, job, lifecycle.TIMED_OUT, "The time limit of its kind was exceeded."
                    ),
                )
            except SQLAlchemyError as error:  # maintenance reclaims the job when its lease expires
                log.warning("job timeout not stored", error=type(error).__name__)
            _kill_children()
        shutil.rmtree(self.context.work_dir, ignore_errors=True)
        log.error("job timed out", job_id=str(job.id), kind=job.kind)
        os.kill(os.getpid(), signal.SIGKILL)


def _get_lease() -> timedelta:
    return timedelta(seconds=current_app.config["JOB_LEASE_SECONDS"])
