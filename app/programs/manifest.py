"""Manifests: NAME.json describes the parameters and limits of the program NAME beside it."""

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
"""Bytes of one argument."""

MAX_TIME_LIMIT_SECONDS = 86_400
MAX_ERROR_LENGTH = 300
"""Characters of the message of a ManifestError, which quotes the file."""

DEFAULT_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"arguments": {"type": "array", "items": {"type": "string", "maxLength": MAX_ARGUMENT_BYTES}}},
    "additionalProperties": False,
}
"""Parameters of a program without a manifest, or whose manifest declares none."""

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
"""Parameters, arguments and environment of the program of /overview if its manifest declares no parameters."""

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
"""JSON Schema (2020-12) of the manifest."""

_VARIABLE_RE = re.compile(r"[A-Z][A-Z0-9_]*", re.ASCII)
_MEDIA_TYPE_RE = re.compile(r"[\w.+-]+/[\w.+-]+(?:; ?[\w-]+=[\w.-]+)*", re.ASCII)
# Variables that make an interpreter or the dynamic linker load other code, and those that the runner sets itself.
_RESERVED_VARIABLE_RE = re.compile(
    r"(?:LD_|PYTHON|PERL5|RUBY|MALLOC_|BASH|LC_).*|PATH|HOME|TMPDIR|LANG|LANGUAGE|ENV|IFS|PS4|CDPATH|SHELLOPTS|LOCPATH"
    r"|GCONV_PATH|GLIBC_TUNABLES|HOSTALIASES|NODE_OPTIONS|NODE_PATH|JAVA_TOOL_OPTIONS|JDK_JAVA_OPTIONS|CLASSPATH"
)


class ManifestError(Exception):
    """The manifest is invalid; the message is one line for the log."""


@dataclass(frozen=True)
class Manifest:
    """A parsed manifest, with defaults for members that are missing."""

    title: str
    parameters: Mapping[str, Any]
    arguments: tuple[str, ...]
    """Names of the parameters whose values are the arguments, in order; an array becomes several arguments."""
    environment: Mapping[str, str]
    """Names of environment variables with the names of the parameters whose values they get."""
    time_limit: timedelta = timedelta(seconds=600)
    concurrency: int | None = None
    dedupe: Dedupe = "once"
    media_type: str = "application/octet-stream"
    may_start: Literal["anyone", "admins"] = "admins"
    separator: bool = False
    """True if `--` precedes the arguments, so that the program treats none of them as an option."""


def parse_manifest(name: str, content: bytes | None, *, is_overview: bool = False) -> Manifest:
    """Return the manifest in `content`, or the default one if `content` is None; raise ManifestError if invalid."""
    members = {} if content is None else _parse_json(content)
    if "parameters" not in members:
        members = {**(OVERVIEW_DEFAULTS if is_overview else {"parameters": DEFAULT_PARAMETERS}), **members}
    if is_overview:
        members = {"may-start": "anyone", **members}
    parameters = _add_schema_defaults(members["parameters"])
    properties: dict[str, Any] = parameters["properties"]
    secrets = [name for name, schema in properties.items() if schema.get("writeOnly")]
    manifest = Manifest(
        members.get("title", f"Run the program {name}"),
        parameters,
        tuple(members.get("arguments", [name for name in properties if name not in secrets])),
        members.get("environment", {}),
        **_get_optional_fields(members),
    )
    for message in (
        *_find_errors(manifest, secrets),
        *(_find_overview_errors(manifest, secrets) if is_overview else ()),
    ):
        raise ManifestError(message[:MAX_ERROR_LENGTH])
    return manifest


