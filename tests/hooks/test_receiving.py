"""POST /v1/hooks/{token}: what a sender without an account can start, and what he is told."""

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
from app.jobs import running
from app.jobs.kinds import LARGEST_PARAMETERS
from app.jobs.models import Job
from app.storage import current_storage
from app.users.models import User
from tests.hooks.calls import call, job_of, made, path_of, signed
from tests.images.pictures import BLUE, encode, plain
from tests.jobs import kinds as _kinds  # noqa: F401  # declares them
from tests.jobs.written import read
from tests.world import Caller, World, data, errors, pointers


def run(world: World, job_id: str) -> None:
    """What a worker does."""
    with world.app.app_context():
        running.run(UUID(job_id), "tests")


def change(world: World, statement: Any) -> None:
    """What somebody else does in between."""
    with world.app.app_context():
        db.session.execute(statement)
        db.session.commit()


def test_a_call_starts_a_job_of_the_owners(world: World) -> None:
    hook = made(world.stranger)

    response = call(world.app, hook)

    assert response.status_code == 202
    job_id = job_of(response)
    url = f"{world.app.config['PUBLIC_URL']}/v1/jobs/{job_id}"
    assert response.get_json() == {"job": {"id": job_id, "state": "queued", "url": url}}
    assert response.mimetype == "application/json"
    assert (response.headers["Location"], response.headers["Content-Location"]) == (url, url)
    assert response.headers["Retry-After"] == "1"
    job = data(world.stranger.get(f"/v1/jobs/{job_id}"))
    assert (job["attributes"]["kind"], job["attributes"]["trigger"]) == ("sleep", "hook")
    assert job["attributes"]["parameters"] == {"seconds": 0}
    assert job["relationships"]["owner"]["data"] == {"type": "user", "id": str(world.stranger.id)}
    assert world.owner.get(f"/v1/jobs/{job_id}").status_code == 404


def test_a_job_that_was_started_by_a_call_runs(world: World) -> None:
    job_id = job_of(call(world.app, made(world.stranger)))

    run(world, job_id)

    assert read(world.app, UUID(job_id)).state == "succeeded"


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
def test_a_call_sets_what_the_hook_allows(world: World, allowed: Any, body: Any, expected: Any) -> None:
    hook = made(world.stranger, parameters={"seconds": 0}, allowed_parameters=allowed)

    job_id = job_of(call(world.app, hook, body))

    assert read(world.app, UUID(job_id)).parameters == expected
    assert data(world.stranger.get(f"/v1/hooks/{hook['id']}"))["attributes"]["parameters"] == {"seconds": 0}


@pytest.mark.parametrize("allowed", [None, [], ["steps"]])
def test_a_call_does_not_change_a_fixed_parameter(world: World, allowed: Any) -> None:
    hook = made(world.stranger, parameters={"seconds": 0}, allowed_parameters=allowed)

    refused = call(world.app, hook, {"seconds": 3600})

    assert (refused.status_code, pointers(refused)) == (422, {"/seconds"})
    assert errors(refused)[0]["code"] == "fixed-parameter"
    assert world.rows(Job) == 0


@pytest.mark.parametrize(("fixed", "sent"), [(int, str), (str, int), (str, str), (int, int)])
def test_a_call_repeats_a_fixed_id_as_a_text_or_a_number(world: World, fixed: Any, sent: Any) -> None:
    event_id = world.events["published"]
    hook = made(world.owner, "event-archive", {"event": fixed(event_id)})

    assert call(world.app, hook, {"event": sent(event_id)}).status_code == 202
    refused = call(world.app, hook, {"event": sent(world.events["draft"])})
    assert (refused.status_code, errors(refused)[0]["code"]) == (422, "fixed-parameter")


@pytest.mark.parametrize("allowed", [[], ["more"]])
def test_a_call_sets_no_parameter_that_is_not_in_the_list(world: World, allowed: Any) -> None:
    hook = made(world.stranger, parameters={"seconds": 0}, allowed_parameters=allowed)

    refused = call(world.app, hook, {"steps": 2, "a/b": 1})

    assert (refused.status_code, pointers(refused)) == (422, {"/steps", "/a~1b"})
    assert {error["code"] for error in errors(refused)} == {"parameter-not-allowed"}
    assert world.rows(Job) == 0


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", None])
def test_json_is_taken_under_any_of_its_names(world: World, content_type: str | None) -> None:
    hook = made(world.stranger)
    more = {} if content_type is None else {"Content_Type": content_type}

    response = call(world.app, hook, b'{"steps": 7}', **more)

    assert read(world.app, UUID(job_of(response))).parameters["steps"] == 7


