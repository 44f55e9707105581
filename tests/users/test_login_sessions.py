"""Log-in, refresh and logout."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import jwt
import pytest
from argon2 import PasswordHasher
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.pool import QueuePool

from app.extensions import db
from app.users import login_sessions, passwords
from tests.users.conftest import EMAIL, PASSWORD, Sql, bearer_header

JSONAPI = "application/vnd.api+json"

Tokens = dict[str, str]


def refresh_tokens(client: FlaskClient, token: str) -> tuple[int, Tokens]:
    """Refresh and return the status and the new tokens."""
    response = client.post("/v1/auth/token/refresh", json={"refresh_token": token})
    assert response.headers["Cache-Control"] == "no-store"
    return response.status_code, response.get_json(force=True)


@pytest.mark.parametrize("path", ["/auth/session", "/auth/session/", "/v1/auth/login", "/v1/auth/login/"])
@pytest.mark.parametrize("media_type", ["application/json", "application/json; charset=utf-8", JSONAPI])
def test_log_in_gives_two_tokens(client: FlaskClient, user_id: int, path: str, media_type: str) -> None:
    body = f'{{"email": "  aDA@Example.COM ", "password": "{PASSWORD}"}}'

    response = client.post(path, data=body, content_type=media_type)

    assert response.status_code == 200
    assert set(response.get_json()) == {"access_token", "refresh_token"}
    assert response.content_type == "application/json"
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("wrap", [lambda body: body, lambda body: {"data": body}])
def test_log_in_takes_username_for_email_and_a_data_member(
    client: FlaskClient, user_id: int, wrap: Callable[[Tokens], object]
) -> None:
    response = client.post("/v1/auth/login", json=wrap({"username": EMAIL, "password": PASSWORD}))

    assert response.status_code == 200


@pytest.mark.parametrize(
    ("email", "password"),
    [(EMAIL, "wrong password"), ("nobody@example.com", PASSWORD), (EMAIL, ""), ("", PASSWORD), (EMAIL, "x" * 10_000),
     (EMAIL, PASSWORD.upper()), ("x" * 10_000, PASSWORD)],
)  # fmt: skip
def test_wrong_credentials_are_answered_alike(client: FlaskClient, user_id: int, email: str, password: str) -> None:
    response = client.post("/v1/auth/login", json={"email": email, "password": password})

    assert response.status_code == 401
    (error,) = response.get_json(force=True)["errors"]
    del error["id"]
    assert error == {
        "status": "401",
        "code": "invalid-credentials",
        "title": "Unauthorized",
        "detail": "Invalid Credentials",
    }


@pytest.mark.parametrize("column", ["is_blocked = true", "deleted_at = now()"])
def test_blocked_and_deleted_users_cannot_log_in_nor_refresh(
    client: FlaskClient, user_id: int, log_in: Callable[..., Tokens], run_sql: Sql, column: str
) -> None:
    tokens = log_in()
    run_sql(f"UPDATE users SET {column}")  # noqa: S608  # the words stand above

    assert client.post("/v1/auth/login", json={"email": EMAIL, "password": PASSWORD}).status_code == 401
    assert refresh_tokens(client, tokens["refresh_token"])[0] == 401


def test_an_unknown_account_costs_the_same_hash_as_a_known_one(
    client: FlaskClient, user_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = []
    verify = PasswordHasher.verify

    def counting(self: PasswordHasher, password_hash: str, password: str) -> bool:
        verified.append(password_hash.rsplit("$", 2)[0])
        return verify(self, password_hash, password)

    monkeypatch.setattr(PasswordHasher, "verify", counting)
    for email in (EMAIL, "nobody@example.com"):
        client.post("/v1/auth/login", json={"email": email, "password": "wrong password"})

    assert verified == ["$argon2id$v=19$m=19456,t=2,p=1"] * 2


def test_no_database_connection_is_held_while_a_password_is_hashed(
    app: Flask, client: FlaskClient, user_id: int, log_in: Callable[..., Tokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []
    verify = PasswordHasher.verify

    def watching(self: PasswordHasher, password_hash: str, password: str) -> bool:
        pool = db.engine.pool
        assert isinstance(pool, QueuePool)
        held.append(pool.checkedout())
        return verify(self, password_hash, password)

    monkeypatch.setattr(PasswordHasher, "verify", watching)
    tokens = log_in()
    body = {"old-password": PASSWORD, "new-password": "another good one"}
    client.post("/v1/auth/change-password", json=body, headers=bearer_header(tokens))

    assert held == [0, 0]


def test_a_hash_with_old_parameters_is_replaced_at_log_in(
    client: FlaskClient, user_id: int, log_in: Callable[..., Tokens], run_sql: Sql
) -> None:
    run_sql("UPDATE users SET password_hash = :hash", hash=PasswordHasher(1, 8, 1).hash(PASSWORD))

    log_in()

    ((stored,),) = run_sql("SELECT password_hash FROM users")
    assert not passwords.needs_rehash(str(stored))
    log_in()


def test_refresh_gives_a_new_pair_that_is_not_fresh(
    client: FlaskClient, user_id: int, log_in: Callable[..., Tokens], is_signed_in: Callable[[Tokens], bool]
) -> None:
    first = log_in()

    status, second = refresh_tokens(client, first["refresh_token"])

    assert status == 200
    assert second["refresh_token"] != first["refresh_token"]
    assert is_signed_in(second)
    claims = [jwt.decode(pair["access_token"], options={"verify_signature": False}) for pair in (first, second)]
    assert [claim["fresh"] for claim in claims] == [True, False]
    assert claims[0]["sid"] == claims[1]["sid"]


def test_tokens_are_not_stored_as_they_are(user_id: int, log_in: Callable[..., Tokens], run_sql: Sql) -> None:
    tokens = log_in()

    assert run_sql("SELECT length(token_hash) FROM refresh_tokens") == [(32,)]
    assert tokens["refresh_token"].encode() not in bytes(run_sql("SELECT token_hash FROM refresh_tokens")[0][0])  # type: ignore[call-overload]  # a column of bytes


def test_a_refresh_token_used_again_within_the_grace_gives_the_same_successor(
    client: FlaskClient, user_id: int, log_in: Callable[..., Tokens], run_sql: Sql
) -> None:
    first = log_in()["refresh_token"]

    successors = {refresh_tokens(client, first)[1]["refresh_token"] for _ in range(3)}

    assert len(successors) == 1
    assert run_sql("SELECT count(*) FROM refresh_tokens") == [(2,)]
    assert refresh_tokens(client, successors.pop())[0] == 200


def test_reuse_after_the_grace_ends_the_whole_family(
    client: FlaskClient,
    user_id: int,
    log_in: Callable[..., Tokens],
    is_signed_in: Callable[[Tokens], bool],
    run_sql: Sql,
) -> None:
    other, stolen = log_in(), log_in()
    _, current = refresh_tokens(client, stolen["refresh_token"])
    run_sql("UPDATE refresh_tokens SET used_at = used_at - interval '11 seconds'")

    status, document = refresh_tokens(client, stolen["refresh_token"])

    assert (status, document["errors"][0]["code"]) == (401, "token-invalid")  # type: ignore[index]  # an error document
    assert not is_signed_in(stolen)
    assert not is_signed_in(current)
    assert refresh_tokens(client, current["refresh_token"])[0] == 401
    assert is_signed_in(other)


def test_many_refreshes_at_once_make_one_successor(
    app: Flask, user_id: int, log_in: Callable[..., Tokens], run_sql: Sql
) -> None:
    token = log_in()["refresh_token"]

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: refresh_tokens(app.test_client(), token), range(16)))

    assert {status for status, _ in answers} == {200}
    assert len({pair["refresh_token"] for _, pair in answers}) == 1
    assert run_sql("SELECT count(*) FROM refresh_tokens") == [(2,)]


def test_refresh_and_logout_at_once_leave_nobody_signed_in(
    app: Flask, client: FlaskClient, user_id: int, log_in: Callable[..., Tokens]
) -> None:
    tokens = log_in()

    def log_out() -> tuple[int, Tokens]:
        response = app.test_client().post("/v1/auth/logout", headers=bearer_header(tokens))
        return response.status_code, {}

    with ThreadPoolExecutor(2) as threads:
        refreshed = threads.submit(refresh_tokens, app.test_client(), tokens["refresh_token"])
        assert threads.submit(log_out).result()[0] == 200
        status, pair = refreshed.result()

    if status == 200:
        assert refresh_tokens(client, pair["refresh_token"])[0] == 401


@pytest.mark.parametrize("token", ["", "x", "x" * 10_000, "ö"])
def test_an_unknown_refresh_token_is_refused(client: FlaskClient, token: str) -> None:
    assert refresh_tokens(client, token)[0] == 401


def test_an_old_refresh_token_is_refused(
    client: FlaskClient, user_id: int, log_in: Callable[..., Tokens], run_sql: Sql
) -> None:
    token = log_in()["refresh_token"]
    ((days,),) = run_sql("SELECT extract(day FROM expires_at - created_at)::int FROM refresh_tokens")
    run_sql("UPDATE refresh_tokens SET expires_at = now()")

    assert days == 30
    assert refresh_tokens(client, token)[0] == 401


def test_an_access_token_is_no_refresh_token(client: FlaskClient, user_id: int, log_in: Callable[..., Tokens]) -> None:
    assert refresh_tokens(client, log_in()["access_token"])[0] == 401


def test_logout_ends_its_own_session_only(
    client: FlaskClient, user_id: int, log_in: Callable[..., Tokens], is_signed_in: Callable[[Tokens], bool]
) -> None:
    here, there = log_in(), log_in()

    assert client.post("/v1/auth/logout/", headers=bearer_header(here)).status_code == 200

    assert refresh_tokens(client, here["refresh_token"])[0] == 401
    assert not is_signed_in(here)
    assert is_signed_in(there)


def test_logout_needs_a_token(client: FlaskClient) -> None:
    assert client.post("/v1/auth/logout").status_code == 401


def test_old_sessions_are_pruned(app: Flask, user_id: int, log_in: Callable[..., Tokens], run_sql: Sql) -> None:
    for _ in range(3):
        log_in()
    kept, revoked, expired = [sign_in for (sign_in,) in run_sql("SELECT id FROM sign_ins")]
    run_sql("UPDATE sign_ins SET revoked_at = now() - interval '31 days' WHERE id = :id", id=revoked)
    run_sql("UPDATE sign_ins SET created_at = now() - interval '90 days' WHERE id = :id", id=expired)
    run_sql("UPDATE refresh_tokens SET expires_at = now() - interval '31 days' WHERE sign_in_id = :id", id=expired)

    with app.app_context():
        while login_sessions.prune_sessions(timedelta(days=30)):
            continue

    assert run_sql("SELECT id FROM sign_ins") == [(kept,)]
    assert run_sql("SELECT count(*) FROM refresh_tokens") == [(1,)]


def test_used_refresh_tokens_are_pruned_when_they_expire_and_the_last_one_later(
    app: Flask, client: FlaskClient, user_id: int, log_in: Callable[..., Tokens], run_sql: Sql
) -> None:
    _, pair = refresh_tokens(client, log_in()["refresh_token"])
    refresh_tokens(client, pair["refresh_token"])
    run_sql("UPDATE refresh_tokens SET expires_at = now() + interval '1 minute' WHERE used_at IS NOT NULL")

    def prune() -> list[tuple[object, ...]]:
        with app.app_context():
            while login_sessions.prune_sessions(timedelta(days=30)):
                continue
        return run_sql("SELECT used_at IS NOT NULL FROM refresh_tokens ORDER BY 1")

    assert prune() == [(False,), (True,), (True,)], "they show that a token was stolen"
    run_sql("UPDATE refresh_tokens SET expires_at = now() - interval '1 minute'")
    assert prune() == [(False,)], "its device is known"
