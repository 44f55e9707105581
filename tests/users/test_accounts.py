"""Verification, password change and reset, by the routes and the mails."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.users import tokens
from tests.users.conftest import EMAIL, PASSWORD, Sql, bearer_header, get_mailed_token

NEW_PASSWORD = "another good one"

Deliver = Callable[[], list[EmailMessage]]
LogIn = Callable[..., dict[str, str]]


def get_refusal(response: object) -> tuple[int, str, str]:
    """Return the status, code and pointer of an error response."""
    (error,) = response.get_json(force=True)["errors"]  # type: ignore[attr-defined]  # a test response
    return response.status_code, error["code"], error.get("source", {}).get("pointer", "")  # type: ignore[attr-defined]  # same


# --- verification


def test_a_new_user_gets_a_mail_whose_token_verifies_once(
    client: FlaskClient, user_id: int, deliver_mails: Deliver, run_sql: Sql
) -> None:
    (mail,) = deliver_mails()
    body = {"data": {"token": get_mailed_token(mail)}}

    first = client.post("/v1/auth/verify-email", json=body)
    second = client.post("/v1/auth/verify-email", json=body)

    assert (mail["To"], mail["X-Resource-Type"], mail["X-Resource-Id"]) == (EMAIL, "user", str(user_id))
    assert first.status_code == 200
    assert run_sql("SELECT is_verified FROM users") == [(True,)]
    assert get_refusal(second) == (400, "token-invalid", "/data/token")


def test_an_order_carried_out_twice_makes_the_same_bytes(
    app: Flask, user_id: int, deliver_mails: Deliver, run_sql: Sql
) -> None:
    (first,) = deliver_mails()
    run_sql("UPDATE outbox_entries SET done_at = NULL")

    (second,) = deliver_mails()

    assert first.as_bytes() == second.as_bytes()
    assert first["Message-ID"] == second["Message-ID"]


def test_an_international_domain_is_mailed_in_ascii(make_user: Callable[..., int], deliver_mails: Deliver) -> None:
    make_user("ada@bücher.example.com")

    assert [mail["To"] for mail in deliver_mails()] == ["ada@xn--bcher-kva.example.com"]


def test_verified_deleted_and_blocked_users_get_no_mail(
    make_user: Callable[..., int], deliver_mails: Deliver, run_sql: Sql
) -> None:
    make_user("v@example.com", is_verified=True)
    make_user("b@example.com", is_blocked=True)
    make_user("d@example.com")
    run_sql("UPDATE users SET deleted_at = now() WHERE email = 'd@example.com'")

    assert deliver_mails() == []


def test_a_token_is_good_for_the_address_it_went_to_only(
    client: FlaskClient, user_id: int, deliver_mails: Deliver, run_sql: Sql
) -> None:
    (mail,) = deliver_mails()
    run_sql("UPDATE users SET email = 'new@example.com'")

    assert client.post("/v1/auth/verify-email", json={"token": get_mailed_token(mail)}).status_code == 400
    assert run_sql("SELECT is_verified FROM users") == [(False,)]


def test_a_used_token_does_not_verify_again_when_the_address_was_unverified(
    client: FlaskClient, user_id: int, deliver_mails: Deliver, run_sql: Sql
) -> None:
    token = get_mailed_token(deliver_mails()[0])
    client.post("/v1/auth/verify-email", json={"token": token})
    run_sql("UPDATE users SET is_verified = false")

    assert client.post("/v1/auth/verify-email", json={"token": token}).status_code == 400


def test_a_token_sent_after_an_earlier_verification_verifies(
    client: FlaskClient, user_id: int, deliver_mails: Deliver, run_sql: Sql
) -> None:
    client.post("/v1/auth/verify-email", json={"token": get_mailed_token(deliver_mails()[0])})
    run_sql("UPDATE users SET is_verified = false")

    client.post("/v1/auth/resend-verification-email", json={"data": {"email": EMAIL}})
    (mail,) = deliver_mails()

    assert client.post("/v1/auth/verify-email", json={"token": get_mailed_token(mail)}).status_code == 200


def test_resend_answers_alike_and_mails_only_who_waits(
    client: FlaskClient, make_user: Callable[..., int], deliver_mails: Deliver
) -> None:
    make_user()
    make_user("verified@example.com", is_verified=True)
    assert len(deliver_mails()) == 1

    answers = [
        client.post("/v1/auth/resend-verification-email", json={"data": {"email": email}})
        for email in (EMAIL.upper(), "verified@example.com", "nobody@example.com", "not an address")
    ]

    assert {(answer.status_code, answer.text) for answer in answers} == {(200, answers[0].text)}
    assert [mail["To"] for mail in deliver_mails()] == [EMAIL]


def test_a_verification_token_is_too_old_after_24_hours(
    client: FlaskClient, user_id: int, deliver_mails: Deliver, run_sql: Sql
) -> None:
    run_sql("UPDATE outbox_entries SET created_at = now() - interval '24 hours'")
    (mail,) = deliver_mails()

    assert get_refusal(client.post("/v1/auth/verify-email", json={"data": {"token": get_mailed_token(mail)}})) == (
        400,
        "token-invalid",
        "/data/token",
    )


@pytest.mark.parametrize("path", ["/v1/auth/verify-email", "/v1/auth/reset-password"])
@pytest.mark.parametrize("token", ["", "x", "a.b.c", "x" * 10_000, "ö"])
def test_invalid_mail_token_is_400(client: FlaskClient, path: str, token: str) -> None:
    method = "PATCH" if path.endswith("password") else "POST"

    response = client.open(path, method=method, json={"data": {"token": token, "password": NEW_PASSWORD}})

    assert get_refusal(response) == (400, "token-invalid", "/data/token")


def test_tokens_of_one_kind_do_not_serve_for_another(
    client: FlaskClient, user_id: int, log_in: LogIn, deliver_mails: Deliver
) -> None:
    (mail,) = deliver_mails()
    verification = get_mailed_token(mail)
    client.post("/v1/auth/reset-password", json={"data": {"email": EMAIL}})
    reset = get_mailed_token(deliver_mails()[0])
    access = log_in()["access_token"]

    for wrong in (reset, access):
        assert client.post("/v1/auth/verify-email", json={"token": wrong}).status_code == 400
    for wrong in (verification, access):
        assert (
            client.patch("/v1/auth/reset-password", json={"token": wrong, "password": NEW_PASSWORD}).status_code == 400
        )
    for wrong in (verification, reset):
        assert client.post("/v1/auth/logout", headers={"Authorization": f"JWT {wrong}"}).status_code == 401


def make_hook(client: FlaskClient, session: dict[str, str]) -> dict[str, Any]:
    """Create a hook for a user and return the resource."""
    attributes = {"kind": "sleep", "parameters": {"seconds": 0}}
    headers = {**bearer_header(session), "Content-Type": "application/vnd.api+json"}
    made = client.post("/v1/hooks", json={"data": {"type": "hook", "attributes": attributes}}, headers=headers)
    assert made.status_code == 201, made.text
    hook: dict[str, Any] = made.get_json()["data"]
    return hook


def call_hook(client: FlaskClient, hook: dict[str, Any]) -> int:
    """Call a hook by its URL and return the status."""
    url: str = hook["attributes"]["url"]
    return client.post(url[url.index("/v1/") :]).status_code


def test_the_first_verification_ends_sessions_and_hooks_made_before(
    client: FlaskClient,
    user_id: int,
    log_in: LogIn,
    is_signed_in: Callable[[dict[str, str]], bool],
    deliver_mails: Deliver,
    run_sql: Sql,
) -> None:
    token = get_mailed_token(deliver_mails()[0])
    session = log_in()
    hook = make_hook(client, session)
    assert call_hook(client, hook) == 202

    assert client.post("/v1/auth/verify-email", json={"token": token}).status_code == 200

    assert call_hook(client, hook) == 404
    assert not is_signed_in(session)
    assert client.post("/v1/auth/token/refresh", json=session).status_code == 401
    assert run_sql("SELECT enabled, token_hash FROM hooks") == [(False, None)]


def test_the_first_verification_keeps_the_session_that_asks_for_it(
    client: FlaskClient,
    user_id: int,
    log_in: LogIn,
    is_signed_in: Callable[[dict[str, str]], bool],
    deliver_mails: Deliver,
    make_user: Callable[..., int],
) -> None:
    mine, other = log_in(), log_in()
    body = {"token": get_mailed_token(deliver_mails()[0])}

    assert client.post("/v1/auth/verify-email", json=body, headers=bearer_header(mine)).status_code == 200

    assert (is_signed_in(mine), is_signed_in(other)) == (True, False)


@pytest.mark.parametrize("header", ["JWT nonsense", "Basic eDp5"])
def test_a_verification_asks_for_no_access_token(
    client: FlaskClient, user_id: int, deliver_mails: Deliver, header: str
) -> None:
    body = {"token": get_mailed_token(deliver_mails()[0])}

    assert client.post("/v1/auth/verify-email", json=body, headers={"Authorization": header}).status_code == 200


def test_a_later_verification_ends_nothing(
    client: FlaskClient,
    user_id: int,
    log_in: LogIn,
    is_signed_in: Callable[[dict[str, str]], bool],
    deliver_mails: Deliver,
    run_sql: Sql,
) -> None:
    client.post("/v1/auth/verify-email", json={"token": get_mailed_token(deliver_mails()[0])})
    session = log_in()
    hook = make_hook(client, session)
    run_sql("UPDATE users SET is_verified = false")
    client.post("/v1/auth/resend-verification-email", json={"data": {"email": EMAIL}})

    assert (
        client.post("/v1/auth/verify-email", json={"token": get_mailed_token(deliver_mails()[-1])}).status_code == 200
    )

    assert is_signed_in(session)
    assert call_hook(client, hook) == 202


# --- reset


def test_a_reset_ends_the_hooks_made_before(
    client: FlaskClient, make_user: Callable[..., int], log_in: LogIn, deliver_mails: Deliver, run_sql: Sql
) -> None:
    make_user(is_verified=True)
    make_user("other@example.com", is_verified=True)
    hook = make_hook(client, log_in())
    others = make_hook(client, log_in("other@example.com"))
    client.post("/v1/auth/reset-password", json={"data": {"email": EMAIL}})
    body = {"data": {"token": get_mailed_token(deliver_mails()[-1]), "password": NEW_PASSWORD}}

    assert client.patch("/v1/auth/reset-password", json=body).status_code == 200

    assert call_hook(client, hook) == 404
    assert call_hook(client, others) == 202
    assert run_sql("SELECT enabled, token_hash IS NULL FROM hooks ORDER BY id") == [(False, True), (True, False)]


def test_a_reset_sets_the_password_once_and_ends_all_sessions(
    client: FlaskClient,
    make_user: Callable[..., int],
    log_in: LogIn,
    is_signed_in: Callable[[dict[str, str]], bool],
    deliver_mails: Deliver,
) -> None:
    make_user(is_verified=True)
    session = log_in()
    client.post("/v1/auth/reset-password", json={"data": {"email": "ada@EXAMPLE.com"}})
    (mail,) = deliver_mails()
    body = {"data": {"token": get_mailed_token(mail), "password": NEW_PASSWORD}}

    assert client.patch("/v1/auth/reset-password", json=body).status_code == 200

    assert not is_signed_in(session)
    assert client.post("/v1/auth/token/refresh", json=session).status_code == 401
    log_in(password=NEW_PASSWORD)
    assert client.post("/v1/auth/login", json={"email": EMAIL, "password": PASSWORD}).status_code == 401
    assert get_refusal(client.patch("/v1/auth/reset-password", json=body)) == (400, "token-invalid", "/data/token")


def test_one_reset_token_used_at_once_sets_one_password(
    app: Flask, client: FlaskClient, make_user: Callable[..., int], deliver_mails: Deliver
) -> None:
    make_user(is_verified=True)
    client.post("/v1/auth/reset-password", json={"data": {"email": EMAIL}})
    token = get_mailed_token(deliver_mails()[0])

    def reset(number: int) -> int:
        body = {"data": {"token": token, "password": f"password {number}"}}
        return app.test_client().patch("/v1/auth/reset-password", json=body).status_code

    with ThreadPoolExecutor(4) as threads:
        statuses = sorted(threads.map(reset, range(4)))

    assert statuses == [200, 400, 400, 400]


def test_a_reset_answers_alike_for_unknown_addresses(
    client: FlaskClient, make_user: Callable[..., int], deliver_mails: Deliver
) -> None:
    make_user(is_verified=True)
    make_user("blocked@example.com", is_verified=True, is_blocked=True)

    answers = [
        client.post("/v1/auth/reset-password/", json={"data": {"email": email}})
        for email in (EMAIL, "blocked@example.com", "nobody@example.com", "", "not an address")
    ]

    assert {(answer.status_code, answer.text) for answer in answers} == {(200, answers[0].text)}
    assert [mail["To"] for mail in deliver_mails()] == [EMAIL]


def test_a_reset_mail_is_not_sent_again_once_the_password_has_changed(
    client: FlaskClient, make_user: Callable[..., int], deliver_mails: Deliver, run_sql: Sql, tmp_path: Path
) -> None:
    make_user(is_verified=True)
    client.post("/v1/auth/reset-password", json={"data": {"email": EMAIL}})
    (mail,) = deliver_mails()
    assert (
        client.patch(
            "/v1/auth/reset-password", json={"token": get_mailed_token(mail), "password": NEW_PASSWORD}
        ).status_code
        == 200
    )
    run_sql("UPDATE outbox_entries SET done_at = NULL WHERE consumer = 'users.mail_reset'")

    (sent,) = (tmp_path / "mail").iterdir()
    sent.unlink()

    assert [mail["Subject"] for mail in deliver_mails()] == ["Your password was changed"]
    assert (
        client.patch(
            "/v1/auth/reset-password", json={"token": get_mailed_token(mail), "password": NEW_PASSWORD}
        ).status_code
        == 400
    )


def test_a_reset_token_is_too_old_after_an_hour(
    client: FlaskClient, make_user: Callable[..., int], deliver_mails: Deliver, run_sql: Sql
) -> None:
    make_user(is_verified=True)
    client.post("/v1/auth/reset-password", json={"data": {"email": EMAIL}})
    run_sql("UPDATE outbox_entries SET created_at = now() - interval '1 hour'")

    token = get_mailed_token(deliver_mails()[0])

    assert client.patch("/v1/auth/reset-password", json={"token": token, "password": NEW_PASSWORD}).status_code == 400
    assert tokens.MAIL_TOKEN_LIFETIMES[tokens.RESET_PASSWORD].total_seconds() == 3600


@pytest.mark.parametrize("password", ["short", "x" * 129, ""])
def test_an_unfit_new_password_is_refused_with_its_pointer(
    client: FlaskClient, user_id: int, log_in: LogIn, password: str
) -> None:
    changed = client.post(
        "/v1/auth/change-password",
        json={"old_password": PASSWORD, "new_password": password},
        headers=bearer_header(log_in()),
    )
    reset = client.patch("/v1/auth/reset-password", json={"data": {"token": "x", "password": password}})

    assert get_refusal(changed) == (422, "invalid-value", "/new_password")
    assert get_refusal(reset) == (422, "invalid-value", "/data/password")


# --- change


@pytest.mark.parametrize("wrap", [lambda body: body, lambda body: {"data": body}])
@pytest.mark.parametrize("names", [("old-password", "new-password"), ("old_password", "new_password")])
def test_a_changed_password_keeps_this_session_and_ends_the_others(
    client: FlaskClient,
    user_id: int,
    log_in: LogIn,
    is_signed_in: Callable[[dict[str, str]], bool],
    wrap: Callable[[object], object],
    names: tuple[str, str],
) -> None:
    here, there = log_in(), log_in()
    body = wrap(dict(zip(names, (PASSWORD, NEW_PASSWORD), strict=True)))

    assert client.post("/v1/auth/change-password", json=body, headers=bearer_header(here)).status_code == 200

    assert is_signed_in(here)
    assert not is_signed_in(there)
    assert client.post("/v1/auth/token/refresh", json=here).status_code == 200
    assert client.post("/v1/auth/token/refresh", json=there).status_code == 401
    log_in(password=NEW_PASSWORD)


def test_a_wrong_old_password_changes_nothing(client: FlaskClient, user_id: int, log_in: LogIn) -> None:
    body = {"old-password": "wrong password", "new-password": NEW_PASSWORD}

    response = client.post("/v1/auth/change-password", json=body, headers=bearer_header(log_in()))

    assert get_refusal(response) == (400, "wrong-password", "/old-password")
    log_in()


def test_changing_a_password_needs_a_token(client: FlaskClient) -> None:
    body = {"old-password": PASSWORD, "new-password": NEW_PASSWORD}

    assert client.post("/v1/auth/change-password", json=body).status_code == 401


def test_a_log_in_during_a_password_change_does_not_survive_it(
    app: Flask, client: FlaskClient, user_id: int, log_in: LogIn, is_signed_in: Callable[[dict[str, str]], bool]
) -> None:
    mine = log_in()

    def log_in_with_the_old_one(_: int) -> dict[str, str] | None:
        response = app.test_client().post("/v1/auth/login", json={"email": EMAIL, "password": PASSWORD})
        return response.get_json() if response.status_code == 200 else None

    with ThreadPoolExecutor(4) as threads:
        pending = [threads.submit(log_in_with_the_old_one, number) for number in range(6)]
        body = {"old-password": PASSWORD, "new-password": NEW_PASSWORD}
        assert client.post("/v1/auth/change-password", json=body, headers=bearer_header(mine)).status_code == 200
        sessions = [session for future in pending if (session := future.result())]

    assert not any(is_signed_in(session) for session in sessions)


# --- small questions


def test_check_email_tells_whether_an_address_is_taken(client: FlaskClient, user_id: int, run_sql: Sql) -> None:
    def exists(email: str) -> object:
        return client.post("/v1/users/check_email", json={"email": email}).get_json()

    assert exists(" ADA@example.com") == {"exists": True}
    assert exists("nobody@example.com") == {"exists": False}
    run_sql("UPDATE users SET deleted_at = now()")
    assert exists(EMAIL) == {"exists": False}


def test_get_user_id(client: FlaskClient, user_id: int, log_in: LogIn) -> None:
    response = client.get("/v1/users/user-details/get-user-id/", headers=bearer_header(log_in()))

    assert response.get_json() == {"user_id": user_id}
    assert response.content_type == "application/json"
