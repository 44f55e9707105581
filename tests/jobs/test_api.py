"""API of jobs: submission, deduplication, streams, cancellation, retry and permissions."""

from typing import Any
from uuid import UUID

import orjson
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.database import commit, open_transaction
from app.jobs import executor, lifecycle, submission
from app.jobs.models import Job
from tests.dataset import ApiClient, Dataset, get_data, get_errors, get_pointers
from tests.jobs import kinds as _kinds  # noqa: F401  # declares them
from tests.jobs.db_helpers import get_job

UNKNOWN_JOB_ID = "01900000-0000-7000-8000-000000000000"


def post_job(caller: ApiClient, kind: str = "sleep", **parameters: Any) -> TestResponse:
    """Submit a job; without parameters, one that sleeps 0 s."""
    given = parameters or {"seconds": 0, "steps": 1}
    return caller.create("/v1/jobs", "job", {"kind": kind, "parameters": given})


def execute_job(app: Flask, job: Any) -> None:
    """Run a job as a worker does."""
    with app.app_context():
        executor.run_job(UUID(job["id"]), "tests")


def get_state(caller: ApiClient, job: Any) -> str:
    """Return the state of a job in the API."""
    return str(get_data(caller.get(f"/v1/jobs/{job['id']}"))["attributes"]["state"])


def test_a_job_is_accepted_and_can_be_found(dataset: Dataset) -> None:
    response = post_job(dataset.stranger, seconds=0.5)

    assert response.status_code == 202
    job = get_data(response)
    url = f"{dataset.app.config['PUBLIC_URL']}/v1/jobs/{job['id']}"
    assert response.headers["Location"] == url
    assert response.headers["Content-Location"] == url
    assert response.headers["Retry-After"] == "1"
    attributes = job["attributes"]
    assert attributes["kind"] == "sleep"
    assert attributes["parameters"] == {"seconds": 0.5}
    assert (attributes["state"], attributes["attempt"], attributes["max-attempts"]) == ("queued", 0, 3)
    assert (attributes["progress"], attributes["queue-position"], attributes["trigger"]) == (None, 0, "api")
    assert job["relationships"]["owner"]["data"] == {"type": "user", "id": str(dataset.stranger.id)}
    assert job["relationships"]["event"]["data"] is None
    assert get_data(dataset.stranger.get(f"/v1/jobs/{job['id']}")) == job


