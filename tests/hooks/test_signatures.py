"""Signed calls (Standard Webhooks)."""

import time
from typing import Any

import pytest

from app.jobs.models import Job
from tests.dataset import Dataset, get_errors
from tests.hooks.requests import build_signed_headers, call_hook, create_hook, get_job_id, sign_message

BODY = b'{"steps": 2}'


def send_call(dataset: Dataset, hook: Any, body: bytes = BODY, **headers: str) -> Any:
    """Call a hook with these headers."""
    return call_hook(dataset.app, hook, body, **headers)


@pytest.fixture
def hook(dataset: Dataset) -> Any:
    """Create a hook that requires signed calls."""
    return create_hook(dataset.stranger, signed=True)


def test_a_signed_call_starts_a_job(dataset: Dataset, hook: Any) -> None:
    assert send_call(dataset, hook, **build_signed_headers(hook, BODY)).status_code == 202
    assert send_call(dataset, hook, b"", **build_signed_headers(hook, message_id="msg_2")).status_code == 202


def test_the_signature_is_that_of_the_specification() -> None:
    # From the documentation of the reference libraries: a sender of theirs makes this signature.
    made_by_them = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

    made_here = sign_message(
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
    dataset: Dataset, hook: Any, header: str, value: str | None
) -> None:
    headers = {**build_signed_headers(hook, BODY), header: value}

    response = send_call(dataset, hook, **{name: sent for name, sent in headers.items() if sent is not None})

    assert response.status_code == 401
    (error,) = get_errors(response)
    assert error["code"] == "invalid-signature"
    assert "WWW-Authenticate" in response.headers
    assert dataset.count_rows(Job) == 0


def test_a_call_without_any_of_the_headers_is_401(dataset: Dataset, hook: Any) -> None:
    assert send_call(dataset, hook).status_code == 401
    assert send_call(dataset, hook, b"").status_code == 401


@pytest.mark.parametrize(("seconds", "expected"), [(-290, 202), (290, 202), (-310, 401), (310, 401), (-86_400, 401)])
def test_a_message_is_at_most_five_minutes_old(dataset: Dataset, hook: Any, seconds: int, expected: int) -> None:
    response = send_call(dataset, hook, **build_signed_headers(hook, BODY, seconds=seconds))

    assert response.status_code == expected


def test_another_body_is_not_what_was_signed(dataset: Dataset, hook: Any) -> None:
    headers = build_signed_headers(hook, BODY)

    assert send_call(dataset, hook, b'{"steps": 3}', **headers).status_code == 401
    assert send_call(dataset, hook, BODY + b" ", **headers).status_code == 401
    assert send_call(dataset, hook, b"", **headers).status_code == 401


def test_another_secret_is_not_the_hooks(dataset: Dataset, hook: Any) -> None:
    other = create_hook(dataset.stranger, signed=True)

    assert send_call(dataset, hook, **build_signed_headers(other, BODY)).status_code == 401
    rotated = dataset.stranger.send("POST", f"/v1/hooks/{hook['id']}/rotate").get_json(force=True)["data"]
    assert send_call(dataset, rotated, **build_signed_headers(hook, BODY)).status_code == 401
    assert send_call(dataset, rotated, **build_signed_headers(rotated, BODY)).status_code == 202


def test_one_of_several_signatures_is_enough(dataset: Dataset, hook: Any) -> None:
    headers = build_signed_headers(hook, BODY)
    right = headers["webhook-signature"]
    wrong = f"v1,{'A' * 43}="

    several = {**headers, "webhook-signature": f"v1a,abc {wrong} {right}"}
    none = {**headers, "webhook-signature": f"{wrong} {right.replace('v1,', 'v2,')} {right.replace('v1,', 'v1a,')}"}

    assert send_call(dataset, hook, **several).status_code == 202
    assert send_call(dataset, hook, **none).status_code == 401


def test_a_message_that_comes_again_starts_nothing(dataset: Dataset, hook: Any) -> None:
    first = send_call(dataset, hook, **build_signed_headers(hook, BODY))
    replayed = send_call(dataset, hook, **build_signed_headers(hook, BODY))
    later = send_call(dataset, hook, **build_signed_headers(hook, BODY, seconds=60))
    another = send_call(dataset, hook, **build_signed_headers(hook, BODY, message_id="msg_2"))

    assert get_job_id(first) == get_job_id(replayed) == get_job_id(later)
    assert replayed.headers["Idempotent-Replayed"] == "true"
    assert get_job_id(another) != get_job_id(first)
    assert dataset.count_rows(Job) == 2


def test_a_message_of_another_hook_may_have_the_same_id(dataset: Dataset, hook: Any) -> None:
    other = create_hook(dataset.stranger, signed=True)

    assert get_job_id(send_call(dataset, hook, **build_signed_headers(hook, BODY))) != get_job_id(
        send_call(dataset, other, **build_signed_headers(other, BODY))
    )


def test_another_body_under_the_same_id_is_422(dataset: Dataset, hook: Any) -> None:
    send_call(dataset, hook, **build_signed_headers(hook, BODY))

    response = send_call(dataset, hook, b'{"steps": 3}', **build_signed_headers(hook, b'{"steps": 3}'))

    assert (response.status_code, get_errors(response)[0]["source"]) == (422, {"header": "webhook-id"})


def test_a_refused_message_does_not_use_up_its_id(dataset: Dataset, hook: Any) -> None:
    bad = b'{"steps": 0}'
    refused = send_call(dataset, hook, bad, **build_signed_headers(hook, bad))

    accepted = send_call(dataset, hook, **build_signed_headers(hook, BODY))

    assert (refused.status_code, accepted.status_code) == (422, 202)


def test_a_hook_that_is_not_signed_takes_no_notice_of_signatures(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger)
    headers = {"webhook-id": "sub_1", "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,theirs"}

    assert len({get_job_id(send_call(dataset, hook, **headers)) for _ in range(2)}) == 2


def test_another_key_of_the_server_is_another_secret(
    dataset: Dataset, hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dataset.app.config, "SECRET_KEY", "another key, as long as the other one was")

    assert send_call(dataset, hook, **build_signed_headers(hook, BODY)).status_code == 401
