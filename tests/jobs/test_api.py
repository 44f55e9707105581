"""/v1/jobs: started, found again, watched, canceled and retried, by whom it may be."""

from typing import Any
from uuid import UUID

import orjson
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.database import commit, transaction
from app.jobs import lifecycle, running, submission
from app.jobs.models import Job
from tests.jobs import kinds as _kinds  # noqa: F401  # declares them
from tests.jobs.written import read
from tests.world import Caller, World, data, errors, pointers

NOBODY = "01900000-0000-7000-8000-000000000000"


def start(caller: Caller, kind: str = "sleep", **parameters: Any) -> TestResponse:
    """Submit a job; one that sleeps no time where nothing else is said."""
    given = parameters or {"seconds": 0, "steps": 1}
    return caller.create("/v1/jobs", "job", {"kind": kind, "parameters": given})


def run(app: Flask, job: Any) -> None:
    """What a worker does."""
    with app.app_context():
        running.run(UUID(job["id"]), "tests")


def state(caller: Caller, job: Any) -> str:
    """The state as the API tells it."""
    return str(data(caller.get(f"/v1/jobs/{job['id']}"))["attributes"]["state"])


def test_a_job_is_accepted_and_can_be_found(world: World) -> None:
    response = start(world.stranger, seconds=0.5)

    assert response.status_code == 202
    job = data(response)
    url = f"{world.app.config['PUBLIC_URL']}/v1/jobs/{job['id']}"
    assert response.headers["Location"] == url
    assert response.headers["Content-Location"] == url
    assert response.headers["Retry-After"] == "1"
    attributes = job["attributes"]
    assert attributes["kind"] == "sleep"
    assert attributes["parameters"] == {"seconds": 0.5}
    assert (attributes["state"], attributes["attempt"], attributes["max-attempts"]) == ("queued", 0, 3)
    assert (attributes["progress"], attributes["queue-position"], attributes["trigger"]) == (None, 0, "api")
    assert job["relationships"]["owner"]["data"] == {"type": "user", "id": str(world.stranger.id)}
    assert job["relationships"]["event"]["data"] is None
    assert data(world.stranger.get(f"/v1/jobs/{job['id']}")) == job


def test_a_job_that_was_run_tells_what_came_of_it(world: World) -> None:
    job = data(start(world.stranger))

    run(world.app, job)

    attributes = data(world.stranger.get(f"/v1/jobs/{job['id']}"))["attributes"]
    assert (attributes["state"], attributes["progress"], attributes["attempt"]) == ("succeeded", 1, 1)
    assert (attributes["result"], attributes["error"], attributes["queue-position"]) == ({"slept": 0}, None, None)
    assert attributes["started-at"] <= attributes["finished-at"]
    events = data(world.stranger.get(f"/v1/jobs/{job['id']}/events"))
    assert [event["attributes"]["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {event["attributes"]["state"] for event in events} == {"running", "succeeded"}


def test_a_job_that_fails_says_why(world: World) -> None:
    job = data(start(world.stranger, "tests-fail", breaks=False))

    run(world.app, job)

    error = data(world.stranger.get(f"/v1/jobs/{job['id']}"))["attributes"]["error"]
    assert error == {"code": "no-output", "detail": "There is nothing to make."}


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"kind": "no-such-kind"}, {"/data/attributes/kind"}),
        ({"kind": ""}, {"/data/attributes/kind"}),
        ({"kind": "x" * 10_000}, {"/data/attributes/kind"}),
        ({}, {"/data/attributes/kind"}),
        ({"kind": "sleep"}, {"/data/attributes/parameters/seconds"}),
        ({"kind": "sleep", "parameters": {"seconds": "2"}}, {"/data/attributes/parameters/seconds"}),
        ({"kind": "sleep", "parameters": {"seconds": -1}}, {"/data/attributes/parameters/seconds"}),
        ({"kind": "sleep", "parameters": []}, {"/data/attributes/parameters"}),
        ({"kind": "sleep", "parameters": None}, {"/data/attributes/parameters"}),
        ({"kind": "sleep", "parameters": {"seconds": 1, "a/b": 1}}, {"/data/attributes/parameters/a~1b"}),
        (
            {"kind": "sleep", "parameters": {"seconds": True, "steps": 0}},
            {"/data/attributes/parameters/seconds", "/data/attributes/parameters/steps"},
        ),
        ({"kind": "sleep", "parameters": {"seconds": 1, "x" * 70_000: 1}}, {"/data/attributes/parameters"}),
    ],
)
def test_what_cannot_run_is_422_with_pointers(world: World, attributes: Any, expected: set[str]) -> None:
    response = world.stranger.create("/v1/jobs", "job", attributes)

    assert response.status_code == 422
    assert pointers(response) == expected
    assert world.rows(Job) == 0


