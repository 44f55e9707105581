"""Jobs as flat objects: what the API says of them, with its names, without the envelope of JSON:API."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, bindparam, select

from app.database import Prepared
from app.errors import NotFound
from app.jobs.kinds import Kind
from app.jobs.models import Attempt
from app.jsonapi.naming import dasherize
from app.jsonapi.permissions import Access, Scope
from app.jsonapi.plan import Item, plan_for
from app.jsonapi.query import Query
from app.jsonapi.reading import Reader
from app.jsonapi.resource_type import TYPES
from app.jsonapi.viewer import Role, Viewer

OPERATOR = Access(Viewer(is_admin=True), Scope(Role.ADMIN))
"""Whoever runs the server: he sees what admins do, and is no user."""

_attempts = Attempt.__table__
_ATTEMPT = [column for column in _attempts.c if column.key != "job_id"]
_attempts_of = Prepared(
    select(*_ATTEMPT).where(_attempts.c.job_id == bindparam("job_id", type_=Uuid)).order_by(_attempts.c.number)
)


def find(type_name: str, name: str) -> Any:
    """The id of the resource that somebody named; NotFound where there is none."""
    return _reader().find(TYPES[type_name], name)


def job(job_id: UUID) -> Item:
    """One job."""
    document = _reader().resource(TYPES["job"], job_id)
    if document is None:
        raise NotFound("The job has just gone away.")
    return _flat(document["data"])


def jobs(states: Sequence[str], kind: str | None, limit: int) -> list[Item]:
    """The newest ones, in these states where some are named."""
    plan = plan_for(TYPES["job"], OPERATOR.scope)
    table = plan.type.table
    statement = plan.statement.order_by(table.c.id.desc()).limit(limit)
    if states:
        statement = statement.where(table.c.state.in_(states))
    if kind is not None:
        statement = statement.where(table.c.kind == kind)
    return [_flat(plan.print(row)) for row in _reader().execute(statement)]


def whole_job(job_id: UUID) -> Item:
    """One job with all that belongs to it."""
    rows = _attempts_of.rows({"job_id": job_id})
    attempts = [dict(zip((dasherize(column.key) for column in _ATTEMPT), row, strict=True)) for row in rows]
    parts = {"events": _parts("job-event", "seq", job_id), "artifacts": _parts("job-artifact", "id", job_id)}
    return {**job(job_id), "attempts": attempts, **parts}


def kind(kind: Kind) -> Item:
    """What can run."""
    return {
        "name": kind.name,
        "title": kind.title,
        "parameters": kind.parameters,
        "dedupe": kind.dedupe,
        "time-limit": kind.time_limit.total_seconds(),
        "max-attempts": kind.max_attempts,
        "started-by": kind.on,
    }


def _parts(type_name: str, order: str, job_id: UUID) -> list[Item]:
    plan = plan_for(TYPES[type_name], OPERATOR.scope)
    table = plan.type.table
    rows = _reader().execute(plan.statement.where(table.c.job_id == job_id).order_by(table.c[order]))
    items = [plan.print(row) for row in rows]
    return [{"id": item["id"], **item["attributes"]} for item in items]


def _flat(item: Item) -> Item:
    """To-one relationships become the ids of what they name."""
    named = {name: each["data"] for name, each in item["relationships"].items() if "data" in each}
    return {"id": item["id"], **item["attributes"], **{name: data and data["id"] for name, data in named.items()}}


def _reader() -> Reader:
    return Reader(OPERATOR, Query(OPERATOR.scope))
