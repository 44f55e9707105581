"""Reading: rows by plan, included resources by one statement per path, documents of plain dicts."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, literal_column

from app.database import Prepared, connection
from app.errors import NotFound
from app.jsonapi import statements
from app.jsonapi.costly_reads import costly_read
from app.jsonapi.cursors import Key
from app.jsonapi.documents import Id
from app.jsonapi.filters import Build
from app.jsonapi.paging import (
    DEEP_OFFSET,
    Count,
    Rows,
    Slice,
    counted,
    fetch_keyset,
    fetch_numbered,
    keyset_links,
    numbered_links,
)
from app.jsonapi.permissions import Access
from app.jsonapi.plan import Item, Plan, identifier, order_keys, plan_for
from app.jsonapi.query import Includes, Query
from app.jsonapi.resource_type import Relation, ResourceType
from app.jsonapi.sizes import MAX_ANSWER_BYTES, AnswerTooLarge, refuse_answer, refuse_include

JSONAPI = {"version": "1.1"}


@dataclass(frozen=True)
class Part:
    """Which rows of a type a list holds: those of `parent_id` perhaps, and in which order unless asked otherwise."""

    narrowing: Build | None = None
    parent_id: Id | None = None
    order: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Reader:
    """What one caller sees; the connection is the session's, taken with the first statement."""

    access: Access
    query: Query
    with_cursors: bool = False
    max_items: int | None = None
    """How many items a page may have, where more made the answer too large; 0 is one alone, which includes nothing."""

    def execute(self, statement: Prepared | Select[Any], **values: Any) -> Rows:
        """The rows of a statement, with the caller's parameters and these."""
        parameters = {**self.access.parameters(), **values}
        if isinstance(statement, Prepared):
            return statement.rows(parameters)
        return connection().execute(statement, parameters).all()

    def plan(self, resource_type: ResourceType, *, related: bool) -> Plan:
        """Return the plan of a type for this caller and these fields."""
        return plan_for(resource_type, self.access.scope, self.query.fields.get(resource_type.name), related=related)

    def find(self, resource_type: ResourceType, name: str) -> Id:
        """The id of the visible row a URL segment names; 404 where there is none."""
        if named := resource_type.lookup(name):
            column, key = named
            for row in self.execute(statements.found(resource_type, self.access.scope, column), key=key):
                return cast("Id", row[0])
        raise NotFound(f"There is no {resource_type.name} {name[:80]!r} here.")

    def resource(
        self, resource_type: ResourceType, key: Any, *, column: str = "id", related: bool = False
    ) -> Item | None:
        """The document of the resource whose column has this value, None where it is not visible."""
        plan = self.plan(resource_type, related=related)
        rows = self.execute(statements.one(plan, column), key=key)
        if not rows:
            return None
        items, included = self._with_included(plan, rows)
        document: Item = {"data": items[0], "jsonapi": JSONAPI}
        if self.query.includes_asked:
            document["included"] = included
        return document

    def collection(self, resource_type: ResourceType, path: str, part: Part, *, related: bool = False) -> Item:
        """The document of a list; a page that would make the answer too large has fewer items."""
        plan = self.plan(resource_type, related=related)
        found, count = self._listed(plan, part)
        found = self._shorten(found, found.count_fitting(plan.weigh))
        if self.max_items is not None:
            found = self._shorten(found, max(self.max_items, 1))
        found, items, included = self._fit(plan, found)
        self._name_cursors(items, found)
        links = self._links(path, found, count)
        document: Item = {"data": items, "links": links, "meta": found.meta(count), "jsonapi": JSONAPI}
        if included is None:
            document["meta"]["included-is-omitted"] = True
        if self.query.includes_asked:
            document["included"] = included or []
        return document

    def _fit(self, plan: Plan, found: Slice) -> tuple[Slice, list[Item], list[Item] | None]:
        """Return as much of a page as fits with what it includes; None for what makes one resource too large.

        A client cannot go past a page that is refused, and any user may write what makes it so.
        """
        while self.max_items != 0:
            try:
                return found, *self._with_included(plan, found.rows)
            except AnswerTooLarge:
                if len(found.rows) == 1:
                    break
                found = self._shorten(found, len(found.rows) // 2)
        return found, [plan.print(row) for row in found.rows], None

    def _count(self, plan: Plan, part: Part) -> Count:
        exact = part.parent_id is not None  # its index makes counting cheap
        ((number,),) = self.execute(self._counting(plan, part.narrowing, exact), parent_id=part.parent_id)
        return Count.of(number, statements.COUNT_CAP, exact)

    def _counting(self, plan: Plan, narrowing: Build | None, exact: bool) -> Prepared | Select[Any]:
        if not self.query.filters:
            return statements.counted(plan, narrowing, exact)
        rows = statements.listed(plan, narrowing).where(*self._conditions(plan))
        return statements.count_of(rows.with_only_columns(literal_column("1"), maintain_column_froms=True), exact)

    def _conditions(self, plan: Plan) -> list[ColumnElement[bool]]:
        return [each.build(plan.type.table) for each in self.query.filters]

    def _shorten(self, found: Slice, length: int) -> Slice:
        page = self.query.page
        return found.shorten(length, is_range=page.after is not None and page.before is not None)

    def _links(self, path: str, found: Slice, count: Count) -> Item:
        parameters = self.query.parameters
        if self.by_cursor:
            return keyset_links(path, parameters, found)
        return numbered_links(path, parameters, self.query.page, count, found)

    def _listed(self, plan: Plan, part: Part) -> tuple[Slice, Count]:
        """The page that is asked for; the first one in the default order without filters was prepared before."""
        page, order = self.query.page, part.order or plan.type.order
        counting = partial(self._count, plan, part)
        if self.query.filters or self.query.sort or self.by_cursor or page.number > 1:
            narrowed = statements.listed(plan, part.narrowing).where(*self._conditions(plan))
            keys = order_keys(plan.type, self.query.sort, order, self.access.scope)
            with self._limit_costly(part):
                return self._page(narrowed, keys, counting, part.parent_id)
        statement = statements.first_page(plan, part.narrowing, order, page.size)
        found = Slice(self.execute(statement, parent_id=part.parent_id), ())
        return found, counted(found, page, counting)

    def _limit_costly(self, part: Part) -> AbstractContextManager[None]:
        """Return a context that waits for a slot if reading this page may take PostgreSQL long."""
        is_wide_sort = part.parent_id is None and any(key.is_costly for key in self.query.sort)
        is_deep = self.query.page.offset > DEEP_OFFSET
        if self.query.has_costly_filters or is_wide_sort or is_deep:
            return costly_read(self.access.viewer)
        return nullcontext()

    def linkage(self, resource_type: ResourceType, id_: Id, relation: Relation, path: str) -> Item:
        """The document of a relationship URL: identifiers only."""
        target, scope = relation.target, self.access.scope
        related = path.replace("/relationships/", "/", 1)
        if not relation.many:
            ((key,),) = self.execute(statements.linked_one(resource_type, relation, scope), parent_id=id_)
            links = {"self": path, "related": related}
            return {"data": identifier(relation, key), "links": links, "jsonapi": JSONAPI}
        statement = statements.linked_many(relation, scope)

        def counting() -> Count:
            ((number,),) = self.execute(statements.count_of(statement, exact=True), parent_id=id_)
            return Count(number, is_exact=True)

        keys = order_keys(target, (), target.order, scope)
        found, count = self._page(statement, keys, counting, id_)
        links = self._links(path, found, count)
        identifiers: list[Item] = [{"type": target.name, "id": str(row[0])} for row in found.rows]
        self._name_cursors(identifiers, found)
        meta = found.meta(count)
        return {"data": identifiers, "links": {**links, "related": related}, "meta": meta, "jsonapi": JSONAPI}

    def _page(
        self,
        statement: Select[Any],
        keys: Sequence[Key],
        counting: Callable[[], Count],
        parent_id: Id | None,
    ) -> tuple[Slice, Count]:
        """The rows of the page that is asked for, and how many there are in all."""
        page = self.query.page

        def execute(statement: Select[Any]) -> Rows:
            return self.execute(statement, parent_id=parent_id)

        if self.by_cursor:
            found = fetch_keyset(execute, statement, keys, page)
            return found, counted(found, page, counting)
        return fetch_numbered(execute, statement, keys, page, counting)

    def _name_cursors(self, items: list[Item], found: Slice) -> None:
        if self.by_cursor:
            for item, row in zip(items, found.rows, strict=True):
                item["meta"] = {"page": {"cursor": found.cursor(row)}}

    @property
    def by_cursor(self) -> bool:
        """Whether pages are named by cursors: one was sent, or the profile is asked for."""
        page = self.query.page
        return page.by_cursor or (self.with_cursors and "page[number]" not in self.query.parameters)

    def _with_included(self, plan: Plan, rows: Rows) -> tuple[list[Item], list[Item]]:
        seen: dict[tuple[str, Id], Item] = {}
        items = []
        for row in rows:
            seen[plan.type.name, row[0]] = item = plan.print(row)
            items.append(item)
        primary = len(seen)
        if self.query.includes:
            _Inclusion(self, seen).include(plan, rows, self.query.includes, ())
        return items, list(seen.values())[primary:]


class _Inclusion:
    """The resources that one answer includes, by one statement for each path, and the bytes left for them."""

    def __init__(self, reader: Reader, seen: dict[tuple[str, Id], Item]) -> None:
        self.reader = reader
        self.seen = seen
        self.bytes = 0

    def include(self, plan: Plan, rows: Rows, includes: Includes, path: tuple[str, ...]) -> None:
        """Print what the relationships of these rows hold into `seen`, and what those hold in turn."""
        parents = [row for row in rows if plan.is_whole(row)]
        for name, deeper in includes.items() if parents else ():
            relation = plan.type.relations[name]
            target_plan = self.reader.plan(relation.target, related=True)
            here = (*path, relation.key)
            if relation.many:
                found = self._to_many(plan, relation, target_plan, parents)
            else:
                found = self._among(target_plan, {row[plan.to_one[name]] for row in parents} - {None})
            self._print(target_plan, found, here)
            if deeper:
                self.include(target_plan, found, deeper, here)

    def _print(self, plan: Plan, rows: Rows, path: tuple[str, ...]) -> None:
        """Print rows that are not printed yet; all are weighed, as rows that do not fit into an answer are missing."""
        new = {row[0]: row for row in rows if (plan.name, row[0]) not in self.seen}
        self.bytes += plan.weigh(new.values())
        if max(self.bytes, plan.weigh(rows)) > MAX_ANSWER_BYTES:
            raise refuse_include(path)
        for id_, row in new.items():
            self.seen[plan.name, id_] = plan.print(row)

    def _to_many(self, plan: Plan, relation: Relation, target_plan: Plan, parents: Rows) -> Rows:
        ids = {row[0] for row in parents}
        if relation.target.permissions.linkable is None:
            # Who may be linked is who may be included: one statement tells both.
            rows = found = self._few(statements.children(target_plan, relation), ids)
        else:
            rows = self._few(statements.pairs(relation, self.reader.access.scope), ids)
            found = self._among(target_plan, {row[0] for row in rows})
        by_parent: dict[Any, list[Item]] = {id_: [] for id_ in ids}
        for row in rows:
            by_parent[row[-1]].append({"type": relation.field.type_, "id": str(row[0])})
        for id_, linkage in by_parent.items():
            relationships = self.seen[plan.type.name, id_].get("relationships", {})
            if relation.key in relationships:
                relationships[relation.key]["data"] = linkage
        return found

    def _among(self, plan: Plan, ids: set[Id]) -> Rows:
        return self._few(statements.among_ids(plan), ids) if ids else []

    def _few(self, statement: Prepared, ids: set[Id]) -> Rows:
        rows = self.reader.execute(statement, ids=sorted(ids))
        if len(rows) > statements.MOST_INCLUDED:
            most = statements.MOST_INCLUDED
            detail = f"This would include more than {most} resources; ask for the related URL, page by page."
            raise refuse_answer(detail, "include")
        return rows
