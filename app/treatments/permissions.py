"""Permissions for treatments: their requester and admins."""

from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, exists, false, literal, select

from app.jsonapi.current_user import CURRENT_USER_ID, CurrentUser, Role
from app.jsonapi.permissions import Permissions, VisibilityScope, any_user, only_on_create
from app.treatments.models import Treatment
from app.users.ownership import can_act_for


def is_requested_by_viewer(scope: VisibilityScope, treatments: FromClause) -> ColumnElement[bool]:
    """Return the criterion for treatments that the current user requested; every treatment for admins."""
    if scope.role is Role.ADMIN:
        return scope.live_criterion(treatments)
    is_own = false() if scope.role is Role.ANONYMOUS else treatments.c.requested_by_id == CURRENT_USER_ID
    return and_(scope.live_criterion(treatments), is_own)


def is_visible_with_treatment(scope: VisibilityScope, table: FromClause) -> ColumnElement[bool]:
    """Return the criterion for rows of treatments that the current user can see."""
    treatments = Treatment.__table__.alias()
    return exists(
        select(literal(1)).where(treatments.c.id == table.c.treatment_id, is_requested_by_viewer(scope, treatments))
    )


def requester_or_admin(viewer: CurrentUser, row: Any) -> bool:
    """Return whether the current user requested it or may act for its requester."""
    return can_act_for(viewer, row.requested_by_id)


PERMISSIONS = Permissions(
    visible=is_requested_by_viewer,
    list=any_user,
    read=any_user,
    create=any_user,
    update=requester_or_admin,
    delete=requester_or_admin,
    write={"task_type": only_on_create, "api_parameters": only_on_create},
)
RESULT_PERMISSIONS = Permissions(visible=is_visible_with_treatment, list=any_user, read=any_user)
