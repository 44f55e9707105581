"""POST /v1/hooks/{token}: jobs that calls start, and errors of calls."""

import json
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import delete, text, update

from app.events.models import EventRole
from app.extensions import db
from app.hooks.models import Hook
from app.jobs import executor
from app.jobs.kinds import MAX_PARAMETERS_BYTES
from app.jobs.models import Job
from app.storage import current_storage
from app.users.models import User
from tests.dataset import ApiClient, Dataset, get_data, get_errors, get_pointers
from tests.hooks.requests import build_signed_headers, call_hook, create_hook, get_hook_path, get_job_id
from tests.images.sample_images import BLUE, encode_image, make_plain_image
from tests.jobs import kinds as _kinds  # noqa: F401  # declares them
from tests.jobs.db_helpers import get_job


def execute_job(dataset: Dataset, job_id: str) -> None:
    """Execute a job like a worker."""
    with dataset.app.app_context():
        executor.run_job(UUID(job_id), "tests")


def execute_statement(dataset: Dataset, statement: Any) -> None:
    """Execute and commit a statement, like a concurrent change."""
    with dataset.app.app_context():
        db.session.execute(statement)
        db.session.commit()


def test_a_call_starts_a_job_of_the_owners(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger)

    response = call_hook(dataset.app, hook)

    assert response.status_code == 202
    job_id = get_job_id(response)
    url = f"{dataset.app.config['PUBLIC_URL']}/v1/jobs/{job_id}"
    assert response.get_json() == {"job": {"id": job_id, "state": "queued", "url": url}}
    assert response.mimetype == "application/json"
    assert (response.headers["Location"], response.headers["Content-Location"]) == (url, url)
    assert response.headers["Retry-After"] == "1"
    job = get_data(dataset.stranger.get(f"/v1/jobs/{job_id}"))
    assert (job["attributes"]["kind"], job["attributes"]["trigger"]) == ("sleep", "hook")
    assert job["attributes"]["parameters"] == {"seconds": 0}
    assert job["relationships"]["owner"]["data"] == {"type": "user", "id": str(dataset.stranger.id)}
    assert dataset.owner.get(f"/v1/jobs/{job_id}").status_code == 404


def test_a_job_that_was_started_by_a_call_runs(dataset: Dataset) -> None:
    job_id = get_job_id(call_hook(dataset.app, create_hook(dataset.stranger)))

    execute_job(dataset, job_id)

    assert get_job(dataset.app, UUID(job_id)).state == "succeeded"


@pytest.mark.parametrize("allowed", [None, ["steps"], ["steps", "more"]])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (None, {"seconds": 0}),
        (b"", {"seconds": 0}),
        ({}, {"seconds": 0}),
        ({"steps": 5}, {"seconds": 0, "steps": 5}),
        ({"seconds": 0, "steps": 2}, {"seconds": 0, "steps": 2}),
    ],
)
def test_a_call_sets_what_the_hook_allows(dataset: Dataset, allowed: Any, body: Any, expected: Any) -> None:
    hook = create_hook(dataset.stranger, parameters={"seconds": 0}, allowed_parameters=allowed)

    job_id = get_job_id(call_hook(dataset.app, hook, body))

    assert get_job(dataset.app, UUID(job_id)).parameters == expected
    assert get_data(dataset.stranger.get(f"/v1/hooks/{hook['id']}"))["attributes"]["parameters"] == {"seconds": 0}


@pytest.mark.parametrize("allowed", [None, [], ["steps"]])
def test_a_call_does_not_change_a_fixed_parameter(dataset: Dataset, allowed: Any) -> None:
    hook = create_hook(dataset.stranger, parameters={"seconds": 0}, allowed_parameters=allowed)

    refused = call_hook(dataset.app, hook, {"seconds": 3600})

    assert (refused.status_code, get_pointers(refused)) == (422, {"/seconds"})
    assert get_errors(refused)[0]["code"] == "fixed-parameter"
    assert dataset.count_rows(Job) == 0


@pytest.mark.parametrize(("fixed", "sent"), [(int, str), (str, int), (str, str), (int, int)])
def test_a_call_repeats_a_fixed_id_as_a_text_or_a_number(dataset: Dataset, fixed: Any, sent: Any) -> None:
    event_id = dataset.events["published"]
    hook = create_hook(dataset.owner, "event-archive", {"event": fixed(event_id)})

    assert call_hook(dataset.app, hook, {"event": sent(event_id)}).status_code == 202
    refused = call_hook(dataset.app, hook, {"event": sent(dataset.events["draft"])})
    assert (refused.status_code, get_errors(refused)[0]["code"]) == (422, "fixed-parameter")


