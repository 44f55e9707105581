"""What is in a body, by its media type, so that its structure can be compared."""

import json
from typing import Any


def parse_body(media_type: str, body: bytes) -> Any:
    """A JSON value, or the list of those that a stream holds; None for what the blueprint does not show."""
    match media_type.partition(";")[0]:
        case "application/json" | "application/vnd.api+json":
            return json.loads(body)
        case "application/x-ndjson":
            return [json.loads(line) for line in body.splitlines()]
        case "text/event-stream":
            return [_parse_event(event) for event in body.decode().strip().split("\n\n")]
    return None


def is_stream(media_type: str) -> bool:
    """Whether the blueprint shows the lines as they came."""
    return media_type.partition(";")[0] in ("application/x-ndjson", "text/event-stream")


def _parse_event(text: str) -> dict[str, Any]:
    """The fields of a server-sent event, all of which hold JSON here."""
    fields = (line.partition(": ") for line in text.splitlines())
    return {name: json.loads(value or "null") for name, _, value in fields}
