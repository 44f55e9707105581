"""Who may see jobs, and start which: owners see their own, admins all; a kind says who may start it."""

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
    """What belongs to a job that the viewer sees."""
    jobs = Job.__table__.alias()
    return exists(select(literal(1)).where(jobs.c.id == table.c.job_id, is_owned_by_viewer(scope, jobs)))


PERMISSIONS = Permissions(visible=is_owned_by_viewer, list=any_user, read=any_user, create=any_user)
PARTS_PERMISSIONS = Permissions(visible=belongs_to_visible_job, list=any_user, read=any_user)


def require_start(kind: Kind, parameters: Mapping[str, Any], access: AccessContext, pointer: str | None) -> None:
    """403 unless the caller may start this kind with these parameters; 404 for an event that is not there for him."""
    kind.require_directly_submittable(pointer)
    if kind.belongs_to_event and "event" in parameters:
        _require_team(parameters["event"], access, pointer and f"{pointer}/event")
    if not kind.can_start(access.viewer, parameters):
        raise Forbidden("You may not start this.", pointer=pointer)


def is_still_allowed(kind: Kind, job: JobRow) -> bool:
    """Whether whoever asked for a job may start it now, when it begins: he may have left the team since.

    What a change or an operator has started asks for nobody's rights; what is part of something asks by itself.
    """
    if job.owner_id is None or job.trigger in ("signal", "cli") or kind.created_by:
        return True
    # With the trash: of an event that has been deleted the kind itself has something to say.
    access = get_owner_access(job, trashed=True)
    if access is None:
        return False
    try:
        require_start(kind, job.parameters, access, None)
    except (Forbidden, NotFound):
        return False
    return True


def get_owner_access(job: JobRow, *, trashed: bool = False) -> AccessContext | None:
    """What the owner of a job may do now; None where there is none, or he may do nothing any more."""
    for is_admin, is_super_admin in _select_user_roles.fetch_rows({"id": job.owner_id}):
        viewer = CurrentUser(job.owner_id or 0, is_admin or is_super_admin, is_super_admin)
        return AccessContext(viewer, VisibilityScope(viewer.role, trashed=trashed))
    return None


def _require_team(event_id: int, access: AccessContext, pointer: str | None) -> None:
    values = {**access.sql_parameters(), "key": event_id}
    found = select_statements.select_id(EVENT, access.scope, "id").fetch_rows(values)
    if not found:
        raise NotFound("There is no such event here.", pointer=pointer)
    if not has_role(access.viewer, event_id, *TEAM):
        raise Forbidden("Only the team of the event may start this.", pointer=pointer)
