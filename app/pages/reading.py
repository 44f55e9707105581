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

from app.database import Prepared
from app.events.resources import EVENT
from app.jobs.models import ENDED, LIVE, QUEUED, Artifact, Attempt, Job, JobEvent
from app.jobs.queue import queue_position
from app.jobs.records import JobRow
from app.jsonapi.permissions import Access, Scope
from app.jsonapi.resource_type import parse_uuid
from app.jsonapi.viewer import Role, Viewer
from app.users.models import User
from app.users.owning import own

PAGE = 20
"""Jobs on one page of a list that has pages."""
MOST_LIVE = 50
"""Jobs in a list of those that have not ended, beside which there are other lists."""
MOST_LINES = 200
"""Lines of a log that a page begins with."""
MOST_CHANGED = 500
"""Jobs whose changes are told at once; a page that has missed more is made again."""

_jobs, _events, _users = Job.__table__, EVENT.table.alias("events"), User.__table__
_lines, _attempts, _artifacts = JobEvent.__table__, Attempt.__table__, Artifact.__table__
_ID = bindparam("id", type_=Uuid)
_SEQ = bindparam("seq", type_=BigInteger)
_SINCE = bindparam("since", type_=Uuid)


class Listed(NamedTuple):
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


class Outcome(NamedTuple):
    """What only the page of the job shows."""

    result: dict[str, Any] | None
    error: dict[str, Any] | None
    heartbeat_at: datetime | None


class Line(NamedTuple):
    """A line of the log of a job."""

    seq: int
    level: str
    state: str
    fraction: float | None
    message: str | None
    created_at: datetime


class Try(NamedTuple):
    """One attempt of a job."""

    number: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None


class File(NamedTuple):
    """A file that a job made."""

    id: UUID
    name: str
    media_type: str
    size: int
    sha256: str
    partial: bool


_FROM_JOBS = [_jobs.c[name] for name in Listed._fields if name in _jobs.c]

_email = Prepared(select(_users.c.email).where(_users.c.id == bindparam("id", type_=BigInteger)))
_outcome = Prepared(select(*(_jobs.c[name] for name in Outcome._fields)).where(_jobs.c.id == _ID))
_parameters = Prepared(select(_jobs.c.parameters).where(_jobs.c.id == _ID))
_tries = Prepared(
    select(*(_attempts.c[name] for name in Try._fields)).where(_attempts.c.job_id == _ID).order_by(_attempts.c.number)
)
_files = Prepared(
    select(*(_artifacts.c[name] for name in File._fields)).where(_artifacts.c.job_id == _ID).order_by(_artifacts.c.name)
)
_some_lines = (
    select(*(_lines.c[name] for name in Line._fields))
    .where(_lines.c.job_id == _ID, _lines.c.seq > _SEQ)
    .limit(MOST_LINES)
)
_newest_lines = Prepared(_some_lines.order_by(_lines.c.seq.desc()))
_next_lines = Prepared(_some_lines.order_by(_lines.c.seq))


def access_of(viewer: Viewer) -> Access:
    """What the viewer may see."""
    return Access(viewer, Scope(viewer.role))


def email_of(viewer: Viewer) -> str:
    """The viewer's own address."""
    ((email,),) = _email.rows({"id": viewer.id})
    return str(email)


def listed(
    access: Access, states: tuple[str, ...], limit: int, *, kind: str | None = None, older: UUID | None = None
) -> list[Listed]:
    """The newest jobs in these states, perhaps of one kind, perhaps only those older than another."""
    statement = _list(access.scope.role, states, limit, kind is not None, older is not None)
    return [Listed(*row) for row in statement.rows({**access.parameters(), "kind": kind, "older": older})]


def among(access: Access, ids: Iterable[UUID]) -> list[Listed]:
    """Those of these jobs that the viewer sees, the newest first."""
    return [Listed(*row) for row in _among(access.scope.role).rows({**access.parameters(), "ids": list(ids)})]


def job(access: Access, name: str) -> Listed | None:
    """The job that a URL names, None where there is none for this viewer."""
    id_ = parse_uuid(name)
    return next(iter(among(access, [id_])), None) if id_ else None


