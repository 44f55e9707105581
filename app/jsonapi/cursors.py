"""Cursor pagination by keyset: a cursor holds the sort values of a row, so all pages cost the same.

Profile: http://jsonapi.org/profiles/ethanresnick/cursor-pagination/
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import marshmallow
import orjson
from sqlalchemy import ColumnElement, and_, false, literal, or_, tuple_

from app.database import text_sort_key
from app.errors import InvalidParameter
from app.jsonapi.fields import Text
from app.jsonapi.json_parsing import INVALID_TEXT_RE
from app.jsonapi.resource_type import ResourceType

PROFILE = "http://jsonapi.org/profiles/ethanresnick/cursor-pagination/"
"""URI of the profile, as its specification gives it."""
PROFILE_SPELLINGS = frozenset(
    f"{scheme}://jsonapi.org/profiles/ethanresnick/cursor-pagination{slash}"
    for scheme in ("http", "https")
    for slash in ("", "/")
)
"""Variants of the URI that clients send."""

MAX_CURSOR_LENGTH = 4096
"""Max characters of a cursor, so that a link with one fits into a query string."""


@dataclass(frozen=True)
class SortColumn:
    """One sort key: the column, its sort expression, and the field that decodes its values in cursors.

    A cursor holds the value of `column`; rows are sorted and compared by `sort_expression`.
    """

    column: ColumnElement[Any]
    sort_expression: ColumnElement[Any]
    descending: bool
    nullable: bool
    field: marshmallow.fields.Field[Any] | None
    """Field of the attribute; None for the id of `type`."""
    type: ResourceType

    def order_by_clause(self, *, backwards: bool) -> ColumnElement[Any]:
        """Return the ORDER BY term; PostgreSQL sorts nulls last, and first if descending."""
        return self.sort_expression.desc() if self.descending != backwards else self.sort_expression.asc()

    def decode_value(self, value: Any) -> Any:
        """Return the value that a cursor holds for this key; raise ValueError if it is not valid for it."""
        if value is None and self.nullable:
            return None
        if self.field is None:
            id_ = None if isinstance(value, bool) else self.type.parse_id(str(value))
            if id_ is None:
                raise ValueError("not an id")
            return id_
        if isinstance(self.field, Text):
            # The stored text, not normalized again: the rules may have changed since it was stored.
            if not isinstance(value, str) or INVALID_TEXT_RE.search(value):
                raise ValueError("not a text")
            return value
        try:
            return self.field.deserialize(value)
        except marshmallow.ValidationError:
            raise ValueError("not a value of this attribute") from None


def is_sorted_as_text(field: marshmallow.fields.Field[Any] | None) -> bool:
    """Return whether the field sorts in natural language order, such as Apfel, Äpfel, apple, Banana."""
    return isinstance(field, Text) and field.sorted_as_text


def encode_cursor(values: Sequence[Any]) -> str:
    """Return the cursor for these sort values, the id last; a cursor of the id alone if it would be too long."""
    cursor = _encode_json([to_json_value(value) for value in values])
    return cursor if len(cursor) <= MAX_CURSOR_LENGTH else _encode_json(to_json_value(values[-1]))


def encode_id_cursor(id_: Any) -> str:
    """Return the cursor that names a row by its id alone."""
    return _encode_json(to_json_value(id_))


def _encode_json(value: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=").decode()


def decode_cursor(
    text: str, keys: Sequence[SortColumn], parameter: str, find: Callable[[Any], Sequence[Any] | None]
) -> Sequence[Any]:
    """Return the sort values of a cursor, by `find` for an id alone; raise InvalidParameter for another order."""
    try:
        values = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        found = find(keys[-1].decode_value(values)) if isinstance(values, int | str) else _decode_values(values, keys)
    except (ValueError, binascii.Error):
        found = None
    if found is None:
        raise InvalidParameter("This is not a cursor of this list and sort order.", parameter=parameter)
    return found


def _decode_values(values: Any, keys: Sequence[SortColumn]) -> list[Any]:
    if not isinstance(values, list) or len(values) != len(keys):
        raise ValueError("not a cursor of this order")
    return [key.decode_value(value) for key, value in zip(keys, values, strict=True)]


def after_cursor(keys: Sequence[SortColumn], values: Sequence[Any], *, backwards: bool) -> ColumnElement[bool]:
    """Return the condition for rows after these sort values, or before them if `backwards`."""
    directions = {key.descending for key in keys}
    if len(directions) == 1 and not any(key.nullable for key in keys):
        # A row comparison, for which PostgreSQL scans one index range.
        here = tuple_(*(key.sort_expression for key in keys))
        there = tuple_(*(_bind_value(key, value) for key, value in zip(keys, values, strict=True)))
        return here > there if directions == {backwards} else here < there
    steps = []
    for at, key in enumerate(keys):
        same = [_equals_key(keys[before], values[before]) for before in range(at)]
        steps.append(and_(*same, _after_key(key, values[at], backwards=backwards)))
    return and_(*_range_start(keys[0], values[0], backwards=backwards), or_(*steps))


def _range_start(key: SortColumn, value: Any, *, backwards: bool) -> list[ColumnElement[bool]]:
    """Return a redundant condition on the first key: PostgreSQL can start an index scan there, but not at an OR."""
    if key.nullable:
        return []
    return [
        key.sort_expression >= _bind_value(key, value)
        if key.descending == backwards
        else key.sort_expression <= _bind_value(key, value)
    ]


def _bind_value(key: SortColumn, value: Any) -> ColumnElement[Any]:
    """Return the value as a bound parameter: SQLAlchemy treats plain True and False in comparisons as constants."""
    bound = literal(value, key.column.type)
    return text_sort_key(bound) if is_sorted_as_text(key.field) else bound


def _equals_key(key: SortColumn, value: Any) -> ColumnElement[bool]:
    return key.column.is_(None) if value is None else key.sort_expression == _bind_value(key, value)


def _after_key(key: SortColumn, value: Any, *, backwards: bool) -> ColumnElement[bool]:
    if key.descending == backwards:  # towards greater values, nulls at the end
        if value is None:
            return false()
        greater = key.sort_expression > _bind_value(key, value)
        return or_(greater, key.column.is_(None)) if key.nullable else greater
    return key.column.is_not(None) if value is None else key.sort_expression < _bind_value(key, value)


def to_json_value(value: Any) -> Any:
    """Return the value in the form that `SortColumn.decode_value` reads."""
    return value.isoformat() if isinstance(value, datetime) else value
