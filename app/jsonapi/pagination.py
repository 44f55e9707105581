"""Pages of a list: by number, or by cursors, which cost the same at any depth."""

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
    """How many rows a list has; where counting stopped at a cap, at least so many."""

    number: int
    is_exact: bool

    @classmethod
    def from_capped(cls, number: int, cap: int, exact: bool) -> "RowCount":
        """What a count that stops after `cap` rows says, unless it is exact."""
        return cls(number, True) if exact or number <= cap else cls(cap, False)

    def to_meta(self) -> dict[str, Any]:
        """As the document says it."""
        return {"count": self.number} if self.is_exact else {"count": self.number, "count-is-exact": False}


@dataclass(frozen=True)
class PageResult:
    """The rows of one page; in a keyset page each ends with its values of the keys."""

    rows: Rows
    keys: Sequence[SortColumn]
    has_previous: bool = False
    has_next: bool = False
    is_truncated: bool = False
    """Whether there is more between the two cursors that were sent than fits into the page."""
    is_backwards: bool = False
    """Whether the last row, not the first, is next to the cursor that was sent."""
    is_shortened: bool = False
    """Whether rows are left out because the answer would be too large."""

    def build_meta(self, count: RowCount) -> dict[str, Any]:
        """The meta object of the document."""
        shortened = {"page-is-shortened": True} if self.is_shortened else {}
        return count.to_meta() | shortened | ({"page": {"rangeTruncated": True}} if self.is_truncated else {})

    def shorten_to(self, length: int, *, is_range: bool) -> "PageResult":
        """Return the page with so many rows, the ones next to the cursor that was sent; others follow it."""
        if length >= len(self.rows):
            return self
        if self.is_backwards:
            return replace(self, rows=self.rows[-length:], has_previous=True, is_shortened=True)
        return replace(self, rows=self.rows[:length], has_next=True, is_truncated=is_range, is_shortened=True)

    def count_fitting(self, weigh: Callable[[Rows], int]) -> int:
        """Return how many rows fit into an answer, at least one, by about what they weigh."""
        left = MAX_ANSWER_BYTES
        if weigh(self.rows) <= left:
            return len(self.rows)
        for at, row in enumerate(reversed(self.rows) if self.is_backwards else self.rows):
            left -= weigh([row])
            if left < 0:
                return max(at, 1)
        return len(self.rows)

    def get_row_cursor(self, row: Row) -> str:
        """The cursor of one of the rows."""
        return cursors.encode_cursor(row[-len(self.keys) :])


def get_count(found: PageResult, page: Page, counting: Callable[[], RowCount]) -> RowCount:
    """How many rows the list has: counted, unless its first page holds them all."""
    is_whole = page.number == 1 and not page.has_cursor and len(found.rows) < page.size
    return RowCount(len(found.rows), is_exact=True) if is_whole else counting()


def fetch_numbered_page(
    execute: Execute, statement: Select[Any], keys: Sequence[SortColumn], page: Page, counting: Callable[[], RowCount]
) -> tuple[PageResult, RowCount]:
    """The page of this number, and how many rows there are."""
    limited = statement.order_by(*(key.order_by_clause(backwards=False) for key in keys)).limit(
        literal_limit(page.size)
    )
    if page.number == 1:
        found = PageResult(execute(limited), keys)
        return found, get_count(found, page, counting)
    count = counting()
    if count.is_exact and page.offset >= count.number:
        return PageResult([], keys), count
    limited = limited.offset(page.offset)
    return PageResult(
        execute(limited) if page.offset <= DEEP_OFFSET else _execute_deep_page(execute, limited), keys
    ), count


def fetch_keyset_page(execute: Execute, statement: Select[Any], keys: Sequence[SortColumn], page: Page) -> PageResult:
    """The page after a cursor, before one, or between two; the first one without any."""
    backwards = page.before is not None and page.after is None

    def find(id_: Any) -> Sequence[Any] | None:
        named = statement.with_only_columns(*(key.column for key in keys), maintain_column_froms=True)
        return next(iter(execute(named.where(keys[-1].column == id_))), None)

    listed = statement
    if page.after is not None:
        after = cursors.decode_cursor(page.after, keys, "page[after]", find)
        listed = listed.where(cursors.after_cursor(keys, after, backwards=False))
    if page.before is not None:
        before = cursors.decode_cursor(page.before, keys, "page[before]", find)
        listed = listed.where(cursors.after_cursor(keys, before, backwards=True))
    ordered = listed.add_columns(*(key.column for key in keys)).order_by(
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
    """For LIMIT, as a constant: of a parameter PostgreSQL's lasting plans assume that it is a tenth of all rows."""
    return literal_column(str(rows), Integer)


def _execute_deep_page(execute: Execute, statement: Select[Any]) -> Rows:
    """A page far from the start, before which every row is read: a costly read."""
    try:
        return execute(statement)
    except OperationalError:
        raise InvalidParameter("Too far from the start: use page[after].", parameter="page[number]") from None


def build_numbered_links(
    path: str, parameters: Mapping[str, str], page: Page, count: RowCount, found: PageResult
) -> dict[str, Any]:
    """The links of a numbered page; `last` is null where counting stopped before.

    After a page that was shortened, `next` goes on behind its last row, by a cursor, so that none is skipped.
    """
    here = len(found.rows)
    last = max(1, -(-count.number // page.size)) if count.is_exact else None
    has_next = page.number < last if last is not None else here == page.size
    number = {
        "first": 1,
        "last": last,
        "prev": min(page.number - 1, last or page.number) or None,
        "next": page.number + 1 if has_next else None,
    }
    pages = {name: at and build_link(path, {**parameters, "page[number]": str(at)}) for name, at in number.items()}
    if found.is_shortened:
        rest = {name: value for name, value in parameters.items() if name != "page[number]"}
        pages["next"] = build_link(path, {**rest, "page[after]": cursors.encode_id_cursor(found.rows[-1][0])})
    return {"self": build_link(path, parameters), **pages}


def build_keyset_links(path: str, parameters: Mapping[str, str], found: PageResult) -> dict[str, Any]:
    """The links of a page by cursor; nobody looks for the last one."""
    rest = {name: value for name, value in parameters.items() if name not in ("page[after]", "page[before]")}
    links = {
        "self": build_link(path, parameters),
        "first": build_link(path, rest),
        "last": None,
        "prev": None,
        "next": None,
    }
    if found.rows and found.has_previous:
        links["prev"] = build_link(path, {**rest, "page[before]": found.get_row_cursor(found.rows[0])})
    if found.rows and found.has_next:
        links["next"] = build_link(path, {**rest, "page[after]": found.get_row_cursor(found.rows[-1])})
    return links


def build_link(path: str, parameters: Mapping[str, str]) -> str:
    """A path with a query string, where there is one."""
    return f"{path}?{urlencode(parameters)}" if parameters else path