@pytest.mark.parametrize("allowed", [[], ["more"]])
def test_a_call_sets_no_parameter_that_is_not_in_the_list(dataset: Dataset, allowed: Any) -> None:
    hook = create_hook(dataset.stranger, parameters={"seconds": 0}, allowed_parameters=allowed)

    refused = call_hook(dataset.app, hook, {"steps": 2, "a/b": 1})

    assert (refused.status_code, get_pointers(refused)) == (422, {"/steps", "/a~1b"})
    assert {error["code"] for error in get_errors(refused)} == {"parameter-not-allowed"}
    assert dataset.count_rows(Job) == 0


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", None])
def test_json_is_taken_under_any_of_its_names(dataset: Dataset, content_type: str | None) -> None:
    hook = create_hook(dataset.stranger)
    more = {} if content_type is None else {"Content_Type": content_type}

    response = call_hook(dataset.app, hook, b'{"steps": 7}', **more)

    assert get_job(dataset.app, UUID(get_job_id(response))).parameters["steps"] == 7


@pytest.mark.parametrize("content_type", ["text/plain", "image/png", "application/xml", "nonsense"])
def test_another_media_type_is_415(dataset: Dataset, content_type: str) -> None:
    hook = create_hook(dataset.stranger)

    response = call_hook(dataset.app, hook, b'{"steps": 7}', Content_Type=content_type)

    assert response.status_code == 415
    assert call_hook(dataset.app, hook, b"", Content_Type=content_type).status_code == 202  # there is nothing to read
    assert dataset.count_rows(Job) == 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"seconds": "2"}, {"/seconds"}),
        ({"seconds": -1, "steps": 0}, {"/seconds", "/steps"}),
        ({"seconds": None}, {"/seconds"}),
        ({"seconds": 0, "a/b": 1}, {"/a~1b"}),
        ({"seconds": 0, "x" * 10_000: 1}, {f"/{'x' * 10_000}"}),
        ({"seconds": "\x00"}, {"/seconds"}),
        ([], {""}),
        (b"null", {""}),
        (b'"text"', {""}),
        (b'{"seconds": "\\ud800"}', {"/seconds"}),
        ({"seconds": 1, "steps": 10**15}, {"/steps"}),
    ],
)
def test_bad_parameters_are_422_with_pointers_into_the_body(dataset: Dataset, body: Any, expected: set[str]) -> None:
    response = call_hook(dataset.app, create_hook(dataset.stranger, parameters={}), body)

    assert response.status_code == 422
    assert get_pointers(response) == expected
    assert not any("meta" in error for error in get_errors(response))
    assert dataset.count_rows(Job) == 0


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b" ",
        b"\xff",
        b'{"a": NaN}',
        b'{"seconds": 1e400}',
        b'{"seconds": 1' + b"0" * 400 + b"}",
        b'{"a": ' * 5000,
        b"[" * 40 + b"]" * 40,
    ],
)
def test_invalid_json_is_400(dataset: Dataset, body: bytes) -> None:
    response = call_hook(dataset.app, create_hook(dataset.stranger), body, Content_Type="application/json")

    assert response.status_code == 400
    assert dataset.count_rows(Job) == 0


def test_parameter_missing_in_hook_and_body_is_422(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger, parameters={"steps": 2})

    refused = call_hook(dataset.app, hook)
    complete = call_hook(dataset.app, hook, {"seconds": 0})

    assert (refused.status_code, get_pointers(refused)) == (422, {"/seconds"})
    assert complete.status_code == 202


def test_64_kib_are_enough(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger, "tests-linger", {"fixed": "x" * 40_000})

    assert call_hook(dataset.app, hook, {"more": "x" * 20_000}).status_code == 202
    together = call_hook(dataset.app, hook, {"more": "x" * 30_000})
    alone = call_hook(dataset.app, hook, {"more": "x" * 66_000})

    assert (together.status_code, get_pointers(together)) == (422, {""})
    assert alone.status_code == 413
    assert dataset.count_rows(Job) == 1


def test_an_unknown_query_parameter_is_400(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger)
    hook["attributes"]["url"] += "?steps=5"

    assert call_hook(dataset.app, hook).status_code == 400


def test_a_trailing_slash_changes_nothing(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger)
    hook["attributes"]["url"] += "/"

    assert call_hook(dataset.app, hook).status_code == 202


