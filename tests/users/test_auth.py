"""Authorization header: accepted tokens, and errors for all others."""

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import create_engine, text

from app.extensions import db
from app.users import tokens
from app.users.auth import load_user_ignoring_expiry, touch_last_access
from tests.conftest import Processes, find_free_port
from tests.test_end_to_end import attempt_get
from tests.users.conftest import EMAIL, PASSWORD, Sql, bearer_header

pytestmark = pytest.mark.long

USER_ID_URL = "/v1/users/user-details/get-user-id"

Change = Callable[[dict[str, Any], dict[str, Any]], None]


@pytest.fixture
def access_token(log_in: Callable[..., dict[str, str]], user_id: int) -> str:
    """Return a valid access token."""
    return log_in()["access_token"]


@pytest.fixture
def forge_token(app: Flask, access_token: str) -> Callable[..., str]:
    """Return a function that signs the valid token again with a changed claim or header."""

    def sign(claims: dict[str, Any] | None = None, header: dict[str, Any] | None = None, **how: Any) -> str:
        payload = jwt.decode(access_token, options={"verify_signature": False}) | (claims or {})
        headers = jwt.get_unverified_header(access_token) | (header or {})
        return jwt.encode(
            {name: value for name, value in payload.items() if value is not None},
            how.get("key", app.config["JWT_KEYS"][0].secret),
            how.get("algorithm", "HS256"),
            headers={name: value for name, value in headers.items() if name != "alg"},
        )

    return sign


def get_user_id(client: FlaskClient, header: str | None) -> tuple[int, str]:
    """Return the status and error code of a request with this header."""
    response = client.get(USER_ID_URL, headers={"Authorization": header} if header is not None else {})
    if response.status_code == 401:
        assert response.content_type == "application/vnd.api+json"
        assert "JWT" in response.headers["WWW-Authenticate"]
        return 401, response.get_json(force=True)["errors"][0]["code"]
    return response.status_code, ""


@pytest.mark.parametrize("scheme", ["JWT", "Bearer", "jwt", "bearer"])
def test_a_good_token_is_somebody_with_either_scheme(client: FlaskClient, access_token: str, scheme: str) -> None:
    assert get_user_id(client, f"{scheme} {access_token}") == (200, "")


def test_the_forged_token_is_good_before_anything_is_changed(
    client: FlaskClient, forge_token: Callable[..., str]
) -> None:
    assert get_user_id(client, f"JWT {forge_token()}") == (200, "")


def test_without_a_header_a_route_for_signed_in_people_answers_401(client: FlaskClient) -> None:
    assert get_user_id(client, None) == (401, "unauthenticated")


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "exp", "iat", "nbf", "jti", "sid", "fresh"])
def test_a_token_without_a_required_claim_is_invalid(
    client: FlaskClient, forge_token: Callable[..., str], name: str
) -> None:
    assert get_user_id(client, f"JWT {forge_token({name: None})}") == (401, "token-invalid")


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"exp": 1_700_000_000}, "token-expired"),
        ({"exp": 1_700_000_000, "iss": "https://elsewhere.test"}, "token-invalid"),
        ({"exp": "soon"}, "token-invalid"),
        ({"nbf": 4_000_000_000}, "token-invalid"),
        ({"iat": 4_000_000_000}, "token-invalid"),
        ({"iss": "https://elsewhere.test"}, "token-invalid"),
        ({"aud": "https://elsewhere.test"}, "token-invalid"),
        ({"aud": ["https://elsewhere.test"]}, "token-invalid"),
        ({"sub": 1}, "token-invalid"),
        ({"sub": "x"}, "token-invalid"),
        ({"sub": "-1"}, "token-invalid"),
        ({"sub": "٣"}, "token-invalid"),
        ({"sub": "9" * 30}, "token-invalid"),
        ({"sub": "999999999"}, "token-revoked"),
        ({"sid": "x"}, "token-invalid"),
        ({"sid": 7}, "token-invalid"),
        ({"sid": str(uuid4())}, "token-revoked"),
    ],
)
def test_a_token_with_a_wrong_claim_is_refused(
    client: FlaskClient, forge_token: Callable[..., str], claims: dict[str, Any], code: str
) -> None:
    assert get_user_id(client, f"JWT {forge_token(claims)}") == (401, code)


@pytest.mark.parametrize(("claim", "code"), [("iat", "token-invalid"), ("nbf", "token-invalid")])
def test_clock_leeway_takes_a_token_from_a_little_ahead(
    client: FlaskClient, forge_token: Callable[..., str], claim: str, code: str
) -> None:
    now = time.time()

    assert get_user_id(client, f"JWT {forge_token({claim: now + tokens.CLOCK_LEEWAY_SECONDS - 1})}")[0] == 200
    assert get_user_id(client, f"JWT {forge_token({claim: now + tokens.CLOCK_LEEWAY_SECONDS + 10})}") == (401, code)


