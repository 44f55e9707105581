"""JSON bodies of the account routes: `{...}` or `{"data": {...}}`, names with dashes or underscores."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import request

from app.errors import BadRequest, Unprocessable
from app.jsonapi.json_parsing import parse_json
from app.jsonapi.negotiation import JSON_TYPES, require_media_type

MAX_FORM_BYTES = 16 * 1024
"""Bytes of a body of an account route."""


@dataclass(frozen=True)
class Form:
    """The members of a body and the JSON pointer to the object that contains them."""

    members: Mapping[str, Any]
    pointer: str

    def get_text(self, *names: str) -> str:
        """Return the first of these members; raise BadRequest when none was sent, Unprocessable unless it is text."""
        for name in names:
            for spelling in (name, name.replace("-", "_")):
                if spelling in self.members:
                    return self._check_text(spelling)
        detail = f"{' or '.join(names)} is missing."
        raise BadRequest(detail, pointer=f"{self.pointer}/{names[0]}", code="missing-member")

    def get_optional_text(self, name: str) -> str | None:
        """Return a member, None when it was not sent or is null; raise Unprocessable unless it is text."""
        return None if self.members.get(name) is None else self._check_text(name)

    def build_error(self, name: str, error: ValueError) -> Unprocessable:
        """Return an Unprocessable error with a pointer for an invalid member."""
        detail = str(error)
        return Unprocessable(f"{detail[:1].upper()}{detail[1:]}.", pointer=self.get_pointer(name))

    def get_pointer(self, name: str) -> str:
        """Return the JSON pointer to a member, spelled as in the body."""
        spelling = name if name in self.members else name.replace("-", "_")
        return f"{self.pointer}/{spelling}"

    def _check_text(self, name: str) -> str:
        value = self.members[name]
        if not isinstance(value, str):
            raise Unprocessable(f"{name} must be text.", pointer=f"{self.pointer}/{name}")
        return value


def read_form() -> Form:
    """Return the body of this request; raise an error of 415, 400 or 422 when it is not a valid JSON object."""
    require_media_type(request.headers, JSON_TYPES)
    body = parse_json(request.get_data())
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.", pointer="")
    if "data" not in body:
        return Form(body, "")
    if not isinstance(body["data"], dict):
        raise Unprocessable("data must be an object.", pointer="/data")
    return Form(body["data"], "/data")
