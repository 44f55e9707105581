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
from app.jsonapi.body import UNSTORABLE
from app.jsonapi.resource_type import ResourceType
from app.jsonapi.schema import Text

PROFILE = "http://jsonapi.org/profiles/ethanresnick/cursor-pagination/"
"""The URI that the page of the profile gives."""
PROFILE_SPELLINGS = frozenset(
    f"{scheme}://jsonapi.org/profiles/ethanresnick/cursor-pagination{slash}"
    for scheme in ("http", "https")
    for slash in ("", "/")
)
"""The URIs that clients send for it; all of them name it."""

LONGEST = 4096
"""Characters of a cursor: a link with one must fit into a query string."""


@dataclass(frozen=True)
class Key:
    """One key of an order: what to sort by, and how a value of it is read back from a cursor.

    `column` is the value that a cursor holds, `place` what rows are sorted and compared by.
    """

    column: ColumnElement[Any]
    place: ColumnElement[Any]
    descending: bool
    nullable: bool
    field: marshmallow.fields.Field[Any] | None
    """Of the attribute; None for the id of `type`."""
    type: ResourceType

    def ordered(self, *, backwards: bool) -> ColumnElement[Any]:
        """The term of ORDER BY; PostgreSQL puts nulls last, and first when descending."""
        return self.place.desc() if self.descending != backwards else self.place.asc()

    def read(self, value: Any) -> Any:
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
            if not isinstance(value, str) or UNSTORABLE.search(value):
                raise ValueError("not a text")
            return value
        try:
            return self.field.deserialize(value)
        except marshmallow.ValidationError:
            raise ValueError("not a value of this attribute") from None


def is_sorted_as_text(field: marshmallow.fields.Field[Any] | None) -> bool:
    """Return whether people read the attribute, and expect Apfel, Äpfel, apple and Banana in this order."""
    return isinstance(field, Text) and field.sorted_as_text


def write(values: Sequence[Any]) -> str:
    """The cursor of a row with these values of the keys, the id last; of the id alone where it would be too long."""
    cursor = _encoded([plain(value) for value in values])
    return cursor if len(cursor) <= LONGEST else _encoded(plain(values[-1]))


def write_id(id_: Any) -> str:
    """Return the cursor that names a row by its id alone."""
    return _encoded(plain(id_))


def _encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=").decode()


def read(text: str, keys: Sequence[Key], parameter: str, find: Callable[[Any], Sequence[Any] | None]) -> Sequence[Any]:
    """The values in a cursor, or those that `find` has of the row it names; 400 when it does not fit this order."""
    try:
        values = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        found = find(keys[-1].read(values)) if isinstance(values, int | str) else _read_all(values, keys)
    except (ValueError, binascii.Error):
        found = None
    if found is None:
        raise InvalidParameter("This is no cursor for this list and order.", parameter=parameter)
    return found


def _read_all(values: Any, keys: Sequence[Key]) -> list[Any]:
    if not isinstance(values, list) or len(values) != len(keys):
        raise ValueError("not a cursor of this order")
    return [key.read(value) for key, value in zip(keys, values, strict=True)]


def beyond(keys: Sequence[Key], values: Sequence[Any], *, backwards: bool) -> ColumnElement[bool]:
    """Rows after these values, or before them."""
    directions = {key.descending for key in keys}
    if len(directions) == 1 and not any(key.nullable for key in keys):
        # A comparison of rows, which one index range answers.
        here = tuple_(*(key.place for key in keys))
        there = tuple_(*(_bound(key, value) for key, value in zip(keys, values, strict=True)))
        return here > there if directions == {backwards} else here < there
    steps = []
    for at, key in enumerate(keys):
        same = [_same(keys[before], values[before]) for before in range(at)]
        steps.append(and_(*same, _past(key, values[at], backwards=backwards)))
    return and_(*_range_start(keys[0], values[0], backwards=backwards), or_(*steps))


def _range_start(key: Key, value: Any, *, backwards: bool) -> list[ColumnElement[bool]]:
    """Say again of the first key where the page starts: an index finds that place, but not by alternatives."""
    if key.nullable:
        return []
    return [key.place >= _bound(key, value) if key.descending == backwards else key.place <= _bound(key, value)]


def _bound(key: Key, value: Any) -> ColumnElement[Any]:
    """A value to compare with: SQLAlchemy would take True and False for something else."""
    bound = literal(value, key.column.type)
    return text_sort_key(bound) if is_sorted_as_text(key.field) else bound


def _same(key: Key, value: Any) -> ColumnElement[bool]:
    return key.column.is_(None) if value is None else key.place == _bound(key, value)


def _past(key: Key, value: Any, *, backwards: bool) -> ColumnElement[bool]:
    if key.descending == backwards:  # towards greater values, nulls at the end
        if value is None:
            return false()
        greater = key.place > _bound(key, value)
        return or_(greater, key.column.is_(None)) if key.nullable else greater
    return key.column.is_not(None) if value is None else key.place < _bound(key, value)


def plain(value: Any) -> Any:
    """A value as JSON and `Key.read` know it."""
    return value.isoformat() if isinstance(value, datetime) else value