def test_clock_leeway_is_none_for_a_token_that_has_just_expired(
    client: FlaskClient, forge_token: Callable[..., str]
) -> None:
    now = int(time.time())

    assert get_user_id(client, f"JWT {forge_token({'exp': now})}") == (401, "token-expired")
    assert get_user_id(client, f"JWT {forge_token({'exp': now + 60})}")[0] == 200
    for no_time in ("soon", [1], None, float("inf")):
        assert get_user_id(client, f"JWT {forge_token({'exp': no_time})}") == (401, "token-invalid")


CLOCK_AHEAD_SCRIPT = """
import time
real_time = time.time
time.time = lambda: real_time() + {seconds}
"""
"""A `sitecustomize` that puts the clock ahead with which a process issues tokens."""


def test_token_of_a_process_whose_clock_is_ahead_is_taken_by_another(
    user_id: int,
    processes: Processes,
    tmp_path: Path,
    wait_until: Callable[..., Any],
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CLOCK_AHEAD_SCRIPT.format(seconds=5))
    ahead = str(find_free_port())
    processes.start("web", PUBLIC_URL=processes.base_url)
    processes.start("web", PUBLIC_URL=processes.base_url, PORT=ahead, PYTHONPATH=str(tmp_path))
    urls = [processes.base_url, f"http://127.0.0.1:{ahead}"]
    wait_until(lambda: all(attempt_get(f"{url}/livez") == 200 for url in urls), 60)

    answer = httpx.post(f"{urls[1]}/v1/auth/login", json={"email": EMAIL, "password": PASSWORD}, timeout=30)
    token = answer.json()["access_token"]

    assert jwt.decode(token, options={"verify_signature": False})["iat"] > time.time() + 2, "its clock is ahead"
    for url in urls:
        assert httpx.get(url + USER_ID_URL, headers={"Authorization": f"JWT {token}"}, timeout=30).status_code == 200


@pytest.mark.parametrize(
    "header",
    [{"kid": "nobody"}, {"kid": ""}, {"typ": "JWT"}, {"typ": tokens.VERIFY_EMAIL}, {"typ": tokens.RESET_PASSWORD}],
)
def test_a_token_with_a_wrong_header_is_refused(
    client: FlaskClient, forge_token: Callable[..., str], header: dict[str, Any]
) -> None:
    assert get_user_id(client, f"JWT {forge_token(header=header)}") == (401, "token-invalid")


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")  # the forger's key is what it is
def test_a_token_of_another_key_or_algorithm_is_refused(client: FlaskClient, forge_token: Callable[..., str]) -> None:
    assert get_user_id(client, f"JWT {forge_token(key=bytes(32))}") == (401, "token-invalid")
    assert get_user_id(client, f"JWT {forge_token(algorithm='HS512')}") == (401, "token-invalid")
    assert get_user_id(client, f"JWT {forge_token(key=None, algorithm='none')}") == (401, "token-invalid")


def test_a_changed_payload_is_refused(client: FlaskClient, access_token: str) -> None:
    header, _, signature = access_token.split(".")
    claims = jwt.decode(access_token, options={"verify_signature": False}) | {"sub": "2"}

    changed = f"{header}.{_base64(claims)}.{signature}"

    assert get_user_id(client, f"JWT {changed}") == (401, "token-invalid")


@pytest.mark.parametrize(
    "token",
    ["", "x", "a.b", "a.b.c", "....", "é.é.é", "null", "x" * 1_000_000, "JWT", "a b c",
     base64.urlsafe_b64encode(b"[" * 1400).decode() + ".e30.e30",
     base64.urlsafe_b64encode(b'{"alg":"HS256","kid":["dev"]}').decode() + ".e30.e30",
     base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"\\ud800"}').decode() + ".e30.e30",
     base64.urlsafe_b64encode(b"\xff\xfe").decode() + ".e30.e30"],
)  # fmt: skip
def test_malformed_access_token_is_401(client: FlaskClient, token: str) -> None:
    assert get_user_id(client, f"JWT {token}") == (401, "token-invalid")


@pytest.mark.parametrize("header", ["", "Basic YWRhOnB3", "Token abc", "Digest x", "JWTx"])
def test_another_scheme_is_refused(client: FlaskClient, header: str) -> None:
    assert get_user_id(client, header) == (401, "token-invalid")


