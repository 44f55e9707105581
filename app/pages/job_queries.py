"""What the pages read: jobs with who and what they belong to, the newest first, in statements prepared once."""

from collections.abc import Iterable
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    case,
    literal_column,
    null,
    select,
    union,
)

from app.database import PreparedStatement
from app.events.resources import EVENT
from app.jobs.models import ACTIVE_STATES, QUEUED, TERMINAL_STATES, Artifact, Attempt, Job, JobEvent
from app.jobs.queue_position import queue_position
from app.jobs.records import JobRow
from app.jsonapi.current_user import CurrentUser, Role
from app.jsonapi.permissions import AccessContext, VisibilityScope
from app.jsonapi.resource_type import parse_uuid
from app.users.models import User
from app.users.ownership import is_owned_by_viewer

PAGE_SIZE = 20
"""Jobs on one page of a list that has pages."""
MAX_ACTIVE_JOBS = 50
"""Jobs in a list of those that have not ended, beside which there are other lists."""
MAX_LOG_LINES = 200
"""Lines of a log that a page begins with."""
MAX_CHANGED_JOBS = 500
"""Jobs whose changes are told at once; a page that has missed more is made again."""

_jobs, _events, _users = Job.__table__, EVENT.table.alias("events"), User.__table__
_lines, _attempts, _artifacts = JobEvent.__table__, Attempt.__table__, Artifact.__table__
_ID = bindparam("id", type_=Uuid)
_SEQ = bindparam("seq", type_=BigInteger)
_SINCE = bindparam("since", type_=Uuid)


class JobListItem(NamedTuple):
    """A job as lists show it."""

    id: UUID
    kind: str
    state: str
    progress: float | None
    message: str | None
    attempt: int
    max_attempts: int
    trigger: str
    owner_id: int | None
    retry_of_id: UUID | None
    last_seq: int
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    ahead: int | None
    """How many run or wait before it, while it waits."""
    owner_email: str | None
    """For admins."""
    event_name: str | None
    event_link: str | None
    """What a link names the event by, where everybody may follow it."""


class JobResult(NamedTuple):
    """What only the page of the job shows."""

    result: dict[str, Any] | None
    error: dict[str, Any] | None
    heartbeat_at: datetime | None


class LogLine(NamedTuple):
    """A line of the log of a job."""

    seq: int
    level: str
    state: str
    fraction: float | None
    message: str | None
    created_at: datetime


class AttemptRow(NamedTuple):
    """One attempt of a job."""

    number: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None


class ArtifactRow(NamedTuple):
    """A file that a job made."""

    id: UUID
    name: str
    media_type: str
    size: int
    sha256: str
    partial: bool


_JOB_COLUMNS = [_jobs.c[name] for name in JobListItem._fields if name in _jobs.c]

_select_email = PreparedStatement(select(_users.c.email).where(_users.c.id == bindparam("id", type_=BigInteger)))
_select_result = PreparedStatement(select(*(_jobs.c[name] for name in JobResult._fields)).where(_jobs.c.id == _ID))
_select_parameters = PreparedStatement(select(_jobs.c.parameters).where(_jobs.c.id == _ID))
_select_attempts = PreparedStatement(
    select(*(_attempts.c[name] for name in AttemptRow._fields))
    .where(_attempts.c.job_id == _ID)
    .order_by(_attempts.c.number)
)
_select_artifacts = PreparedStatement(
    select(*(_artifacts.c[name] for name in ArtifactRow._fields))
    .where(_artifacts.c.job_id == _ID)
    .order_by(_artifacts.c.name)
)
_select_lines = (
    select(*(_lines.c[name] for name in LogLine._fields))
    .where(_lines.c.job_id == _ID, _lines.c.seq > _SEQ)
    .limit(MAX_LOG_LINES)
)
_select_newest_lines = PreparedStatement(_select_lines.order_by(_lines.c.seq.desc()))
_select_lines_after = PreparedStatement(_select_lines.order_by(_lines.c.seq))


def build_access(viewer: CurrentUser) -> AccessContext:
    """What the viewer may see."""
    return AccessContext(viewer, VisibilityScope(viewer.role))


def get_email(viewer: CurrentUser) -> str:
    """The viewer's own address."""
    ((email,),) = _select_email.fetch_rows({"id": viewer.id})
    return str(email)


def list_jobs(
    access: AccessContext, states: tuple[str, ...], limit: int, *, kind: str | None = None, older: UUID | None = None
) -> list[JobListItem]:
    """The newest jobs in these states, perhaps of one kind, perhaps only those older than another."""
    statement = _prepare_job_list(access.scope.role, states, limit, kind is not None, older is not None)
    return [
        JobListItem(*row) for row in statement.fetch_rows({**access.sql_parameters(), "kind": kind, "older": older})
    ]


def get_jobs(access: AccessContext, ids: Iterable[UUID]) -> list[JobListItem]:
    """Those of these jobs that the viewer sees, the newest first."""
    return [
        JobListItem(*row)
        for row in _select_jobs_by_id(access.scope.role).fetch_rows({**access.sql_parameters(), "ids": list(ids)})
    ]