@pytest.mark.parametrize("name", ["state", "progress", "attempt", "owner-id", "result"])
def test_what_the_server_writes_is_not_taken(world: World, name: str) -> None:
    response = world.stranger.create("/v1/jobs", "job", {"kind": "sleep", "parameters": {"seconds": 1}, name: "done"})

    assert response.status_code == (422 if name == "owner-id" else 403)
    assert pointers(response) == {f"/data/attributes/{name}"}
    assert world.rows(Job) == 0


def test_nobody_names_another_owner(world: World) -> None:
    response = world.stranger.create("/v1/jobs", "job", {"kind": "sleep", "parameters": {"seconds": 1}}, owner=1)

    assert response.status_code == 403
    assert pointers(response) == {"/data/relationships/owner"}


@pytest.mark.parametrize("method", ["PATCH", "DELETE", "PUT"])
def test_a_job_is_not_changed_by_hand(world: World, method: str) -> None:
    job = data(start(world.stranger))

    response = world.stranger.send(method, f"/v1/jobs/{job['id']}", {"data": {"type": "job", "id": job["id"]}})

    assert response.status_code == 405


def test_jobs_are_listed_newest_first_and_filtered(world: World) -> None:
    first, second = (data(start(world.stranger)) for _ in range(2))
    other = data(start(world.stranger, "tests-fail", breaks=False))
    run(world.app, first)

    def listed(query: str) -> list[str]:
        return [each["id"] for each in data(world.stranger.get(f"/v1/jobs{query}"))]

    assert listed("") == [other["id"], second["id"], first["id"]]
    assert listed("?filter[state]=queued") == [other["id"], second["id"]]
    assert listed("?filter[kind]=sleep") == [second["id"], first["id"]]
    assert listed("?filter[state]=succeeded&filter[kind]=sleep&include=events")[:1] == [first["id"]]


def test_a_job_is_its_owners_and_the_admins(world: World) -> None:
    job = data(start(world.stranger))
    urls = [f"/v1/jobs/{job['id']}{below}" for below in ("", "/events", "/artifacts", "/progress", "/owner")]

    assert [world.owner.get(url).status_code for url in urls] == [404] * 5
    assert [world.anonymous.get(url).status_code for url in urls] == [401, 401, 401, 401, 404]
    assert data(world.owner.get("/v1/jobs")) == []
    assert world.anonymous.get("/v1/jobs").status_code == 401
    assert world.anonymous.create("/v1/jobs", "job", {"kind": "sleep"}).status_code == 401
    for command in ("cancel", "retry"):
        assert world.owner.send("POST", f"/v1/jobs/{job['id']}/{command}").status_code == 404
        assert world.anonymous.send("POST", f"/v1/jobs/{job['id']}/{command}").status_code == 401
    run(world.app, job)
    assert {world.admin.get(url).status_code for url in urls} == {200}
    (event, *_) = data(world.stranger.get(f"/v1/jobs/{job['id']}/events"))
    assert world.stranger.get(f"/v1/job-events/{event['id']}").status_code == 200
    assert world.owner.get(f"/v1/job-events/{event['id']}").status_code == 404


@pytest.mark.parametrize("id_", [NOBODY, "1", "abc", "0" * 400, "%00", NOBODY.upper().replace("0", "a")])
def test_an_unknown_id_is_404(world: World, id_: str) -> None:
    for below in ("", "/events", "/progress"):
        assert world.admin.get(f"/v1/jobs/{id_}{below}").status_code == 404
    for command in ("cancel", "retry"):
        assert world.admin.send("POST", f"/v1/jobs/{id_}/{command}").status_code == 404


def test_the_place_in_the_queue_counts_those_that_run_and_those_before(world: World) -> None:
    jobs = [data(start(world.stranger)) for _ in range(3)]
    with world.app.app_context(), transaction(is_read=False):
        lifecycle.claim(UUID(jobs[2]["id"]), "tests", running._lease())
        commit()

    positions = {each["id"]: each["attributes"]["queue-position"] for each in data(world.stranger.get("/v1/jobs"))}

    assert [positions[job["id"]] for job in jobs] == [1, 2, None]


