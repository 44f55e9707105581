"""Who may see and change treatments: who asked for them."""

from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, exists, false, literal, select

from app.jsonapi.permissions import Permissions, Scope, on_creation, signed_in
from app.jsonapi.viewer import VIEWER_ID, Role, Viewer
from app.treatments.models import Treatment
from app.users.owning import may_act_for


def own(scope: Scope, treatments: FromClause) -> ColumnElement[bool]:
    """What the viewer has asked for; every treatment for admins."""
    if scope.role is Role.ADMIN:
        return scope.live(treatments)
    is_own = false() if scope.role is Role.ANONYMOUS else treatments.c.requested_by_id == VIEWER_ID
    return and_(scope.live(treatments), is_own)


def of_own_treatments(scope: Scope, table: FromClause) -> ColumnElement[bool]:
    """What belongs to a treatment that the viewer sees."""
    treatments = Treatment.__table__.alias()
    return exists(select(literal(1)).where(treatments.c.id == table.c.treatment_id, own(scope, treatments)))


def who_asked(viewer: Viewer, row: Any) -> bool:
    """The user who requested it, or an admin; for one that a super admin requested only a super admin."""
    return may_act_for(viewer, row.requested_by_id)


PERMISSIONS = Permissions(
    visible=own,
    list=signed_in,
    read=signed_in,
    create=signed_in,
    update=who_asked,
    delete=who_asked,
    write={"task_type": on_creation, "api_parameters": on_creation},
)
PARTS_PERMISSIONS = Permissions(visible=of_own_treatments, list=signed_in, read=signed_in)
