"""Queries of the pages: jobs with their owner and event, newest first, as prepared statements."""

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
"""Jobs on one page of a paginated section."""
MAX_ACTIVE_JOBS = 50
"""Maximum jobs in a section of active jobs."""
MAX_LOG_LINES = 200
"""Maximum lines of a log that are read at once."""
MAX_CHANGED_JOBS = 500
"""Maximum changed jobs that a stream sends in one event; a page that missed more is reloaded."""

_jobs, _events, _users = Job.__table__, EVENT.table.alias("events"), User.__table__
_lines, _attempts, _artifacts = JobEvent.__table__, Attempt.__table__, Artifact.__table__
_ID = bindparam("id", type_=Uuid)
_SEQ = bindparam("seq", type_=BigInteger)
_SINCE = bindparam("since", type_=Uuid)


class JobListItem(NamedTuple):
    """A job in a list."""

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
    """Queue position of a queued job, else None."""
    owner_email: str | None
    """E-mail address of the owner; None unless the viewer is an admin."""
    event_name: str | None
    event_link: str | None
    """Identifier of the event in its URL; None unless the event is published."""


class JobResult(NamedTuple):
    """Columns that only the page of the job shows."""

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
    """An artifact of a job."""

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
    """Return the access context of a user."""
    return AccessContext(viewer, VisibilityScope(viewer.role))


def get_email(viewer: CurrentUser) -> str:
    """Return the e-mail address of a user."""
    ((email,),) = _select_email.fetch_rows({"id": viewer.id})
    return str(email)


def list_jobs(
    access: AccessContext, states: tuple[str, ...], limit: int, *, kind: str | None = None, older: UUID | None = None
) -> list[JobListItem]:
    """Return the newest visible jobs in these states, optionally of one kind and older than the job with an id."""
    statement = _prepare_job_list(access.scope.role, states, limit, kind is not None, older is not None)
    return [
        JobListItem(*row) for row in statement.fetch_rows({**access.sql_parameters(), "kind": kind, "older": older})
    ]


def get_jobs(access: AccessContext, ids: Iterable[UUID]) -> list[JobListItem]:
    """Return the visible jobs with these ids, newest first."""
    return [
        JobListItem(*row)
        for row in _select_jobs_by_id(access.scope.role).fetch_rows({**access.sql_parameters(), "ids": list(ids)})
    ]


def get_job(access: AccessContext, name: str) -> JobListItem | None:
    """Return the job with the id in a URL; None if it does not exist or is not visible."""
    id_ = parse_uuid(name)
    return next(iter(get_jobs(access, [id_])), None) if id_ else None


def get_job_for_update(access: AccessContext, name: str) -> JobRow | None:
    """Return the full row of the job with the id in a URL, locked with FOR UPDATE; None if it is not visible."""
    rows = _select_job_for_update(access.scope.role).fetch_rows({**access.sql_parameters(), "id": parse_uuid(name)})
    return JobRow(*rows[0]) if rows else None


def list_changed_ids(access: AccessContext, since: UUID) -> set[UUID]:
    """Return the ids of jobs created after this id, with progress events after it, or queued (positions change)."""
    return {
        row[0] for row in _select_changed_ids(access.scope.role).fetch_rows({**access.sql_parameters(), "since": since})
    }


def get_job_result(job_id: UUID) -> JobResult:
    """Return result, error and heartbeat of a job; the caller has checked that it is visible."""
    return JobResult(*_select_result.fetch_rows({"id": job_id})[0])


def get_parameters(job_id: UUID) -> dict[str, Any]:
    """Return the parameters of a job."""
    ((parameters,),) = _select_parameters.fetch_rows({"id": job_id})
    return dict(parameters)


def list_attempts(job_id: UUID) -> list[AttemptRow]:
    """Return the attempts of a job, oldest first."""
    return [AttemptRow(*row) for row in _select_attempts.fetch_rows({"id": job_id})]


def list_artifacts(job_id: UUID) -> list[ArtifactRow]:
    """Return the artifacts of a job, sorted by name."""
    return [ArtifactRow(*row) for row in _select_artifacts.fetch_rows({"id": job_id})]


def list_newest_lines(job_id: UUID) -> list[LogLine]:
    """Return the last lines of the log of a job, newest first."""
    return [LogLine(*row) for row in _select_newest_lines.fetch_rows({"id": job_id, "seq": 0})]


def list_lines_after(job_id: UUID, seq: int) -> list[LogLine]:
    """Return the lines of the log of a job after this sequence number, oldest first."""
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
        return and_(
            _jobs.c.state.in_(ACTIVE_STATES), _jobs.c.state.in_(states)
        )  # the predicate of a partial index, literally
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
    queued = select(_jobs.c.id).where(_match_states((QUEUED,)), mine).order_by(_jobs.c.id.desc()).limit(MAX_ACTIVE_JOBS)
    changed = select(_lines.c.job_id).join(_jobs, _jobs.c.id == _lines.c.job_id).where(_lines.c.id > _SINCE, mine)
    ids = union(new, queued.subquery().select(), changed).subquery()
    newest = select(ids.c.id).order_by(ids.c.id.desc())
    return PreparedStatement(newest.limit(literal_column(str(MAX_CHANGED_JOBS), Integer)))
