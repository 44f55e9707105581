"""The small JSON bodies of the account routes: `{...}` or `{"data": {...}}`, dashed or underscored names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import request

from app.errors import BadRequest, Unprocessable
from app.jsonapi.json_parsing import parse_json
from app.jsonapi.negotiation import JSON_TYPES, require_media_type

MAX_FORM_BYTES = 16 * 1024
"""Bytes of such a body."""


@dataclass(frozen=True)
class Form:
    """The members that were sent, and the JSON pointer to what holds them."""

    members: Mapping[str, Any]
    pointer: str

    def get_text(self, *names: str) -> str:
        """The first of these members that was sent; 400 when none was, 422 when it is no text."""
        for name in names:
            for spelling in (name, name.replace("-", "_")):
                if spelling in self.members:
                    return self._check_text(spelling)
        detail = f"{' or '.join(names)} is missing."
        raise BadRequest(detail, pointer=f"{self.pointer}/{names[0]}", code="missing-member")

    def get_optional_text(self, name: str) -> str | None:
        """The member of this name, None when it was not sent or is null; 422 when it is no text."""
        return None if self.members.get(name) is None else self._check_text(name)

    def build_error(self, name: str, error: ValueError) -> Unprocessable:
        """The 422 for a member with an impossible value."""
        detail = str(error)
        return Unprocessable(f"{detail[:1].upper()}{detail[1:]}.", pointer=self.get_pointer(name))

    def get_pointer(self, name: str) -> str:
        """The JSON pointer to a member as it was spelled."""
        sent = name if name in self.members else name.replace("-", "_")
        return f"{self.pointer}/{sent}"

    def _check_text(self, name: str) -> str:
        value = self.members[name]
        if not isinstance(value, str):
            raise Unprocessable(f"{name} must be text.", pointer=f"{self.pointer}/{name}")
        return value


def read_form() -> Form:
    """The body of this request; 415, 400 or 422 when it is none that can be read."""
    require_media_type(request.headers, JSON_TYPES)
    body = parse_json(request.get_data())
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.", pointer="")
    if "data" not in body:
        return Form(body, "")
    if not isinstance(body["data"], dict):
        raise Unprocessable("data must be an object.", pointer="/data")
    return Form(body["data"], "/data")