def test_the_same_key_makes_one_job(world: World) -> None:
    document = {"data": {"type": "job", "attributes": {"kind": "sleep", "parameters": {"seconds": 1}}}}

    first = world.stranger.send("POST", "/v1/jobs", document, Idempotency_Key="a key")
    again = world.stranger.send("POST", "/v1/jobs", document, Idempotency_Key="a key")

    assert first.status_code == 400  # a space is no visible character
    first = world.stranger.send("POST", "/v1/jobs", document, Idempotency_Key="one")
    again = world.stranger.send("POST", "/v1/jobs", document, Idempotency_Key="one")
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.headers["Idempotent-Replayed"] == "true"
    for header in ("Location", "Content-Location", "Retry-After"):
        assert again.headers[header] == first.headers[header]
    assert world.rows(Job) == 1


def test_once_joins_what_lives_or_has_succeeded(world: World) -> None:
    job = data(start(world.stranger, "sleep-once", seconds=0))

    joined = start(world.stranger, "sleep-once", seconds=0)
    others = start(world.owner, "sleep-once", seconds=0)
    run(world.app, job)
    done = start(world.stranger, "sleep-once", seconds=0)

    assert (joined.status_code, data(joined)["id"]) == (202, job["id"])
    assert data(others)["id"] != job["id"]
    assert (done.status_code, data(done)["id"]) == (200, job["id"])
    assert done.headers["Location"].endswith(job["id"])


def test_1_and_1_0_are_the_same_number(world: World) -> None:
    job = data(start(world.stranger, "sleep-once", seconds=1, steps=1.0))

    assert job["attributes"]["parameters"] == {"seconds": 1, "steps": 1}
    assert data(start(world.stranger, "sleep-once", seconds=1.0, steps=1))["id"] == job["id"]


def test_every_parameter_that_is_missing_or_unknown_is_told(world: World) -> None:
    response = start(world.stranger, "sleep", a=1, b=2)

    assert pointers(response) == {f"/data/attributes/parameters/{name}" for name in ("a", "b", "seconds")}


def test_single_flight_joins_what_lives_only(world: World) -> None:
    job = data(start(world.stranger, "sleep-single-flight", seconds=0))

    joined = start(world.stranger, "sleep-single-flight", seconds=0)
    run(world.app, job)
    another = start(world.stranger, "sleep-single-flight", seconds=0)

    assert data(joined)["id"] == job["id"]
    assert (another.status_code, data(another)["id"] == job["id"]) == (202, False)


def test_cancel_ends_what_waits_at_once_and_says_so_again_never(world: World) -> None:
    job = data(start(world.stranger))

    canceled = world.stranger.send("POST", f"/v1/jobs/{job['id']}/cancel")
    again = world.stranger.send("POST", f"/v1/jobs/{job['id']}/cancel")

    assert (canceled.status_code, data(canceled)["attributes"]["state"]) == (202, "canceled")
    assert again.status_code == 409
    run(world.app, job)
    assert state(world.stranger, job) == "canceled"


def test_cancel_is_asked_of_what_runs_as_often_as_one_likes(world: World) -> None:
    job = data(start(world.stranger))
    with world.app.app_context(), transaction(is_read=False):
        lifecycle.claim(UUID(job["id"]), "tests", running._lease())
        commit()

    answers = [world.stranger.send("POST", f"/v1/jobs/{job['id']}/cancel") for _ in range(2)]

    assert [each.status_code for each in answers] == [202, 202]
    assert [data(each)["attributes"]["state"] for each in answers] == ["canceling", "canceling"]
    assert len(data(world.stranger.get(f"/v1/jobs/{job['id']}/events"))) == 2


def test_retry_makes_a_new_job_of_one_that_has_ended(world: World) -> None:
    job = data(start(world.stranger, "tests-fail", breaks=False))
    early = world.stranger.send("POST", f"/v1/jobs/{job['id']}/retry")
    run(world.app, job)

    response = world.admin.send("POST", f"/v1/jobs/{job['id']}/retry")

    assert early.status_code == 409
    assert response.status_code == 202
    again = data(response)
    assert again["relationships"]["retry-of"]["data"] == {"type": "job", "id": job["id"]}
    assert again["attributes"]["trigger"] == "retry"
    assert again["attributes"]["parameters"] == {"breaks": False}
    assert again["relationships"]["owner"]["data"]["id"] == str(world.stranger.id)


