"""Reading: rows by plan, included resources by one statement per path, documents of plain dicts."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, literal_column

from app.database import PreparedStatement, get_connection
from app.errors import NotFound
from app.jsonapi import select_statements
from app.jsonapi.costly_reads import costly_read
from app.jsonapi.cursors import SortColumn
from app.jsonapi.document_parser import Id
from app.jsonapi.filters import BuildCondition
from app.jsonapi.pagination import (
    DEEP_OFFSET,
    PageResult,
    RowCount,
    Rows,
    build_keyset_links,
    build_numbered_links,
    fetch_keyset_page,
    fetch_numbered_page,
    get_count,
)
from app.jsonapi.permissions import AccessContext
from app.jsonapi.query_params import Includes, Query
from app.jsonapi.resource_type import Relation, ResourceType
from app.jsonapi.select_plan import Item, SelectPlan, build_sort_columns, get_select_plan, resource_identifier
from app.jsonapi.size_limits import MAX_ANSWER_BYTES, AnswerTooLarge, make_include_size_error, make_size_error

JSONAPI = {"version": "1.1"}


@dataclass(frozen=True)
class CollectionScope:
    """Which rows of a type a list holds: those of `parent_id` perhaps, and in which order unless asked otherwise."""

    narrowing: BuildCondition | None = None
    parent_id: Id | None = None
    order: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ResourceReader:
    """What one caller sees; the connection is the session's, taken with the first statement."""

    access: AccessContext
    query: Query
    with_cursors: bool = False
    max_items: int | None = None
    """How many items a page may have, where more made the answer too large; 0 is one alone, which includes nothing."""

    def execute_statement(self, statement: PreparedStatement | Select[Any], **values: Any) -> Rows:
        """The rows of a statement, with the caller's parameters and these."""
        parameters = {**self.access.sql_parameters(), **values}
        if isinstance(statement, PreparedStatement):
            return statement.fetch_rows(parameters)
        return get_connection().execute(statement, parameters).all()

    def get_plan(self, resource_type: ResourceType, *, related: bool) -> SelectPlan:
        """Return the plan of a type for this caller and these fields."""
        return get_select_plan(
            resource_type, self.access.scope, self.query.fields.get(resource_type.name), related=related
        )

    def get_id(self, resource_type: ResourceType, name: str) -> Id:
        """The id of the visible row a URL segment names; 404 where there is none."""
        if named := resource_type.lookup(name):
            column, key = named
            for row in self.execute_statement(
                select_statements.select_id(resource_type, self.access.scope, column), key=key
            ):
                return cast("Id", row[0])
        raise NotFound(f"There is no {resource_type.name} {name[:80]!r} here.")

    def get_document(
        self, resource_type: ResourceType, key: Any, *, column: str = "id", related: bool = False
    ) -> Item | None:
        """The document of the resource whose column has this value, None where it is not visible."""
        plan = self.get_plan(resource_type, related=related)
        rows = self.execute_statement(select_statements.select_one(plan, column), key=key)
        if not rows:
            return None
        items, included = self._serialize_with_included(plan, rows)
        document: Item = {"data": items[0], "jsonapi": JSONAPI}
        if self.query.includes_asked:
            document["included"] = included
        return document

    def list_document(
        self, resource_type: ResourceType, path: str, part: CollectionScope, *, related: bool = False
    ) -> Item:
        """The document of a list; a page that would make the answer too large has fewer items."""
        plan = self.get_plan(resource_type, related=related)
        found, count = self._fetch_list_page(plan, part)
        found = self._shorten_page(found, found.count_fitting(plan.estimate_bytes))
        if self.max_items is not None:
            found = self._shorten_page(found, max(self.max_items, 1))
        found, items, included = self._fit_page(plan, found)
        self._add_cursors(items, found)
        links = self._build_links(path, found, count)
        document: Item = {"data": items, "links": links, "meta": found.build_meta(count), "jsonapi": JSONAPI}
        if included is None:
            document["meta"]["included-is-omitted"] = True
        if self.query.includes_asked:
            document["included"] = included or []
        return document

    def _fit_page(self, plan: SelectPlan, found: PageResult) -> tuple[PageResult, list[Item], list[Item] | None]:
        """Return as much of a page as fits with what it includes; None for what makes one resource too large.

        A client cannot go past a page that is refused, and any user may write what makes it so.
        """
        while self.max_items != 0:
            try:
                return found, *self._serialize_with_included(plan, found.rows)
            except AnswerTooLarge:
                if len(found.rows) == 1:
                    break
                found = self._shorten_page(found, len(found.rows) // 2)
        return found, [plan.serialize_row(row) for row in found.rows], None

    def _count_rows(self, plan: SelectPlan, part: CollectionScope) -> RowCount:
        exact = part.parent_id is not None  # its index makes counting cheap
        ((number,),) = self.execute_statement(
            self._count_statement(plan, part.narrowing, exact), parent_id=part.parent_id
        )
        return RowCount.from_capped(number, select_statements.MAX_COUNT, exact)

    def _count_statement(
        self, plan: SelectPlan, narrowing: BuildCondition | None, exact: bool
    ) -> PreparedStatement | Select[Any]:
        if not self.query.filters:
            return select_statements.select_list_count(plan, narrowing, exact)
        rows = select_statements.select_list(plan, narrowing).where(*self._filter_conditions(plan))
        return select_statements.select_count(
            rows.with_only_columns(literal_column("1"), maintain_column_froms=True), exact
        )

    def _filter_conditions(self, plan: SelectPlan) -> list[ColumnElement[bool]]:
        return [each.build(plan.type.table) for each in self.query.filters]

    def _shorten_page(self, found: PageResult, length: int) -> PageResult:
        page = self.query.page
        return found.shorten_to(length, is_range=page.after is not None and page.before is not None)

    def _build_links(self, path: str, found: PageResult, count: RowCount) -> Item:
        parameters = self.query.parameters
        if self.uses_cursors:
            return build_keyset_links(path, parameters, found)
        return build_numbered_links(path, parameters, self.query.page, count, found)

    def _fetch_list_page(self, plan: SelectPlan, part: CollectionScope) -> tuple[PageResult, RowCount]:
        """The page that is asked for; the first one in the default order without filters was prepared before."""
        page, order = self.query.page, part.order or plan.type.order
        counting = partial(self._count_rows, plan, part)
        if self.query.filters or self.query.sort or self.uses_cursors or page.number > 1:
            narrowed = select_statements.select_list(plan, part.narrowing).where(*self._filter_conditions(plan))
            keys = build_sort_columns(plan.type, self.query.sort, order, self.access.scope)
            with self._limit_costly_read(part):
                return self._fetch_page(narrowed, keys, counting, part.parent_id)
        statement = select_statements.select_first_page(plan, part.narrowing, order, page.size)
        found = PageResult(self.execute_statement(statement, parent_id=part.parent_id), ())
        return found, get_count(found, page, counting)

    def _limit_costly_read(self, part: CollectionScope) -> AbstractContextManager[None]:
        """Return a context that waits for a slot if reading this page may take PostgreSQL long."""
        is_wide_sort = part.parent_id is None and any(key.is_costly for key in self.query.sort)
        is_deep = self.query.page.offset > DEEP_OFFSET
        if self.query.has_costly_filters or is_wide_sort or is_deep:
            return costly_read(self.access.viewer)
        return nullcontext()

    def get_linkage_document(self, resource_type: ResourceType, id_: Id, relation: Relation, path: str) -> Item:
        """The document of a relationship URL: identifiers only."""
        target, scope = relation.target, self.access.scope
        related = path.replace("/relationships/", "/", 1)
        if not relation.many:
            ((key,),) = self.execute_statement(
                select_statements.select_to_one(resource_type, relation, scope), parent_id=id_
            )
            links = {"self": path, "related": related}
            return {"data": resource_identifier(relation, key), "links": links, "jsonapi": JSONAPI}
        statement = select_statements.select_to_many(relation, scope)

        def counting() -> RowCount:
            ((number,),) = self.execute_statement(select_statements.select_count(statement, exact=True), parent_id=id_)
            return RowCount(number, is_exact=True)

        keys = build_sort_columns(target, (), target.order, scope)
        found, count = self._fetch_page(statement, keys, counting, id_)
        links = self._build_links(path, found, count)
        identifiers: list[Item] = [{"type": target.name, "id": str(row[0])} for row in found.rows]
        self._add_cursors(identifiers, found)
        meta = found.build_meta(count)
        return {"data": identifiers, "links": {**links, "related": related}, "meta": meta, "jsonapi": JSONAPI}

    def _fetch_page(
        self,
        statement: Select[Any],
        keys: Sequence[SortColumn],
        counting: Callable[[], RowCount],
        parent_id: Id | None,
    ) -> tuple[PageResult, RowCount]:
        """The rows of the page that is asked for, and how many there are in all."""
        page = self.query.page

        def execute(statement: Select[Any]) -> Rows:
            return self.execute_statement(statement, parent_id=parent_id)

        if self.uses_cursors:
            found = fetch_keyset_page(execute, statement, keys, page)
            return found, get_count(found, page, counting)
        return fetch_numbered_page(execute, statement, keys, page, counting)

    def _add_cursors(self, items: list[Item], found: PageResult) -> None:
        if self.uses_cursors:
            for item, row in zip(items, found.rows, strict=True):
                item["meta"] = {"page": {"cursor": found.get_row_cursor(row)}}

    @property
    def uses_cursors(self) -> bool:
        """Whether pages are named by cursors: one was sent, or the profile is asked for."""
        page = self.query.page
        return page.has_cursor or (self.with_cursors and "page[number]" not in self.query.parameters)

    def _serialize_with_included(self, plan: SelectPlan, rows: Rows) -> tuple[list[Item], list[Item]]:
        seen: dict[tuple[str, Id], Item] = {}
        items = []
        for row in rows:
            seen[plan.type.name, row[0]] = item = plan.serialize_row(row)
            items.append(item)
        primary = len(seen)
        if self.query.includes:
            _IncludeLoader(self, seen).include_related(plan, rows, self.query.includes, ())
        return items, list(seen.values())[primary:]


class _IncludeLoader:
    """The resources that one answer includes, by one statement for each path, and the bytes left for them."""

    def __init__(self, reader: ResourceReader, seen: dict[tuple[str, Id], Item]) -> None:
        self.reader = reader
        self.seen = seen
        self.bytes = 0

    def include_related(self, plan: SelectPlan, rows: Rows, includes: Includes, path: tuple[str, ...]) -> None:
        """Print what the relationships of these rows hold into `seen`, and what those hold in turn."""
        parents = [row for row in rows if plan.is_full(row)]
        for name, deeper in includes.items() if parents else ():
            relation = plan.type.relations[name]
            target_plan = self.reader.get_plan(relation.target, related=True)
            here = (*path, relation.key)
            if relation.many:
                found = self._fetch_to_many(plan, relation, target_plan, parents)
            else:
                found = self._fetch_by_ids(target_plan, {row[plan.to_one[name]] for row in parents} - {None})
            self._serialize_rows(target_plan, found, here)
            if deeper:
                self.include_related(target_plan, found, deeper, here)

    def _serialize_rows(self, plan: SelectPlan, rows: Rows, path: tuple[str, ...]) -> None:
        """Print rows that are not printed yet; all are weighed, as rows that do not fit into an answer are missing."""
        new = {row[0]: row for row in rows if (plan.name, row[0]) not in self.seen}
        self.bytes += plan.estimate_bytes(new.values())
        if max(self.bytes, plan.estimate_bytes(rows)) > MAX_ANSWER_BYTES:
            raise make_include_size_error(path)
        for id_, row in new.items():
            self.seen[plan.name, id_] = plan.serialize_row(row)

    def _fetch_to_many(self, plan: SelectPlan, relation: Relation, target_plan: SelectPlan, parents: Rows) -> Rows:
        ids = {row[0] for row in parents}
        if relation.target.permissions.linkable is None:
            # Who may be linked is who may be included: one statement tells both.
            rows = found = self._fetch_included(select_statements.select_children(target_plan, relation), ids)
        else:
            rows = self._fetch_included(select_statements.select_linkage(relation, self.reader.access.scope), ids)
            found = self._fetch_by_ids(target_plan, {row[0] for row in rows})
        by_parent: dict[Any, list[Item]] = {id_: [] for id_ in ids}
        for row in rows:
            by_parent[row[-1]].append({"type": relation.field.type_, "id": str(row[0])})
        for id_, linkage in by_parent.items():
            relationships = self.seen[plan.type.name, id_].get("relationships", {})
            if relation.key in relationships:
                relationships[relation.key]["data"] = linkage
        return found

    def _fetch_by_ids(self, plan: SelectPlan, ids: set[Id]) -> Rows:
        return self._fetch_included(select_statements.select_by_ids(plan), ids) if ids else []

    def _fetch_included(self, statement: PreparedStatement, ids: set[Id]) -> Rows:
        rows = self.reader.execute_statement(statement, ids=sorted(ids))
        if len(rows) > select_statements.MAX_INCLUDED:
            most = select_statements.MAX_INCLUDED
            detail = f"This would include more than {most} resources; ask for the related URL, page by page."
            raise make_size_error(detail, "include")
        return rows
