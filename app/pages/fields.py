"""The JSON Schema of parameters as the fields of a form: what each looks like, and what was written into it."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from app.errors import ApiError, Errors, Unprocessable
from app.jsonapi.body import escaped, read_json
from app.pages.shown import Shown, as_json

PREFIX = "api-parameters."
"""Before the name of a parameter that the form needs for itself."""
LONG_TEXT = 500
"""Characters from which on a text has several lines."""

SIMPLE = {"string": "text", "integer": "integer", "number": "number", "boolean": "flag"}
WORDS = {"true": True, "on": True, "1": True, "yes": True, "false": False, "off": False, "0": False, "no": False}

Sent = Mapping[str, str]
"""What came for each field, by the name it is sent under."""


@dataclass(frozen=True)
class Field:
    """One parameter."""

    name: str
    sent_as: str
    """Its name in the form, and in the links that fill it."""
    schema: Mapping[str, Any]
    is_required: bool

    @cached_property
    def kind(self) -> str:
        """How it is entered: text, long, secret, choice, integer, number, flag, or json for all else."""
        if "enum" in self.schema:
            return "choice"
        kind = SIMPLE.get(_type(self.schema), "json")
        if kind != "text":
            return kind
        if self.schema.get("writeOnly"):
            return "secret"
        return "long" if self.schema.get("maxLength", 0) > LONG_TEXT else "text"

    @cached_property
    def options(self) -> dict[str, Any]:
        """What can be chosen, by what is sent for it."""
        return {_text(value): value for value in self.schema.get("enum", ())}

    @property
    def default(self) -> str:
        """As it is entered; "" for none."""
        if "default" not in self.schema:
            return ""
        value = self.schema["default"]
        return as_json(value) if self.kind == "json" else _text(value)

    def value(self, text: str) -> Any:
        """What was meant; a text that is no such thing stays as it is, and the schema says why. Raises ApiError."""
        if self.kind == "choice":
            return self.options.get(text, text)
        return READ.get(self.kind, str)(text)

    def shown(self, text: str, problem: str) -> Shown:
        """For the template."""
        is_number = self.kind in ("integer", "number") and not isinstance(self.value(text or "0"), str)
        limits = {"maxlength": "maxLength", "min": "minimum", "max": "maximum"}
        return {
            "name": self.sent_as,
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
            "is_ticked": self.value(text) is True if self.kind == "flag" else False,
            "problem": problem,
        }


def fields_of(schema: Mapping[str, Any], *, but: str, reserved: Collection[str]) -> list[Field]:
    """The fields of a schema of parameters but one; `reserved` are names that the form has already."""
    required = schema.get("required", ())
    return [
        Field(
            name,
            PREFIX + name if name in reserved else name,
            each if isinstance(each, Mapping) else {},
            name in required,
        )
        for name, each in schema.get("properties", {}).items()
        if name != but
    ]


def values(fields: Iterable[Field], sent: Sent, pointer: str) -> dict[str, Any]:
    """What was entered, by parameter; what was left empty is not among it. Raises Errors."""
    found: dict[str, Any] = {}
    errors: list[ApiError] = []
    for field in fields:
        if text := sent.get(field.sent_as, ""):
            try:
                found[field.name] = field.value(text)
            except ApiError as error:
                errors.append(Unprocessable(str(error), pointer=f"{pointer}/{escaped(field.name)}"))
    if errors:
        raise Errors(errors)
    return found


def problems(fields: Iterable[Field], errors: Iterable[ApiError], pointer: str) -> Iterator[tuple[str, str]]:
    """What is said of which field, by the name it is sent under, or "" of the whole."""
    named = {f"{pointer}/{escaped(field.name)}": field.sent_as for field in fields}
    for error in errors:
        at = (error.source or {}).get("pointer") or ""
        place = next((path for path in named if at == path or at.startswith(f"{path}/")), "")
        within = at[len(place) :] if place else ""
        yield named.get(place, ""), f"{within.lstrip('/')}: {error}" if within else str(error)


def _type(schema: Mapping[str, Any]) -> str:
    """The one type it has, besides null."""
    named = schema.get("type", "")
    types = [each for each in (named if isinstance(named, list) else [named]) if each != "null"]
    return types[0] if len(types) == 1 else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _number(text: str) -> Any:
    """The number, in the one way in which JSON writes it."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value if isinstance(value, int | float) and not isinstance(value, bool) else text


def _flag(text: str) -> Any:
    return WORDS.get(text.lower(), text)


def _json(text: str) -> Any:
    try:
        return read_json(text.encode())
    except (ApiError, Errors):
        raise Unprocessable("This is not JSON, or none that can be stored.") from None


READ: Mapping[str, Callable[[str], Any]] = {"integer": _number, "number": _number, "flag": _flag, "json": _json}
