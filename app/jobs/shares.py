"""Fair shares of the workers: which queued job is next, and how many jobs of one owner run at once.

Owners take turns. Next is the oldest job of the owner with the fewest running jobs; among several such owners, of the
one who has waited longest, since a job of theirs last began or since their oldest job was queued. One owner never
occupies all slots, so a job of another owner begins as soon as a slot is free, however many jobs are queued before it.

Anonymous callers and unverified accounts count as one owner with fewer slots, because a further account costs nothing.
They have one share for each client address, and these shares take turns in the same way. Shares that have a limit in
common are a pool; the number of a pool is the largest number of its shares.

Jobs that the processor runs also have a limit there, in all and for each pool, from their start request to their end:
one owner cannot fill the processor.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from flask import current_app
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    FromClause,
    Text,
    all_,
    and_,
    any_,
    bindparam,
    case,
    delete,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import insert

from app.actors import current_actor
from app.database import PreparedStatement, commit, get_connection, open_transaction
from app.jobs.models import (
    ANONYMOUS_SHARE,
    CANCELING,
    FINALIZING,
    OPERATOR_SHARE,
    QUEUED,
    RUNNING,
    WAITING,
    Job,
    JobShare,
)
from app.users.models import User

OPERATOR_TRIGGERS = ("cli", "signal")
"""Triggers of jobs without an owner that count for the operator."""

ANONYMOUS_SLOTS_DIVISOR = 4
"""Divisor of the slots of a worker that all client addresses share; rounded down, at least one slot."""

ADDRESS_RETENTION = timedelta(days=1)
"""Time after which the last turn of a client address is deleted."""

PROCESSOR_SHARE_DIVISOR = 4
"""Divisor of `PROCESSOR_MAX_RUNS` for the runs of one pool; rounded down, at least one run."""

_FIRST_SHARE = -(2**63)

_jobs, _shares = Job.__table__, JobShare.__table__
_SHARE = bindparam("share", type_=BigInteger)
_MAX_JOBS = bindparam("most", type_=BigInteger)
_MAX_ANONYMOUS_JOBS = bindparam("most_anonymous", type_=BigInteger)

# Occupies a slot of a worker; a job at the processor has no lease.
_IN_SLOT = and_(_jobs.c.state.in_((RUNNING, FINALIZING, CANCELING)), _jobs.c.lease_until.is_not(None))
_IN_POOL = _jobs.c.share.between(bindparam("first", type_=BigInteger), bindparam("last", type_=BigInteger))


_REMOTE_KINDS = bindparam("remote_kinds", type_=ARRAY(Text))


def pool_column(share: ColumnElement[int]) -> ColumnElement[int]:
    """Return the pool of a share: all client addresses have one pool, every other share has its own."""
    return func.greatest(share, literal_column(str(ANONYMOUS_SHARE), BigInteger))


def _pool_limit(pool: ColumnElement[int]) -> ColumnElement[int]:
    """Return how many jobs of this pool may run at once."""
    return case((pool == ANONYMOUS_SHARE, _MAX_ANONYMOUS_JOBS), else_=_MAX_JOBS)


def remote_criterion(jobs: FromClause) -> ColumnElement[bool]:
    """Return the criterion for queued jobs for which the processor has a free run; see `get_remote_limits`."""
    has_room = and_(
        bindparam("has_free_run", type_=Boolean),
        pool_column(jobs.c.share) != all_(bindparam("full_remote_pools", type_=ARRAY(BigInteger))),
    )
    return or_(jobs.c.kind != all_(_REMOTE_KINDS), has_room)


class Turn(NamedTuple):
    """The queued job whose turn it is, with its kind and pool."""

    id: UUID
    kind: str
    pool: int


def _head_query(jobs: Any, *conditions: ColumnElement[bool]) -> Any:
    """Select the oldest queued job of the first share that meets the conditions."""
    return (
        select(jobs.c.id, jobs.c.kind, jobs.c.share, jobs.c.queued_at)
        .where(
            jobs.c.state == QUEUED,
            jobs.c.queued_at <= func.now(),  # later: it waits until the processor may have room
            jobs.c.kind != all_(bindparam("full_kinds", type_=ARRAY(Text))),
            remote_criterion(jobs),
            *conditions,
        )
        .order_by(jobs.c.share, jobs.c.queued_at, jobs.c.id)
        .limit(1)
    )


def _next_query() -> Any:
    """Select the job whose turn it is; the oldest job of each share costs one index probe, however many are queued."""
    heads = select(_head_query(_jobs.alias()).subquery()).cte("heads", recursive=True)
    others = _jobs.alias()
    following = _head_query(others, others.c.share > heads.c.share).lateral()
    heads = heads.union_all(select(following).select_from(heads.join(following, true())))
    # Shares without running jobs count 0; shares without a row in job_shares use `queued_at`.
    pool_of_head = pool_column(heads.c.share)
    busy, busy_pools = _running_by(_jobs.c.share), _running_by(pool_column(_jobs.c.share))
    served, served_pools = _shares.alias(), _shares.alias()
    running, pool_running = (func.coalesce(each.c.running, 0) for each in (busy, busy_pools))
    pool_queued_at = func.min(heads.c.queued_at).over(partition_by=pool_of_head)
    return (
        select(heads.c.id, heads.c.kind, pool_of_head)
        .select_from(
            heads.outerjoin(busy, busy.c.key == heads.c.share)
            .outerjoin(busy_pools, busy_pools.c.key == pool_of_head)
            .outerjoin(served, served.c.share == heads.c.share)
            .outerjoin(served_pools, served_pools.c.share == pool_of_head)
        )
        .where(
            or_(heads.c.share == OPERATOR_SHARE, pool_running < _pool_limit(pool_of_head)),
            pool_of_head != all_(bindparam("full_pools", type_=ARRAY(BigInteger))),
        )
        .order_by(
            pool_running,
            func.greatest(served_pools.c.served_at, pool_queued_at),
            running,
            func.greatest(served.c.served_at, heads.c.queued_at),
            heads.c.id,
        )
        .limit(1)
    )


def _running_by(key: ColumnElement[int]) -> Any:
    """Select the number of running jobs by share or pool."""
    return select(key.label("key"), func.count().label("running")).where(_IN_SLOT).group_by(key).subquery()


_select_next = PreparedStatement(_next_query())
_insert_share = insert(JobShare).values(share=_SHARE)
_upsert_share = PreparedStatement(
    _insert_share.on_conflict_do_update(index_elements=["share"], set_={"served_at": func.now()}).returning(
        _shares.c.share
    )
)
_count_running = PreparedStatement(select(func.count()).select_from(Job).where(_IN_POOL, _IN_SLOT))
_pool_of_job = pool_column(_jobs.c.share)
_select_full_pools = PreparedStatement(
    select(_pool_of_job).where(_IN_SLOT).group_by(_pool_of_job).having(func.count() >= _pool_limit(_pool_of_job))
)
_count_runs = PreparedStatement(
    select(_pool_of_job, func.count())
    .where(_jobs.c.kind == any_(_REMOTE_KINDS), _jobs.c.state.in_((RUNNING, WAITING, FINALIZING, CANCELING)))
    .group_by(_pool_of_job)
)
_select_queued_run = PreparedStatement(
    select(_jobs.c.id).where(_jobs.c.state == QUEUED, _jobs.c.kind == any_(_REMOTE_KINDS)).limit(1)
)
_any_queued = select(literal(1)).where(_jobs.c.state == QUEUED).limit(_MAX_JOBS)
_queued = _any_queued.where(_jobs.c.share == _SHARE)
_queued_of_hook = _queued.where(_jobs.c.hook_id == bindparam("hook_id", type_=BigInteger))
_queued_of_owner = _any_queued.where(_jobs.c.owner_id == bindparam("owner_id", type_=BigInteger))
_count_queued_of_owner = PreparedStatement(select(func.count()).select_from(_queued_of_owner.subquery()))
_has_own_share = PreparedStatement(
    select(literal(1)).where(User.id == bindparam("owner_id", type_=BigInteger), or_(User.is_verified, User.is_admin))
)
_count_queued = PreparedStatement(select(func.count()).select_from(_queued.subquery()))
_count_queued_of_hook = PreparedStatement(select(func.count()).select_from(_queued_of_hook.subquery()))
_select_oldest = PreparedStatement(
    select(_jobs.c.id)
    .where(_IN_POOL, _jobs.c.state == QUEUED)
    .order_by(_jobs.c.share, _jobs.c.queued_at, _jobs.c.id)
    .limit(1)
)


def get_share(owner_id: int | None, trigger: str) -> int:
    """Return the share of a new job: of its owner if the owner is verified, of the operator, or of a client address."""
    if owner_id is not None:
        return owner_id if _has_own_share.fetch_rows({"owner_id": owner_id}) else address_share()
    return OPERATOR_SHARE if trigger in OPERATOR_TRIGGERS else address_share()


def address_share() -> int:
    """Return the share of the client address that is the current actor; `ANONYMOUS_SHARE` if it is not one."""
    return min(current_actor(), ANONYMOUS_SHARE)


def max_running(share: int) -> int:
    """Return how many jobs of the pool of a share may run at once: fewer than a worker with several slots has."""
    concurrency: int = current_app.config["WORKER_CONCURRENCY"]
    most: int = current_app.config["MAX_RUNNING_JOBS_PER_OWNER"] or max(1, concurrency - 1)
    return min(most, max(1, concurrency // ANONYMOUS_SLOTS_DIVISOR)) if share <= ANONYMOUS_SHARE else most


def find_next_turn(
    full_kinds: Collection[str], full_pools: Collection[int], remote_kinds: Sequence[str]
) -> Turn | None:
    """Return the job whose turn it is, apart from these kinds and pools; None when no queued job may begin."""
    full = {"full_kinds": list(full_kinds), "full_pools": list(full_pools)}
    values = {**_max_running_values(), **get_remote_limits(remote_kinds), **full}
    return next((Turn(*row) for row in _select_next.fetch_rows(values)), None)


def lock_share(share: int) -> None:
    """Lock a share and its pool until the transaction ends, and record their turn."""
    if share < ANONYMOUS_SHARE:
        _upsert_share.run({"share": ANONYMOUS_SHARE})
    _upsert_share.run({"share": share})


def has_capacity(share: int) -> bool:
    """Return whether one more job of a locked share may run; jobs of the operator are not limited."""
    if share == OPERATOR_SHARE:
        return True
    ((running,),) = _count_running.fetch_rows(_pool_values(share))
    return bool(running < max_running(share))


def get_remote_limits(kinds: Sequence[str]) -> dict[str, Any]:
    """Return the kinds that the processor runs, the pools that have reached their limit, and whether a run is free."""
    rows = _count_runs.fetch_rows({"remote_kinds": list(kinds)}) if kinds else ()
    running: dict[int, int] = {pool: count for pool, count in rows}  # noqa: C416  # the rows are no pairs for mypy
    most: int = current_app.config["PROCESSOR_MAX_RUNS"]
    per_pool = max(1, most // PROCESSOR_SHARE_DIVISOR)
    return {
        "remote_kinds": list(kinds),
        "full_remote_pools": [pool for pool, count in running.items() if count >= per_pool],
        "has_free_run": sum(running.values()) < most,
    }


def has_free_run(share: int, remote_kinds: Sequence[str]) -> bool:
    """Return whether the processor may run one more job of a locked share."""
    limits = get_remote_limits(remote_kinds)
    return limits["has_free_run"] and max(share, ANONYMOUS_SHARE) not in limits["full_remote_pools"]


def find_queued_run(remote_kinds: Sequence[str]) -> UUID | None:
    """Return the id of a queued job that the processor runs, or None."""
    return next((id_ for (id_,) in _select_queued_run.fetch_rows({"remote_kinds": list(remote_kinds)})), None)


def list_full_pools() -> list[int]:
    """Return the pools that have reached their limit of running jobs."""
    return [pool for (pool,) in _select_full_pools.fetch_rows(_max_running_values()) if pool != OPERATOR_SHARE]


def count_queued(share: int, most: int, hook_id: int | None = None) -> int:
    """Count the queued jobs of a share, or those of one of its hooks, up to `most`."""
    if hook_id is None:
        ((count,),) = _count_queued.fetch_rows({"share": share, "most": most})
    else:
        ((count,),) = _count_queued_of_hook.fetch_rows({"share": share, "most": most, "hook_id": hook_id})
    return int(count)


def count_queued_of_owner(owner_id: int, most: int) -> int:
    """Count the queued jobs of one owner in all shares, up to `most`."""
    ((count,),) = _count_queued_of_owner.fetch_rows({"most": most, "owner_id": owner_id})
    return int(count)


def find_oldest_queued(share: int) -> UUID | None:
    """Return the id of the oldest queued job of a share of this pool; None if none is queued."""
    return next((id_ for (id_,) in _select_oldest.fetch_rows(_pool_values(share))), None)


def prune_shares(_older_than: timedelta) -> int:
    """Delete turns of client addresses that are older than `ADDRESS_RETENTION`; return 0: no batch is left."""
    old = select(_shares.c.share).where(
        _shares.c.share < ANONYMOUS_SHARE, _shares.c.served_at < func.now() - ADDRESS_RETENTION
    )
    with open_transaction(is_read=False):
        get_connection().execute(delete(JobShare).where(_shares.c.share.in_(old.with_for_update(skip_locked=True))))
        commit()
    return 0


def _pool_values(share: int) -> dict[str, int]:
    """Return the first and the last share of the pool of a share."""
    return {"first": _FIRST_SHARE if share <= ANONYMOUS_SHARE else share, "last": max(share, ANONYMOUS_SHARE)}


def _max_running_values() -> dict[str, int]:
    # OPERATOR_SHARE gives the limit of any owner; the operator itself is not limited.
    return {"most": max_running(OPERATOR_SHARE), "most_anonymous": max_running(ANONYMOUS_SHARE)}
