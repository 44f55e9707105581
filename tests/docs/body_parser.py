"""Parsers for response bodies, by media type, so that their structure can be compared."""

import json
from typing import Any


def parse_body(media_type: str, body: bytes) -> Any:
    """Return a JSON value, or the list of those in a stream; None if the blueprint does not document the content."""
    match media_type.partition(";")[0]:
        case "application/json" | "application/vnd.api+json":
            return json.loads(body)
        case "application/x-ndjson":
            return [json.loads(line) for line in body.splitlines()]
        case "text/event-stream":
            return [_parse_event(event) for event in body.decode().strip().split("\n\n")]
    return None


def is_stream(media_type: str) -> bool:
    """Return whether the blueprint documents the lines of a stream."""
    return media_type.partition(";")[0] in ("application/x-ndjson", "text/event-stream")


def _parse_event(text: str) -> dict[str, Any]:
    """Return the fields of a server-sent event, all of which contain JSON here."""
    fields = (line.partition(": ") for line in text.splitlines())
    return {name: json.loads(value or "null") for name, _, value in fields}
