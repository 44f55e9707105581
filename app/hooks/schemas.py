"""Schema of hooks."""

from collections.abc import Iterator, Mapping
from typing import Any

import marshmallow

from app.jsonapi.fields import (
    MAX_SHORT_TEXT_LENGTH,
    SERVER_MANAGED,
    Boolean,
    DateTime,
    JsonObject,
    Relationship,
    ResourceSchema,
    Text,
)
from app.jsonapi.inflection import dasherize

MAX_ALLOWED_PARAMETERS = 100


class OneTimeSecret(marshmallow.fields.Function):
    """Attribute that only the response which creates its value contains; null in all others."""

    def __init__(self) -> None:
        super().__init__(lambda _hook: None, dump_only=True, allow_none=True)


class ParameterNames(marshmallow.fields.Field[list[str]]):
    """List of different parameter names."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> list[str]:
        if not isinstance(value, list) or not all(
            isinstance(name, str) and len(name) <= MAX_SHORT_TEXT_LENGTH for name in value
        ):
            raise marshmallow.ValidationError(f"Must be a list of texts of at most {MAX_SHORT_TEXT_LENGTH} characters.")
        if len(value) > MAX_ALLOWED_PARAMETERS or len(set(value)) < len(value):
            raise marshmallow.ValidationError(f"Must be a list of at most {MAX_ALLOWED_PARAMETERS} different names.")
        return value


class HookSchema(ResourceSchema):
    """Attributes and relationships of a hook."""

    class Meta:
        type_ = "hook"
        inflect = dasherize

    name = Text()
    kind = Text(required=True, sorted_as_text=False)
    parameters = JsonObject(load_default=dict)
    allowed_parameters = ParameterNames(allow_none=True)
    enabled = Boolean()
    signed = Boolean()
    url = OneTimeSecret()
    secret = OneTimeSecret()
    created_at = DateTime(dump_only=True)
    last_called_at = DateTime(**SERVER_MANAGED)
    deleted_at = DateTime(dump_only=True)

    owner = Relationship("user", dump_only=True)
    event = Relationship("event", dump_only=True)

    def validate_object(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for name in values.get("allowed_parameters") or ():
            if name in (values.get("parameters") or {}):
                yield "allowed_parameters", f"{name!r} is in parameters, too: a call cannot set a fixed parameter."
