"""Parameters that name a resource take its id as a string, as JSON:API writes ids, and as a number: it is one job."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from werkzeug.test import TestResponse

from app.jobs.kinds import RESOURCE_TYPE_KEYWORD
from app.jobs.models import Job
from tests.dataset import ApiClient, Dataset, get_data, get_errors, get_pointers
from tests.hooks.requests import call_hook, create_hook, get_job_id, post_hook
from tests.jobs.test_cli import invoke_cli


def post_job(caller: ApiClient, kind: str, parameters: Any) -> TestResponse:
    """POST a job; return the response."""
    return caller.create("/v1/jobs", "job", {"kind": kind, "parameters": parameters})


@pytest.mark.parametrize("kind", ["event-archive", "import-images", "resize-image"])
def test_event_is_named_by_a_string_or_a_number(dataset: Dataset, kind: str) -> None:
    event = dataset.events["published"]

    by_string = post_job(dataset.owner, kind, {"event": str(event)})
    by_number = post_job(dataset.owner, kind, {"event": event})

    assert (by_string.status_code, by_number.status_code) == (202, 202), by_string.text
    assert get_data(by_string)["id"] == get_data(by_number)["id"], "both are the same job"
    assert get_data(by_string)["attributes"]["parameters"] == {"event": event}
    assert get_data(by_string)["relationships"]["event"]["data"] == {"type": "event", "id": str(event)}
    assert dataset.count_rows(Job) == 1


def test_user_is_named_by_a_string_or_a_number(dataset: Dataset) -> None:
    own = post_job(dataset.stranger, "resize-image", {"user": str(dataset.stranger.id)})
    same = post_job(dataset.stranger, "resize-image", {"user": dataset.stranger.id})
    other = post_job(dataset.stranger, "resize-image", {"user": str(dataset.owner.id)})

    assert (own.status_code, same.status_code, other.status_code) == (202, 202, 403)
    assert get_data(own)["id"] == get_data(same)["id"]


@pytest.mark.parametrize("spelling", [str, int])
def test_rights_are_those_of_the_event_that_is_named(dataset: Dataset, spelling: Any) -> None:
    foreign, hidden = spelling(dataset.events["published"]), spelling(dataset.events["draft"])

    assert post_job(dataset.stranger, "event-archive", {"event": foreign}).status_code == 403
    assert post_job(dataset.stranger, "event-archive", {"event": hidden}).status_code == 404
    assert post_job(dataset.owner, "event-archive", {"event": spelling(9999999)}).status_code == 404


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0",
        "-1",
        "01",
        "1.0",
        " 1",
        "1\n",
        "one",
        "\u0661",
        "9" * 19,
        "9" * 30,
        0,
        -1,
        1.5,
        2**63,
        True,
        None,
        ["1"],
    ],
)
def test_invalid_id_parameter_is_422_with_pointer(dataset: Dataset, value: Any) -> None:
    answer = post_job(dataset.owner, "event-archive", {"event": value})

    assert (answer.status_code, get_pointers(answer)) == (422, {"/data/attributes/parameters/event"})
    expected = "Must be the id of a resource of type event, as a string or a number."
    assert {error["detail"] for error in get_errors(answer)} == {expected}


def test_hook_fixes_and_takes_ids_as_strings_and_numbers(dataset: Dataset) -> None:
    event = dataset.events["published"]
    fixed = create_hook(dataset.owner, "event-archive", {"event": str(event)})
    open_one = create_hook(dataset.owner, "event-archive", {})

    jobs = {get_job_id(call_hook(dataset.app, fixed))}
    jobs |= {get_job_id(call_hook(dataset.app, open_one, {"event": spelling})) for spelling in (str(event), event)}

    assert len(jobs) == 1
    assert fixed["relationships"]["event"]["data"]["id"] == str(event)
    refused = call_hook(dataset.app, open_one, {"event": "x"})
    assert (refused.status_code, get_pointers(refused)) == (422, {"/event"})
    assert post_hook(dataset.stranger, "event-archive", {"event": str(event)}).status_code == 403


def test_command_line_takes_ids(dataset: Dataset) -> None:
    event = dataset.events["published"]

    by_pair = invoke_cli(dataset.app, "submit", "event-archive", "--param", f"event={event}")
    by_document = invoke_cli(dataset.app, "submit", "event-archive", "--params", json.dumps({"event": str(event)}))
    kinds = invoke_cli(dataset.app, "kinds")

    assert (by_pair.exit_code, by_document.exit_code) == (0, 0), by_document.output
    assert by_pair.output == by_document.output
    assert "event=id" in kinds.output


def test_schemas_of_kinds_say_so(dataset: Dataset) -> None:
    kinds = {kind["id"]: kind["attributes"]["parameters"] for kind in get_data(dataset.stranger.get("/v1/job-kinds"))}
    named = {
        (kind, name, schema[RESOURCE_TYPE_KEYWORD])
        for kind, parameters in kinds.items()
        for name, schema in parameters.get("properties", {}).items()
        if RESOURCE_TYPE_KEYWORD in schema
    }

    assert named >= {
        ("event-archive", "event", "event"),
        ("import-images", "event", "event"),
        ("resize-image", "event", "event"),
        ("resize-image", "user", "user"),
    }
    for kind, name, _type in named:
        validator = Draft202012Validator(kinds[kind]["properties"][name])
        assert all(validator.is_valid(value) for value in (1, "1", 2**63 - 1))
        assert not any(validator.is_valid(value) for value in (0, "0", "x", 1.5, None, True))
