"""Who may see and delete uploads: whoever sent them, and admins."""

from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, false

from app.jsonapi.permissions import Permissions, Scope, signed_in
from app.jsonapi.viewer import VIEWER_ID, Role, Viewer


def live_own(scope: Scope, table: FromClause) -> ColumnElement[bool]:
    """What the viewer owns; everything for admins."""
    if scope.role is Role.ADMIN:
        return scope.live(table)
    return false() if scope.role is Role.ANONYMOUS else and_(scope.live(table), table.c.owner_id == VIEWER_ID)


def owner(viewer: Viewer, row: Any) -> bool:
    """The owner, or an admin."""
    return viewer.is_admin or viewer.id == row.owner_id


PERMISSIONS = Permissions(visible=live_own, list=signed_in, read=signed_in, update=owner, delete=owner)