def test_retry_of_what_has_succeeded_once_runs_again(world: World) -> None:
    job = data(start(world.stranger, "sleep-once", seconds=0))
    run(world.app, job)

    again = data(world.stranger.send("POST", f"/v1/jobs/{job['id']}/retry"))

    assert (again["id"] == job["id"], again["attributes"]["state"]) == (False, "queued")


def test_an_artifact_is_fetched_by_who_may_read_its_job(world: World) -> None:
    job = data(start(world.stranger, "tests-make", any=1))
    run(world.app, job)

    (artifact,) = data(world.stranger.get(f"/v1/jobs/{job['id']}/artifacts"))

    attributes = artifact["attributes"]
    assert (attributes["name"], attributes["media-type"], attributes["size"]) == ("made.json", "application/json", 2)
    assert (attributes["partial"], len(attributes["sha256"])) == (False, 64)
    path = attributes["url"].removeprefix(world.app.config["PUBLIC_URL"])
    fetched = world.stranger.get(path)
    assert (fetched.data, fetched.mimetype) == (b"[]", "application/json")
    assert fetched.headers["Cache-Control"] == "private, no-cache"
    assert fetched.headers["Content-Disposition"].startswith("attachment; filename=made.json")
    assert world.owner.get(path).status_code == 404
    assert world.anonymous.get(path).status_code == 401
    assert world.stranger.get(f"/v1/job-artifacts/{NOBODY}/file").status_code == 404
    assert world.stranger.get("/v1/job-artifacts/1/file").status_code == 404


def test_kinds_are_listed_with_their_schemas(world: World) -> None:
    kinds = {each["id"]: each["attributes"] for each in data(world.stranger.get("/v1/job-kinds"))}

    assert kinds["sleep"]["dedupe"] == "none"
    assert kinds["sleep-once"]["dedupe"] == "once"
    assert kinds["sleep"]["parameters"]["required"] == ["seconds"]
    assert data(world.stranger.get("/v1/job-kinds/sleep"))["attributes"] == kinds["sleep"]
    assert world.stranger.get("/v1/job-kinds/none").status_code == 404
    assert world.stranger.get("/v1/job-kinds?page[size]=1").status_code == 400


# Progress


def stream(caller: Caller, job: Any, accept: str, **headers: str) -> TestResponse:
    """The whole stream of a job that has ended."""
    return caller.get(f"/v1/jobs/{job['id']}/progress", Accept=accept, **headers)


def elements(response: TestResponse) -> list[dict[str, Any]]:
    """The elements of a stream in any format."""
    text = response.get_data(as_text=True)
    if response.mimetype == "application/json":
        return list(orjson.loads(text))
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith(("data: ", "{"))]
    return [orjson.loads(line) for line in lines]


FORMATS = ("application/json", "application/x-ndjson", "text/event-stream")


@pytest.fixture
def ended(world: World) -> Any:
    """A job that has been run."""
    job = data(start(world.stranger))
    run(world.app, job)
    return job


@pytest.mark.parametrize("accept", FORMATS)
def test_the_stream_of_what_has_ended_is_its_last_event(world: World, ended: Any, accept: str) -> None:
    response = stream(world.stranger, ended, accept)

    assert response.mimetype == accept
    assert response.headers["X-Accel-Buffering"] == "no"
    (last,) = elements(response)
    assert (last["state"], last["fraction"]) == ("succeeded", 1)
    assert {"seq", "fraction", "message", "state"} <= last.keys()


@pytest.mark.parametrize("accept", FORMATS)
def test_everything_is_told_after_event_zero(world: World, ended: Any, accept: str) -> None:
    told = elements(stream(world.stranger, ended, accept, Last_Event_ID="0"))

    assert [each["seq"] for each in told] == list(range(1, len(told) + 1))
    assert told[0]["state"] == "running"
    assert told[-1]["state"] == "succeeded"


def test_who_knows_the_last_event_is_told_not_to_come_again(world: World, ended: Any) -> None:
    (last,) = elements(stream(world.stranger, ended, FORMATS[0]))

    answers = {each: stream(world.stranger, ended, each, Last_Event_ID=str(last["seq"])) for each in FORMATS}

    assert answers["text/event-stream"].status_code == 204
    assert elements(answers["application/json"]) == []
    assert answers["application/x-ndjson"].data == b""


@pytest.mark.parametrize("known", ["99", "-1", "abc", "1e3", "9" * 400, "", " ", NOBODY])
def test_an_event_that_never_was_is_400(world: World, ended: Any, known: str) -> None:
    response = stream(world.stranger, ended, "text/event-stream", Last_Event_ID=known)

    assert response.status_code == 400
    assert errors(response)[0]["source"] == {"header": "Last-Event-ID"}


