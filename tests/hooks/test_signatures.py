"""Signed calls, as Standard Webhooks describes them."""

import time
from typing import Any

import pytest

from app.jobs.models import Job
from tests.hooks.calls import call, job_of, made, signature, signed
from tests.world import World, errors

BODY = b'{"steps": 2}'


def send(world: World, hook: Any, body: bytes = BODY, **headers: str) -> Any:
    """A call with these headers and no others."""
    return call(world.app, hook, body, **headers)


@pytest.fixture
def hook(world: World) -> Any:
    """One that takes signed calls only."""
    return made(world.stranger, signed=True)


def test_a_signed_call_starts_a_job(world: World, hook: Any) -> None:
    assert send(world, hook, **signed(hook, BODY)).status_code == 202
    assert send(world, hook, b"", **signed(hook, message_id="msg_2")).status_code == 202


def test_the_signature_is_that_of_the_specification() -> None:
    # From the documentation of the reference libraries: a sender of theirs makes this signature.
    made_by_them = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

    made_here = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}'
    )

    assert made_here == made_by_them


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("webhook-id", None),
        ("webhook-id", ""),
        ("webhook-id", "msg_2"),
        ("webhook-id", "msg.1"),
        ("webhook-id", "x" * 256),
        ("webhook-id", "a b"),
        ("webhook-id", "ä"),
        ("webhook-timestamp", None),
        ("webhook-timestamp", ""),
        ("webhook-timestamp", "now"),
        ("webhook-timestamp", "-1"),
        ("webhook-timestamp", "1e9"),
        ("webhook-timestamp", "9" * 400),
        ("webhook-timestamp", "٣" * 10),
        ("webhook-signature", None),
        ("webhook-signature", ""),
        ("webhook-signature", "v1,"),
        ("webhook-signature", "v1"),
        ("webhook-signature", "v1,ä"),
        ("webhook-signature", f"v1,{'A' * 43}="),
        ("webhook-signature", " , ,,"),
    ],
)
def test_a_call_that_is_not_signed_as_it_should_be_is_401(
    world: World, hook: Any, header: str, value: str | None
) -> None:
    headers = {**signed(hook, BODY), header: value}

    response = send(world, hook, **{name: sent for name, sent in headers.items() if sent is not None})

    assert response.status_code == 401
    (error,) = errors(response)
    assert error["code"] == "invalid-signature"
    assert "WWW-Authenticate" in response.headers
    assert world.rows(Job) == 0


def test_a_call_without_any_of_the_headers_is_401(world: World, hook: Any) -> None:
    assert send(world, hook).status_code == 401
    assert send(world, hook, b"").status_code == 401


@pytest.mark.parametrize(("seconds", "expected"), [(-290, 202), (290, 202), (-310, 401), (310, 401), (-86_400, 401)])
def test_a_message_is_at_most_five_minutes_old(world: World, hook: Any, seconds: int, expected: int) -> None:
    response = send(world, hook, **signed(hook, BODY, seconds=seconds))

    assert response.status_code == expected


def test_another_body_is_not_what_was_signed(world: World, hook: Any) -> None:
    headers = signed(hook, BODY)

    assert send(world, hook, b'{"steps": 3}', **headers).status_code == 401
    assert send(world, hook, BODY + b" ", **headers).status_code == 401
    assert send(world, hook, b"", **headers).status_code == 401


def test_another_secret_is_not_the_hooks(world: World, hook: Any) -> None:
    other = made(world.stranger, signed=True)

    assert send(world, hook, **signed(other, BODY)).status_code == 401
    rotated = world.stranger.send("POST", f"/v1/hooks/{hook['id']}/rotate").get_json(force=True)["data"]
    assert send(world, rotated, **signed(hook, BODY)).status_code == 401
    assert send(world, rotated, **signed(rotated, BODY)).status_code == 202


def test_one_of_several_signatures_is_enough(world: World, hook: Any) -> None:
    headers = signed(hook, BODY)
    right = headers["webhook-signature"]
    wrong = f"v1,{'A' * 43}="

    several = {**headers, "webhook-signature": f"v1a,abc {wrong} {right}"}
    none = {**headers, "webhook-signature": f"{wrong} {right.replace('v1,', 'v2,')} {right.replace('v1,', 'v1a,')}"}

    assert send(world, hook, **several).status_code == 202
    assert send(world, hook, **none).status_code == 401


def test_a_message_that_comes_again_starts_nothing(world: World, hook: Any) -> None:
    first = send(world, hook, **signed(hook, BODY))
    replayed = send(world, hook, **signed(hook, BODY))
    later = send(world, hook, **signed(hook, BODY, seconds=60))
    another = send(world, hook, **signed(hook, BODY, message_id="msg_2"))

    assert job_of(first) == job_of(replayed) == job_of(later)
    assert replayed.headers["Idempotent-Replayed"] == "true"
    assert job_of(another) != job_of(first)
    assert world.rows(Job) == 2


def test_a_message_of_another_hook_may_have_the_same_id(world: World, hook: Any) -> None:
    other = made(world.stranger, signed=True)

    assert job_of(send(world, hook, **signed(hook, BODY))) != job_of(send(world, other, **signed(other, BODY)))


def test_another_body_under_the_same_id_is_422(world: World, hook: Any) -> None:
    send(world, hook, **signed(hook, BODY))

    response = send(world, hook, b'{"steps": 3}', **signed(hook, b'{"steps": 3}'))

    assert (response.status_code, errors(response)[0]["source"]) == (422, {"header": "webhook-id"})


def test_a_refused_message_does_not_use_up_its_id(world: World, hook: Any) -> None:
    bad = b'{"steps": 0}'
    refused = send(world, hook, bad, **signed(hook, bad))

    accepted = send(world, hook, **signed(hook, BODY))

    assert (refused.status_code, accepted.status_code) == (422, 202)


def test_a_hook_that_is_not_signed_takes_no_notice_of_signatures(world: World) -> None:
    hook = made(world.stranger)
    headers = {"webhook-id": "sub_1", "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,theirs"}

    assert len({job_of(send(world, hook, **headers)) for _ in range(2)}) == 2


def test_another_key_of_the_server_is_another_secret(world: World, hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(world.app.config, "SECRET_KEY", "another key, as long as the other one was")

    assert send(world, hook, **signed(hook, BODY)).status_code == 401
