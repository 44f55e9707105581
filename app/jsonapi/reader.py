"""Reader: JSON:API documents of resources, lists and linkage; one statement per include path."""

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
    """Rows of a list: a condition, the id of the parent for related lists, and the default order."""

    narrowing: BuildCondition | None = None
    parent_id: Id | None = None
    order: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ResourceReader:
    """Reads documents for one user and query; the first statement takes the connection of the session."""

    access: AccessContext
    query: Query
    with_cursors: bool = False
    max_items: int | None = None
    """Max items of a page whose response was too large before; 0 means one item without included resources."""

    def execute_statement(self, statement: PreparedStatement | Select[Any], **values: Any) -> Rows:
        """Execute a statement with the parameters of the current user and these values, and return its rows."""
        parameters = {**self.access.sql_parameters(), **values}
        if isinstance(statement, PreparedStatement):
            return statement.fetch_rows(parameters)
        return get_connection().execute(statement, parameters).all()

    def get_plan(self, resource_type: ResourceType, *, related: bool) -> SelectPlan:
        """Return the select plan of a type for the visibility scope and the requested fields."""
        return get_select_plan(
            resource_type, self.access.scope, self.query.fields.get(resource_type.name), related=related
        )

    def get_id(self, resource_type: ResourceType, name: str) -> Id:
        """Return the id of the visible row that a URL segment names; raise NotFound if there is none."""
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
        """Return the document of the visible row whose column has this value, or None."""
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
        self, resource_type: ResourceType, path: str, collection: CollectionScope, *, related: bool = False
    ) -> Item:
        """Return the document of a list; a page is shortened if the response would be too large."""
        plan = self.get_plan(resource_type, related=related)
        result, count = self._fetch_list_page(plan, collection)
        result = self._shorten_page(result, result.count_fitting(plan.estimate_bytes))
        if self.max_items is not None:
            result = self._shorten_page(result, max(self.max_items, 1))
        result, items, included = self._fit_page(plan, result)
        self._add_cursors(items, result)
        links = self._build_links(path, result, count)
        document: Item = {"data": items, "links": links, "meta": result.build_meta(count), "jsonapi": JSONAPI}
        if included is None:
            document["meta"]["included-is-omitted"] = True
        if self.query.includes_asked:
            document["included"] = included or []
        return document

    def _fit_page(self, plan: SelectPlan, result: PageResult) -> tuple[PageResult, list[Item], list[Item] | None]:
        """Shorten a page until it fits with its included resources; return None for them if even one item is too large.

        An error would stop clients at this page, and any user can create resources that make a page too large.
        """
        while self.max_items != 0:
            try:
                return result, *self._serialize_with_included(plan, result.rows)
            except AnswerTooLarge:
                if len(result.rows) == 1:
                    break
                result = self._shorten_page(result, len(result.rows) // 2)
        return result, [plan.serialize_row(row) for row in result.rows], None

    def _count_rows(self, plan: SelectPlan, collection: CollectionScope) -> RowCount:
        exact = collection.parent_id is not None  # the index of the foreign key makes counting cheap
        ((number,),) = self.execute_statement(
            self._count_statement(plan, collection.narrowing, exact), parent_id=collection.parent_id
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

    def _shorten_page(self, result: PageResult, length: int) -> PageResult:
        page = self.query.page
        return result.shorten_to(length, is_range=page.after is not None and page.before is not None)

    def _build_links(self, path: str, result: PageResult, count: RowCount) -> Item:
        parameters = self.query.parameters
        if self.uses_cursors:
            return build_keyset_links(path, parameters, result)
        return build_numbered_links(path, parameters, self.query.page, count, result)

    def _fetch_list_page(self, plan: SelectPlan, collection: CollectionScope) -> tuple[PageResult, RowCount]:
        """Return the requested page; the first page in the default order without filters uses a prepared statement."""
        page, order = self.query.page, collection.order or plan.type.order
        count_rows = partial(self._count_rows, plan, collection)
        if self.query.filters or self.query.sort or self.uses_cursors or page.number > 1:
            narrowed = select_statements.select_list(plan, collection.narrowing).where(*self._filter_conditions(plan))
            keys = build_sort_columns(plan.type, self.query.sort, order, self.access.scope)
            with self._limit_costly_read(collection):
                return self._fetch_page(narrowed, keys, count_rows, collection.parent_id)
        statement = select_statements.select_first_page(plan, collection.narrowing, order, page.size)
        result = PageResult(self.execute_statement(statement, parent_id=collection.parent_id), ())
        return result, get_count(result, page, count_rows)

    def _limit_costly_read(self, collection: CollectionScope) -> AbstractContextManager[None]:
        """Return the context of a costly read if the query may be slow, else an empty one."""
        is_wide_sort = collection.parent_id is None and any(key.is_costly for key in self.query.sort)
        is_deep = self.query.page.offset > DEEP_OFFSET
        if self.query.has_costly_filters or is_wide_sort or is_deep:
            return costly_read(self.access.viewer)
        return nullcontext()

    def get_linkage_document(self, resource_type: ResourceType, id_: Id, relation: Relation, path: str) -> Item:
        """Return the document of a relationship URL, with resource identifiers."""
        target, scope = relation.target, self.access.scope
        related = path.replace("/relationships/", "/", 1)
        if not relation.many:
            ((key,),) = self.execute_statement(
                select_statements.select_to_one(resource_type, relation, scope), parent_id=id_
            )
            links = {"self": path, "related": related}
            return {"data": resource_identifier(relation, key), "links": links, "jsonapi": JSONAPI}
        statement = select_statements.select_to_many(relation, scope)

        def count_rows() -> RowCount:
            ((number,),) = self.execute_statement(select_statements.select_count(statement, exact=True), parent_id=id_)
            return RowCount(number, is_exact=True)

        keys = build_sort_columns(target, (), target.order, scope)
        result, count = self._fetch_page(statement, keys, count_rows, id_)
        links = self._build_links(path, result, count)
        identifiers: list[Item] = [{"type": target.name, "id": str(row[0])} for row in result.rows]
        self._add_cursors(identifiers, result)
        meta = result.build_meta(count)
        return {"data": identifiers, "links": {**links, "related": related}, "meta": meta, "jsonapi": JSONAPI}

    def _fetch_page(
        self,
        statement: Select[Any],
        keys: Sequence[SortColumn],
        count_rows: Callable[[], RowCount],
        parent_id: Id | None,
    ) -> tuple[PageResult, RowCount]:
        """Return the requested page, and the number of rows of the list."""
        page = self.query.page

        def execute(statement: Select[Any]) -> Rows:
            return self.execute_statement(statement, parent_id=parent_id)

        if self.uses_cursors:
            result = fetch_keyset_page(execute, statement, keys, page)
            return result, get_count(result, page, count_rows)
        return fetch_numbered_page(execute, statement, keys, page, count_rows)

    def _add_cursors(self, items: list[Item], result: PageResult) -> None:
        if self.uses_cursors:
            for item, row in zip(items, result.rows, strict=True):
                item["meta"] = {"page": {"cursor": result.get_row_cursor(row)}}

    @property
    def uses_cursors(self) -> bool:
        """Return whether the response has cursor pagination: by a cursor in the query, or by the profile in Accept."""
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
    """Loads the included resources of one response, by one statement per path, and counts their bytes."""

    def __init__(self, reader: ResourceReader, seen: dict[tuple[str, Id], Item]) -> None:
        self.reader = reader
        self.seen = seen
        self.bytes = 0

    def include_related(self, plan: SelectPlan, rows: Rows, includes: Includes, path: tuple[str, ...]) -> None:
        """Serialize the related rows of these rows into `seen`, recursively."""
        parents = [row for row in rows if plan.is_full(row)]
        for name, deeper in includes.items() if parents else ():
            relation = plan.type.relations[name]
            target_plan = self.reader.get_plan(relation.target, related=True)
            here = (*path, relation.key)
            if relation.many:
                related_rows = self._fetch_to_many(plan, relation, target_plan, parents)
            else:
                related_rows = self._fetch_by_ids(target_plan, {row[plan.to_one[name]] for row in parents} - {None})
            self._serialize_rows(target_plan, related_rows, here)
            if deeper:
                self.include_related(target_plan, related_rows, deeper, here)

    def _serialize_rows(self, plan: SelectPlan, rows: Rows, path: tuple[str, ...]) -> None:
        """Serialize new rows; raise AnswerTooLarge by the bytes of all rows: select_by_ids omits rows at the limit."""
        new = {row[0]: row for row in rows if (plan.name, row[0]) not in self.seen}
        self.bytes += plan.estimate_bytes(new.values())
        if max(self.bytes, plan.estimate_bytes(rows)) > MAX_ANSWER_BYTES:
            raise make_include_size_error(path)
        for id_, row in new.items():
            self.seen[plan.name, id_] = plan.serialize_row(row)

    def _fetch_to_many(self, plan: SelectPlan, relation: Relation, target_plan: SelectPlan, parents: Rows) -> Rows:
        ids = {row[0] for row in parents}
        if relation.target.permissions.linkable is None:
            # Linkable rows are those that can be included: one statement selects both.
            rows = related_rows = self._fetch_included(select_statements.select_children(target_plan, relation), ids)
        else:
            rows = self._fetch_included(select_statements.select_linkage(relation, self.reader.access.scope), ids)
            related_rows = self._fetch_by_ids(target_plan, {row[0] for row in rows})
        by_parent: dict[Any, list[Item]] = {id_: [] for id_ in ids}
        for row in rows:
            by_parent[row[-1]].append({"type": relation.field.type_, "id": str(row[0])})
        for id_, linkage in by_parent.items():
            relationships = self.seen[plan.type.name, id_].get("relationships", {})
            if relation.key in relationships:
                relationships[relation.key]["data"] = linkage
        return related_rows

    def _fetch_by_ids(self, plan: SelectPlan, ids: set[Id]) -> Rows:
        return self._fetch_included(select_statements.select_by_ids(plan), ids) if ids else []

    def _fetch_included(self, statement: PreparedStatement, ids: set[Id]) -> Rows:
        rows = self.reader.execute_statement(statement, ids=sorted(ids))
        if len(rows) > select_statements.MAX_INCLUDED:
            limit = select_statements.MAX_INCLUDED
            detail = f"This would include more than {limit} resources; request the pages of the related URL instead."
            raise make_size_error(detail, "include")
        return rows
