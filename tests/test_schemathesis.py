"""Requests that Schemathesis generates from /openapi.json: no server errors, and responses as described."""

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

from app.openapi.document import build_document
from tests.dataset import EVENTS, Dataset
from tests.hooks.requests import create_hook, get_hook_path

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
"""Settings of Hypothesis: the same requests in each run."""


def load_schema(dataset: Dataset) -> BaseSchema:
    """Return the OpenAPI description, loaded by Schemathesis."""
    config = SchemathesisConfig.from_dict({"generation": {"allow-x00": False}})  # refused, and tried in tests/jsonapi
    document = build_document(dataset.app)
    describe_content(document)
    schema = schemathesis.openapi.from_dict(document, config=config)
    schema.app = dataset.app
    return schema


def describe_content(document: dict[str, Any]) -> None:
    """Move the content schema of text parameters, since Schemathesis ignores `contentSchema`."""
    for parameter in document["components"]["parameters"].values():
        if "contentSchema" in parameter["schema"]:
            schema = parameter.pop("schema")
            parameter["content"] = {schema["contentMediaType"]: {"schema": schema["contentSchema"]}}


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("mode", GenerationMode)
def test_made_up_requests_get_the_answers_that_are_described(dataset: Dataset, tag: str, mode: GenerationMode) -> None:
    operations = [result.ok() for result in load_schema(dataset).include(tag=tag).get_all_operations()]

    assert operations
    for operation in operations:
        if mode is GenerationMode.POSITIVE or operation.body:
            check_operation(operation, mode, dataset)


def check_operation(operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode, dataset: Dataset) -> None:
    """Send requests of one operation for existing resources as users with different permissions."""
    hook = get_hook(dataset) if "hooks" in operation.tags else {}

    @seed(SEED)
    @repeatable
    @given(operation.as_strategy(generation_mode=mode), st.sampled_from(CALLERS), st.sampled_from(EVENTS))
    def ask(case: Case, caller: str, state: str) -> None:
        ids = list_event_ids(dataset, state) | hook
        if "id" in case.path_parameters:
            case.path_parameters["id"] = ids[get_id_owner(operation)]
        case.body = insert_ids(case.body, ids)
        case.headers.pop("Authorization", None)
        if token := dataset.callers[caller].token:
            case.headers["Authorization"] = f"JWT {token}"
        # /health-check may be 503: no worker runs, and the grace period may have ended.
        expected = {not_a_server_error} if operation.path == "/health-check" else set()
        case.call_and_validate(checks=[check for check in CHECKS if check not in expected])

    ask()


def get_id_owner(operation: APIOperation[Any, Any, Any, Any]) -> str:
    """Return the type of the id in the path of an operation."""
    if operation.label == "POST /v1/hooks/{id}":
        return "token"
    tag = operation.tags[0]
    return {"processors": "job", "similarities": "similarity"}.get(tag, tag.removesuffix("s"))


def list_event_ids(dataset: Dataset, state: str) -> dict[str, str]:
    """Return the ids of an event in this state and of its resources."""
    ids = {
        "event": dataset.events[state],
        "faq-type": dataset.types[state],
        "faq": dataset.faqs[state],
        "event-image": dataset.images[state],
    }
    others = {**dataset.get_background_ids(), "job-kind": "sleep", "user": dataset.owner.id}
    return {name: str(id_) for name, id_ in {**ids, **others}.items()}


def get_hook(dataset: Dataset) -> dict[str, str]:
    """Return the id of a hook, and its token for the routes that call it."""
    hook = create_hook(dataset.owner)
    return {"hook": hook["id"], "token": get_hook_path(hook).rpartition("/")[2]}


def insert_ids(body: Any, ids: dict[str, str]) -> Any:
    """Return the body with ids of existing resources."""
    if isinstance(body, list):
        return [insert_ids(each, ids) for each in body]
    if not isinstance(body, dict):
        return body
    made = {name: insert_ids(value, ids) for name, value in body.items()}
    known = isinstance(body.get("type"), str) and ids.get(body["type"])
    return {**made, "id": known} if known and "id" in body else made


def test_every_operation_is_asked_for(dataset: Dataset) -> None:
    named = {tag for result in load_schema(dataset).get_all_operations() for tag in result.ok().tags}

    assert named == set(TAGS)
