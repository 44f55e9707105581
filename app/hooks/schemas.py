"""Hooks as the API shows them."""

from collections.abc import Iterator, Mapping
from typing import Any

import marshmallow

from app.jsonapi.naming import dasherize
from app.jsonapi.schema import SHORT, WRITTEN_BY_THE_SERVER, Flag, Instant, Object, Relationship, Schema, Text

MAX_ALLOWED_PARAMETERS = 100


class ShownOnce(marshmallow.fields.Function):
    """A text in the answer that makes it, null in every other."""

    def __init__(self) -> None:
        super().__init__(lambda _hook: None, dump_only=True, allow_none=True)


class ParameterNames(marshmallow.fields.Field[list[str]]):
    """A list of different names of parameters."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(name, str) and len(name) <= SHORT for name in value):
            raise marshmallow.ValidationError(f"Must be a list of texts of at most {SHORT} characters.")
        if len(value) > MAX_ALLOWED_PARAMETERS or len(set(value)) < len(value):
            raise marshmallow.ValidationError(f"Must be a list of at most {MAX_ALLOWED_PARAMETERS} different names.")
        return value


class HookSchema(Schema):
    """Attributes and relationships of a hook."""

    class Meta:
        type_ = "hook"
        inflect = dasherize

    name = Text()
    kind = Text(required=True, sorted_as_text=False)
    parameters = Object(load_default=dict)
    allowed_parameters = ParameterNames(allow_none=True)
    enabled = Flag()
    signed = Flag()
    url = ShownOnce()
    secret = ShownOnce()
    created_at = Instant(dump_only=True)
    last_called_at = Instant(**WRITTEN_BY_THE_SERVER)
    deleted_at = Instant(dump_only=True)

    owner = Relationship("user", dump_only=True)
    event = Relationship("event", dump_only=True)

    def check_whole(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for name in values.get("allowed_parameters") or ():
            if name in (values.get("parameters") or {}):
                yield "allowed_parameters", f"{name!r} is fixed by parameters: a call cannot set it."
