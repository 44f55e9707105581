"""Hooks as the API shows them."""

import marshmallow

from app.jsonapi.naming import dasherize
from app.jsonapi.schema import WRITTEN_BY_THE_SERVER, Flag, Instant, Object, Relationship, Schema, Text


class ShownOnce(marshmallow.fields.Function):
    """A text in the answer that makes it, null in every other."""

    def __init__(self) -> None:
        super().__init__(lambda _hook: None, dump_only=True, allow_none=True)


class HookSchema(Schema):
    """Attributes and relationships of a hook."""

    class Meta:
        type_ = "hook"
        inflect = dasherize

    name = Text()
    kind = Text(required=True, sorted_as_text=False)
    parameters = Object(load_default=dict)
    enabled = Flag()
    signed = Flag()
    url = ShownOnce()
    secret = ShownOnce()
    created_at = Instant(dump_only=True)
    last_called_at = Instant(**WRITTEN_BY_THE_SERVER)
    deleted_at = Instant(dump_only=True)

    owner = Relationship("user", dump_only=True)
    event = Relationship("event", dump_only=True)
