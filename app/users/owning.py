"""Who owns what: the rules of all that one user has made and others do not see."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, FromClause, and_, bindparam, false, literal, select, true

from app.database import Prepared
from app.jsonapi.permissions import Scope
from app.jsonapi.viewer import VIEWER_ID, Role, Viewer
from app.users.models import User

_users = User.__table__
_super_admin = Prepared(
    select(literal(1)).where(_users.c.id == bindparam("id", type_=BigInteger), _users.c.is_super_admin.is_(True))
)


def own(scope: Scope, table: FromClause) -> ColumnElement[bool]:
    """What the viewer owns; everything for admins."""
    if scope.role is Role.ADMIN:
        return true()
    return false() if scope.role is Role.ANONYMOUS else table.c.owner_id == VIEWER_ID


def live_own(scope: Scope, table: FromClause) -> ColumnElement[bool]:
    """The same, where it may be in the trash."""
    return and_(scope.live(table), own(scope, table))


def owner(viewer: Viewer, row: Any) -> bool:
    """The owner, or an admin; for what a super admin owns only a super admin."""
    return may_act_for(viewer, row.owner_id)


def may_act_for(viewer: Viewer, user_id: int | None) -> bool:
    """Return whether the viewer may change what this user owns, or start it in their name."""
    if viewer.id == user_id or viewer.is_super_admin:
        return True
    return viewer.is_admin and (user_id is None or not _super_admin.rows({"id": user_id}))
