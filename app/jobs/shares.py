"""The shares of owners in the workers: which queued job is next, and how many of one owner run at once.

Owners take turns: next is the oldest job of the owner with the fewest running jobs, of several that of the owner who
has waited for longest: since a job of theirs last began, or since their oldest job was queued. One owner never has all
slots, so a job of another one begins at once, or as soon as a slot is free, however many jobs wait before it. Callers
who are not signed in and accounts whose address is not verified are one owner, with fewer slots: another account costs
them nothing.
"""

from collections.abc import Collection
from typing import Any, NamedTuple
from uuid import UUID

from flask import current_app
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Text,
    all_,
    and_,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import insert

from app.database import Prepared
from app.jobs.models import ANONYMOUS_SHARE, CANCELING, FINALIZING, OPERATOR_SHARE, QUEUED, RUNNING, Job, JobShare
from app.users.models import User

OPERATOR_TRIGGERS = ("cli", "signal")
"""Triggers of jobs without an owner that the operator has started, by a command."""

ANONYMOUS_SLOTS_DIVISOR = 4
"""All callers who are not signed in have one of so many slots of a worker, rounded down, and at least one slot."""

_jobs, _shares = Job.__table__, JobShare.__table__
_SHARE = bindparam("share", type_=BigInteger)
_MOST = bindparam("most", type_=BigInteger)
_MOST_ANONYMOUS = bindparam("most_anonymous", type_=BigInteger)

# In a slot of a worker; a job at the processor has no lease.
_IN_SLOT = and_(_jobs.c.state.in_((RUNNING, FINALIZING, CANCELING)), _jobs.c.lease_until.is_not(None))


def _most_of(share: ColumnElement[int]) -> ColumnElement[int]:
    """Return how many jobs of this share may run at once."""
    return case((share == ANONYMOUS_SHARE, _MOST_ANONYMOUS), else_=_MOST)


class Turn(NamedTuple):
    """A queued job that may be next."""

    id: UUID
    kind: str
    share: int


def _head_query(jobs: Any, *conditions: ColumnElement[bool]) -> Any:
    """Select the oldest queued job of the first share that meets the conditions."""
    return (
        select(jobs.c.id, jobs.c.kind, jobs.c.share, jobs.c.queued_at)
        .where(jobs.c.state == QUEUED, jobs.c.kind != all_(bindparam("full_kinds", type_=ARRAY(Text))), *conditions)
        .order_by(jobs.c.share, jobs.c.queued_at, jobs.c.id)
        .limit(1)
    )


def _next_query() -> Any:
    """Select the job whose turn it is. The oldest job of each share is one probe of an index, however many wait."""
    heads = select(_head_query(_jobs.alias()).subquery()).cte("heads", recursive=True)
    others = _jobs.alias()
    following = _head_query(others, others.c.share > heads.c.share).lateral()
    heads = heads.union_all(select(following).select_from(heads.join(following, true())))
    busy = select(_jobs.c.share, func.count().label("running")).where(_IN_SLOT).group_by(_jobs.c.share).subquery()
    running = func.coalesce(busy.c.running, 0)
    waiting_since = func.greatest(_shares.c.served_at, heads.c.queued_at)  # without a row of the share: queued_at
    return (
        select(heads.c.id, heads.c.kind, heads.c.share)
        .select_from(
            heads.outerjoin(busy, busy.c.share == heads.c.share).outerjoin(_shares, _shares.c.share == heads.c.share)
        )
        .where(
            or_(heads.c.share == OPERATOR_SHARE, running < _most_of(heads.c.share)),
            heads.c.share != all_(bindparam("full_shares", type_=ARRAY(BigInteger))),
        )
        .order_by(running, waiting_since, heads.c.id)
        .limit(1)
    )


