"""Base schema and fields of resource types (marshmallow-jsonapi), which reject ambiguous values."""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import available_timezones

import marshmallow
import marshmallow_jsonapi
from marshmallow_jsonapi import fields as jsonapi_fields
from sqlalchemy import ColumnElement

from app.jsonapi.inflection import dasherize
from app.jsonapi.sanitizer import clean_html, has_text, normalize_html
from app.texts import NFC_SHRINK_FACTOR, is_blank, is_visible, to_nfc

MAX_SHORT_TEXT_LENGTH = 255
MAX_HTML_LENGTH = 20_000
MAX_URL_LENGTH = 2048
MAX_INTEGER = 2**31 - 1
SERVER_MANAGED: Any = {"dump_only": True, "metadata": {"volatile": True}}
"""Options of a read-only attribute that the server may update at any time: clients may send back an old value."""

_INVALID_URL_CHARACTERS_RE = re.compile(
    '[\\s\\x00-\\x1f\\x7f-\\x9f<>"\\\\\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]'
)
"""Spaces, control characters, delimiters of links in texts, and characters that change the text direction."""

MIN_YEAR, MAX_YEAR = 1900, 9000
"""Range of years in which no conversion of time zones overflows datetime."""


class ResourceSchema(marshmallow_jsonapi.Schema):  # type: ignore[misc]  # the library carries no types
    """The attributes and relationships of one resource type."""

    class Meta:
        type_ = "abstract"
        inflect = dasherize

    id = jsonapi_fields.Integer(as_string=True, dump_only=True)

    def validate_object(self, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Yield (attribute, message) for rules that depend on several attributes; `values` are those to be stored."""
        return ()


class Text(marshmallow.fields.String):
    """Text of at most `limit` characters in NFC; a required text must have visible characters.

    `sorted_as_text` is false for texts that sort by bytes, such as enum values and URLs.
    """

    def __init__(self, limit: int = MAX_SHORT_TEXT_LENGTH, *, sorted_as_text: bool = True, **options: Any) -> None:
        self.limit = limit
        self.sorted_as_text = sorted_as_text
        options.setdefault("allow_none", not options.get("required", False))
        super().__init__(**options)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> str:
        if not isinstance(value, str):
            raise marshmallow.ValidationError("Must be a string.")
        normalized = self._normalize_text(value) if len(value) <= NFC_SHRINK_FACTOR * self.limit else value
        if len(normalized) > self.limit:
            raise marshmallow.ValidationError(f"Must have at most {self.limit} characters.")
        if self.required and self._is_blank(normalized):
            raise marshmallow.ValidationError("Must not be blank.")
        return normalized

    def _normalize_text(self, text: str) -> str:
        try:
            return self.to_storage_form(text)
        except ValueError as error:
            raise marshmallow.ValidationError(str(error)) from None

    def to_storage_form(self, text: str) -> str:
        """Return the text in the form to store; raise ValueError if it cannot be normalized."""
        return to_nfc(text)

    def to_comparison_form(self, text: str, *, is_pattern: bool) -> str:
        """Return the value or pattern to compare with stored texts; raise ValueError if it cannot be normalized."""
        return to_nfc(text)

    def comparison_column(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return the expression that is compared with values; patterns are compared with the column."""
        return column

    def _is_blank(self, text: str) -> bool:
        return is_blank(text)


class CleanedHtml(str):
    """HTML in the form in which it is stored, which is not cleaned again."""

    __slots__ = ()


class Html(Text):
    """HTML, reduced to the elements that app/jsonapi/sanitizer.py allows."""

    def __init__(self, **options: Any) -> None:
        super().__init__(MAX_HTML_LENGTH, **options)

    def clean_ahead(self, value: Any) -> Any:
        """Return a value in the form in which it is stored; what is refused stays as it is, to be refused later."""
        if not isinstance(value, str) or len(value) > NFC_SHRINK_FACTOR * self.limit:
            return value
        try:
            return CleanedHtml(self.to_storage_form(value))
        except ValueError:
            return value

    def to_storage_form(self, text: str) -> str:
        if isinstance(text, CleanedHtml):
            return str(text)
        normalized = normalize_html(text)
        if len(normalized) > self.limit:
            raise ValueError(f"Must have at most {self.limit} characters.")
        cleaned = clean_html(normalized)
        if len(cleaned) > self.limit:
            raise ValueError(f"Must have at most {self.limit} characters after it is cleaned.")
        return cleaned

    def _is_blank(self, text: str) -> bool:
        return not has_text(text)


class Url(Text):
    """An http or https URL."""

    def __init__(self, **options: Any) -> None:
        super().__init__(MAX_URL_LENGTH, sorted_as_text=False, **options)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> str:
        text = super()._deserialize(value, attr, data, **more)
        if not is_web_url(text):
            raise marshmallow.ValidationError(
                "Must be an http or https URL, without a user name or password and without invisible characters."
            )
        return text

    def to_storage_form(self, text: str) -> str:
        """Return the URL unchanged: a normalized one may identify another resource."""
        return text

    def to_comparison_form(self, text: str, *, is_pattern: bool) -> str:
        return text


class ComputedUrl(marshmallow.fields.Function):
    """A read-only URL without a column, which `serialize` computes from the row."""

    def __init__(self, serialize: Callable[[Any], str]) -> None:
        super().__init__(serialize, dump_only=True)


def is_web_url(text: str) -> bool:
    """Return whether this is an absolute http or https URL that people can read unambiguously.

    It has a host without invisible characters, no user name or password, and no spaces, control characters or
    characters that change the text direction.
    """
    if _INVALID_URL_CHARACTERS_RE.search(text):
        return False
    try:
        parts = urlsplit(text)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and has_host and "@" not in parts.netloc and is_visible(parts.netloc)


class Enum(Text):
    """One of a fixed set of strings."""

    def __init__(self, *words: str, **options: Any) -> None:
        self.words = words
        super().__init__(sorted_as_text=False, **{"allow_none": False, **options})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> str:
        if value not in self.words:
            raise marshmallow.ValidationError(f"Must be one of: {', '.join(self.words)}.")
        return str(value)


@cache
def _load_time_zones() -> frozenset[str]:
    return frozenset(available_timezones())


class TimeZone(Text):
    """An IANA time zone."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> str:
        text = super()._deserialize(value, attr, data, **more)
        if text not in _load_time_zones():
            raise marshmallow.ValidationError("Must be an IANA time zone like Europe/Berlin.")
        return text


class Boolean(marshmallow.fields.Boolean):
    """A boolean, also as a string."""

    def __init__(self, **options: Any) -> None:
        super().__init__(truthy={True, "true", "1"}, falsy={False, "false", "0"}, **options)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> Any:
        if isinstance(value, str):
            value = value.lower()
        elif not isinstance(value, bool | int):
            raise marshmallow.ValidationError("Must be true or false.")
        return super()._deserialize(value, attr, data, **more)


class Integer(marshmallow.fields.Field[int]):
    """A 32-bit integer, also as a string."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,10}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise marshmallow.ValidationError("Must be a whole number.")
        if abs(value) > MAX_INTEGER:
            raise marshmallow.ValidationError(f"Must be from -{MAX_INTEGER} to {MAX_INTEGER}.")
        return value


class Number(marshmallow.fields.Field[float]):
    """A number from `low` to `high`, also as a string."""

    def __init__(self, low: float, high: float, **options: Any) -> None:
        self.low, self.high = low, high
        super().__init__(**{"allow_none": True, **options})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> float:
        if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,20}(\.[0-9]{0,40})?([eE][+-]?[0-9]{1,3})?", value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise marshmallow.ValidationError("Must be a number.")
        if not self.low <= value <= self.high:
            raise marshmallow.ValidationError(f"Must be from {self.low:g} to {self.high:g}.")
        return float(value)


