"""The JSON Schema of parameters as the fields of a form: what each looks like, and what was written into it."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from app.errors import ApiError, ApiErrorGroup, Unprocessable
from app.jsonapi.json_parsing import escape_pointer, parse_json
from app.pages.job_presenter import TemplateData, format_json

PARAMETER_PREFIX = "api-parameters."
"""Before the name of a parameter that the form needs for itself."""
MAX_SINGLE_LINE_LENGTH = 500
"""Characters from which on a text has several lines."""

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
"""What came for each field, by the name it is sent under."""


@dataclass(frozen=True)
class FormField:
    """One parameter."""

    name: str
    input_name: str
    """Its name in the form, and in the links that fill it."""
    schema: Mapping[str, Any]
    is_required: bool

    @cached_property
    def kind(self) -> str:
        """How it is entered: text, long, secret, choice, integer, number, flag, or json for all else."""
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
        """What can be chosen, by what is sent for it."""
        return {_format_value(value): value for value in self.schema.get("enum", ())}

    @property
    def default(self) -> str:
        """As it is entered; "" for none."""
        if "default" not in self.schema:
            return ""
        value = self.schema["default"]
        return format_json(value) if self.kind == "json" else _format_value(value)

    def parse_value(self, text: str) -> Any:
        """What was meant; a text that is no such thing stays as it is, and the schema says why. Raises ApiError."""
        if self.kind == "choice":
            return self.options.get(text, text)
        return PARSERS_BY_KIND.get(self.kind, str)(text)

    def build_template_data(self, text: str, problem: str) -> TemplateData:
        """For the template."""
        is_number = self.kind in ("integer", "number") and not isinstance(self.parse_value(text or "0"), str)
        limits = {"maxlength": "maxLength", "min": "minimum", "max": "maximum"}
        return {
            "name": self.input_name,
            "kind": self.kind,
            "label": self.schema.get("title") or self.name.replace("-", " ").replace("_", " ").capitalize(),
            "description": self.schema.get("description", ""),
            "is_required": self.is_required,
            "options": list(self.options),
            # A browser shows nothing where a number should be and something else is.
            "type": "number" if is_number else "password" if self.kind == "secret" else "text",
            "step": "1" if self.kind == "integer" else "any",
            "attributes": {name: self.schema[word] for name, word in limits.items() if word in self.schema},
            "value": "" if self.kind == "secret" else text,
            "is_ticked": self.parse_value(text) is True if self.kind == "flag" else False,
            "problem": problem,
        }


def build_fields(schema: Mapping[str, Any], *, but: str, reserved: Collection[str]) -> list[FormField]:
    """The fields of a schema of parameters but one; `reserved` are names that the form has already."""
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
    """What was entered, by parameter; what was left empty is not among it. Raises Errors."""
    found: dict[str, Any] = {}
    errors: list[ApiError] = []
    for field in fields:
        if text := sent.get(field.input_name, ""):
            try:
                found[field.name] = field.parse_value(text)
            except ApiError as error:
                errors.append(Unprocessable(str(error), pointer=f"{pointer}/{escape_pointer(field.name)}"))
    if errors:
        raise ApiErrorGroup(errors)
    return found


def list_field_problems(
    fields: Iterable[FormField], errors: Iterable[ApiError], pointer: str
) -> Iterator[tuple[str, str]]:
    """What is said of which field, by the name it is sent under, or "" of the whole."""
    named = {f"{pointer}/{escape_pointer(field.name)}": field.input_name for field in fields}
    for error in errors:
        at = (error.source or {}).get("pointer") or ""
        place = next((path for path in named if at == path or at.startswith(f"{path}/")), "")
        within = at[len(place) :] if place else ""
        yield named.get(place, ""), f"{within.lstrip('/')}: {error}" if within else str(error)


def _get_type(schema: Mapping[str, Any]) -> str:
    """The one type it has, besides null."""
    named = schema.get("type", "")
    types = [each for each in (named if isinstance(named, list) else [named]) if each != "null"]
    return types[0] if len(types) == 1 else ""


def _format_value(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _parse_number(text: str) -> Any:
    """The number, in the one way in which JSON writes it."""
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
        raise Unprocessable("This is not JSON, or none that can be stored.") from None


PARSERS_BY_KIND: Mapping[str, Callable[[str], Any]] = {
    "integer": _parse_number,
    "number": _parse_number,
    "flag": _parse_boolean,
    "json": _parse_json,
}