def test_call_ignores_access_token(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger)

    response = dataset.owner.send("POST", get_hook_path(hook))

    owner = get_data(dataset.stranger.get(f"/v1/jobs/{get_job_id(response)}"))["relationships"]["owner"]["data"]
    assert owner == {"type": "user", "id": str(dataset.stranger.id)}
    assert call_hook(dataset.app, hook, Authorization="JWT nonsense").status_code == 202


# Who may not


def normalize_response(response: Any) -> Any:
    """Return a response without the parts that differ each time."""
    (error,) = get_errors(response)
    del error["id"]
    return response.status_code, error


def call_unknown_hook(dataset: Dataset) -> Any:
    """Call a hook with an unknown token."""
    return normalize_response(dataset.app.test_client().post(f"/v1/hooks/{'A' * 43}"))


@pytest.mark.parametrize("token", ["1", "0", "a", "A" * 42, "A" * 44, "%C3%A4" * 43, "%00", "." * 43, "A" * 5000])
def test_invalid_token_is_404(dataset: Dataset, token: str) -> None:
    response = dataset.app.test_client().post(f"/v1/hooks/{token}")

    assert normalize_response(response) == call_unknown_hook(dataset)
    assert response.status_code == 404
    assert token not in response.text or token in ("0", "1", "a")


@pytest.mark.parametrize("end", ["disabled", "deleted", "blocked owner", "deleted owner", "no such kind"])
def test_unusable_hook_answers_like_unknown_token(dataset: Dataset, end: str) -> None:
    hook = create_hook(dataset.stranger)
    path = f"/v1/hooks/{hook['id']}"
    {
        "disabled": lambda: dataset.stranger.update(path, "hook", {"enabled": False}),
        "deleted": lambda: dataset.stranger.delete(path),
        "blocked owner": lambda: dataset.admin.update(f"/v1/users/{dataset.stranger.id}", "user", {"is-blocked": True}),
        "deleted owner": lambda: dataset.stranger.delete(f"/v1/users/{dataset.stranger.id}"),
        "no such kind": lambda: execute_statement(dataset, update(Hook).values(kind="gone")),
    }[end]()

    assert normalize_response(call_hook(dataset.app, hook)) == call_unknown_hook(dataset)
    assert normalize_response(call_hook(dataset.app, hook, b"{")) == call_unknown_hook(dataset)
    assert dataset.count_rows(Job) == 0