def get_job(access: AccessContext, name: str) -> JobListItem | None:
    """The job that a URL names, None where there is none for this viewer."""
    id_ = parse_uuid(name)
    return next(iter(get_jobs(access, [id_])), None) if id_ else None


def get_job_for_update(access: AccessContext, name: str) -> JobRow | None:
    """The same, all of it, so that nobody else moves it meanwhile."""
    found = _select_job_for_update(access.scope.role).fetch_rows({**access.sql_parameters(), "id": parse_uuid(name)})
    return JobRow(*found[0]) if found else None


def list_changed_ids(access: AccessContext, since: UUID) -> set[UUID]:
    """Jobs that are newer than this id or have said something after it, and all that wait: their place changes."""
    return {
        row[0] for row in _select_changed_ids(access.scope.role).fetch_rows({**access.sql_parameters(), "since": since})
    }


def get_job_result(job_id: UUID) -> JobResult:
    """What has come of a job that the viewer was found to see."""
    return JobResult(*_select_result.fetch_rows({"id": job_id})[0])


def get_parameters(job_id: UUID) -> dict[str, Any]:
    """What it was started with."""
    ((found,),) = _select_parameters.fetch_rows({"id": job_id})
    return dict(found)


def list_attempts(job_id: UUID) -> list[AttemptRow]:
    """Its attempts, the first one first."""
    return [AttemptRow(*row) for row in _select_attempts.fetch_rows({"id": job_id})]


def list_artifacts(job_id: UUID) -> list[ArtifactRow]:
    """What it has made, by name."""
    return [ArtifactRow(*row) for row in _select_artifacts.fetch_rows({"id": job_id})]


def list_newest_lines(job_id: UUID) -> list[LogLine]:
    """The end of its log, the newest line first."""
    return [LogLine(*row) for row in _select_newest_lines.fetch_rows({"id": job_id, "seq": 0})]


def list_lines_after(job_id: UUID, seq: int) -> list[LogLine]:
    """What its log says after this line, the oldest first."""
    return [LogLine(*row) for row in _select_lines_after.fetch_rows({"id": job_id, "seq": seq})]


@cache
def _select_visible_jobs(role: Role) -> Select[Any]:
    scope = VisibilityScope(role)
    visible = EVENT.permissions.visibility_criterion(scope, _events, related=True)
    statement = select(
        *_JOB_COLUMNS,
        queue_position(_jobs),
        _users.c.email if role is Role.ADMIN else null(),
        _events.c.name,
        case((_events.c.state == "published", EVENT.link_name(_events))),
    )
    source = _jobs.outerjoin(_events, and_(_events.c.id == _jobs.c.event_id, visible))
    if role is Role.ADMIN:
        source = source.outerjoin(_users, _users.c.id == _jobs.c.owner_id)
    return statement.select_from(source).where(is_owned_by_viewer(scope, _jobs)).order_by(_jobs.c.id.desc())


@cache
def _prepare_job_list(
    role: Role, states: tuple[str, ...], limit: int, is_of_kind: bool, is_older: bool
) -> PreparedStatement:
    statement = _select_visible_jobs(role).where(_match_states(states)).limit(literal_column(str(limit), Integer))
    if is_of_kind:
        statement = statement.where(_jobs.c.kind == bindparam("kind", type_=Text))
    if is_older:
        statement = statement.where(_jobs.c.id < bindparam("older", type_=Uuid))
    return PreparedStatement(statement)


def _match_states(states: tuple[str, ...]) -> ColumnElement[bool]:
    if set(states).isdisjoint(TERMINAL_STATES):
        return and_(_jobs.c.state.in_(ACTIVE_STATES), _jobs.c.state.in_(states))  # word for word what an index holds
    return _jobs.c.state.in_(states)


@cache
def _select_jobs_by_id(role: Role) -> PreparedStatement:
    return PreparedStatement(_select_visible_jobs(role).where(_jobs.c.id == any_(bindparam("ids", type_=ARRAY(Uuid)))))


@cache
def _select_job_for_update(role: Role) -> PreparedStatement:
    return PreparedStatement(
        select(*_jobs.c).where(_jobs.c.id == _ID, is_owned_by_viewer(VisibilityScope(role), _jobs)).with_for_update()
    )


@cache
def _select_changed_ids(role: Role) -> PreparedStatement:
    mine = is_owned_by_viewer(VisibilityScope(role), _jobs)
    new = select(_jobs.c.id).where(_jobs.c.id > _SINCE, mine)
    waiting = (
        select(_jobs.c.id).where(_match_states((QUEUED,)), mine).order_by(_jobs.c.id.desc()).limit(MAX_ACTIVE_JOBS)
    )
    told = select(_lines.c.job_id).join(_jobs, _jobs.c.id == _lines.c.job_id).where(_lines.c.id > _SINCE, mine)
    found = union(new, waiting.subquery().select(), told).subquery()
    newest = select(found.c.id).order_by(found.c.id.desc())
    return PreparedStatement(newest.limit(literal_column(str(MAX_CHANGED_JOBS), Integer)))
