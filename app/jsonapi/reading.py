"""Reading: rows by plan, included resources by one statement per path, documents of plain dicts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    any_,
    func,
    literal,
    literal_column,
    select,
    text,
)
from sqlalchemy.exc import OperationalError

from app.errors import InvalidParameter, NotFound
from app.jsonapi.filters import Build, relation_key
from app.jsonapi.permissions import Access
from app.jsonapi.plan import Item, Plan, identifier, linkage_key, order_by, plan_for
from app.jsonapi.query import Includes, Query
from app.jsonapi.resource_type import Relation, ResourceType

COUNT_CAP = 10_000
MOST_INCLUDED = 2_000
DEEP_OFFSET = 10_000
DEEP_OFFSET_TIMEOUT = "1s"

JSONAPI = {"version": "1.1"}

Rows = Sequence[Row[Any]]


@dataclass(frozen=True)
class Reader:
    """What one caller sees through one connection."""

    connection: Connection
    access: Access
    query: Query

    def _execute(self, statement: Select[Any]) -> Rows:
        return self.connection.execute(statement, self.access.parameters()).all()

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
        count, is_exact = self._count(
            select(literal_column("1")).select_from(table).where(plan.criterion, *terms), exact
        )
        keys = order_by(resource_type, self.query.sort, order or resource_type.order, self.access.scope)
        statement = plan.statement.where(*terms).order_by(*keys)
        rows = self._page(statement, count, is_exact)
        items, included = self._with_included(plan, rows)
        document: Item = {"data": items, **self._paging(path, count, is_exact, len(rows)), "jsonapi": JSONAPI}
        if self.query.includes_asked:
            document["included"] = included
        return document

    def linkage(self, resource_type: ResourceType, id_: int, relation: Relation, path: str) -> Item:
        """The document of a relationship URL: identifiers only."""
        table = resource_type.table
        related = path.replace("/relationships/", "/", 1)
        if not relation.many:
            ((key,),) = self._execute(select(linkage_key(relation, table, self.access.scope)).where(table.c.id == id_))
            links = {"self": path, "related": related}
            return {"data": identifier(relation, key), "links": links, "jsonapi": JSONAPI}
        target = relation.target.table
        near, source = relation_key(relation, target)
        criterion = relation.target.permissions.linkage(self.access.scope, target)
        statement = select(target.c.id).select_from(source).where(near == id_, criterion)
        count, is_exact = self._count(statement, exact=True)
        order = order_by(relation.target, (), relation.target.order, self.access.scope)
        rows = self._page(statement.order_by(*order), count, is_exact)
        document = self._paging(path, count, is_exact, len(rows))
        document["links"]["related"] = related
        return {"data": [identifier(relation, row[0]) for row in rows], **document, "jsonapi": JSONAPI}

    def _count(self, statement: Select[Any], exact: bool) -> tuple[int, bool]:
        capped = statement if exact else statement.limit(COUNT_CAP + 1)
        ((count,),) = self._execute(select(func.count()).select_from(capped.subquery()))
        return (count, True) if exact or count <= COUNT_CAP else (COUNT_CAP, False)

    def _page(self, statement: Select[Any], count: int, is_exact: bool) -> Rows:
        offset = self.query.offset
        if is_exact and offset >= count:
            return []
        page = statement.limit(self.query.page_size).offset(offset)
        return self._execute(page) if offset <= DEEP_OFFSET else self._deep_page(page)

    def _deep_page(self, statement: Select[Any]) -> Rows:
        """A page far from the start reads every row before it: it gets a second, no more."""
        self.connection.execute(text(f"SET statement_timeout = '{DEEP_OFFSET_TIMEOUT}'"))
        try:
            return self._execute(statement)
        except OperationalError:
            raise InvalidParameter("This page is too far from the start.", parameter="page[number]") from None
        finally:
            self.connection.execute(text("RESET statement_timeout"))

    def _paging(self, path: str, count: int, is_exact: bool, here: int) -> Item:
        number, size = self.query.page_number, self.query.page_size
        last = max(1, -(-count // size)) if is_exact else None
        has_next = number < last if last is not None else here == size
        meta: Item = {"count": count}
        if not is_exact:
            meta["count-is-exact"] = False
        links = {
            "self": self._link(path, None),
            "first": self._link(path, 1),
            "last": self._link(path, last) if last is not None else None,
            "prev": self._link(path, min(number - 1, last or number)) if number > 1 else None,
            "next": self._link(path, number + 1) if has_next else None,
        }
        return {"links": links, "meta": meta}

    def _link(self, path: str, number: int | None) -> str:
        parameters = dict(self.query.parameters)
        if number is not None:
            parameters["page[number]"] = str(number)
        return f"{path}?{urlencode(parameters)}" if parameters else path

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
        order = order_by(target, (), target.order, self.access.scope)
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
            return table.c[relation.remote.name] == parent_id
        between = relation.secondary.alias()
        near, far = between.c[relation.remote.name], between.c[relation.secondary_target.name]
        return table.c.id.in_(select(far).where(near == parent_id))

    return build
