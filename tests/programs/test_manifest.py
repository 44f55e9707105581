"""Manifests: members, defaults and error messages."""

from datetime import timedelta
from typing import Any

import orjson
import pytest

from app.programs import manifest
from app.programs.manifest import Manifest, ManifestError

TOKEN_SCHEMA = {"type": "object", "properties": {"token": {"type": "string", "writeOnly": True}}}
NAME_SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}, "sizes": {"type": "array"}}}


def read_manifest(members: Any, *, is_overview: bool = False) -> Manifest:
    """Return the manifest that is parsed from these members or bytes."""
    content = members if isinstance(members, bytes) else orjson.dumps(members)
    return manifest.parse_manifest("tried", content, is_overview=is_overview)


def test_program_without_manifest_takes_argument_list() -> None:
    parsed = manifest.parse_manifest("tried", None)

    assert parsed.arguments == ("arguments",)
    assert list(parsed.parameters["properties"]) == ["arguments"]
    assert (parsed.dedupe, parsed.time_limit, parsed.concurrency) == ("once", timedelta(minutes=10), None)
    assert (parsed.media_type, parsed.may_start) == ("application/octet-stream", "admins")


def test_manifest_with_every_property() -> None:
    parsed = read_manifest(
        {
            "title": "Count words",
            "parameters": {**NAME_SCHEMA, "properties": {**NAME_SCHEMA["properties"], **TOKEN_SCHEMA["properties"]}},
            "arguments": ["sizes", "name"],
            "environment": {"API_TOKEN": "token"},
            "time-limit": 30,
            "concurrency": 1,
            "dedupe": "none",
            "media-type": "text/csv; charset=utf-8",
            "may-start": "admins",
        }
    )

    assert (parsed.title, parsed.arguments) == ("Count words", ("sizes", "name"))
    assert parsed.environment == {"API_TOKEN": "token"}
    assert (parsed.time_limit, parsed.concurrency, parsed.dedupe) == (timedelta(seconds=30), 1, "none")
    assert (parsed.media_type, parsed.may_start) == ("text/csv; charset=utf-8", "admins")


def test_undeclared_parameters_are_rejected_unless_allowed() -> None:
    assert read_manifest({"parameters": NAME_SCHEMA}).parameters["additionalProperties"] is False
    assert (
        read_manifest({"parameters": {**NAME_SCHEMA, "additionalProperties": True}}).parameters["additionalProperties"]
        is True
    )


def test_arguments_are_the_declared_parameters_in_order_without_secrets() -> None:
    both = {"type": "object", "properties": {**TOKEN_SCHEMA["properties"], **NAME_SCHEMA["properties"]}}

    assert read_manifest({"parameters": both, "environment": {"TOKEN": "token"}}).arguments == ("name", "sizes")


def test_secret_in_declared_arguments_is_accepted() -> None:
    assert read_manifest({"parameters": TOKEN_SCHEMA, "arguments": ["token"]}).arguments == ("token",)


def test_overview_program_has_default_parameters_unless_declared() -> None:
    default = manifest.parse_manifest("tried", None, is_overview=True)
    with_token = read_manifest({"arguments": ["server", "document_set_id", "api_token"]}, is_overview=True)
    declared = manifest.OVERVIEW_DEFAULTS["parameters"]
    own = read_manifest({**manifest.OVERVIEW_DEFAULTS, "parameters": {**declared, "title": "Named"}}, is_overview=True)

    assert default.arguments == ("server", "document_set_id")
    assert default.environment == {"API_TOKEN": "api_token"}
    assert with_token.arguments == ("server", "document_set_id", "api_token")
    assert own.parameters["title"] == "Named"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"parameters": NAME_SCHEMA}, "needs the parameter 'server'"),
        (
            {"parameters": {"properties": {**manifest.OVERVIEW_DEFAULTS["parameters"]["properties"], "api_token": {}}}},
            "writeOnly",
        ),
        ({"dedupe": "none"}, "dedupe: must be once"),
        ({"may-start": "admins"}, "may-start: must be anyone"),
    ],
)
def test_invalid_overview_manifest_raises(members: Any, message: str) -> None:
    with pytest.raises(manifest.ManifestError, match=message):
        read_manifest(members, is_overview=True)


def _nest_arrays(levels: int) -> bytes:
    return b'{"parameters": ' + b'{"not": ' * levels + b"{}" + b"}" * levels + b"}"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (b"", "invalid JSON"),
        (b"{", "invalid JSON"),
        (b"\xff\xfe", "invalid JSON"),
        (b'{"time-limit": NaN}', "invalid JSON"),
        (_nest_arrays(300), "nested too deep"),
        (b"[" * 100_000, "invalid JSON"),
        ([], "the whole value: [] is not of type 'object'"),
        ({"titel": "x"}, "'titel' was unexpected"),
        ({"title": 3}, "title"),
        ({"parameters": "none"}, "parameters"),
        ({"parameters": {"type": "array"}}, "'object' was expected"),
        ({"parameters": {"properties": {"a": True}}}, "parameters.properties.a"),
        ({"parameters": {"properties": {"a": {"type": "word"}}}}, "invalid JSON Schema"),
        ({"parameters": {"properties": {"a": {"pattern": "("}}}}, "invalid JSON Schema"),
        ({"parameters": {"required": ["a"]}}, "'a' is required, but not declared"),
        ({"parameters": {"properties": {"a": {"$ref": "http://127.0.0.1/a"}}}}, "$ref is not supported"),
        ({"parameters": {"properties": {"a": {"items": {"writeOnly": True}}}}}, "whole parameter"),
        ({"parameters": {"patternProperties": {"a": {"writeOnly": True}}}}, "whole parameter"),
        ({"parameters": NAME_SCHEMA, "arguments": ["nme"]}, "no parameter 'nme'"),
        ({"parameters": NAME_SCHEMA, "arguments": ["name", "name"]}, "arguments"),
        ({"parameters": NAME_SCHEMA, "environment": {"NAME": "nme"}}, "no parameter 'nme'"),
        *(
            ({"parameters": NAME_SCHEMA, "environment": {name: "name"}}, "cannot be set")
            for name in ("PATH", "HOME", "TMPDIR", "LD_PRELOAD", "PYTHONPATH", "BASH_ENV", "name", "A-B", "A\n", "")
        ),
        ({"parameters": TOKEN_SCHEMA}, "neither in environment nor in arguments"),
        ({"parameters": TOKEN_SCHEMA, "environment": {"T": "token"}, "dedupe": "single-flight"}, "dedupe"),
        (
            {"parameters": {"properties": {"a": {"type": "integer", "writeOnly": True}}}, "arguments": ["a"]},
            "must be a string",
        ),
        ({"dedupe": "twice"}, "dedupe"),
        ({"time-limit": 0}, "time-limit"),
        ({"time-limit": 86_401}, "time-limit"),
        ({"time-limit": 0.5}, "time-limit"),
        ({"concurrency": 0}, "concurrency"),
        ({"media-type": "text"}, "media-type"),
        ({"media-type": "text/plain\r\nSet-Cookie: a=b"}, "media-type"),
        ({"may-start": "me"}, "may-start"),
    ],
)
def test_manifest_error_is_one_short_line(members: Any, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read_manifest(members)

    assert message in str(caught.value)
    assert len(str(caught.value)) <= manifest.MAX_ERROR_LENGTH
