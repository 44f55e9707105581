"""Parameters that name a resource take its id as a string, as JSON:API writes ids, and as a number: it is one job."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from werkzeug.test import TestResponse

from app.jobs.kinds import RESOURCE_TYPE
from app.jobs.models import Job
from tests.hooks.calls import call, job_of, made, make
from tests.jobs.test_cli import run
from tests.world import Caller, World, data, errors, pointers


def start(caller: Caller, kind: str, parameters: Any) -> TestResponse:
    """POST of a job."""
    return caller.create("/v1/jobs", "job", {"kind": kind, "parameters": parameters})


@pytest.mark.parametrize("kind", ["event-archive", "import-images", "resize-image"])
def test_event_is_named_by_a_string_or_a_number(world: World, kind: str) -> None:
    event = world.events["published"]

    by_string = start(world.owner, kind, {"event": str(event)})
    by_number = start(world.owner, kind, {"event": event})

    assert (by_string.status_code, by_number.status_code) == (202, 202), by_string.text
    assert data(by_string)["id"] == data(by_number)["id"], "both are the same job"
    assert data(by_string)["attributes"]["parameters"] == {"event": event}
    assert data(by_string)["relationships"]["event"]["data"] == {"type": "event", "id": str(event)}
    assert world.rows(Job) == 1


def test_user_is_named_by_a_string_or_a_number(world: World) -> None:
    own = start(world.stranger, "resize-image", {"user": str(world.stranger.id)})
    same = start(world.stranger, "resize-image", {"user": world.stranger.id})
    other = start(world.stranger, "resize-image", {"user": str(world.owner.id)})

    assert (own.status_code, same.status_code, other.status_code) == (202, 202, 403)
    assert data(own)["id"] == data(same)["id"]


@pytest.mark.parametrize("spelling", [str, int])
def test_rights_are_those_of_the_event_that_is_named(world: World, spelling: Any) -> None:
    foreign, hidden = spelling(world.events["published"]), spelling(world.events["draft"])

    assert start(world.stranger, "event-archive", {"event": foreign}).status_code == 403
    assert start(world.stranger, "event-archive", {"event": hidden}).status_code == 404
    assert start(world.owner, "event-archive", {"event": spelling(9999999)}).status_code == 404


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
def test_what_is_no_id_is_refused_with_its_place(world: World, value: Any) -> None:
    answer = start(world.owner, "event-archive", {"event": value})

    assert (answer.status_code, pointers(answer)) == (422, {"/data/attributes/parameters/event"})
    expected = "Must be the id of a resource of type event, as a string or a number."
    assert {error["detail"] for error in errors(answer)} == {expected}


def test_hook_fixes_and_takes_ids_as_strings_and_numbers(world: World) -> None:
    event = world.events["published"]
    fixed = made(world.owner, "event-archive", {"event": str(event)})
    open_one = made(world.owner, "event-archive", {})

    jobs = {job_of(call(world.app, fixed))}
    jobs |= {job_of(call(world.app, open_one, {"event": spelling})) for spelling in (str(event), event)}

    assert len(jobs) == 1
    assert fixed["relationships"]["event"]["data"]["id"] == str(event)
    refused = call(world.app, open_one, {"event": "x"})
    assert (refused.status_code, pointers(refused)) == (422, {"/event"})
    assert make(world.stranger, "event-archive", {"event": str(event)}).status_code == 403


def test_command_line_takes_ids(world: World) -> None:
    event = world.events["published"]

    by_pair = run(world.app, "submit", "event-archive", "--param", f"event={event}")
    by_document = run(world.app, "submit", "event-archive", "--params", json.dumps({"event": str(event)}))
    kinds = run(world.app, "kinds")

    assert (by_pair.exit_code, by_document.exit_code) == (0, 0), by_document.output
    assert by_pair.output == by_document.output
    assert "event=id" in kinds.output


def test_schemas_of_kinds_say_so(world: World) -> None:
    kinds = {kind["id"]: kind["attributes"]["parameters"] for kind in data(world.stranger.get("/v1/job-kinds"))}
    named = {
        (kind, name, schema[RESOURCE_TYPE])
        for kind, parameters in kinds.items()
        for name, schema in parameters.get("properties", {}).items()
        if RESOURCE_TYPE in schema
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