def locked(access: Access, name: str) -> JobRow | None:
    """The same, all of it, so that nobody else moves it meanwhile."""
    found = _locked(access.scope.role).rows({**access.parameters(), "id": parse_uuid(name)})
    return JobRow(*found[0]) if found else None


def changed_since(access: Access, since: UUID) -> set[UUID]:
    """Jobs that are newer than this id or have said something after it, and all that wait: their place changes."""
    return {row[0] for row in _changed(access.scope.role).rows({**access.parameters(), "since": since})}


def outcome(job_id: UUID) -> Outcome:
    """What has come of a job that the viewer was found to see."""
    return Outcome(*_outcome.rows({"id": job_id})[0])


def parameters(job_id: UUID) -> dict[str, Any]:
    """What it was started with."""
    ((found,),) = _parameters.rows({"id": job_id})
    return dict(found)


def tries(job_id: UUID) -> list[Try]:
    """Its attempts, the first one first."""
    return [Try(*row) for row in _tries.rows({"id": job_id})]


def files(job_id: UUID) -> list[File]:
    """What it has made, by name."""
    return [File(*row) for row in _files.rows({"id": job_id})]


def newest_lines(job_id: UUID) -> list[Line]:
    """The end of its log, the newest line first."""
    return [Line(*row) for row in _newest_lines.rows({"id": job_id, "seq": 0})]


def lines_after(job_id: UUID, seq: int) -> list[Line]:
    """What its log says after this line, the oldest first."""
    return [Line(*row) for row in _next_lines.rows({"id": job_id, "seq": seq})]


@cache
def _seen(role: Role) -> Select[Any]:
    scope = Scope(role)
    visible = EVENT.permissions.criterion(scope, _events, related=True)
    statement = select(
        *_FROM_JOBS,
        queue_position(_jobs),
        _users.c.email if role is Role.ADMIN else null(),
        _events.c.name,
        case((_events.c.state == "published", EVENT.link_name(_events))),
    )
    source = _jobs.outerjoin(_events, and_(_events.c.id == _jobs.c.event_id, visible))
    if role is Role.ADMIN:
        source = source.outerjoin(_users, _users.c.id == _jobs.c.owner_id)
    return statement.select_from(source).where(own(scope, _jobs)).order_by(_jobs.c.id.desc())


@cache
def _list(role: Role, states: tuple[str, ...], limit: int, is_of_kind: bool, is_older: bool) -> Prepared:
    statement = _seen(role).where(_in(states)).limit(literal_column(str(limit), Integer))
    if is_of_kind:
        statement = statement.where(_jobs.c.kind == bindparam("kind", type_=Text))
    if is_older:
        statement = statement.where(_jobs.c.id < bindparam("older", type_=Uuid))
    return Prepared(statement)


def _in(states: tuple[str, ...]) -> ColumnElement[bool]:
    if set(states).isdisjoint(ENDED):
        return and_(_jobs.c.state.in_(LIVE), _jobs.c.state.in_(states))  # word for word what an index holds
    return _jobs.c.state.in_(states)


@cache
def _among(role: Role) -> Prepared:
    return Prepared(_seen(role).where(_jobs.c.id == any_(bindparam("ids", type_=ARRAY(Uuid)))))


@cache
def _locked(role: Role) -> Prepared:
    return Prepared(select(*_jobs.c).where(_jobs.c.id == _ID, own(Scope(role), _jobs)).with_for_update())


@cache
def _changed(role: Role) -> Prepared:
    mine = own(Scope(role), _jobs)
    new = select(_jobs.c.id).where(_jobs.c.id > _SINCE, mine)
    waiting = select(_jobs.c.id).where(_in((QUEUED,)), mine).order_by(_jobs.c.id.desc()).limit(MOST_LIVE)
    told = select(_lines.c.job_id).where(_lines.c.id > _SINCE)
    found = union(new, waiting.subquery().select(), told).subquery()
    newest = select(found.c.id).order_by(found.c.id.desc())
    return Prepared(newest.limit(literal_column(str(MOST_CHANGED), Integer)))
