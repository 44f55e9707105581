"""Permissions of jobs: owners see their jobs, admins see all; the kind decides who may start it."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, FromClause, bindparam, exists, literal, select

from app.database import PreparedStatement
from app.errors import Forbidden, NotFound
from app.events.resources import EVENT
from app.events.team import TEAM, has_role
from app.jobs.kinds import Kind
from app.jobs.models import Job
from app.jobs.records import JobRow
from app.jsonapi import select_statements
from app.jsonapi.current_user import CurrentUser
from app.jsonapi.permissions import AccessContext, Permissions, VisibilityScope, any_user
from app.users.models import User
from app.users.ownership import is_owned_by_viewer

_users = User.__table__
_select_user_roles = PreparedStatement(
    select(_users.c.is_admin, _users.c.is_super_admin).where(
        _users.c.id == bindparam("id", type_=BigInteger), _users.c.deleted_at.is_(None), _users.c.is_blocked.is_(False)
    )
)


def belongs_to_visible_job(scope: VisibilityScope, table: FromClause) -> ColumnElement[bool]:
    """Return the criterion for rows that belong to a job which the current user may see."""
    jobs = Job.__table__.alias()
    return exists(select(literal(1)).where(jobs.c.id == table.c.job_id, is_owned_by_viewer(scope, jobs)))


PERMISSIONS = Permissions(visible=is_owned_by_viewer, list=any_user, read=any_user, create=any_user)
PARTS_PERMISSIONS = Permissions(visible=belongs_to_visible_job, list=any_user, read=any_user)


def require_start(kind: Kind, parameters: Mapping[str, Any], access: AccessContext, pointer: str | None) -> None:
    """Raise Forbidden unless the current user may start this kind with these parameters.

    Raise NotFound for an event that the current user may not see.
    """
    kind.require_directly_submittable(pointer)
    if kind.belongs_to_event and "event" in parameters:
        _require_team(parameters["event"], access, pointer and f"{pointer}/event")
    if not kind.can_start(access.viewer, parameters):
        raise Forbidden("You may not start this kind of job with these parameters.", pointer=pointer)


def is_still_allowed(kind: Kind, job: JobRow) -> bool:
    """Return whether the owner of a job may still start it when it begins: they may have left the team.

    Jobs started by a trigger or the operator need no permission; jobs created with another resource check their own.
    """
    if job.owner_id is None or job.trigger in ("signal", "cli") or kind.created_by:
        return True
    # Includes deleted events: the function of the kind reports them with a better error.
    access = get_owner_access(job, trashed=True)
    if access is None:
        return False
    try:
        require_start(kind, job.parameters, access, None)
    except (Forbidden, NotFound):
        return False
    return True


def get_owner_access(job: JobRow, *, trashed: bool = False) -> AccessContext | None:
    """Return the current access of the owner of a job; None if there is no owner, or they are deleted or blocked."""
    for is_admin, is_super_admin in _select_user_roles.fetch_rows({"id": job.owner_id}):
        viewer = CurrentUser(job.owner_id or 0, is_admin or is_super_admin, is_super_admin)
        return AccessContext(viewer, VisibilityScope(viewer.role, trashed=trashed))
    return None


def _require_team(event_id: int, access: AccessContext, pointer: str | None) -> None:
    values = {**access.sql_parameters(), "key": event_id}
    rows = select_statements.select_id(EVENT, access.scope, "id").fetch_rows(values)
    if not rows:
        raise NotFound("There is no such event here.", pointer=pointer)
    if not has_role(access.viewer, event_id, *TEAM):
        raise Forbidden("Only the team of the event may start this kind of job.", pointer=pointer)
