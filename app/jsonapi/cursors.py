"""Keyset pages: a cursor names a row by its place in the order, so the next page costs what the first one did.

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
"""The URI that the page of the profile gives."""
PROFILE_SPELLINGS = frozenset(
    f"{scheme}://jsonapi.org/profiles/ethanresnick/cursor-pagination{slash}"
    for scheme in ("http", "https")
    for slash in ("", "/")
)
"""The URIs that clients send for it; all of them name it."""

MAX_CURSOR_LENGTH = 4096
"""Characters of a cursor: a link with one must fit into a query string."""


@dataclass(frozen=True)
class SortColumn:
    """One key of an order: what to sort by, and how a value of it is read back from a cursor.

    `column` is the value that a cursor holds, `place` what rows are sorted and compared by.
    """

    column: ColumnElement[Any]
    sort_expression: ColumnElement[Any]
    descending: bool
    nullable: bool
    field: marshmallow.fields.Field[Any] | None
    """Of the attribute; None for the id of `type`."""
    type: ResourceType

    def order_by_clause(self, *, backwards: bool) -> ColumnElement[Any]:
        """The term of ORDER BY; PostgreSQL puts nulls last, and first when descending."""
        return self.sort_expression.desc() if self.descending != backwards else self.sort_expression.asc()

    def decode_value(self, value: Any) -> Any:
        """A value from a cursor; ValueError when it cannot be one."""
        if value is None and self.nullable:
            return None
        if self.field is None:
            id_ = None if isinstance(value, bool) else self.type.parse_id(str(value))
            if id_ is None:
                raise ValueError("not an id")
            return id_
        if isinstance(self.field, Text):
            # As it is stored: what the field would clean or trim today may have come otherwise.
            if not isinstance(value, str) or INVALID_TEXT_RE.search(value):
                raise ValueError("not a text")
            return value
        try:
            return self.field.deserialize(value)
        except marshmallow.ValidationError:
            raise ValueError("not a value of this attribute") from None


def is_sorted_as_text(field: marshmallow.fields.Field[Any] | None) -> bool:
    """Return whether people read the attribute, and expect Apfel, Äpfel, apple and Banana in this order."""
    return isinstance(field, Text) and field.sorted_as_text


def encode_cursor(values: Sequence[Any]) -> str:
    """The cursor of a row with these values of the keys, the id last; of the id alone where it would be too long."""
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
    """The values in a cursor, or those that `find` has of the row it names; 400 when it does not fit this order."""
    try:
        values = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        found = find(keys[-1].decode_value(values)) if isinstance(values, int | str) else _decode_values(values, keys)
    except (ValueError, binascii.Error):
        found = None
    if found is None:
        raise InvalidParameter("This is no cursor for this list and order.", parameter=parameter)
    return found


def _decode_values(values: Any, keys: Sequence[SortColumn]) -> list[Any]:
    if not isinstance(values, list) or len(values) != len(keys):
        raise ValueError("not a cursor of this order")
    return [key.decode_value(value) for key, value in zip(keys, values, strict=True)]


def after_cursor(keys: Sequence[SortColumn], values: Sequence[Any], *, backwards: bool) -> ColumnElement[bool]:
    """Rows after these values, or before them."""
    directions = {key.descending for key in keys}
    if len(directions) == 1 and not any(key.nullable for key in keys):
        # A comparison of rows, which one index range answers.
        here = tuple_(*(key.sort_expression for key in keys))
        there = tuple_(*(_bind_value(key, value) for key, value in zip(keys, values, strict=True)))
        return here > there if directions == {backwards} else here < there
    steps = []
    for at, key in enumerate(keys):
        same = [_equals_key(keys[before], values[before]) for before in range(at)]
        steps.append(and_(*same, _after_key(key, values[at], backwards=backwards)))
    return and_(*_range_start(keys[0], values[0], backwards=backwards), or_(*steps))


def _range_start(key: SortColumn, value: Any, *, backwards: bool) -> list[ColumnElement[bool]]:
    """Say again of the first key where the page starts: an index finds that place, but not by alternatives."""
    if key.nullable:
        return []
    return [
        key.sort_expression >= _bind_value(key, value)
        if key.descending == backwards
        else key.sort_expression <= _bind_value(key, value)
    ]


def _bind_value(key: SortColumn, value: Any) -> ColumnElement[Any]:
    """A value to compare with: SQLAlchemy would take True and False for something else."""
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
    """A value as JSON and `SortColumn.decode_value` know it."""
    return value.isoformat() if isinstance(value, datetime) else value