@pytest.mark.parametrize("content_type", ["text/plain", "image/png", "application/xml", "nonsense"])
def test_another_media_type_is_415(world: World, content_type: str) -> None:
    hook = made(world.stranger)

    response = call(world.app, hook, b'{"steps": 7}', Content_Type=content_type)

    assert response.status_code == 415
    assert call(world.app, hook, b"", Content_Type=content_type).status_code == 202  # there is nothing to read
    assert world.rows(Job) == 1


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
def test_bad_parameters_are_422_with_pointers_into_the_body(world: World, body: Any, expected: set[str]) -> None:
    response = call(world.app, made(world.stranger, parameters={}), body)

    assert response.status_code == 422
    assert pointers(response) == expected
    assert not any("meta" in error for error in errors(response))
    assert world.rows(Job) == 0


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
def test_what_is_no_json_is_400(world: World, body: bytes) -> None:
    response = call(world.app, made(world.stranger), body, Content_Type="application/json")

    assert response.status_code == 400
    assert world.rows(Job) == 0


def test_what_neither_the_hook_nor_the_body_says_is_missing(world: World) -> None:
    hook = made(world.stranger, parameters={"steps": 2})

    refused = call(world.app, hook)
    complete = call(world.app, hook, {"seconds": 0})

    assert (refused.status_code, pointers(refused)) == (422, {"/seconds"})
    assert complete.status_code == 202


def test_64_kib_are_enough(world: World) -> None:
    hook = made(world.stranger, "tests-linger", {"fixed": "x" * 40_000})

    assert call(world.app, hook, {"more": "x" * 20_000}).status_code == 202
    together = call(world.app, hook, {"more": "x" * 30_000})
    alone = call(world.app, hook, {"more": "x" * 66_000})

    assert (together.status_code, pointers(together)) == (422, {""})
    assert alone.status_code == 413
    assert world.rows(Job) == 1


def test_an_unknown_query_parameter_is_400(world: World) -> None:
    hook = made(world.stranger)
    hook["attributes"]["url"] += "?steps=5"

    assert call(world.app, hook).status_code == 400


def test_a_trailing_slash_changes_nothing(world: World) -> None:
    hook = made(world.stranger)
    hook["attributes"]["url"] += "/"

    assert call(world.app, hook).status_code == 202


def test_whoever_is_signed_in_is_nobody_here(world: World) -> None:
    hook = made(world.stranger)

    response = world.owner.send("POST", path_of(hook))

    owner = data(world.stranger.get(f"/v1/jobs/{job_of(response)}"))["relationships"]["owner"]["data"]
    assert owner == {"type": "user", "id": str(world.stranger.id)}
    assert call(world.app, hook, Authorization="JWT nonsense").status_code == 202


# Who may not


def comparable(response: Any) -> Any:
    """An answer without what differs each time."""
    (error,) = errors(response)
    del error["id"]
    return response.status_code, error


def nowhere(world: World) -> Any:
    """What an unknown token gets."""
    return comparable(world.app.test_client().post(f"/v1/hooks/{'A' * 43}"))


@pytest.mark.parametrize("token", ["1", "0", "a", "A" * 42, "A" * 44, "%C3%A4" * 43, "%00", "." * 43, "A" * 5000])
def test_what_is_no_token_is_404(world: World, token: str) -> None:
    response = world.app.test_client().post(f"/v1/hooks/{token}")

    assert comparable(response) == nowhere(world)
    assert response.status_code == 404
    assert token not in response.text or token in ("0", "1", "a")


@pytest.mark.parametrize("end", ["disabled", "deleted", "blocked owner", "deleted owner", "no such kind"])
def test_what_may_not_be_called_is_as_unknown(world: World, end: str) -> None:
    hook = made(world.stranger)
    path = f"/v1/hooks/{hook['id']}"
    {
        "disabled": lambda: world.stranger.update(path, "hook", {"enabled": False}),
        "deleted": lambda: world.stranger.delete(path),
        "blocked owner": lambda: world.admin.update(f"/v1/users/{world.stranger.id}", "user", {"is-blocked": True}),
        "deleted owner": lambda: world.stranger.delete(f"/v1/users/{world.stranger.id}"),
        "no such kind": lambda: change(world, update(Hook).values(kind="gone")),
    }[end]()

    assert comparable(call(world.app, hook)) == nowhere(world)
    assert comparable(call(world.app, hook, b"{")) == nowhere(world)
    assert world.rows(Job) == 0


