"""Pagination by page number, or by cursors, which cost the same at any depth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import ColumnElement, Integer, Select, literal_column
from sqlalchemy.exc import OperationalError

from app.database import Row
from app.errors import InvalidParameter
from app.jsonapi import cursors
from app.jsonapi.cursors import SortColumn
from app.jsonapi.query_params import Page
from app.jsonapi.size_limits import MAX_ANSWER_BYTES

DEEP_OFFSET = 10_000

Rows = Sequence[Row]
Execute = Callable[[Select[Any]], Rows]


@dataclass(frozen=True)
class RowCount:
    """Number of rows of a list; a minimum if counting stopped at a cap."""

    number: int
    is_exact: bool

    @classmethod
    def from_capped(cls, number: int, cap: int, exact: bool) -> "RowCount":
        """Return the count for `number` rows, counted up to `cap` + 1 unless `exact`."""
        return cls(number, True) if exact or number <= cap else cls(cap, False)

    def to_meta(self) -> dict[str, Any]:
        """Return the members for the meta object of the document."""
        return {"count": self.number} if self.is_exact else {"count": self.number, "count-is-exact": False}


@dataclass(frozen=True)
class PageResult:
    """Rows of one page; in a keyset page each row ends with its sort values."""

    rows: Rows
    keys: Sequence[SortColumn]
    has_previous: bool = False
    has_next: bool = False
    is_truncated: bool = False
    """True if more rows are between the two cursors than fit into the page."""
    is_backwards: bool = False
    """True if the page ends at `page[before]` instead of starting at `page[after]`."""
    is_shortened: bool = False
    """True if rows are omitted because the response would be too large."""

    def build_meta(self, count: RowCount) -> dict[str, Any]:
        """Return the meta object of the document."""
        shortened = {"page-is-shortened": True} if self.is_shortened else {}
        return count.to_meta() | shortened | ({"page": {"rangeTruncated": True}} if self.is_truncated else {})

    def shorten_to(self, length: int, *, is_range: bool) -> "PageResult":
        """Return the page with at most `length` rows, those next to the cursor; the others are on the next page."""
        if length >= len(self.rows):
            return self
        if self.is_backwards:
            return replace(self, rows=self.rows[-length:], has_previous=True, is_shortened=True)
        return replace(self, rows=self.rows[:length], has_next=True, is_truncated=is_range, is_shortened=True)

    def count_fitting(self, weigh: Callable[[Rows], int]) -> int:
        """Return the number of rows that fit into a response, at least 1; `weigh` returns the bytes of rows."""
        left = MAX_ANSWER_BYTES
        if weigh(self.rows) <= left:
            return len(self.rows)
        for at, row in enumerate(reversed(self.rows) if self.is_backwards else self.rows):
            left -= weigh([row])
            if left < 0:
                return max(at, 1)
        return len(self.rows)

    def get_row_cursor(self, row: Row) -> str:
        """Return the cursor of a row of this page."""
        return cursors.encode_cursor(row[-len(self.keys) :])


def get_count(result: PageResult, page: Page, count_rows: Callable[[], RowCount]) -> RowCount:
    """Return the number of rows of the list; call `count_rows` unless the first page holds them all."""
    is_whole = page.number == 1 and not page.has_cursor and len(result.rows) < page.size
    return RowCount(len(result.rows), is_exact=True) if is_whole else count_rows()


def fetch_numbered_page(
    execute: Execute, statement: Select[Any], keys: Sequence[SortColumn], page: Page, count_rows: Callable[[], RowCount]
) -> tuple[PageResult, RowCount]:
    """Return the page `page.number`, and the number of rows of the list."""
    limited = statement.order_by(*(key.order_by_clause(backwards=False) for key in keys)).limit(
        literal_limit(page.size)
    )
    if page.number == 1:
        result = PageResult(execute(limited), keys)
        return result, get_count(result, page, count_rows)
    count = count_rows()
    if count.is_exact and page.offset >= count.number:
        return PageResult([], keys), count
    limited = limited.offset(page.offset)
    return PageResult(
        execute(limited) if page.offset <= DEEP_OFFSET else _execute_deep_page(execute, limited), keys
    ), count


def fetch_keyset_page(execute: Execute, statement: Select[Any], keys: Sequence[SortColumn], page: Page) -> PageResult:
    """Return the page after a cursor, before one or between two; the first page without cursors."""
    backwards = page.before is not None and page.after is None

    def find(id_: Any) -> Sequence[Any] | None:
        named = statement.with_only_columns(*(key.column for key in keys), maintain_column_froms=True)
        return next(iter(execute(named.where(keys[-1].column == id_))), None)

    selected = statement
    if page.after is not None:
        after = cursors.decode_cursor(page.after, keys, "page[after]", find)
        selected = selected.where(cursors.after_cursor(keys, after, backwards=False))
    if page.before is not None:
        before = cursors.decode_cursor(page.before, keys, "page[before]", find)
        selected = selected.where(cursors.after_cursor(keys, before, backwards=True))
    ordered = selected.add_columns(*(key.column for key in keys)).order_by(
        *(key.order_by_clause(backwards=backwards) for key in keys)
    )
    rows = execute(ordered.limit(literal_limit(page.size + 1)))
    more, rows = len(rows) > page.size, rows[: page.size]
    if backwards:
        return PageResult(rows[::-1], keys, has_previous=more, has_next=True, is_backwards=True)
    return PageResult(
        rows,
        keys,
        has_previous=page.after is not None,
        has_next=more or page.before is not None,
        is_truncated=more and page.before is not None,
    )


def literal_limit(rows: int) -> ColumnElement[int]:
    """Return a constant for LIMIT: for a parameter, a generic plan of PostgreSQL assumes a tenth of all rows."""
    return literal_column(str(rows), Integer)


def _execute_deep_page(execute: Execute, statement: Select[Any]) -> Rows:
    """Execute a page with a high offset; raise InvalidParameter if PostgreSQL cancels it as too slow."""
    try:
        return execute(statement)
    except OperationalError:
        raise InvalidParameter(
            "The page is too far from the start of the list: use page[after].", parameter="page[number]"
        ) from None


def build_numbered_links(
    path: str, parameters: Mapping[str, str], page: Page, count: RowCount, result: PageResult
) -> dict[str, Any]:
    """Return the links of a numbered page; `last` is null if the count is not exact.

    After a shortened page, `next` has the cursor of its last row, so that no row is skipped.
    """
    here = len(result.rows)
    last = max(1, -(-count.number // page.size)) if count.is_exact else None
    has_next = page.number < last if last is not None else here == page.size
    number = {
        "first": 1,
        "last": last,
        "prev": min(page.number - 1, last or page.number) or None,
        "next": page.number + 1 if has_next else None,
    }
    pages = {name: at and build_link(path, {**parameters, "page[number]": str(at)}) for name, at in number.items()}
    if result.is_shortened:
        rest = {name: value for name, value in parameters.items() if name != "page[number]"}
        pages["next"] = build_link(path, {**rest, "page[after]": cursors.encode_id_cursor(result.rows[-1][0])})
    return {"self": build_link(path, parameters), **pages}


def build_keyset_links(path: str, parameters: Mapping[str, str], result: PageResult) -> dict[str, Any]:
    """Return the links of a cursor page; `last` is always null, because it is not computed."""
    rest = {name: value for name, value in parameters.items() if name not in ("page[after]", "page[before]")}
    links = {
        "self": build_link(path, parameters),
        "first": build_link(path, rest),
        "last": None,
        "prev": None,
        "next": None,
    }
    if result.rows and result.has_previous:
        links["prev"] = build_link(path, {**rest, "page[before]": result.get_row_cursor(result.rows[0])})
    if result.rows and result.has_next:
        links["next"] = build_link(path, {**rest, "page[after]": result.get_row_cursor(result.rows[-1])})
    return links


def build_link(path: str, parameters: Mapping[str, str]) -> str:
    """Return the path with the parameters as its query string."""
    return f"{path}?{urlencode(parameters)}" if parameters else path
