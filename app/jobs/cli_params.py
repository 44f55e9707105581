"""Parameters of a job on the command line: `name=value`, parsed by the JSON Schema of the kind, or a JSON document."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from click import BadParameter
from jsonschema import Draft202012Validator

from app.errors import ApiErrorGroup, BadRequest
from app.jobs.kinds import RESOURCE_TYPE_KEYWORD, get_secret_names
from app.jsonapi.json_parsing import INVALID_TEXT_RE, parse_json

PARAM_OPTION, PARAMS_OPTION = "--param", "--params"

MAX_DOCUMENT_BYTES = 1024 * 1024
"""Bytes of a document; the smaller limit of the kind is checked at the submission."""


def parse_parameters(schema: Mapping[str, Any], document: str | None, pairs: Iterable[str]) -> dict[str, Any]:
    """Return the parameters in the document, overridden by the pairs; raise BadParameter if they cannot be parsed."""
    parameters = {} if document is None else _parse_object(_read_document(document))
    return {**parameters, **_parse_pairs(schema, pairs)}


def _read_document(document: str) -> bytes:
    """Return the document itself, or the content of stdin (`-`) or a file (`@NAME`)."""
    if document == "-":
        content = sys.stdin.buffer.read(MAX_DOCUMENT_BYTES + 1) if sys.stdin else b""
    elif document.startswith("@"):
        content = _read_file(document[1:])
    else:
        content = document.encode(errors="surrogateescape")  # the bytes on the command line
    if len(content) > MAX_DOCUMENT_BYTES:
        raise BadParameter(f"the document must be at most {MAX_DOCUMENT_BYTES} bytes", param_hint=PARAMS_OPTION)
    return content


def _read_file(name: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            return file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise BadParameter(f"{name[:200]!r} cannot be read: {error.strerror}", param_hint=PARAMS_OPTION) from None


def _parse_object(content: bytes) -> dict[str, Any]:
    try:
        value = parse_json(content)
    except BadRequest:
        raise BadParameter("the value is not valid JSON, or nested too deep", param_hint=PARAMS_OPTION) from None
    if not isinstance(value, dict):
        raise BadParameter("the value is not a JSON object", param_hint=PARAMS_OPTION)
    return value


def _parse_pairs(schema: Mapping[str, Any], pairs: Iterable[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not name or not separator:
            raise BadParameter(f"{pair[:80]!r} is not NAME=VALUE", param_hint=PARAM_OPTION)
        if name in values:
            raise BadParameter(f"{name[:80]!r} is given twice", param_hint=PARAM_OPTION)
        if name in get_secret_names(schema):
            raise BadParameter(
                f"{name} is a secret, and other users can read command lines: use {PARAMS_OPTION} -",
                param_hint=PARAM_OPTION,
            )
        if INVALID_TEXT_RE.search(pair):
            raise BadParameter(f"{name[:80]!r} is not valid UTF-8", param_hint=PARAM_OPTION)
        values[name] = _parse_value(schema, name, text)
    return values


def _parse_value(schema: Mapping[str, Any], name: str, text: str) -> Any:
    """Return the text if only text is valid in the schema, otherwise the text parsed as JSON."""
    property_schema = schema.get("properties", {}).get(name, True)
    if property_schema is not True and property_schema.get("type") == "string":
        return text
    parsed = _parse_json(name, text)
    is_valid = Draft202012Validator(dict(schema)).evolve(schema=property_schema).is_valid
    return text if is_valid(text) and not is_valid(parsed) else parsed


def _parse_json(name: str, text: str) -> Any:
    try:
        return parse_json(text.encode())
    except BadRequest:
        return text
    except ApiErrorGroup as error:
        raise BadParameter(str(error), param_hint=f"{PARAM_OPTION} {name[:80]}") from None


def format_signature(schema: Mapping[str, Any]) -> str:
    """Return the parameters of a kind as `name=type`, optional ones in brackets."""
    required = schema.get("required", ())
    parameters = {name: f"{name}={_describe_type(each)}" for name, each in schema.get("properties", {}).items()}
    return " ".join(text if name in required else f"[{text}]" for name, text in parameters.items())


def _describe_type(schema: Any) -> str:
    """Return the type of a parameter: `id`, its JSON type, or its allowed values joined by `|`."""
    if schema is True:
        return "any"
    if RESOURCE_TYPE_KEYWORD in schema:
        return "id"
    choice = schema.get("enum") or schema.get("type", "any")
    return choice if isinstance(choice, str) else "|".join(map(str, choice))