_next = Prepared(_next_query())
_locked_row = insert(JobShare).values(share=_SHARE)
_lock = Prepared(
    _locked_row.on_conflict_do_update(index_elements=["share"], set_={"served_at": func.now()}).returning(
        _shares.c.share
    )
)
_running = Prepared(select(func.count()).select_from(Job).where(_jobs.c.share == _SHARE, _IN_SLOT))
_full = Prepared(
    select(_jobs.c.share).where(_IN_SLOT).group_by(_jobs.c.share).having(func.count() >= _most_of(_jobs.c.share))
)
_queued = select(literal(1)).where(_jobs.c.share == _SHARE, _jobs.c.state == QUEUED).limit(_MOST)
_queued_of_hook = _queued.where(_jobs.c.hook_id == bindparam("hook_id", type_=BigInteger))
_queued_of_owner = _queued.where(_jobs.c.owner_id == bindparam("owner_id", type_=BigInteger))
_count_queued_of_owner = Prepared(select(func.count()).select_from(_queued_of_owner.subquery()))
_has_own_share = Prepared(
    select(literal(1)).where(User.id == bindparam("owner_id", type_=BigInteger), or_(User.is_verified, User.is_admin))
)
_count_queued = Prepared(select(func.count()).select_from(_queued.subquery()))
_count_queued_of_hook = Prepared(select(func.count()).select_from(_queued_of_hook.subquery()))
_oldest = Prepared(
    select(_jobs.c.id)
    .where(_jobs.c.share == _SHARE, _jobs.c.state == QUEUED)
    .order_by(_jobs.c.queued_at, _jobs.c.id)
    .limit(1)
)


def share_of(owner_id: int | None, trigger: str) -> int:
    """Return the share that a job belongs to: that of its owner, if the address of the owner is verified."""
    if owner_id is not None:
        return owner_id if _has_own_share.rows({"owner_id": owner_id}) else ANONYMOUS_SHARE
    return OPERATOR_SHARE if trigger in OPERATOR_TRIGGERS else ANONYMOUS_SHARE


def max_running(share: int) -> int:
    """Return how many jobs of a share may run at once: fewer than a worker has slots, where it has several."""
    concurrency: int = current_app.config["WORKER_CONCURRENCY"]
    most: int = current_app.config["MAX_RUNNING_JOBS_PER_OWNER"] or max(1, concurrency - 1)
    return min(most, max(1, concurrency // ANONYMOUS_SLOTS_DIVISOR)) if share == ANONYMOUS_SHARE else most


def next_turn(full_kinds: Collection[str], full_shares: Collection[int]) -> Turn | None:
    """Return the job whose turn it is, apart from these kinds and shares; None when no queued job may begin."""
    values = {**_max_running_values(), "full_kinds": list(full_kinds), "full_shares": list(full_shares)}
    return next((Turn(*row) for row in _next.rows(values)), None)


def lock(share: int) -> None:
    """Lock a share until the transaction ends, and note that it is served now."""
    _lock.run({"share": share})


def has_capacity(share: int) -> bool:
    """Return whether one more job of a locked share may run. Jobs of the operator are not limited."""
    if share == OPERATOR_SHARE:
        return True
    ((running,),) = _running.rows({"share": share})
    return bool(running < max_running(share))


def full_shares() -> list[int]:
    """Return the shares of which no further job may run now."""
    return [share for (share,) in _full.rows(_max_running_values()) if share != OPERATOR_SHARE]


def count_queued(share: int, most: int, hook_id: int | None = None) -> int:
    """Count the queued jobs of a share, or those of one of its hooks, up to `most`."""
    if hook_id is None:
        ((count,),) = _count_queued.rows({"share": share, "most": most})
    else:
        ((count,),) = _count_queued_of_hook.rows({"share": share, "most": most, "hook_id": hook_id})
    return int(count)


def count_queued_of_owner(share: int, most: int, owner_id: int) -> int:
    """Count the queued jobs of one owner in a share, up to `most`."""
    ((count,),) = _count_queued_of_owner.rows({"share": share, "most": most, "owner_id": owner_id})
    return int(count)


def oldest_queued(share: int) -> UUID | None:
    """Return the id of the job of this share that has been queued for longest; None when none is."""
    return next((id_ for (id_,) in _oldest.rows({"share": share})), None)


def _max_running_values() -> dict[str, int]:
    # Of an owner and of the operator alike: those of the operator are not limited anyway.
    return {"most": max_running(OPERATOR_SHARE), "most_anonymous": max_running(ANONYMOUS_SHARE)}
