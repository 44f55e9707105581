"""Maintenance of jobs by the relay: reclaiming jobs of lost workers, repeating lost wake-ups, pruning old jobs."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from flask import current_app
from redis import RedisError
from sqlalchemy import ARRAY, BigInteger, Select, Text, all_, and_, bindparam, delete, func, select, text

from app.database import PreparedStatement, commit, get_connection, open_transaction
from app.errors import is_outage
from app.jobs import lifecycle, shares, state_hooks, submission
from app.jobs.kinds import KINDS
from app.jobs.models import QUEUED, Job
from app.jobs.records import JobRow
from app.processes.worker_nodes import JOBS_QUEUE
from app.redis_client import create_client
from app.storage import current_storage

REQUEUE_AFTER = timedelta(seconds=15)
"""Time after which the wake-up of a job that is still queued may have been lost."""

BATCH_SIZE = 100

_jobs = Job.__table__
_has_capacity = and_(
    _jobs.c.kind != all_(bindparam("full", type_=ARRAY(Text))),
    shares.pool_column(_jobs.c.share) != all_(bindparam("full_pools", type_=ARRAY(BigInteger))),
    _jobs.c.queued_at <= func.now(),
    shares.remote_criterion(_jobs),
)
_select_overdue = PreparedStatement(
    select(*_jobs.c)
    .where(_jobs.c.state == QUEUED, _jobs.c.queued_at < func.now() - REQUEUE_AFTER, _has_capacity)
    .order_by(_jobs.c.queued_at, _jobs.c.id)
    .limit(BATCH_SIZE)
    .with_for_update(skip_locked=True)
)
_count_queued = PreparedStatement(select(func.count()).select_from(Job).where(_jobs.c.state == QUEUED, _has_capacity))

log = structlog.get_logger(__name__)


def run_maintenance() -> None:
    """Reclaim jobs with an expired lease, and wake the workers for queued jobs whose wake-up was lost."""
    with open_transaction(is_read=True):
        expired = lifecycle.list_expired()
    for job_id in expired:
        _reclaim_job(job_id)
    with open_transaction(is_read=False):
        full = {
            "full": _list_full_kinds(),
            "full_pools": shares.list_full_pools(),
            **shares.get_remote_limits(KINDS.list_remote_names()),
        }
        if _has_lost_wakeups(full):
            for row in _select_overdue.fetch_rows(full):
                submission.enqueue_job(JobRow(*row))
        commit()


def _reclaim_job(job_id: UUID) -> None:
    """End the attempt of a lost worker and requeue or fail its job, in a separate transaction."""
    try:
        with open_transaction(is_read=False):
            job = lifecycle.lock_expired(job_id)
            changed = None if job is None else lifecycle.expire_attempt(job)
            if changed is not None:
                log.warning("job worker lost", job_id=str(job_id), attempt=changed.attempt, state=changed.state)
                state_hooks.on_state_change(changed)
            commit()
    except Exception as error:  # hooks of the kind may raise any error
        if is_outage(error):
            raise
        log.exception("job reclaim failed", job_id=str(job_id))


def _list_full_kinds() -> list[str]:
    """Return the kinds that have reached their concurrency limit; the end of one of their jobs wakes the next."""
    limited = [kind for kind in KINDS.values() if kind.concurrency is not None]
    return [kind.name for kind in limited if lifecycle.count_active(kind.name) >= (kind.concurrency or 0)]


def _has_lost_wakeups(full: Mapping[str, Any]) -> bool:
    """Return whether the queue in Redis is shorter than the number of queued jobs that may run."""
    ((queued,),) = _count_queued.fetch_rows(full)
    try:
        return bool(queued) and int(create_client(current_app.config["REDIS_URL"], timeout=2).llen(JOBS_QUEUE)) < queued
    except RedisError as error:
        log.warning("queue length unknown, skipping requeue", error=type(error).__name__)
        return False


def prune_jobs(older_than: timedelta) -> int:
    """Delete a batch of jobs that ended longer ago than `older_than`, with events and files; return their number."""
    old = select(_jobs.c.id).where(_jobs.c.finished_at < func.now() - older_than, _jobs.c.retained.is_(False))
    with open_transaction(is_read=True):
        ids = get_connection().scalars(old.limit(BATCH_SIZE)).all()
    return sum(_delete_job(old, job_id) for job_id in ids)


def _delete_job(old: Select[tuple[UUID]], job_id: UUID) -> bool:
    """Delete one old job in a separate transaction, because a million rows may belong to it; return whether it did."""
    with open_transaction(is_read=False):
        get_connection().execute(text("SET LOCAL statement_timeout = '60s'"))
        if get_connection().scalar(old.where(_jobs.c.id == job_id).with_for_update(skip_locked=True)) is None:
            return False
        # Delete the files first: if the process is killed in between, the row remains and is pruned again.
        current_storage().delete_folder(f"jobs/{job_id}")
        get_connection().execute(delete(Job).where(_jobs.c.id == job_id))
        commit()
    return True
