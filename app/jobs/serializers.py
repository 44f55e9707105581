"""Jobs as flat objects for the command line: the names and values of the API without the JSON:API envelope."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, bindparam, select

from app.database import PreparedStatement
from app.errors import NotFound
from app.jobs.kinds import Kind
from app.jobs.models import Attempt
from app.jsonapi.current_user import CurrentUser, Role
from app.jsonapi.inflection import dasherize
from app.jsonapi.permissions import AccessContext, VisibilityScope
from app.jsonapi.query_params import Query
from app.jsonapi.reader import ResourceReader
from app.jsonapi.resource_type import TYPES
from app.jsonapi.select_plan import Item, get_select_plan

OPERATOR = AccessContext(CurrentUser(is_admin=True), VisibilityScope(Role.ADMIN))
"""Access of the operator, who sees what admins see and is no user."""

_attempts = Attempt.__table__
_ATTEMPT_COLUMNS = [column for column in _attempts.c if column.key != "job_id"]
_select_attempts = PreparedStatement(
    select(*_ATTEMPT_COLUMNS).where(_attempts.c.job_id == bindparam("job_id", type_=Uuid)).order_by(_attempts.c.number)
)


def find_id(type_name: str, name: str) -> Any:
    """Return the id of the resource with this id in a URL or command; raise NotFound if there is none."""
    return _make_reader().get_id(TYPES[type_name], name)


def get_job(job_id: UUID) -> Item:
    """Return one job; raise NotFound if it does not exist."""
    document = _make_reader().get_document(TYPES["job"], job_id)
    if document is None:
        raise NotFound("The job has just been deleted.")
    return _flatten_item(document["data"])


def list_jobs(states: Sequence[str], kind: str | None, limit: int) -> list[Item]:
    """Return the newest jobs, in these states if any are given, and of this kind."""
    plan = get_select_plan(TYPES["job"], OPERATOR.scope)
    table = plan.type.table
    statement = plan.statement.order_by(table.c.id.desc()).limit(limit)
    if states:
        statement = statement.where(table.c.state.in_(states))
    if kind is not None:
        statement = statement.where(table.c.kind == kind)
    return [_flatten_item(plan.serialize_row(row)) for row in _make_reader().execute_statement(statement)]


def get_job_details(job_id: UUID) -> Item:
    """Return one job with its attempts, events and artifacts."""
    rows = _select_attempts.fetch_rows({"job_id": job_id})
    attempts = [dict(zip((dasherize(column.key) for column in _ATTEMPT_COLUMNS), row, strict=True)) for row in rows]
    parts = {"events": _list_parts("job-event", "seq", job_id), "artifacts": _list_parts("job-artifact", "id", job_id)}
    return {**get_job(job_id), "attempts": attempts, **parts}


def serialize_kind(kind: Kind) -> Item:
    """Return a kind as a flat object."""
    return {
        "name": kind.name,
        "title": kind.title,
        "parameters": kind.parameters,
        "dedupe": kind.dedupe,
        "time-limit": kind.time_limit.total_seconds(),
        "max-attempts": kind.max_attempts,
        "started-by": kind.triggers,
    }


def _list_parts(type_name: str, order: str, job_id: UUID) -> list[Item]:
    plan = get_select_plan(TYPES[type_name], OPERATOR.scope)
    table = plan.type.table
    rows = _make_reader().execute_statement(plan.statement.where(table.c.job_id == job_id).order_by(table.c[order]))
    items = [plan.serialize_row(row) for row in rows]
    return [{"id": item["id"], **item["attributes"]} for item in items]


def _flatten_item(item: Item) -> Item:
    """Return a resource object with its attributes and the ids of its to-one relationships as members."""
    linkage = {name: each["data"] for name, each in item["relationships"].items() if "data" in each}
    return {"id": item["id"], **item["attributes"], **{name: data and data["id"] for name, data in linkage.items()}}


def _make_reader() -> ResourceReader:
    return ResourceReader(OPERATOR, Query(OPERATOR.scope))
