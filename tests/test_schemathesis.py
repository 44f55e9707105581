"""Requests made up from /openapi.json, by Schemathesis: no fault of ours, and answers as they are described."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.openapi.document import build
from tests.hooks.calls import made, path_of
from tests.world import EVENTS, World

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
TAGS = ["auth", "description", "event-images", "events", "faq-types", "faqs", "health", "hooks", "images", "operations"]
TAGS += ["document-sets", "job-artifacts", "job-events", "job-kinds", "jobs", "processors", "regions", "similarities"]
TAGS += ["treatments", "uploads", "users"]
CALLERS = ("owner", "admin", "anonymous")
SEED = 20260101
EXAMPLES = 10

repeatable = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
"""The same requests each time."""


def read(world: World) -> BaseSchema:
    """The description, as Schemathesis reads it."""
    config = SchemathesisConfig.from_dict({"generation": {"allow-x00": False}})  # refused, and tried in tests/jsonapi
    document = build(world.app)
    describe_content(document)
    schema = schemathesis.openapi.from_dict(document, config=config)
    schema.app = world.app
    return schema


def describe_content(document: dict[str, Any]) -> None:
    """Put the content of text parameters where Schemathesis reads it: it makes any text of `contentSchema`."""
    for parameter in document["components"]["parameters"].values():
        if "contentSchema" in parameter["schema"]:
            schema = parameter.pop("schema")
            parameter["content"] = {schema["contentMediaType"]: {"schema": schema["contentSchema"]}}


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("mode", GenerationMode)
def test_made_up_requests_get_the_answers_that_are_described(world: World, tag: str, mode: GenerationMode) -> None:
    operations = [result.ok() for result in read(world).include(tag=tag).get_all_operations()]

    assert operations
    for operation in operations:
        if mode is GenerationMode.POSITIVE or operation.body:
            answers_well(operation, mode, world)


def answers_well(operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode, world: World) -> None:
    """Ask for one operation, about things that are there, as people with different rights."""
    hook = hook_of(world) if "hooks" in operation.tags else {}

    @seed(SEED)
    @repeatable
    @given(operation.as_strategy(generation_mode=mode), st.sampled_from(CALLERS), st.sampled_from(EVENTS))
    def ask(case: Case, caller: str, state: str) -> None:
        ids = ids_of(world, state) | hook
        if "id" in case.path_parameters:
            case.path_parameters["id"] = ids[named(operation)]
        case.body = about(case.body, ids)
        case.headers.pop("Authorization", None)
        if token := world.callers[caller].token:
            case.headers["Authorization"] = f"JWT {token}"
        # 503 is what /health-check is for: here no worker runs, which is forgiven for a while only.
        expected = {not_a_server_error} if operation.path == "/health-check" else set()
        case.call_and_validate(checks=[check for check in CHECKS if check not in expected])

    ask()


def named(operation: APIOperation[Any, Any, Any, Any]) -> str:
    """What the id in the path of an operation is of."""
    if operation.label == "POST /v1/hooks/{id}":
        return "token"
    tag = operation.tags[0]
    return {"processors": "job", "similarities": "similarity"}.get(tag, tag.removesuffix("s"))


def ids_of(world: World, state: str) -> dict[str, str]:
    """The ids of an event in this state and of what belongs to it."""
    ids = {
        "event": world.events[state],
        "faq-type": world.types[state],
        "faq": world.faqs[state],
        "event-image": world.images[state],
    }
    others = {**world.background(), "job-kind": "sleep", "user": world.owner.id}
    return {name: str(id_) for name, id_ in {**ids, **others}.items()}


def hook_of(world: World) -> dict[str, str]:
    """The id of a hook, and the token that stands in its place where it is called."""
    hook = made(world.owner)
    return {"hook": hook["id"], "token": path_of(hook).rpartition("/")[2]}


def about(body: Any, ids: dict[str, str]) -> Any:
    """The same body, with the ids of things that are there."""
    if isinstance(body, list):
        return [about(each, ids) for each in body]
    if not isinstance(body, dict):
        return body
    made = {name: about(value, ids) for name, value in body.items()}
    known = isinstance(body.get("type"), str) and ids.get(body["type"])
    return {**made, "id": known} if known and "id" in body else made


def test_every_operation_is_asked_for(world: World) -> None:
    named = {tag for result in read(world).get_all_operations() for tag in result.ok().tags}

    assert named == set(TAGS)