def _parse_json(content: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(content)
        error = best_match(Draft202012Validator(MANIFEST_SCHEMA).iter_errors(value))
        if error is None:
            Draft202012Validator.check_schema(value.get("parameters", {}))
    except orjson.JSONDecodeError as json_error:
        raise ManifestError(f"invalid JSON: {json_error}"[:MAX_ERROR_LENGTH]) from None
    except SchemaError as schema_error:
        raise ManifestError(
            f"parameters: invalid JSON Schema: {_format_path(schema_error)}: {schema_error.message}"[:MAX_ERROR_LENGTH]
        ) from None
    except RecursionError:
        raise ManifestError("the JSON is nested too deep") from None
    if error is not None:
        raise ManifestError(f"{_format_path(error)}: {error.message}"[:MAX_ERROR_LENGTH])
    members: dict[str, Any] = value
    return members


def _format_path(error: Any) -> str:
    return ".".join(str(part) for part in error.absolute_path) or "the whole value"


def _add_schema_defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {}, "additionalProperties": False, **schema}


def _get_optional_fields(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that have a default in `Manifest`, as keyword arguments."""
    names = ("concurrency", "dedupe", "media-type", "may-start", "separator")
    fields = {name.replace("-", "_"): members[name] for name in names if name in members}
    return fields | ({"time_limit": timedelta(seconds=members["time-limit"])} if "time-limit" in members else {})


def _find_errors(manifest: Manifest, secrets: list[str]) -> Iterator[str]:
    """Yield a message for each contradiction between members that are valid by themselves."""
    yield from _find_schema_errors(manifest.parameters)
    for name in (*manifest.arguments, *manifest.environment.values()):
        if name not in manifest.parameters["properties"]:
            yield f"there is no parameter {name!r}"
    for variable in manifest.environment:
        if not _VARIABLE_RE.fullmatch(variable) or _RESERVED_VARIABLE_RE.fullmatch(variable):
            yield f"environment: {variable!r} cannot be set"
    yield from _find_secret_errors(manifest, secrets)
    if not _MEDIA_TYPE_RE.fullmatch(manifest.media_type):
        yield f"media-type: {manifest.media_type!r} is not a media type"


def _find_secret_errors(manifest: Manifest, secrets: list[str]) -> Iterator[str]:
    for name in secrets:
        if manifest.parameters["properties"][name].get("type") != "string":
            yield f"the secret parameter {name!r} must be a string"
        if name not in (*manifest.arguments, *manifest.environment.values()):
            yield f"the secret parameter {name!r} is neither in environment nor in arguments"
    if secrets and manifest.dedupe == "single-flight":
        yield "dedupe: not single-flight with secrets, which are deleted before the job would run again"


def _find_overview_errors(manifest: Manifest, secrets: list[str]) -> Iterator[str]:
    """Yield a message for each member that /overview cannot use.

    The token must be a secret parameter and the policy `once`, so that a token finds its own run and no other.
    """
    for name in OVERVIEW_DEFAULTS["parameters"]["properties"]:
        if name not in manifest.parameters["properties"]:
            yield f"parameters: the program of /overview needs the parameter {name!r}"
    if "api_token" not in secrets:
        yield "parameters: 'api_token' must be writeOnly"
    if manifest.dedupe != "once":
        yield "dedupe: must be once for the program of /overview"
    if manifest.may_start != "anyone":
        yield "may-start: must be anyone for the program of /overview"


def _find_schema_errors(parameters: Mapping[str, Any]) -> Iterator[str]:
    properties = parameters["properties"]
    for name in parameters.get("required", ()):
        if name not in properties:
            yield f"the parameter {name!r} is required, but not declared"
    for path in _iter_paths(parameters, ()):
        if path[-1] in ("$ref", "$dynamicRef"):
            yield f"parameters: {path[-1]} is not supported; write the schema out"
        # Only whole parameters are treated as secrets.
        if path[-1] == "writeOnly" and (
            path[0] != "properties" or len(path) != len(("properties", "NAME", "writeOnly"))
        ):
            yield "parameters: only a whole parameter can be writeOnly"


def _iter_paths(schema: Any, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the path of each keyword of a schema, without the names of parameters."""
    if isinstance(schema, Mapping):
        for name, value in schema.items():
            path = (*above, name)
            if above != ("properties",):
                yield path
            yield from _iter_paths(value, path)
    elif isinstance(schema, list):
        for value in schema:
            yield from _iter_paths(value, (*above, ""))