def test_a_kind_that_production_does_not_run_is_as_unknown(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = made(world.stranger)
    monkeypatch.setitem(world.app.config, "APP_ENV", "production")

    assert comparable(call(world.app, hook)) == nowhere(world)


def test_a_hook_does_what_its_owner_may_do_now(world: World) -> None:
    event = world.events["published"]
    hook = made(world.coorganizer, "import-images", {"event": event})
    may = call(world.app, hook)
    mine = (EventRole.event_id == event, EventRole.user_id == world.coorganizer.id)

    change(world, delete(EventRole).where(*mine))
    may_not = call(world.app, hook)

    assert may.status_code == 202
    assert comparable(may_not) == nowhere(world)


def test_a_hook_of_an_admin_does_what_he_may_do_now(world: World) -> None:
    hook = made(world.admin, "import-images", {"event": world.events["others"]})
    may = call(world.app, hook)

    change(world, update(User).where(User.id == world.admin.id).values(is_admin=False))

    assert may.status_code == 202
    assert comparable(call(world.app, hook)) == nowhere(world)


def test_an_event_in_the_trash_ends_its_hooks(world: World) -> None:
    hook = made(world.owner, "import-images", {"event": world.events["published"]})

    world.owner.delete(f"/v1/events/{world.events['published']}")

    assert comparable(call(world.app, hook)) == nowhere(world)


@pytest.mark.parametrize("state", ["others", "trashed", "none"])
def test_the_body_names_no_event_but_the_owners(world: World, state: str) -> None:
    hook = made(world.owner, "import-images", {})
    event = world.events.get(state, 999_999_999)

    assert comparable(call(world.app, hook, {"event": event})) == nowhere(world)
    assert world.rows(Job) == 0


# The same again


def test_the_same_again_is_the_same_job_where_the_kind_says_once(world: World) -> None:
    hook = made(world.stranger, "sleep-once")

    first, again = call(world.app, hook), call(world.app, hook)
    run(world, job_of(first))
    done = call(world.app, hook)
    other = call(world.app, hook, {"steps": 2})

    assert job_of(first) == job_of(again) == job_of(done)
    assert (again.status_code, done.status_code, done.get_json()["job"]["state"]) == (202, 200, "succeeded")
    assert done.headers["Location"].endswith(job_of(first))
    assert job_of(other) != job_of(first)


def test_single_flight_joins_what_lives(world: World) -> None:
    hook = made(world.stranger, "sleep-single-flight")

    first, joined = call(world.app, hook), call(world.app, hook)
    run(world, job_of(first))
    later = call(world.app, hook)

    assert job_of(first) == job_of(joined)
    assert job_of(later) != job_of(first)


def test_every_call_is_a_job_where_the_kind_says_nothing(world: World) -> None:
    hook = made(world.stranger)

    assert len({job_of(call(world.app, hook, webhook_id="msg_1")) for _ in range(3)}) == 3


def test_a_key_makes_one_job_of_two_calls(world: World) -> None:
    hook, other = made(world.stranger), made(world.stranger)

    first = call(world.app, hook, {"steps": 2}, Idempotency_Key="one")
    again = call(world.app, hook, {"steps": 2}, Idempotency_Key="one")

    assert (job_of(again), again.headers["Idempotent-Replayed"]) == (job_of(first), "true")
    for header in ("Location", "Content-Location", "Retry-After", "Content-Type"):
        assert again.headers[header] == first.headers[header]
    assert job_of(call(world.app, other, {"steps": 2}, Idempotency_Key="one")) != job_of(first)
    refused = call(world.app, hook, {"steps": 3}, Idempotency_Key="one")
    assert (refused.status_code, errors(refused)[0]["source"]) == (422, {"header": "Idempotency-Key"})
    assert call(world.app, hook, Idempotency_Key="a b").status_code == 400
    assert world.rows(Job) == 2


def test_the_keys_of_callers_are_not_the_owners(world: World) -> None:
    hook = made(world.stranger)
    document = {"data": {"type": "job", "attributes": {"kind": "sleep", "parameters": {"seconds": 1}}}}

    own = world.stranger.send("POST", "/v1/jobs", document, Idempotency_Key="one")
    called = call(world.app, hook, Idempotency_Key="one")

    assert (own.status_code, called.status_code) == (202, 202)
    assert world.rows(Job) == 2


def test_new_images_behind_the_same_url_are_a_new_job(world: World) -> None:
    hook = made(world.coorganizer, "import-images", {"event": world.events["published"]})
    inbox = f"inbox/{world.identifiers['published']}"

    def leave(name: str, content: bytes) -> None:
        with world.app.app_context():
            current_storage().put(f"{inbox}/{name}", content, "image/png")

    leave("red.png", encode(plain(40, 20), "png"))
    first = call(world.app, hook)
    run(world, job_of(first))
    same = call(world.app, hook)
    leave("blue.png", encode(plain(40, 20, BLUE), "png"))
    new = call(world.app, hook)
    run(world, job_of(new))

    assert (first.status_code, same.status_code, new.status_code) == (202, 200, 202)
    assert job_of(first) == job_of(same)
    assert job_of(new) != job_of(first)
    names = [each["attributes"]["name"] for each in images(world.coorganizer, world)]
    assert sorted(names) == ["blue.png", "published.jpg", "red.png"]
    result = data(world.coorganizer.get(f"/v1/jobs/{job_of(new)}"))["attributes"]["result"]
    assert (result["imported"], result["known"]) == (1, 1)


def images(caller: Caller, world: World) -> Any:
    """The gallery of the published event."""
    return data(caller.get(f"/v1/events/{world.events['published']}/images"))


# When it was last called


def last_called(world: World, hook: Any) -> str | None:
    """As its owner reads it."""
    at: str | None = data(world.stranger.get(f"/v1/hooks/{hook['id']}"))["attributes"]["last-called-at"]
    return at


def test_a_call_is_noted_once_a_minute(world: World) -> None:
    hook = made(world.stranger)
    before = last_called(world, hook)

    call(world.app, hook)
    first = last_called(world, hook)
    call(world.app, hook)
    second = last_called(world, hook)
    change(world, text("UPDATE hooks SET last_called_at = last_called_at - interval '61 seconds'"))
    call(world.app, hook)

    assert before is None
    assert first is not None
    assert second == first
    assert str(last_called(world, hook)) > first


def test_a_refused_call_is_not_noted(world: World) -> None:
    hook = made(world.stranger)

    call(world.app, hook, {"seconds": -1})

    assert last_called(world, hook) is None


def test_a_call_waits_for_nobody_who_changes_the_hook(world: World, servers: dict[str, str]) -> None:
    hook = made(world.stranger)
    with psycopg.connect(servers["DATABASE_URL"]) as other:
        other.execute("SELECT 1 FROM hooks WHERE id = %s FOR UPDATE", (hook["id"],))

        response = call(world.app, hook)

        assert response.status_code == 202
    assert last_called(world, hook) is None


@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_only_a_post_is_a_call(world: World, method: str) -> None:
    hook = made(world.stranger)

    world.app.test_client().open(path_of(hook), method=method)

    assert world.rows(Job) == 0


FORM = "application/x-www-form-urlencoded"


def form_of(members: Any) -> bytes:
    """The body that GitHub sends unless a webhook is set to JSON."""
    return urlencode({"payload": json.dumps(members)}).encode()


@pytest.mark.parametrize("content_type", [FORM, f"{FORM}; charset=utf-8", FORM.upper()])
def test_form_body_its_payload_is_the_parameters(world: World, content_type: str) -> None:
    hook = made(world.stranger)

    answer = call(world.app, hook, form_of({"steps": 3}), Content_Type=content_type)

    job = data(world.stranger.get(f"/v1/jobs/{job_of(answer)}"))
    assert job["attributes"]["parameters"] == {"seconds": 0, "steps": 3}


def test_form_body_is_signed_as_it_is_sent(world: World) -> None:
    hook = made(world.stranger, signed=True)
    body = form_of({"steps": 3})

    accepted = call(world.app, hook, body, Content_Type=FORM, **signed(hook, body))
    of_the_payload = call(world.app, hook, body, Content_Type=FORM, **signed(hook, b'{"steps": 3}', message_id="2"))

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
        (form_of({"steps": "x"}), 422, {"pointer": "/steps"}),
    ],
)
def test_form_body_that_holds_no_payload_is_refused(world: World, body: bytes, status: int, source: Any) -> None:
    answer = call(world.app, made(world.stranger), body, Content_Type=FORM)

    assert answer.status_code == status
    assert errors(answer)[0].get("source") == source


def test_form_body_may_be_longer_than_its_payload(world: World) -> None:
    members = {"steps": 3, "x": '"' * (LARGEST_PARAMETERS // 4)}
    form = form_of(members)
    assert len(json.dumps(members)) < LARGEST_PARAMETERS < len(form)

    assert call(world.app, made(world.stranger), form, Content_Type=FORM).status_code == 422  # there is no `x`
    assert (
        call(world.app, made(world.stranger), b"x" * (LARGEST_PARAMETERS * 3 + 1), Content_Type=FORM).status_code == 413
    )


def test_signed_hook_refuses_an_idempotency_key(world: World) -> None:
    hook = made(world.stranger, signed=True)

    answer = call(world.app, hook, Idempotency_Key="one", **signed(hook))

    assert (answer.status_code, errors(answer)[0]["source"]) == (400, {"header": "Idempotency-Key"})
