"""Deny unless permitted: who may do what, and which rows exist for whom.

A predicate `(viewer, row) -> bool` decides about one thing; a criterion `(scope, table) -> SQL` narrows every
statement that reads rows of a type, whichever way in: list, detail, related, included, filter, sort or count.
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
    """What shapes the statements of one request: the viewer's role, and whether trashed rows are asked for."""

    role: Role
    trashed: bool = False

    def live_criterion(self, table: FromClause) -> ColumnElement[bool]:
        """Rows that are not in the trash, or all when the trash is asked for."""
        return true() if self.trashed else table.c.deleted_at.is_(None)


@dataclass(frozen=True)
class AccessContext:
    """Who asks, in which scope, and the identifier of a private event named in the URL, if any."""

    viewer: CurrentUser
    scope: VisibilityScope
    capability: str | None = None

    def with_trash(self) -> "AccessContext":
        """Return the same access to rows in the trash besides: to check rights alone, not to show anything."""
        return replace(self, scope=replace(self.scope, trashed=True))

    def sql_parameters(self) -> dict[str, Any]:
        """Values for VIEWER_ID and CAPABILITY in criteria."""
        return {"viewer_id": self.viewer.id, "capability": self.capability}

    def require_permission(self, predicate: "Predicate", row: Any, *, pointer: str | None = None) -> None:
        """403 unless the predicate permits, 401 when nobody is signed in."""
        if predicate(self.viewer, row):
            return
        if self.viewer.is_anonymous:
            raise Unauthenticated(TOKEN_REQUIRED)
        raise Forbidden("You may not do this here.", pointer=pointer)


Criterion = Callable[[VisibilityScope, FromClause], ColumnElement[bool]]


def nobody(_viewer: CurrentUser, _row: Any) -> bool:
    """The rule of everything without a rule."""
    return False


def anyone(_viewer: CurrentUser, _row: Any) -> bool:
    """Signed in or not."""
    return True


def any_user(viewer: CurrentUser, _row: Any) -> bool:
    """Anybody with an account."""
    return not viewer.is_anonymous


def only_on_create(_viewer: CurrentUser, row: Any) -> bool:
    """The creator, on creation only."""
    return row is None


def admin(viewer: CurrentUser, _row: Any) -> bool:
    """Admins and super admins."""
    return viewer.is_admin


def super_admin(viewer: CurrentUser, _row: Any) -> bool:
    """Super admins alone."""
    return viewer.is_super_admin


def no_row(_scope: VisibilityScope, _table: FromClause) -> ColumnElement[bool]:
    """The criterion of everything without a criterion."""
    return false()


def every_row(_scope: VisibilityScope, _table: FromClause) -> ColumnElement[bool]:
    """No narrowing."""
    return true()


@dataclass(frozen=True, kw_only=True)
class Permissions:
    """The rules of one resource type; what is not named is denied.

    `visible` rows can be reached on their own URLs, `visible_related` ones as related or included resources (the same
    unless named), `linkable` ones appear in linkage. `sees_private` tells in which rows `private` attributes show; in
    the others relationships and links are hidden too, unless `keeps_links`. `sees_link` tells in which rows a guarded
    to-one relationship shows; in the others it is null, also for filters, and only admins search what it names.
    The row of `create` is the mapping of related ids that the new resource names.
    """

    visible: Criterion = no_row
    visible_related: Criterion | None = None
    linkable: Criterion | None = None
    private: frozenset[str] = frozenset()
    sees_private: Criterion = every_row
    keeps_links: bool = False
    sees_link: Mapping[str, Criterion] = field(default_factory=dict)
    list: Predicate = nobody
    read: Predicate = nobody
    create: Predicate = nobody
    update: Predicate = nobody
    delete: Predicate = nobody
    relate: Mapping[str, Predicate] = field(default_factory=dict)
    write: Mapping[str, Predicate] = field(default_factory=dict)

    def visibility_criterion(self, scope: VisibilityScope, table: FromClause, *, related: bool) -> ColumnElement[bool]:
        """Which rows this scope may see as primary or as related resources."""
        return ((related and self.visible_related) or self.visible)(scope, table)

    def linkage_criterion(self, scope: VisibilityScope, table: FromClause) -> ColumnElement[bool]:
        """Which rows this scope may know of by id."""
        return (self.linkable or self.visible_related or self.visible)(scope, table)

    def relationship_predicate(self, relation: str) -> Predicate:
        """Who may change this relationship; who may update the resource, unless said otherwise."""
        return self.relate.get(relation, self.update)

    def attribute_predicate(self, attribute: str) -> Predicate:
        """Who may write this attribute, beyond the rule for the resource."""
        return self.write.get(attribute, anyone)


def describe_predicate(predicate: Predicate) -> str:
    """A predicate as people read it in a list of routes."""
    return predicate.__name__.replace("_", " ")
