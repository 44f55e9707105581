"""Who owns what: the rules of all that one user has made and others do not see."""

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
    """What the viewer owns; everything for admins."""
    if scope.role is Role.ADMIN:
        return true()
    return false() if scope.role is Role.ANONYMOUS else table.c.owner_id == CURRENT_USER_ID


def is_live_and_owned(scope: VisibilityScope, table: FromClause) -> ColumnElement[bool]:
    """The same, where it may be in the trash."""
    return and_(scope.live_criterion(table), is_owned_by_viewer(scope, table))


def owner_or_admin(viewer: CurrentUser, row: Any) -> bool:
    """The owner, or an admin; for what a super admin owns only a super admin."""
    return can_act_for(viewer, row.owner_id)


def can_act_for(viewer: CurrentUser, user_id: int | None) -> bool:
    """Return whether the viewer may change what this user owns, or start it in their name."""
    if viewer.id == user_id or viewer.is_super_admin:
        return True
    return viewer.is_admin and (user_id is None or not _select_super_admin.fetch_rows({"id": user_id}))
