"""Keyset pages: a cursor names a row by its place in the order, so the next page costs what the first one did.

Profile: https://jsonapi.org/profiles/ethanresnick/cursor-pagination
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import marshmallow
import orjson
from sqlalchemy import ColumnElement, and_, false, or_, tuple_

from app.errors import InvalidParameter
from app.jsonapi.resource_type import ResourceType

PROFILE = "https://jsonapi.org/profiles/ethanresnick/cursor-pagination"


@dataclass(frozen=True)
class Key:
    """One key of an order: what to sort by, and how a value of it is read back from a cursor."""

    column: ColumnElement[Any]
    descending: bool
    nullable: bool
    field: marshmallow.fields.Field[Any] | None
    """Of the attribute; None for the id of `type`."""
    type: ResourceType

    def ordered(self, *, backwards: bool) -> ColumnElement[Any]:
        """The term of ORDER BY; PostgreSQL puts nulls last, and first when descending."""
        return self.column.desc() if self.descending != backwards else self.column.asc()

    def read(self, value: Any) -> Any:
        """A value from a cursor; ValueError when it cannot be one."""
        if value is None and self.nullable:
            return None
        if self.field is None:
            id_ = None if isinstance(value, bool) else self.type.parse_id(str(value))
            if id_ is None:
                raise ValueError("not an id")
            return id_
        try:
            return self.field.deserialize(value)
        except marshmallow.ValidationError:
            raise ValueError("not a value of this attribute") from None


def write(values: Sequence[Any]) -> str:
    """The cursor of a row with these values of the keys."""
    return base64.urlsafe_b64encode(orjson.dumps(list(values))).rstrip(b"=").decode()


def read(text: str, keys: Sequence[Key], parameter: str) -> list[Any]:
    """The values in a cursor; 400 when it does not fit this order."""
    try:
        values = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        if not isinstance(values, list) or len(values) != len(keys):
            raise ValueError("not a cursor of this order")  # noqa: TRY301  # one refusal for all that is wrong
        return [key.read(value) for key, value in zip(keys, values, strict=True)]
    except (ValueError, binascii.Error):
        raise InvalidParameter("This is no cursor for this list and order.", parameter=parameter) from None


def beyond(keys: Sequence[Key], values: Sequence[Any], *, backwards: bool) -> ColumnElement[bool]:
    """Rows after these values, or before them."""
    directions = {key.descending for key in keys}
    if len(directions) == 1 and not any(key.nullable for key in keys):
        # A comparison of rows, which one index range answers.
        here, there = tuple_(*(key.column for key in keys)), tuple_(*values)
        return here > there if directions == {backwards} else here < there
    steps = []
    for at, key in enumerate(keys):
        same = [_same(keys[before], values[before]) for before in range(at)]
        steps.append(and_(*same, _past(key, values[at], backwards=backwards)))
    return or_(*steps)


def _same(key: Key, value: Any) -> ColumnElement[bool]:
    return key.column.is_(None) if value is None else key.column == value


def _past(key: Key, value: Any, *, backwards: bool) -> ColumnElement[bool]:
    if key.descending == backwards:  # towards greater values, nulls at the end
        if value is None:
            return false()
        return or_(key.column > value, key.column.is_(None)) if key.nullable else key.column > value
    return key.column.is_not(None) if value is None else key.column < value


def plain(value: Any) -> Any:
    """A value as JSON and `Key.read` know it."""
    return value.isoformat() if isinstance(value, datetime) else value
