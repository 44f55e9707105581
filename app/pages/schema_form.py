"""Conversion of a JSON Schema of parameters to form fields, and of their texts to parameters."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from app.errors import ApiError, ApiErrorGroup, Unprocessable
from app.jsonapi.json_parsing import escape_pointer, parse_json
from app.pages.job_presenter import TemplateData, format_json

PARAMETER_PREFIX = "api-parameters."
"""Prefix of the field name of a parameter whose name the form uses itself."""
MAX_SINGLE_LINE_LENGTH = 500
"""Maximum length of a text in characters for which the form has a single-line field."""

KIND_BY_TYPE = {"string": "text", "integer": "integer", "number": "number", "boolean": "flag"}
BOOLEAN_VALUES = {
    "true": True,
    "on": True,
    "1": True,
    "yes": True,
    "false": False,
    "off": False,
    "0": False,
    "no": False,
}

FormValues = Mapping[str, str]
"""Submitted texts by field name."""


@dataclass(frozen=True)
class FormField:
    """Form field of one parameter."""

    name: str
    input_name: str
    """Name of the field in the form and in query strings."""
    schema: Mapping[str, Any]
    is_required: bool

    @cached_property
    def kind(self) -> str:
        """Return the kind of field: text, long, secret, choice, integer, number, flag, or json for all else."""
        if "enum" in self.schema:
            return "choice"
        kind = KIND_BY_TYPE.get(_get_type(self.schema), "json")
        if kind != "text":
            return kind
        if self.schema.get("writeOnly"):
            return "secret"
        return "long" if self.schema.get("maxLength", 0) > MAX_SINGLE_LINE_LENGTH else "text"

    @cached_property
    def options(self) -> dict[str, Any]:
        """Return the values of a choice by their submitted texts."""
        return {_format_value(value): value for value in self.schema.get("enum", ())}

    @property
    def default(self) -> str:
        """Return the default as text, "" without one."""
        if "default" not in self.schema:
            return ""
        value = self.schema["default"]
        return format_json(value) if self.kind == "json" else _format_value(value)

    def parse_value(self, text: str) -> Any:
        """Return the value of a text; an invalid text is returned unchanged, for the schema to reject.

        Raise ApiError for invalid JSON.
        """
        if self.kind == "choice":
            return self.options.get(text, text)
        return PARSERS_BY_KIND.get(self.kind, str)(text)

    def build_template_data(self, text: str, problem: str) -> TemplateData:
        """Return the values for the template."""
        is_number = self.kind in ("integer", "number") and not isinstance(self.parse_value(text or "0"), str)
        limits = {"maxlength": "maxLength", "min": "minimum", "max": "maximum"}
        return {
            "name": self.input_name,
            "kind": self.kind,
            "label": self.schema.get("title") or self.name.replace("-", " ").replace("_", " ").capitalize(),
            "description": self.schema.get("description", ""),
            "is_required": self.is_required,
            "options": list(self.options),
            # A number input would not show a text that is not a number.
            "type": "number" if is_number else "password" if self.kind == "secret" else "text",
            "step": "1" if self.kind == "integer" else "any",
            "attributes": {name: self.schema[word] for name, word in limits.items() if word in self.schema},
            "value": "" if self.kind == "secret" else text,
            "is_checked": self.parse_value(text) is True if self.kind == "flag" else False,
            "problem": problem,
        }


def build_fields(schema: Mapping[str, Any], *, but: str, reserved: Collection[str]) -> list[FormField]:
    """Return the fields for a schema, except for the parameter `but`; `reserved` names get a prefix."""
    required = schema.get("required", ())
    return [
        FormField(
            name,
            PARAMETER_PREFIX + name if name in reserved else name,
            each if isinstance(each, Mapping) else {},
            name in required,
        )
        for name, each in schema.get("properties", {}).items()
        if name != but
    ]


def parse_values(fields: Iterable[FormField], sent: FormValues, pointer: str) -> dict[str, Any]:
    """Return the values of the non-empty fields by parameter name; raise ApiErrorGroup for invalid JSON."""
    values: dict[str, Any] = {}
    errors: list[ApiError] = []
    for field in fields:
        if text := sent.get(field.input_name, ""):
            try:
                values[field.name] = field.parse_value(text)
            except ApiError as error:
                errors.append(Unprocessable(str(error), pointer=f"{pointer}/{escape_pointer(field.name)}"))
    if errors:
        raise ApiErrorGroup(errors)
    return values


def list_field_problems(
    fields: Iterable[FormField], errors: Iterable[ApiError], pointer: str
) -> Iterator[tuple[str, str]]:
    """Yield field name and text for each error; the name is "" if the pointer is not that of a field."""
    named = {f"{pointer}/{escape_pointer(field.name)}": field.input_name for field in fields}
    for error in errors:
        at = (error.source or {}).get("pointer") or ""
        place = next((path for path in named if at == path or at.startswith(f"{path}/")), "")
        within = at[len(place) :] if place else ""
        yield named.get(place, ""), f"{within.lstrip('/')}: {error}" if within else str(error)


def _get_type(schema: Mapping[str, Any]) -> str:
    """Return the only type of a schema besides null, "" if there are several."""
    named = schema.get("type", "")
    types = [each for each in (named if isinstance(named, list) else [named]) if each != "null"]
    return types[0] if len(types) == 1 else ""


def _format_value(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _parse_number(text: str) -> Any:
    """Return the number, which must be valid JSON; otherwise the text."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value if isinstance(value, int | float) and not isinstance(value, bool) else text


def _parse_boolean(text: str) -> Any:
    return BOOLEAN_VALUES.get(text.lower(), text)


def _parse_json(text: str) -> Any:
    try:
        return parse_json(text.encode())
    except (ApiError, ApiErrorGroup):
        raise Unprocessable("This is not valid JSON, or it contains a value that cannot be stored.") from None


PARSERS_BY_KIND: Mapping[str, Callable[[str], Any]] = {
    "integer": _parse_number,
    "number": _parse_number,
    "flag": _parse_boolean,
    "json": _parse_json,
}
