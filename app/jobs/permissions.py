"""Who may see jobs, and start which: owners see their own, admins all; a kind says who may start it."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, FromClause, exists, false, literal, select, true

from app.errors import Forbidden, NotFound
from app.events.resources import EVENT
from app.events.team import TEAM, has_role
from app.jobs.kinds import Kind
from app.jobs.models import Job
from app.jsonapi import statements
from app.jsonapi.permissions import Access, Permissions, Scope, signed_in
from app.jsonapi.viewer import VIEWER_ID, Role


def own(scope: Scope, jobs: FromClause) -> ColumnElement[bool]:
    """The jobs that the viewer owns; every job for admins."""
    if scope.role is Role.ADMIN:
        return true()
    return false() if scope.role is Role.ANONYMOUS else jobs.c.owner_id == VIEWER_ID


def of_own_jobs(scope: Scope, table: FromClause) -> ColumnElement[bool]:
    """What belongs to a job that the viewer sees."""
    jobs = Job.__table__.alias()
    return exists(select(literal(1)).where(jobs.c.id == table.c.job_id, own(scope, jobs)))


PERMISSIONS = Permissions(visible=own, list=signed_in, read=signed_in, create=signed_in)
PARTS_PERMISSIONS = Permissions(visible=of_own_jobs, list=signed_in, read=signed_in)


def require_start(kind: Kind, parameters: Mapping[str, Any], access: Access, pointer: str | None) -> None:
    """403 unless the caller may start this kind with these parameters; 404 for an event that is not there for him."""
    if kind.about_event and "event" in parameters:
        _require_team(parameters["event"], access, pointer and f"{pointer}/event")
    if not kind.may(access.viewer, parameters):
        raise Forbidden("You may not start this.", pointer=pointer)


def _require_team(event_id: int, access: Access, pointer: str | None) -> None:
    values = {**access.parameters(), "key": event_id}
    found = statements.found(EVENT, access.scope, "id").rows(values)
    if not found:
        raise NotFound("There is no such event here.", pointer=pointer)
    if not has_role(access.viewer, event_id, *TEAM):
        raise Forbidden("Only the team of the event may start this.", pointer=pointer)
