"""Who owns what: the rules of all that one user has made and others do not see."""

from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, false, true

from app.jsonapi.permissions import Scope
from app.jsonapi.viewer import VIEWER_ID, Role, Viewer


def own(scope: Scope, table: FromClause) -> ColumnElement[bool]:
    """What the viewer owns; everything for admins."""
    if scope.role is Role.ADMIN:
        return true()
    return false() if scope.role is Role.ANONYMOUS else table.c.owner_id == VIEWER_ID


def live_own(scope: Scope, table: FromClause) -> ColumnElement[bool]:
    """The same, where it may be in the trash."""
    return and_(scope.live(table), own(scope, table))


def owner(viewer: Viewer, row: Any) -> bool:
    """The owner, or an admin."""
    return viewer.is_admin or viewer.id == row.owner_id
