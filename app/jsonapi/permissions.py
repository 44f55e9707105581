"""Permissions of resource types: predicates for actions, and criteria for the visible rows. The default denies.

A predicate `(viewer, row) -> bool` decides if the current user may do something with a row. A criterion
`(scope, table) -> SQL` restricts every statement that reads rows of a type: list, detail, related, included, filter,
sort or count.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, FromClause, false, true

from app.errors import Forbidden, Unauthenticated
from app.jsonapi.current_user import TOKEN_REQUIRED, CurrentUser, Role

Predicate = Callable[[CurrentUser, Any], bool]


@dataclass(frozen=True)
class VisibilityScope:
    """Role of the current user, and whether deleted rows are included; together they select the SQL of a read."""

    role: Role
    trashed: bool = False

    def live_criterion(self, table: FromClause) -> ColumnElement[bool]:
        """Return the condition for rows that are not deleted, or for all rows if deleted ones are included."""
        return true() if self.trashed else table.c.deleted_at.is_(None)


@dataclass(frozen=True)
class AccessContext:
    """The current user, their visibility scope, and the identifier of a private event in the URL, if any."""

    viewer: CurrentUser
    scope: VisibilityScope
    capability: str | None = None

    def with_trash(self) -> "AccessContext":
        """Return the same access with deleted rows included, to check permissions; not for responses."""
        return replace(self, scope=replace(self.scope, trashed=True))

    def sql_parameters(self) -> dict[str, Any]:
        """Return the values of CURRENT_USER_ID and CAPABILITY in criteria."""
        return {"viewer_id": self.viewer.id, "capability": self.capability}

    def require_permission(self, predicate: "Predicate", row: Any, *, pointer: str | None = None) -> None:
        """Raise Forbidden unless the predicate permits the row; Unauthenticated if the user is anonymous."""
        if predicate(self.viewer, row):
            return
        if self.viewer.is_anonymous:
            raise Unauthenticated(TOKEN_REQUIRED)
        raise Forbidden("You may not do this here.", pointer=pointer)


Criterion = Callable[[VisibilityScope, FromClause], ColumnElement[bool]]


def no_one(_viewer: CurrentUser, _row: Any) -> bool:
    """No user; the default."""
    return False


def anyone(_viewer: CurrentUser, _row: Any) -> bool:
    """Anyone, signed in or not."""
    return True


def any_user(viewer: CurrentUser, _row: Any) -> bool:
    """Any signed-in user."""
    return not viewer.is_anonymous


def only_on_create(_viewer: CurrentUser, row: Any) -> bool:
    """The creator, on creation only."""
    return row is None


def admin(viewer: CurrentUser, _row: Any) -> bool:
    """Admins and super admins."""
    return viewer.is_admin


def super_admin(viewer: CurrentUser, _row: Any) -> bool:
    """Super admins only."""
    return viewer.is_super_admin


def no_row(_scope: VisibilityScope, _table: FromClause) -> ColumnElement[bool]:
    """Select no row; the default criterion."""
    return false()


def every_row(_scope: VisibilityScope, _table: FromClause) -> ColumnElement[bool]:
    """Select every row."""
    return true()


@dataclass(frozen=True, kw_only=True)
class Permissions:
    """Permissions of one resource type; the default of each predicate denies.

    Criteria: `visible` selects the rows that can be read on their own URLs, `visible_related` those that can be read as
    related or included resources (default: `visible`), `linkable` those that appear in linkage (default:
    `visible_related`). `sees_private` selects the rows whose `private` attributes can be read; other rows have no
    relationships and links either, unless `keeps_links`. `sees_link` selects, for each guarded to-one relationship, the
    rows in which it can be read; in others it is null, in filters too, and only admins filter and sort by its target.
    The predicate `create` gets the values of the new resource as its row.
    """

    visible: Criterion = no_row
    visible_related: Criterion | None = None
    linkable: Criterion | None = None
    private: frozenset[str] = frozenset()
    sees_private: Criterion = every_row
    keeps_links: bool = False
    sees_link: Mapping[str, Criterion] = field(default_factory=dict)
    list: Predicate = no_one
    read: Predicate = no_one
    create: Predicate = no_one
    update: Predicate = no_one
    delete: Predicate = no_one
    relate: Mapping[str, Predicate] = field(default_factory=dict)
    write: Mapping[str, Predicate] = field(default_factory=dict)

    def visibility_criterion(self, scope: VisibilityScope, table: FromClause, *, related: bool) -> ColumnElement[bool]:
        """Return the condition for rows that the scope may read as primary, or as related resources."""
        return ((related and self.visible_related) or self.visible)(scope, table)

    def linkage_criterion(self, scope: VisibilityScope, table: FromClause) -> ColumnElement[bool]:
        """Return the condition for rows whose ids the scope may read in linkage."""
        return (self.linkable or self.visible_related or self.visible)(scope, table)

    def relationship_predicate(self, relation: str) -> Predicate:
        """Return the predicate for changes of this relationship; defaults to `update`."""
        return self.relate.get(relation, self.update)

    def attribute_predicate(self, attribute: str) -> Predicate:
        """Return the predicate for writes of this attribute, in addition to that of the resource."""
        return self.write.get(attribute, anyone)


def describe_predicate(predicate: Predicate) -> str:
    """Return the name of a predicate in words, for the list of routes."""
    return predicate.__name__.replace("_", " ")
