"""Reading: rows by plan, included resources by one statement per path, documents of plain dicts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    any_,
    func,
    literal,
    literal_column,
    select,
)

from app.errors import InvalidParameter, NotFound
from app.extensions import db
from app.jsonapi.cursors import Key
from app.jsonapi.filters import Build, relation_key
from app.jsonapi.paging import Count, Rows, Slice, fetch_keyset, fetch_numbered, keyset_links, numbered_links
from app.jsonapi.permissions import Access
from app.jsonapi.plan import Item, Plan, default_order, identifier, linkage_key, order_keys, plan_for
from app.jsonapi.query import Includes, Query
from app.jsonapi.resource_type import Relation, ResourceType

COUNT_CAP = 10_000
MOST_INCLUDED = 1_000

JSONAPI = {"version": "1.1"}


@dataclass(frozen=True)
class Reader:
    """What one caller sees; the connection is the session's, taken with the first statement."""

    access: Access
    query: Query
    with_cursors: bool = False

    def _execute(self, statement: Select[Any]) -> Rows:
        return db.session.connection().execute(statement, self.access.parameters()).all()

    def _plan(self, resource_type: ResourceType, *, related: bool) -> Plan:
        return plan_for(resource_type, self.access.scope, self.query.fields.get(resource_type.name), related=related)

    def find(self, resource_type: ResourceType, name: str) -> int:
        """The id of the visible row a URL segment names; 404 where there is none."""
        table = resource_type.table
        where = resource_type.lookup(table, name)
        if where is not None:
            criterion = resource_type.permissions.criterion(self.access.scope, table, related=False)
            for row in self._execute(select(table.c.id).where(where, criterion)):
                return int(row[0])
        raise NotFound(f"There is no {resource_type.name} {name[:80]!r} here.")

    def resource(
        self, resource_type: ResourceType, where: ColumnElement[bool], *, related: bool = False
    ) -> Item | None:
        """The document of one resource, None where it is not visible."""
        plan = self._plan(resource_type, related=related)
        rows = self._execute(plan.statement.where(where))
        if not rows:
            return None
        items, included = self._with_included(plan, rows)
        document: Item = {"data": items[0], "jsonapi": JSONAPI}
        if self.query.includes_asked:
            document["included"] = included
        return document

    def collection(
        self,
        resource_type: ResourceType,
        path: str,
        narrowing: Build | None = None,
        *,
        order: tuple[str, ...] | None = None,
        related: bool = False,
        exact: bool = False,
    ) -> Item:
        """The document of a list: `narrowing` picks rows, `exact` says that an index makes counting them cheap."""
        plan = self._plan(resource_type, related=related)
        table = resource_type.table
        terms = [condition.build(table) for condition in self.query.filters]
        if narrowing is not None:
            terms.append(narrowing(table))
        count = self._count(select(literal_column("1")).select_from(table).where(plan.criterion, *terms), exact)
        keys = order_keys(resource_type, self.query.sort, order or resource_type.order, self.access.scope)
        found, links = self._page(plan.statement.where(*terms), keys, path, count)
        items, included = self._with_included(plan, found.rows)
        self._name_cursors(items, found)
        document: Item = {"data": items, "links": links, "meta": found.meta(count), "jsonapi": JSONAPI}
        if self.query.includes_asked:
            document["included"] = included
        return document

    def linkage(self, resource_type: ResourceType, id_: int, relation: Relation, path: str) -> Item:
        """The document of a relationship URL: identifiers only."""
        table, target, scope = resource_type.table, relation.target, self.access.scope
        related = path.replace("/relationships/", "/", 1)
        if not relation.many:
            ((key,),) = self._execute(select(linkage_key(relation, table, scope)).where(table.c.id == id_))
            links = {"self": path, "related": related}
            return {"data": identifier(relation, key), "links": links, "jsonapi": JSONAPI}
        near, source = relation_key(relation, target.table)
        known = target.permissions.linkage(scope, target.table)
        statement = select(target.table.c.id).select_from(source).where(near == id_, known)
        count = self._count(statement, exact=True)
        found, links = self._page(statement, order_keys(target, (), target.order, scope), path, count)
        identifiers: list[Item] = [{"type": target.name, "id": str(row[0])} for row in found.rows]
        self._name_cursors(identifiers, found)
        meta = found.meta(count)
        return {"data": identifiers, "links": {**links, "related": related}, "meta": meta, "jsonapi": JSONAPI}

    def _page(self, statement: Select[Any], keys: Sequence[Key], path: str, count: Count) -> tuple[Slice, Item]:
        """The rows of the page that is asked for, and the links of it."""
        parameters, page = self.query.parameters, self.query.page
        if self.by_cursor:
            found = fetch_keyset(self._execute, statement, keys, page)
            return found, keyset_links(path, parameters, found)
        found = fetch_numbered(self._execute, statement, keys, page, count)
        return found, numbered_links(path, parameters, page, count, len(found.rows))

    def _name_cursors(self, items: list[Item], found: Slice) -> None:
        if self.by_cursor:
            for item, row in zip(items, found.rows, strict=True):
                item["meta"] = {"page": {"cursor": found.cursor(row)}}

    @property
    def by_cursor(self) -> bool:
        """Whether pages are named by cursors: one was sent, or the profile is asked for."""
        page = self.query.page
        return page.by_cursor or (self.with_cursors and "page[number]" not in self.query.parameters)

    def _count(self, statement: Select[Any], exact: bool) -> Count:
        capped = statement if exact else statement.limit(COUNT_CAP + 1)
        ((number,),) = self._execute(select(func.count()).select_from(capped.subquery()))
        return Count(number, True) if exact or number <= COUNT_CAP else Count(COUNT_CAP, False)

    def _with_included(self, plan: Plan, rows: Rows) -> tuple[list[Item], list[Item]]:
        seen: dict[tuple[str, int], Item] = {}
        items = []
        for row in rows:
            seen[plan.type.name, row[0]] = item = plan.print(row)
            items.append(item)
        primary = len(seen)
        self._include(plan, rows, self.query.includes, seen)
        return items, list(seen.values())[primary:]

    def _include(self, plan: Plan, rows: Rows, includes: Includes, seen: dict[tuple[str, int], Item]) -> None:
        parents = [row for row in rows if plan.is_whole(row)]
        for name, deeper in includes.items():
            if not parents:
                return
            relation = plan.type.relations[name]
            target_plan = self._plan(relation.target, related=True)
            if relation.many:
                found = self._to_many(plan, relation, target_plan, parents, seen)
            else:
                keys = {row[plan.to_one[name]] for row in parents} - {None}
                table = relation.target.table
                found = self._included(target_plan.statement.where(among(table.c.id, keys))) if keys else []
            for row in found:
                if (relation.field.type_, row[0]) not in seen:
                    seen[relation.field.type_, row[0]] = target_plan.print(row)
            self._include(target_plan, found, deeper, seen)

    def _to_many(
        self, plan: Plan, relation: Relation, target_plan: Plan, parents: Rows, seen: dict[tuple[str, int], Item]
    ) -> Rows:
        target = relation.target
        near, source = relation_key(relation, target.table)
        ids = {row[0] for row in parents}
        order = default_order(target, self.access.scope)
        linkable = target.permissions.linkage(self.access.scope, target.table)
        pairs = self._included(
            select(near.label("parent"), target.table.c.id)
            .select_from(source)
            .where(among(near, ids), linkable)
            .order_by(*order)
        )
        by_parent: Mapping[int, list[Item]] = {id_: [] for id_ in ids}
        for parent, id_ in pairs:
            by_parent[parent].append({"type": target.name, "id": str(id_)})
        for id_, linkage in by_parent.items():
            relationships = seen[plan.type.name, id_].get("relationships", {})
            if relation.key in relationships:
                relationships[relation.key]["data"] = linkage
        wanted = {id_ for _parent, id_ in pairs}
        return (
            self._included(target_plan.statement.where(among(target.table.c.id, wanted)).order_by(*order))
            if wanted
            else []
        )

    def _included(self, statement: Select[Any]) -> Rows:
        rows = self._execute(statement.limit(MOST_INCLUDED + 1))
        if len(rows) > MOST_INCLUDED:
            detail = f"This would include more than {MOST_INCLUDED} resources; ask for the related URL, page by page."
            raise InvalidParameter(detail, parameter="include")
        return rows


def among(column: ColumnElement[Any], ids: Iterable[int]) -> ColumnElement[bool]:
    """Membership in a list of ids, as one parameter: the same statement for any number of them."""
    return column == any_(literal(sorted(ids), ARRAY(BigInteger)))


def of_parent(relation: Relation, parent_id: int) -> Build:
    """Narrows a list to what a to-many relationship of one parent holds."""

    def build(table: FromClause) -> ColumnElement[bool]:
        if relation.remote is None:
            raise TypeError(f"{relation.name} is a to-one relationship")
        if relation.secondary is None or relation.secondary_target is None:
            return table.c[relation.remote] == parent_id
        between = relation.secondary.alias()
        near, far = between.c[relation.remote], between.c[relation.secondary_target]
        return table.c.id.in_(select(far).where(near == parent_id))

    return build