def test_succeeded_job_has_result(dataset: Dataset) -> None:
    job = get_data(post_job(dataset.stranger))

    execute_job(dataset.app, job)

    attributes = get_data(dataset.stranger.get(f"/v1/jobs/{job['id']}"))["attributes"]
    assert (attributes["state"], attributes["progress"], attributes["attempt"]) == ("succeeded", 1, 1)
    assert (attributes["result"], attributes["error"], attributes["queue-position"]) == ({"slept": 0}, None, None)
    assert attributes["started-at"] <= attributes["finished-at"]
    events = get_data(dataset.stranger.get(f"/v1/jobs/{job['id']}/events"))
    assert [event["attributes"]["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {event["attributes"]["state"] for event in events} == {"running", "succeeded"}


def test_failed_job_has_error(dataset: Dataset) -> None:
    job = get_data(post_job(dataset.stranger, "tests-fail", breaks=False))

    execute_job(dataset.app, job)

    error = get_data(dataset.stranger.get(f"/v1/jobs/{job['id']}"))["attributes"]["error"]
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
def test_invalid_job_is_422_with_pointers(dataset: Dataset, attributes: Any, expected: set[str]) -> None:
    response = dataset.stranger.create("/v1/jobs", "job", attributes)

    assert response.status_code == 422
    assert get_pointers(response) == expected
    assert dataset.count_rows(Job) == 0


@pytest.mark.parametrize("name", ["state", "progress", "attempt", "owner-id", "result"])
def test_server_managed_attributes_are_refused(dataset: Dataset, name: str) -> None:
    response = dataset.stranger.create("/v1/jobs", "job", {"kind": "sleep", "parameters": {"seconds": 1}, name: "done"})

    assert response.status_code == (422 if name == "owner-id" else 403)
    assert get_pointers(response) == {f"/data/attributes/{name}"}
    assert dataset.count_rows(Job) == 0


def test_owner_cannot_be_set(dataset: Dataset) -> None:
    response = dataset.stranger.create("/v1/jobs", "job", {"kind": "sleep", "parameters": {"seconds": 1}}, owner=1)

    assert response.status_code == 403
    assert get_pointers(response) == {"/data/relationships/owner"}


@pytest.mark.parametrize("method", ["PATCH", "DELETE", "PUT"])
def test_a_job_is_not_changed_by_hand(dataset: Dataset, method: str) -> None:
    job = get_data(post_job(dataset.stranger))

    response = dataset.stranger.send(method, f"/v1/jobs/{job['id']}", {"data": {"type": "job", "id": job["id"]}})

    assert response.status_code == 405


def test_jobs_are_listed_newest_first_and_filtered(dataset: Dataset) -> None:
    first, second = (get_data(post_job(dataset.stranger)) for _ in range(2))
    other = get_data(post_job(dataset.stranger, "tests-fail", breaks=False))
    execute_job(dataset.app, first)

    def list_ids(query: str) -> list[str]:
        return [each["id"] for each in get_data(dataset.stranger.get(f"/v1/jobs{query}"))]

    assert list_ids("") == [other["id"], second["id"], first["id"]]
    assert list_ids("?filter[state]=queued") == [other["id"], second["id"]]
    assert list_ids("?filter[kind]=sleep") == [second["id"], first["id"]]
    assert list_ids("?filter[state]=succeeded&filter[kind]=sleep&include=events")[:1] == [first["id"]]


def test_a_job_is_its_owners_and_the_admins(dataset: Dataset) -> None:
    job = get_data(post_job(dataset.stranger))
    urls = [f"/v1/jobs/{job['id']}{below}" for below in ("", "/events", "/artifacts", "/progress", "/owner")]

    assert [dataset.owner.get(url).status_code for url in urls] == [404] * 5
    assert [dataset.anonymous.get(url).status_code for url in urls] == [401, 401, 401, 401, 404]
    assert get_data(dataset.owner.get("/v1/jobs")) == []
    assert dataset.anonymous.get("/v1/jobs").status_code == 401
    assert dataset.anonymous.create("/v1/jobs", "job", {"kind": "sleep"}).status_code == 401
    for command in ("cancel", "retry"):
        assert dataset.owner.send("POST", f"/v1/jobs/{job['id']}/{command}").status_code == 404
        assert dataset.anonymous.send("POST", f"/v1/jobs/{job['id']}/{command}").status_code == 401
    execute_job(dataset.app, job)
    assert {dataset.admin.get(url).status_code for url in urls} == {200}
    (event, *_) = get_data(dataset.stranger.get(f"/v1/jobs/{job['id']}/events"))
    assert dataset.stranger.get(f"/v1/job-events/{event['id']}").status_code == 200
    assert dataset.owner.get(f"/v1/job-events/{event['id']}").status_code == 404


@pytest.mark.parametrize(
    "id_", [UNKNOWN_JOB_ID, "1", "abc", "0" * 400, "%00", UNKNOWN_JOB_ID.upper().replace("0", "a")]
)
def test_an_unknown_id_is_404(dataset: Dataset, id_: str) -> None:
    for below in ("", "/events", "/progress"):
        assert dataset.admin.get(f"/v1/jobs/{id_}{below}").status_code == 404
    for command in ("cancel", "retry"):
        assert dataset.admin.send("POST", f"/v1/jobs/{id_}/{command}").status_code == 404


def test_queue_position_counts_running_and_earlier_jobs(dataset: Dataset) -> None:
    jobs = [get_data(post_job(dataset.stranger)) for _ in range(3)]
    with dataset.app.app_context(), open_transaction(is_read=False):
        lifecycle.claim_job(UUID(jobs[2]["id"]), "tests", executor._get_lease())
        commit()

    positions = {
        each["id"]: each["attributes"]["queue-position"] for each in get_data(dataset.stranger.get("/v1/jobs"))
    }

    assert [positions[job["id"]] for job in jobs] == [1, 2, None]


def test_the_same_key_makes_one_job(dataset: Dataset) -> None:
    document = {"data": {"type": "job", "attributes": {"kind": "sleep", "parameters": {"seconds": 1}}}}

    first = dataset.stranger.send("POST", "/v1/jobs", document, Idempotency_Key="a key")
    again = dataset.stranger.send("POST", "/v1/jobs", document, Idempotency_Key="a key")

    assert first.status_code == 400  # a space is no visible character
    first = dataset.stranger.send("POST", "/v1/jobs", document, Idempotency_Key="one")
    again = dataset.stranger.send("POST", "/v1/jobs", document, Idempotency_Key="one")
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.headers["Idempotent-Replayed"] == "true"
    for header in ("Location", "Content-Location", "Retry-After"):
        assert again.headers[header] == first.headers[header]
    assert dataset.count_rows(Job) == 1


def test_once_returns_active_or_succeeded_job(dataset: Dataset) -> None:
    job = get_data(post_job(dataset.stranger, "sleep-once", seconds=0))

    joined = post_job(dataset.stranger, "sleep-once", seconds=0)
    others = post_job(dataset.owner, "sleep-once", seconds=0)
    execute_job(dataset.app, job)
    done = post_job(dataset.stranger, "sleep-once", seconds=0)

    assert (joined.status_code, get_data(joined)["id"]) == (202, job["id"])
    assert get_data(others)["id"] != job["id"]
    assert (done.status_code, get_data(done)["id"]) == (200, job["id"])
    assert done.headers["Location"].endswith(job["id"])


def test_1_and_1_0_are_the_same_number(dataset: Dataset) -> None:
    job = get_data(post_job(dataset.stranger, "sleep-once", seconds=1, steps=1.0))

    assert job["attributes"]["parameters"] == {"seconds": 1, "steps": 1}
    assert get_data(post_job(dataset.stranger, "sleep-once", seconds=1.0, steps=1))["id"] == job["id"]


def test_every_missing_or_unknown_parameter_is_reported(dataset: Dataset) -> None:
    response = post_job(dataset.stranger, "sleep", a=1, b=2)

    assert get_pointers(response) == {f"/data/attributes/parameters/{name}" for name in ("a", "b", "seconds")}


def test_single_flight_returns_active_job_only(dataset: Dataset) -> None:
    job = get_data(post_job(dataset.stranger, "sleep-single-flight", seconds=0))

    joined = post_job(dataset.stranger, "sleep-single-flight", seconds=0)
    execute_job(dataset.app, job)
    another = post_job(dataset.stranger, "sleep-single-flight", seconds=0)

    assert get_data(joined)["id"] == job["id"]
    assert (another.status_code, get_data(another)["id"] == job["id"]) == (202, False)


def test_cancel_of_queued_job_ends_it_at_once_and_second_cancel_is_409(dataset: Dataset) -> None:
    job = get_data(post_job(dataset.stranger))

    canceled = dataset.stranger.send("POST", f"/v1/jobs/{job['id']}/cancel")
    again = dataset.stranger.send("POST", f"/v1/jobs/{job['id']}/cancel")

    assert (canceled.status_code, get_data(canceled)["attributes"]["state"]) == (202, "canceled")
    assert again.status_code == 409
    execute_job(dataset.app, job)
    assert get_state(dataset.stranger, job) == "canceled"


def test_cancel_of_running_job_can_be_repeated(dataset: Dataset) -> None:
    job = get_data(post_job(dataset.stranger))
    with dataset.app.app_context(), open_transaction(is_read=False):
        lifecycle.claim_job(UUID(job["id"]), "tests", executor._get_lease())
        commit()

    answers = [dataset.stranger.send("POST", f"/v1/jobs/{job['id']}/cancel") for _ in range(2)]

    assert [each.status_code for each in answers] == [202, 202]
    assert [get_data(each)["attributes"]["state"] for each in answers] == ["canceling", "canceling"]
    assert len(get_data(dataset.stranger.get(f"/v1/jobs/{job['id']}/events"))) == 2


def test_retry_of_ended_job_creates_new_job(dataset: Dataset) -> None:
    job = get_data(post_job(dataset.stranger, "tests-fail", breaks=False))
    early = dataset.stranger.send("POST", f"/v1/jobs/{job['id']}/retry")
    execute_job(dataset.app, job)

    response = dataset.admin.send("POST", f"/v1/jobs/{job['id']}/retry")

    assert early.status_code == 409
    assert response.status_code == 202
    again = get_data(response)
    assert again["relationships"]["retry-of"]["data"] == {"type": "job", "id": job["id"]}
    assert again["attributes"]["trigger"] == "retry"
    assert again["attributes"]["parameters"] == {"breaks": False}
    assert again["relationships"]["owner"]["data"]["id"] == str(dataset.stranger.id)


def test_retry_of_succeeded_once_job_runs_again(dataset: Dataset) -> None:
    job = get_data(post_job(dataset.stranger, "sleep-once", seconds=0))
    execute_job(dataset.app, job)

    again = get_data(dataset.stranger.send("POST", f"/v1/jobs/{job['id']}/retry"))

    assert (again["id"] == job["id"], again["attributes"]["state"]) == (False, "queued")


def test_artifact_is_downloaded_by_users_who_may_read_its_job(dataset: Dataset) -> None:
    job = get_data(post_job(dataset.stranger, "tests-make", any=1))
    execute_job(dataset.app, job)

    (artifact,) = get_data(dataset.stranger.get(f"/v1/jobs/{job['id']}/artifacts"))

    attributes = artifact["attributes"]
    assert (attributes["name"], attributes["media-type"], attributes["size"]) == ("made.json", "application/json", 2)
    assert (attributes["partial"], len(attributes["sha256"])) == (False, 64)
    path = attributes["url"].removeprefix(dataset.app.config["PUBLIC_URL"])
    fetched = dataset.stranger.get(path)
    assert (fetched.data, fetched.mimetype) == (b"[]", "application/json")
    assert fetched.headers["Cache-Control"] == "private, no-cache"
    assert fetched.headers["Content-Disposition"].startswith("attachment; filename=made.json")
    assert dataset.owner.get(path).status_code == 404
    assert dataset.anonymous.get(path).status_code == 401
    assert dataset.stranger.get(f"/v1/job-artifacts/{UNKNOWN_JOB_ID}/file").status_code == 404
    assert dataset.stranger.get("/v1/job-artifacts/1/file").status_code == 404


def test_kinds_are_listed_with_their_schemas(dataset: Dataset) -> None:
    kinds = {each["id"]: each["attributes"] for each in get_data(dataset.stranger.get("/v1/job-kinds"))}

    assert kinds["sleep"]["dedupe"] == "none"
    assert kinds["sleep-once"]["dedupe"] == "once"
    assert kinds["sleep"]["parameters"]["required"] == ["seconds"]
    assert get_data(dataset.stranger.get("/v1/job-kinds/sleep"))["attributes"] == kinds["sleep"]
    assert dataset.stranger.get("/v1/job-kinds/none").status_code == 404
    assert dataset.stranger.get("/v1/job-kinds?page[size]=1").status_code == 400


# Progress


def get_stream(caller: ApiClient, job: Any, accept: str, **headers: str) -> TestResponse:
    """Return the whole stream of a job that has ended."""
    return caller.get(f"/v1/jobs/{job['id']}/progress", Accept=accept, **headers)


def parse_elements(response: TestResponse) -> list[dict[str, Any]]:
    """Return the events of a stream in any format."""
    text = response.get_data(as_text=True)
    if response.mimetype == "application/json":
        return list(orjson.loads(text))
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith(("data: ", "{"))]
    return [orjson.loads(line) for line in lines]


FORMATS = ("application/json", "application/x-ndjson", "text/event-stream")


@pytest.fixture
def terminal_job(dataset: Dataset) -> Any:
    """Return the resource object of a job that has succeeded."""
    job = get_data(post_job(dataset.stranger))
    execute_job(dataset.app, job)
    return job


@pytest.mark.parametrize("accept", FORMATS)
def test_stream_of_ended_job_is_its_last_event(dataset: Dataset, terminal_job: Any, accept: str) -> None:
    response = get_stream(dataset.stranger, terminal_job, accept)

    assert response.mimetype == accept
    assert response.headers["X-Accel-Buffering"] == "no"
    (last,) = parse_elements(response)
    assert (last["state"], last["fraction"]) == ("succeeded", 1)
    assert {"seq", "fraction", "message", "state"} <= last.keys()


@pytest.mark.parametrize("accept", FORMATS)
def test_stream_after_event_zero_sends_all_events(dataset: Dataset, terminal_job: Any, accept: str) -> None:
    events = parse_elements(get_stream(dataset.stranger, terminal_job, accept, Last_Event_ID="0"))

    assert [each["seq"] for each in events] == list(range(1, len(events) + 1))
    assert events[0]["state"] == "running"
    assert events[-1]["state"] == "succeeded"


def test_stream_after_last_event_is_204_or_empty(dataset: Dataset, terminal_job: Any) -> None:
    (last,) = parse_elements(get_stream(dataset.stranger, terminal_job, FORMATS[0]))

    answers = {
        each: get_stream(dataset.stranger, terminal_job, each, Last_Event_ID=str(last["seq"])) for each in FORMATS
    }

    assert answers["text/event-stream"].status_code == 204
    assert parse_elements(answers["application/json"]) == []
    assert answers["application/x-ndjson"].data == b""


@pytest.mark.parametrize("known", ["99", "-1", "abc", "1e3", "9" * 400, "", " ", UNKNOWN_JOB_ID])
def test_unknown_last_event_id_is_400(dataset: Dataset, terminal_job: Any, known: str) -> None:
    response = get_stream(dataset.stranger, terminal_job, "text/event-stream", Last_Event_ID=known)

    assert response.status_code == 400
    assert get_errors(response)[0]["source"] == {"header": "Last-Event-ID"}


@pytest.mark.parametrize("accept", ["text/html", "application/vnd.api+json", "image/png", "nonsense"])
def test_progress_in_another_format_is_406(dataset: Dataset, terminal_job: Any, accept: str) -> None:
    assert get_stream(dataset.stranger, terminal_job, accept).status_code == 406


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream;q=0.5, application/json", "application/*"])
def test_stream_accept_any_is_json_array(dataset: Dataset, terminal_job: Any, accept: str) -> None:
    assert get_stream(dataset.stranger, terminal_job, accept).mimetype == "application/json"


def test_head_of_a_stream_is_its_headers(dataset: Dataset, terminal_job: Any) -> None:
    response = dataset.stranger.send("HEAD", f"/v1/jobs/{terminal_job['id']}/progress", Accept="text/event-stream")

    assert (response.status_code, response.mimetype, response.data) == (200, "text/event-stream", b"")


def test_a_stream_follows_a_job_from_the_queue_to_its_end(dataset: Dataset) -> None:
    job = get_data(post_job(dataset.stranger, seconds=0.3, steps=3))
    parts = get_stream(dataset.stranger, job, "application/json").iter_encoded()
    begun = next(parts) + next(parts)

    execute_job(dataset.app, job)

    events = orjson.loads(begun + b"".join(parts))
    assert (events[0]["seq"], events[0]["state"]) == (0, "queued")
    assert [each["seq"] for each in events] == list(range(len(events)))
    assert events[-1]["state"] == "succeeded"
    assert len(events) - 1 == get_job(dataset.app, UUID(job["id"])).last_seq


def test_a_stream_ends_when_a_waiting_job_is_canceled(dataset: Dataset) -> None:
    job = get_data(post_job(dataset.stranger))
    parts = get_stream(dataset.stranger, job, "application/x-ndjson").iter_encoded()
    begun = orjson.loads(next(parts))

    with dataset.app.app_context(), open_transaction(is_read=False):
        lifecycle.cancel_job(UUID(job["id"]))
        commit()

    assert (begun["state"], [orjson.loads(part)["state"] for part in parts]) == ("queued", ["canceled"])


def test_job_submitted_by_command_has_no_owner(dataset: Dataset) -> None:
    with dataset.app.app_context(), open_transaction(is_read=False):
        job = submission.submit_job("sleep", {"seconds": 0}, trigger="cli", owner_id=None).job
        commit()

    assert dataset.stranger.get(f"/v1/jobs/{job.id}").status_code == 404
    assert get_data(dataset.admin.get(f"/v1/jobs/{job.id}"))["relationships"]["owner"]["data"] is None


@pytest.mark.parametrize("accept", FORMATS)
def test_last_event_id_as_a_parameter_is_as_the_header(dataset: Dataset, terminal_job: Any, accept: str) -> None:
    (last,) = parse_elements(get_stream(dataset.stranger, terminal_job, "application/json"))
    path = f"/v1/jobs/{terminal_job['id']}/progress"

    for known in range(last["seq"] + 1):
        by_header = dataset.stranger.get(path, Accept=accept, Last_Event_ID=str(known))
        by_parameter = dataset.stranger.get(f"{path}?lastEventId={known}", Accept=accept)
        both = dataset.stranger.get(f"{path}?lastEventId=0", Accept=accept, Last_Event_ID=str(known))
        assert by_header.status_code == by_parameter.status_code == both.status_code
        assert by_header.data == by_parameter.data == both.data

    at_the_end = dataset.stranger.get(f"{path}?lastEventId={last['seq']}", Accept="text/event-stream")
    assert at_the_end.status_code == 204


@pytest.mark.parametrize("known", ["99", "-1", "abc", "", "%20", "%D9%A1"])
def test_unknown_last_event_id_parameter_is_400(dataset: Dataset, terminal_job: Any, known: str) -> None:
    path = f"/v1/jobs/{terminal_job['id']}/progress?lastEventId={known}"

    response = dataset.stranger.get(path, Accept="text/event-stream")

    assert (response.status_code, get_errors(response)[0]["source"]) == (400, {"parameter": "lastEventId"})
    assert dataset.stranger.get(path, Accept="text/event-stream", Last_Event_ID="0").status_code == 200


@pytest.mark.parametrize("query", ["lasteventid=1", "after=1", "lastEventId=0&lastEventId=1"])
def test_another_parameter_of_a_stream_is_400(dataset: Dataset, terminal_job: Any, query: str) -> None:
    response = dataset.stranger.get(f"/v1/jobs/{terminal_job['id']}/progress?{query}", Accept="text/event-stream")

    assert (response.status_code, get_errors(response)[0]["source"]) == (400, {"parameter": query.partition("=")[0]})