@pytest.mark.parametrize("accept", ["text/html", "application/vnd.api+json", "image/png", "nonsense"])
def test_progress_in_another_format_is_406(world: World, ended: Any, accept: str) -> None:
    assert stream(world.stranger, ended, accept).status_code == 406


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream;q=0.5, application/json", "application/*"])
def test_whoever_takes_anything_gets_an_array(world: World, ended: Any, accept: str) -> None:
    assert stream(world.stranger, ended, accept).mimetype == "application/json"


def test_head_of_a_stream_is_its_headers(world: World, ended: Any) -> None:
    response = world.stranger.send("HEAD", f"/v1/jobs/{ended['id']}/progress", Accept="text/event-stream")

    assert (response.status_code, response.mimetype, response.data) == (200, "text/event-stream", b"")


def test_a_stream_follows_a_job_from_the_queue_to_its_end(world: World) -> None:
    job = data(start(world.stranger, seconds=0.3, steps=3))
    parts = stream(world.stranger, job, "application/json").iter_encoded()
    begun = next(parts) + next(parts)

    run(world.app, job)

    told = orjson.loads(begun + b"".join(parts))
    assert (told[0]["seq"], told[0]["state"]) == (0, "queued")
    assert [each["seq"] for each in told] == list(range(len(told)))
    assert told[-1]["state"] == "succeeded"
    assert len(told) - 1 == read(world.app, UUID(job["id"])).last_seq


def test_a_stream_ends_when_a_waiting_job_is_canceled(world: World) -> None:
    job = data(start(world.stranger))
    parts = stream(world.stranger, job, "application/x-ndjson").iter_encoded()
    begun = orjson.loads(next(parts))

    with world.app.app_context(), transaction(is_read=False):
        lifecycle.cancel(UUID(job["id"]))
        commit()

    assert (begun["state"], [orjson.loads(part)["state"] for part in parts]) == ("queued", ["canceled"])


def test_a_job_asked_for_by_a_command_has_no_owner(world: World) -> None:
    with world.app.app_context(), transaction(is_read=False):
        job = submission.submit("sleep", {"seconds": 0}, trigger="cli", owner_id=None).job
        commit()

    assert world.stranger.get(f"/v1/jobs/{job.id}").status_code == 404
    assert data(world.admin.get(f"/v1/jobs/{job.id}"))["relationships"]["owner"]["data"] is None


@pytest.mark.parametrize("accept", FORMATS)
def test_last_event_id_as_a_parameter_is_as_the_header(world: World, ended: Any, accept: str) -> None:
    (last,) = elements(stream(world.stranger, ended, "application/json"))
    path = f"/v1/jobs/{ended['id']}/progress"

    for known in range(last["seq"] + 1):
        by_header = world.stranger.get(path, Accept=accept, Last_Event_ID=str(known))
        by_parameter = world.stranger.get(f"{path}?lastEventId={known}", Accept=accept)
        both = world.stranger.get(f"{path}?lastEventId=0", Accept=accept, Last_Event_ID=str(known))
        assert by_header.status_code == by_parameter.status_code == both.status_code
        assert by_header.data == by_parameter.data == both.data

    at_the_end = world.stranger.get(f"{path}?lastEventId={last['seq']}", Accept="text/event-stream")
    assert at_the_end.status_code == 204


@pytest.mark.parametrize("known", ["99", "-1", "abc", "", "%20", "%D9%A1"])
def test_last_event_id_as_a_parameter_that_never_was_is_400(world: World, ended: Any, known: str) -> None:
    path = f"/v1/jobs/{ended['id']}/progress?lastEventId={known}"

    response = world.stranger.get(path, Accept="text/event-stream")

    assert (response.status_code, errors(response)[0]["source"]) == (400, {"parameter": "lastEventId"})
    assert world.stranger.get(path, Accept="text/event-stream", Last_Event_ID="0").status_code == 200


@pytest.mark.parametrize("query", ["lasteventid=1", "after=1", "lastEventId=0&lastEventId=1"])
def test_another_parameter_of_a_stream_is_400(world: World, ended: Any, query: str) -> None:
    response = world.stranger.get(f"/v1/jobs/{ended['id']}/progress?{query}", Accept="text/event-stream")

    assert (response.status_code, errors(response)[0]["source"]) == (400, {"parameter": query.partition("=")[0]})