class DateTime(marshmallow.fields.Field[datetime]):
    """A time with an offset from UTC (ISO 8601), stored in UTC."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_none": True, **options})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> datetime:
        if not isinstance(value, str) or len(value) > 40:
            raise marshmallow.ValidationError("Must be a time like 2030-05-01T10:00:00+02:00.")
        try:
            time = datetime.fromisoformat(value)
            if not MIN_YEAR <= time.year <= MAX_YEAR:
                raise marshmallow.ValidationError(f"Must be in the years {MIN_YEAR} to {MAX_YEAR}.")
            if time.tzinfo is None:
                raise marshmallow.ValidationError("Must have an offset from UTC, like 2030-05-01T10:00:00+02:00.")
            return time.astimezone(UTC)
        except (ValueError, OverflowError):
            raise marshmallow.ValidationError("Must be a time like 2030-05-01T10:00:00+02:00.") from None


class JsonObject(marshmallow.fields.Field[dict[str, Any]]):
    """A JSON object with any members."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise marshmallow.ValidationError("Must be an object.")
        return value


class Relationship(jsonapi_fields.Relationship):  # type: ignore[misc]  # the library carries no types
    """A relationship to resources of type `type_`.

    A `fixed` relationship is set on creation and never changes; a `dump_only` one is read-only on this side; a
    `guarded` one reads as null while the linked row is deleted, although the foreign key stays.
    """

    def __init__(self, type_: str, *, fixed: bool = False, guarded: bool = False, **options: Any) -> None:
        self.fixed = fixed
        self.guarded = guarded
        super().__init__(type_=type_, **options)
