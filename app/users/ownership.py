"""Criteria and predicates for resources that only their owner and admins can see."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, FromClause, and_, bindparam, false, literal, select, true

from app.database import PreparedStatement
from app.jsonapi.current_user import CURRENT_USER_ID, CurrentUser, Role
from app.jsonapi.permissions import VisibilityScope
from app.users.models import User

_users = User.__table__
_select_super_admin = PreparedStatement(
    select(literal(1)).where(_users.c.id == bindparam("id", type_=BigInteger), _users.c.is_super_admin.is_(True))
)


def is_owned_by_viewer(scope: VisibilityScope, table: FromClause) -> ColumnElement[bool]:
    """Return the criterion for rows that the current user owns; every row for admins."""
    if scope.role is Role.ADMIN:
        return true()
    return false() if scope.role is Role.ANONYMOUS else table.c.owner_id == CURRENT_USER_ID


def is_live_and_owned(scope: VisibilityScope, table: FromClause) -> ColumnElement[bool]:
    """Return the criterion for rows that the current user owns, without trash unless the scope includes it."""
    return and_(scope.live_criterion(table), is_owned_by_viewer(scope, table))


def owner_or_admin(viewer: CurrentUser, row: Any) -> bool:
    """Return whether the current user may act for the owner of a row."""
    return can_act_for(viewer, row.owner_id)


def can_act_for(viewer: CurrentUser, user_id: int | None) -> bool:
    """Return whether the current user may change what a user owns: the user, a super admin, or an admin.

    Admins may not act for super admins.
    """
    if viewer.id == user_id or viewer.is_super_admin:
        return True
    return viewer.is_admin and (user_id is None or not _select_super_admin.fetch_rows({"id": user_id}))
