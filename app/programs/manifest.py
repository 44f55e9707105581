"""NAME.json: what an operator says of the program NAME beside it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import orjson
from jsonschema import Draft202012Validator, SchemaError
from jsonschema.exceptions import best_match

from app.jobs.kinds import Dedupe

MAX_ARGUMENT_BYTES = 64 * 1024
"""Bytes."""

MAX_TIME_LIMIT_SECONDS = 86_400
MAX_ERROR_LENGTH = 300
"""Characters of what is said of a fault, which quotes the file."""

DEFAULT_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"arguments": {"type": "array", "items": {"type": "string", "maxLength": MAX_ARGUMENT_BYTES}}},
    "additionalProperties": False,
}
"""Parameters of a program of which nothing is said."""

OVERVIEW_DEFAULTS: dict[str, Any] = {
    "parameters": {
        "type": "object",
        "properties": {
            "server": {"type": "string", "minLength": 1},
            "document_set_id": {"type": "string", "minLength": 1},
            "api_token": {"type": "string", "minLength": 1, "writeOnly": True},
        },
        "required": ["server", "document_set_id", "api_token"],
        "additionalProperties": False,
    },
    "arguments": ["server", "document_set_id"],
    "environment": {"API_TOKEN": "api_token"},
}
"""What the program of /overview is called with, where its NAME.json says nothing of parameters."""

MANIFEST_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 1, "maxLength": 200},
        "parameters": {
            "type": "object",
            "properties": {
                "type": {"const": "object"},
                "properties": {"type": "object", "additionalProperties": {"type": "object"}},
            },
        },
        "arguments": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "time-limit": {"type": "integer", "minimum": 1, "maximum": MAX_TIME_LIMIT_SECONDS},
        "concurrency": {"type": "integer", "minimum": 1, "maximum": 1000},
        "dedupe": {"enum": ["once", "single-flight", "none"]},
        "media-type": {"type": "string", "maxLength": 100},
        "may-start": {"enum": ["anyone", "admins"]},
        "separator": {"type": "boolean"},
    },
    "additionalProperties": False,
}
"""A JSON Schema (2020-12) of the file."""

_VARIABLE_RE = re.compile(r"[A-Z][A-Z0-9_]*", re.ASCII)
_MEDIA_TYPE_RE = re.compile(r"[\w.+-]+/[\w.+-]+(?:; ?[\w-]+=[\w.-]+)*", re.ASCII)
# What makes an interpreter or the loader run other code than the operator's, and what we set ourselves.
_RESERVED_VARIABLE_RE = re.compile(
    r"(?:LD_|PYTHON|PERL5|RUBY|MALLOC_|BASH|LC_).*|PATH|HOME|TMPDIR|LANG|LANGUAGE|ENV|IFS|PS4|CDPATH|SHELLOPTS|LOCPATH"
    r"|GCONV_PATH|GLIBC_TUNABLES|HOSTALIASES|NODE_OPTIONS|NODE_PATH|JAVA_TOOL_OPTIONS|JDK_JAVA_OPTIONS|CLASSPATH"
)


class ManifestError(Exception):
    """The file says something that cannot be; the message is one line that says what."""


@dataclass(frozen=True)
class Manifest:
    """What is said of a program, or is so by default."""

    title: str
    parameters: Mapping[str, Any]
    arguments: tuple[str, ...]
    """Names of parameters, in the order in which their values are given; an array is several."""
    environment: Mapping[str, str]
    """Names of variables, and of the parameters whose values they get."""
    time_limit: timedelta = timedelta(seconds=600)
    concurrency: int | None = None
    dedupe: Dedupe = "once"
    media_type: str = "application/octet-stream"
    may_start: Literal["anyone", "admins"] = "admins"
    separator: bool = False
    """Whether `--` comes before the arguments, so that the program takes none of them for an option."""


def parse_manifest(name: str, content: bytes | None, *, is_overview: bool = False) -> Manifest:
    """What a file says, or what holds without one (None); raises Fault."""
    said = {} if content is None else _parse_json(content)
    if "parameters" not in said:
        said = {**(OVERVIEW_DEFAULTS if is_overview else {"parameters": DEFAULT_PARAMETERS}), **said}
    if is_overview:
        said = {"may-start": "anyone", **said}
    parameters = _add_schema_defaults(said["parameters"])
    properties: dict[str, Any] = parameters["properties"]
    secrets = [name for name, schema in properties.items() if schema.get("writeOnly")]
    made = Manifest(
        said.get("title", f"Run the program {name}"),
        parameters,
        tuple(said.get("arguments", [name for name in properties if name not in secrets])),
        said.get("environment", {}),
        **_get_optional_fields(said),
    )
    for fault in (*_find_errors(made, secrets), *(_find_overview_errors(made, secrets) if is_overview else ())):
        raise ManifestError(fault[:MAX_ERROR_LENGTH])
    return made


def _parse_json(content: bytes) -> dict[str, Any]:
    try:
        said = orjson.loads(content)
        error = best_match(Draft202012Validator(MANIFEST_SCHEMA).iter_errors(said))
        if error is None:
            Draft202012Validator.check_schema(said.get("parameters", {}))
    except orjson.JSONDecodeError as broken:
        raise ManifestError(f"it is no JSON: {broken}"[:MAX_ERROR_LENGTH]) from None
    except SchemaError as wrong:
        raise ManifestError(
            f"parameters are no JSON Schema: {_format_path(wrong)}: {wrong.message}"[:MAX_ERROR_LENGTH]
        ) from None
    except RecursionError:
        raise ManifestError("it is nested too deep") from None
    if error is not None:
        raise ManifestError(f"{_format_path(error)}: {error.message}"[:MAX_ERROR_LENGTH])
    parsed: dict[str, Any] = said
    return parsed


def _format_path(error: Any) -> str:
    return ".".join(str(part) for part in error.absolute_path) or "all of it"


def _add_schema_defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {}, "additionalProperties": False, **schema}


def _get_optional_fields(said: Mapping[str, Any]) -> dict[str, Any]:
    """What has a default of its own, where the file says it."""
    names = ("concurrency", "dedupe", "media-type", "may-start", "separator")
    given = {name.replace("-", "_"): said[name] for name in names if name in said}
    return given | ({"time_limit": timedelta(seconds=said["time-limit"])} if "time-limit" in said else {})


def _find_errors(made: Manifest, secrets: list[str]) -> Iterator[str]:
    """What does not fit together, although each part is well-formed."""
    yield from _find_schema_errors(made.parameters)
    for name in (*made.arguments, *made.environment.values()):
        if name not in made.parameters["properties"]:
            yield f"there is no parameter {name!r}"
    for variable in made.environment:
        if not _VARIABLE_RE.fullmatch(variable) or _RESERVED_VARIABLE_RE.fullmatch(variable):
            yield f"environment: {variable!r} cannot be set"
    yield from _find_secret_errors(made, secrets)
    if not _MEDIA_TYPE_RE.fullmatch(made.media_type):
        yield f"media-type: {made.media_type!r} is none"


def _find_secret_errors(made: Manifest, secrets: list[str]) -> Iterator[str]:
    for name in secrets:
        if made.parameters["properties"][name].get("type") != "string":
            yield f"parameter {name!r} is a secret, but no string"
        if name not in (*made.arguments, *made.environment.values()):
            yield f"the secret {name!r} is neither in environment nor in arguments"
    if secrets and made.dedupe == "single-flight":
        yield "dedupe: secrets are gone when single-flight would run again"


def _find_overview_errors(made: Manifest, secrets: list[str]) -> Iterator[str]:
    """What keeps /overview from starting it, and from finding the run of one token and no other."""
    for name in OVERVIEW_DEFAULTS["parameters"]["properties"]:
        if name not in made.parameters["properties"]:
            yield f"parameters: the program of /overview is given {name!r}"
    if "api_token" not in secrets:
        yield "parameters: 'api_token' must be writeOnly"
    if made.dedupe != "once":
        yield "dedupe: the program of /overview runs once"
    if made.may_start != "anyone":
        yield "may-start: whoever has a token may start the program of /overview"


def _find_schema_errors(parameters: Mapping[str, Any]) -> Iterator[str]:
    properties = parameters["properties"]
    for name in parameters.get("required", ()):
        if name not in properties:
            yield f"the parameter {name!r} is required, but not declared"
    for path in _iter_paths(parameters, ()):
        if path[-1] in ("$ref", "$dynamicRef"):
            yield f"parameters: there is no {path[-1]} here; write it out"
        # Elsewhere it would be no secret to the rest of us.
        if path[-1] == "writeOnly" and (
            path[0] != "properties" or len(path) != len(("properties", "NAME", "writeOnly"))
        ):
            yield "parameters: only a whole parameter can be writeOnly"


def _iter_paths(schema: Any, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Where each name of a schema is, but for the names of parameters."""
    if isinstance(schema, Mapping):
        for name, value in schema.items():
            path = (*above, name)
            if above != ("properties",):
                yield path
            yield from _iter_paths(value, path)
    elif isinstance(schema, list):
        for value in schema:
            yield from _iter_paths(value, (*above, ""))
