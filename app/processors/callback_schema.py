"""JSON Schemas of callbacks and status responses of a processor."""

from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator

from app.errors import ApiError, Unprocessable
from app.jsonapi.json_parsing import escape_pointer

EVENTS = ("STARTED", "PROGRESS", "SUCCESS", "ERROR", "CANCELLED", "CANCELED")

MAX_URL_LENGTH = 2_000

_TEXT = {"type": ["string", "null"]}
_ID = {"type": ["string", "integer", "null"]}
_RESULT = {
    "type": "object",
    "properties": {"doc_id": _ID, "result_url": {"type": "string", "minLength": 1, "maxLength": MAX_URL_LENGTH}},
    "required": ["result_url"],
}
_OUTPUT = {
    "type": ["object", "null"],
    "properties": {
        "results_url": {"type": ["array", "null"], "items": _RESULT},
        "error": {"type": ["string", "array", "null"]},
    },
}
STATUS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "message": _TEXT,
        "error": {"type": ["string", "array", "null"]},
        "fraction": {"type": ["number", "null"]},
        "output": _OUTPUT,
    },
}
CALLBACK_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        **STATUS_SCHEMA["properties"],
        "event": {"enum": [*EVENTS]},
        "experiment_id": _ID,
        "tracking_id": _ID,
        "completed": {"type": "boolean"},
    },
    "required": ["event"],
}

_status_validator, _callback_validator = Draft202012Validator(STATUS_SCHEMA), Draft202012Validator(CALLBACK_SCHEMA)


def is_valid_status(value: Any) -> bool:
    """Return whether a value is a valid status response."""
    return bool(_status_validator.is_valid(value))


def select_known_members(value: Any, schema: Mapping[str, Any] = CALLBACK_SCHEMA) -> Any:
    """Return a valid callback without the members, at any depth, that the schema does not name."""
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        return {name: select_known_members(each, known[name]) for name, each in value.items() if name in known}
    if isinstance(value, list) and "items" in schema:
        return [select_known_members(each, schema["items"]) for each in value]
    return value


def find_callback_errors(value: Any) -> Iterator[ApiError]:
    """Yield an error with a JSON pointer for each violation of CALLBACK_SCHEMA."""
    for error in _callback_validator.iter_errors(value):
        pointer = "".join(f"/{escape_pointer(str(part))}" for part in error.absolute_path)
        yield Unprocessable(error.message[:200], pointer=pointer)