@pytest.mark.parametrize("column", ["is_blocked = true", "deleted_at = now()"])
def test_the_token_of_a_blocked_or_deleted_user_is_refused(
    client: FlaskClient, access_token: str, run_sql: Sql, column: str
) -> None:
    run_sql(f"UPDATE users SET {column}")  # noqa: S608  # the words stand above

    assert get_user_id(client, f"JWT {access_token}") == (401, "token-revoked")


def test_the_token_is_refused_after_logout(client: FlaskClient, access_token: str) -> None:
    assert client.post("/v1/auth/logout", headers={"Authorization": f"JWT {access_token}"}).status_code == 200

    assert get_user_id(client, f"JWT {access_token}") == (401, "token-revoked")


def test_password_change_revokes_other_access_tokens(
    client: FlaskClient, access_token: str, log_in: Callable[..., dict[str, str]]
) -> None:
    mine = log_in()

    changed = client.post(
        "/v1/auth/change-password",
        json={"old-password": PASSWORD, "new-password": "another good one"},
        headers=bearer_header(mine),
    )

    assert changed.status_code == 200
    assert get_user_id(client, f"JWT {access_token}") == (401, "token-revoked")
    assert get_user_id(client, f"JWT {mine['access_token']}") == (200, "")


def test_an_old_key_still_verifies_and_the_first_one_signs(
    app: Flask,
    client: FlaskClient,
    access_token: str,
    log_in: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = app.config["JWT_KEYS"][0]
    new = type(old)("new", b"n" * 32)
    monkeypatch.setitem(app.config, "JWT_KEYS", (new, old))

    fresh = log_in()["access_token"]

    assert get_user_id(client, f"JWT {access_token}") == (200, "")
    assert get_user_id(client, f"JWT {fresh}") == (200, "")
    assert jwt.get_unverified_header(fresh) == {"alg": "HS256", "kid": "new", "typ": "at+jwt"}


def test_an_access_token_lives_15_minutes_and_names_its_sign_in(access_token: str) -> None:
    claims = jwt.decode(access_token, options={"verify_signature": False})

    assert claims["exp"] - claims["iat"] == 900
    assert claims["sub"].isdigit()
    assert set(claims) == {"iss", "aud", "sub", "exp", "iat", "nbf", "jti", "sid", "fresh", "auth_time"}
    assert abs(claims["iat"] - time.time()) < 60


def test_get_identity_forgives_the_time_and_nothing_else(
    app: Flask, user_id: int, forge_token: Callable[..., str]
) -> None:
    expired = {"exp": 1_700_000_000}

    with app.test_request_context(headers={"Authorization": f"JWT {forge_token(expired)}"}):
        assert load_user_ignoring_expiry().id == user_id
    for wrong in (
        forge_token(expired, key=bytes(32)),
        forge_token(expired | {"aud": "x"}),
        forge_token(expired | {"iss": "x"}),
    ):
        with (
            app.test_request_context(headers={"Authorization": f"JWT {wrong}"}),
            pytest.raises(Exception, match="not valid"),
        ):
            load_user_ignoring_expiry()


def test_an_expired_token_can_still_log_out(
    client: FlaskClient, forge_token: Callable[..., str], access_token: str
) -> None:
    expired = forge_token({"exp": 1_700_000_000})

    assert get_user_id(client, f"JWT {expired}") == (401, "token-expired")
    assert client.post("/v1/auth/logout", headers={"Authorization": f"JWT {expired}"}).status_code == 200
    assert get_user_id(client, f"JWT {access_token}") == (401, "token-revoked")


def test_the_last_access_is_written_once_an_hour(client: FlaskClient, access_token: str, run_sql: Sql) -> None:
    def visit() -> object:
        with client.get(USER_ID_URL, headers={"Authorization": f"JWT {access_token}"}) as response:
            assert response.status_code == 200
        return run_sql("SELECT last_accessed_at FROM users")[0][0]

    first = visit()
    assert first is not None
    assert visit() == first
    run_sql("UPDATE users SET last_accessed_at = now() - interval '61 minutes'")
    assert visit() != first
    assert run_sql("SELECT last_accessed_at > now() - interval '1 minute' FROM users") == [(True,)]


def test_noting_the_access_waits_for_nobody(app: Flask, user_id: int, run_sql: Sql) -> None:
    with app.app_context(), db.engine.connect() as other:
        other.execute(text("SELECT 1 FROM users FOR UPDATE"))
        touch_last_access(db.engine, user_id)
        other.rollback()

    assert run_sql("SELECT last_accessed_at FROM users") == [(None,)]


def test_noting_the_access_is_never_an_error(app: Flask, user_id: int) -> None:
    nowhere = create_engine("postgresql+psycopg://nobody@/nowhere?host=/nonexistent")

    touch_last_access(nowhere, user_id)


def _base64(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