def test_a_kind_that_production_does_not_run_is_as_unknown(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = create_hook(dataset.stranger)
    monkeypatch.setitem(dataset.app.config, "APP_ENV", "production")

    assert normalize_response(call_hook(dataset.app, hook)) == call_unknown_hook(dataset)


def test_a_hook_does_what_its_owner_may_do_now(dataset: Dataset) -> None:
    event = dataset.events["published"]
    hook = create_hook(dataset.coorganizer, "import-images", {"event": event})
    may = call_hook(dataset.app, hook)
    mine = (EventRole.event_id == event, EventRole.user_id == dataset.coorganizer.id)

    execute_statement(dataset, delete(EventRole).where(*mine))
    may_not = call_hook(dataset.app, hook)

    assert may.status_code == 202
    assert normalize_response(may_not) == call_unknown_hook(dataset)


def test_a_hook_of_an_admin_does_what_he_may_do_now(dataset: Dataset) -> None:
    hook = create_hook(dataset.admin, "import-images", {"event": dataset.events["others"]})
    may = call_hook(dataset.app, hook)

    execute_statement(dataset, update(User).where(User.id == dataset.admin.id).values(is_admin=False))

    assert may.status_code == 202
    assert normalize_response(call_hook(dataset.app, hook)) == call_unknown_hook(dataset)


def test_an_event_in_the_trash_ends_its_hooks(dataset: Dataset) -> None:
    hook = create_hook(dataset.owner, "import-images", {"event": dataset.events["published"]})

    dataset.owner.delete(f"/v1/events/{dataset.events['published']}")

    assert normalize_response(call_hook(dataset.app, hook)) == call_unknown_hook(dataset)


@pytest.mark.parametrize("state", ["others", "trashed", "none"])
def test_the_body_names_no_event_but_the_owners(dataset: Dataset, state: str) -> None:
    hook = create_hook(dataset.owner, "import-images", {})
    event = dataset.events.get(state, 999_999_999)

    assert normalize_response(call_hook(dataset.app, hook, {"event": event})) == call_unknown_hook(dataset)
    assert dataset.count_rows(Job) == 0


# The same again


def test_the_same_again_is_the_same_job_where_the_kind_says_once(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger, "sleep-once")

    first, again = call_hook(dataset.app, hook), call_hook(dataset.app, hook)
    execute_job(dataset, get_job_id(first))
    done = call_hook(dataset.app, hook)
    other = call_hook(dataset.app, hook, {"steps": 2})

    assert get_job_id(first) == get_job_id(again) == get_job_id(done)
    assert (again.status_code, done.status_code, done.get_json()["job"]["state"]) == (202, 200, "succeeded")
    assert done.headers["Location"].endswith(get_job_id(first))
    assert get_job_id(other) != get_job_id(first)


def test_single_flight_joins_what_lives(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger, "sleep-single-flight")

    first, joined = call_hook(dataset.app, hook), call_hook(dataset.app, hook)
    execute_job(dataset, get_job_id(first))
    later = call_hook(dataset.app, hook)

    assert get_job_id(first) == get_job_id(joined)
    assert get_job_id(later) != get_job_id(first)


def test_every_call_is_a_job_where_the_kind_says_nothing(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger)

    assert len({get_job_id(call_hook(dataset.app, hook, webhook_id="msg_1")) for _ in range(3)}) == 3


def test_a_key_makes_one_job_of_two_calls(dataset: Dataset) -> None:
    hook, other = create_hook(dataset.stranger), create_hook(dataset.stranger)

    first = call_hook(dataset.app, hook, {"steps": 2}, Idempotency_Key="one")
    again = call_hook(dataset.app, hook, {"steps": 2}, Idempotency_Key="one")

    assert (get_job_id(again), again.headers["Idempotent-Replayed"]) == (get_job_id(first), "true")
    for header in ("Location", "Content-Location", "Retry-After", "Content-Type"):
        assert again.headers[header] == first.headers[header]
    assert get_job_id(call_hook(dataset.app, other, {"steps": 2}, Idempotency_Key="one")) != get_job_id(first)
    refused = call_hook(dataset.app, hook, {"steps": 3}, Idempotency_Key="one")
    assert (refused.status_code, get_errors(refused)[0]["source"]) == (422, {"header": "Idempotency-Key"})
    assert call_hook(dataset.app, hook, Idempotency_Key="a b").status_code == 400
    assert dataset.count_rows(Job) == 2


def test_the_keys_of_callers_are_not_the_owners(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger)
    document = {"data": {"type": "job", "attributes": {"kind": "sleep", "parameters": {"seconds": 1}}}}

    own = dataset.stranger.send("POST", "/v1/jobs", document, Idempotency_Key="one")
    called = call_hook(dataset.app, hook, Idempotency_Key="one")

    assert (own.status_code, called.status_code) == (202, 202)
    assert dataset.count_rows(Job) == 2


def test_new_images_behind_the_same_url_are_a_new_job(dataset: Dataset) -> None:
    hook = create_hook(dataset.coorganizer, "import-images", {"event": dataset.events["published"]})
    inbox = f"inbox/{dataset.identifiers['published']}"

    def leave(name: str, content: bytes) -> None:
        with dataset.app.app_context():
            current_storage().put(f"{inbox}/{name}", content, "image/png")

    leave("red.png", encode_image(make_plain_image(40, 20), "png"))
    first = call_hook(dataset.app, hook)
    execute_job(dataset, get_job_id(first))
    same = call_hook(dataset.app, hook)
    leave("blue.png", encode_image(make_plain_image(40, 20, BLUE), "png"))
    new = call_hook(dataset.app, hook)
    execute_job(dataset, get_job_id(new))

    assert (first.status_code, same.status_code, new.status_code) == (202, 200, 202)
    assert get_job_id(first) == get_job_id(same)
    assert get_job_id(new) != get_job_id(first)
    names = [each["attributes"]["name"] for each in list_images(dataset.coorganizer, dataset)]
    assert sorted(names) == ["blue.png", "published.jpg", "red.png"]
    result = get_data(dataset.coorganizer.get(f"/v1/jobs/{get_job_id(new)}"))["attributes"]["result"]
    assert (result["imported"], result["known"]) == (1, 1)


def list_images(caller: ApiClient, dataset: Dataset) -> Any:
    """Return the gallery of the published event."""
    return get_data(caller.get(f"/v1/events/{dataset.events['published']}/images"))


# When it was last called


def get_last_called_at(dataset: Dataset, hook: Any) -> str | None:
    """Return the last call of a hook, as its owner reads it."""
    at: str | None = get_data(dataset.stranger.get(f"/v1/hooks/{hook['id']}"))["attributes"]["last-called-at"]
    return at


def test_a_call_is_noted_once_a_minute(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger)
    before = get_last_called_at(dataset, hook)

    call_hook(dataset.app, hook)
    first = get_last_called_at(dataset, hook)
    call_hook(dataset.app, hook)
    second = get_last_called_at(dataset, hook)
    execute_statement(dataset, text("UPDATE hooks SET last_called_at = last_called_at - interval '61 seconds'"))
    call_hook(dataset.app, hook)

    assert before is None
    assert first is not None
    assert second == first
    assert str(get_last_called_at(dataset, hook)) > first


def test_a_refused_call_is_not_noted(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger)

    call_hook(dataset.app, hook, {"seconds": -1})

    assert get_last_called_at(dataset, hook) is None


def test_a_call_waits_for_nobody_who_changes_the_hook(dataset: Dataset, servers: dict[str, str]) -> None:
    hook = create_hook(dataset.stranger)
    with psycopg.connect(servers["DATABASE_URL"]) as other:
        other.execute("SELECT 1 FROM hooks WHERE id = %s FOR UPDATE", (hook["id"],))

        response = call_hook(dataset.app, hook)

        assert response.status_code == 202
    assert get_last_called_at(dataset, hook) is None


@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_only_a_post_is_a_call(dataset: Dataset, method: str) -> None:
    hook = create_hook(dataset.stranger)

    dataset.app.test_client().open(get_hook_path(hook), method=method)

    assert dataset.count_rows(Job) == 0


FORM = "application/x-www-form-urlencoded"


def encode_form(members: Any) -> bytes:
    """Return a form like that of a GitHub webhook with the default content type."""
    return urlencode({"payload": json.dumps(members)}).encode()


@pytest.mark.parametrize("content_type", [FORM, f"{FORM}; charset=utf-8", FORM.upper()])
def test_form_body_its_payload_is_the_parameters(dataset: Dataset, content_type: str) -> None:
    hook = create_hook(dataset.stranger)

    answer = call_hook(dataset.app, hook, encode_form({"steps": 3}), Content_Type=content_type)

    job = get_data(dataset.stranger.get(f"/v1/jobs/{get_job_id(answer)}"))
    assert job["attributes"]["parameters"] == {"seconds": 0, "steps": 3}


def test_form_body_is_signed_as_it_is_sent(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger, signed=True)
    body = encode_form({"steps": 3})

    accepted = call_hook(dataset.app, hook, body, Content_Type=FORM, **build_signed_headers(hook, body))
    of_the_payload = call_hook(
        dataset.app, hook, body, Content_Type=FORM, **build_signed_headers(hook, b'{"steps": 3}', message_id="2")
    )

    assert (accepted.status_code, of_the_payload.status_code) == (202, 401)


@pytest.mark.parametrize(
    ("body", "status", "source"),
    [
        (b"other=1", 422, {"pointer": ""}),
        (b"payload=%7B%7D&payload=%7B%7D", 422, {"pointer": ""}),
        (b"payload=%5B%5D", 422, {"pointer": ""}),
        (b"payload=%7B", 400, None),
        (b"payload=%ff", 400, None),
        (b"&".join([b"a=1"] * 101), 400, None),
        (encode_form({"steps": "x"}), 422, {"pointer": "/steps"}),
    ],
)
def test_form_body_that_holds_no_payload_is_refused(dataset: Dataset, body: bytes, status: int, source: Any) -> None:
    answer = call_hook(dataset.app, create_hook(dataset.stranger), body, Content_Type=FORM)

    assert answer.status_code == status
    assert get_errors(answer)[0].get("source") == source


def test_form_body_may_be_longer_than_its_payload(dataset: Dataset) -> None:
    members = {"steps": 3, "x": '"' * (MAX_PARAMETERS_BYTES // 4)}
    form = encode_form(members)
    assert len(json.dumps(members)) < MAX_PARAMETERS_BYTES < len(form)

    assert (
        call_hook(dataset.app, create_hook(dataset.stranger), form, Content_Type=FORM).status_code == 422
    )  # there is no `x`
    assert (
        call_hook(
            dataset.app, create_hook(dataset.stranger), b"x" * (MAX_PARAMETERS_BYTES * 3 + 1), Content_Type=FORM
        ).status_code
        == 413
    )


def test_signed_hook_refuses_an_idempotency_key(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger, signed=True)

    answer = call_hook(dataset.app, hook, Idempotency_Key="one", **build_signed_headers(hook))

    assert (answer.status_code, get_errors(answer)[0]["source"]) == (400, {"header": "Idempotency-Key"})
