"""Changes that could take an account over need its password, in the request or a few minutes before."""

from collections.abc import Callable, Iterator
from email.message import EmailMessage
from typing import Any
from unittest.mock import patch

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.users import login_sessions, tokens
from tests.dataset import ApiClient, Dataset, get_data, get_errors
from tests.hooks.requests import call_hook
from tests.hooks.requests import create_hook as make_hook
from tests.hooks.requests import post_hook as make_hook_with
from tests.jsonapi.test_operations import send_operations as operate
from tests.users.conftest import EMAIL, PASSWORD, Sql

Deliver = Callable[[], list[EmailMessage]]

NEW_ADDRESS, NEW_PASSWORD = "else@example.com", "another good one"
STALE_AGE_SECONDS = tokens.MAX_AUTHENTICATION_AGE_SECONDS + 1


@pytest.fixture
def sign_in(app: Flask) -> Callable[..., ApiClient]:
    """Return a function that logs a user in this many seconds ago."""

    def start(id_: int, seconds: int = 0) -> ApiClient:
        now = tokens.time.time()
        with app.app_context(), patch("time.time", lambda: now - seconds):
            token = login_sessions.create_session(id_).access_token
            login_sessions.db.session.commit()
        return ApiClient(app.test_client(), token, id_)

    return start


@pytest.fixture(params=["stolen", "refreshed"])
def caller(
    request: pytest.FixtureRequest, app: Flask, user_id: int, sign_in: Callable[..., ApiClient]
) -> Iterator[ApiClient]:
    """Return Ada with tokens that do not prove her password: of an old log-in, and of a refresh."""
    if request.param == "stolen":
        yield sign_in(user_id, STALE_AGE_SECONDS)
        return
    client = app.test_client()
    first = client.post("/auth/session", json={"email": EMAIL, "password": PASSWORD}).get_json()
    second = client.post("/v1/auth/token/refresh", json={"refresh_token": first["refresh_token"]}).get_json()
    yield ApiClient(client, second["access_token"], user_id)


def get_refusal(response: TestResponse) -> tuple[int, str, dict[str, str]]:
    """Return the status, code and source of the only error."""
    (error,) = get_errors(response)
    return response.status_code, error["code"], error.get("source", {})


def update_account(caller: ApiClient, **attributes: Any) -> TestResponse:
    """Change the caller's own account."""
    return caller.update(f"/v1/users/{caller.id}", "user", {k.replace("_", "-"): v for k, v in attributes.items()})


@pytest.mark.parametrize(
    ("name", "value"), [("email", NEW_ADDRESS), ("password", NEW_PASSWORD), ("email", EMAIL.upper())]
)
def test_a_change_with_a_token_alone_is_refused(caller: ApiClient, run_sql: Sql, name: str, value: str) -> None:
    before = run_sql("SELECT email, password_hash FROM users")

    answer = update_account(caller, **{name: value, "details": "hacked"})

    assert get_refusal(answer) == (403, "password-required", {"pointer": f"/data/attributes/{name}"})
    assert run_sql("SELECT email, password_hash FROM users WHERE details IS NULL") == before


def test_a_deletion_with_a_token_alone_is_refused(caller: ApiClient, run_sql: Sql) -> None:
    answer = caller.delete(f"/v1/users/{caller.id}")

    assert get_refusal(answer) == (403, "password-required", {"header": "Authorization"})
    assert run_sql("SELECT count(*) FROM users WHERE deleted_at IS NULL") == [(1,)]


def test_the_current_password_permits_a_change_and_the_old_address_is_told(
    caller: ApiClient, deliver_mails: Deliver, run_sql: Sql
) -> None:
    deliver_mails()
    run_sql("UPDATE users SET is_verified = true")

    answer = update_account(caller, email=NEW_ADDRESS, password=NEW_PASSWORD, current_password=PASSWORD)

    assert get_data(answer)["attributes"]["email"] == NEW_ADDRESS
    assert "current-password" not in answer.text
    mails = {(mail["To"], mail["Subject"]) for mail in deliver_mails()}
    assert {(EMAIL, "Your e-mail address was changed"), (EMAIL, "Your password was changed")} <= mails


def test_a_wrong_current_password_is_refused_even_with_a_recent_token(
    user_id: int, sign_in: Callable[..., ApiClient], run_sql: Sql
) -> None:
    for caller in (sign_in(user_id), sign_in(user_id, STALE_AGE_SECONDS)):
        answer = update_account(caller, email=NEW_ADDRESS, current_password="not this one")

        assert get_refusal(answer) == (403, "wrong-password", {"pointer": "/data/attributes/current-password"})
    assert run_sql("SELECT email FROM users") == [(EMAIL,)]


def test_current_passwords_are_counted_with_log_ins(
    user_id: int, sign_in: Callable[..., ApiClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = sign_in(user_id, STALE_AGE_SECONDS)
    counted: list[tuple[str, str | None]] = []
    monkeypatch.setattr("app.throttle.count_account", lambda action, account, **_: counted.append((action, account)))

    update_account(caller, current_password="a guess")
    caller.client.post("/v1/auth/login", json={"email": EMAIL, "password": "a guess"})

    assert counted == [("log-in", EMAIL.lower())] * 2


@pytest.mark.parametrize(("value", "status"), [(None, 403), (7, 422), ([PASSWORD], 422)])
def test_a_current_password_that_is_no_text(
    user_id: int, sign_in: Callable[..., ApiClient], value: Any, status: int
) -> None:
    answer = update_account(sign_in(user_id, STALE_AGE_SECONDS), email=NEW_ADDRESS, current_password=value)

    assert answer.status_code == status


def test_a_token_of_a_log_in_a_moment_ago_needs_no_password(
    user_id: int, sign_in: Callable[..., ApiClient], deliver_mails: Deliver, run_sql: Sql
) -> None:
    deliver_mails()
    run_sql("UPDATE users SET is_verified = true")
    caller = sign_in(user_id, tokens.MAX_AUTHENTICATION_AGE_SECONDS - 30)

    assert update_account(caller, email=NEW_ADDRESS).status_code == 200
    assert update_account(caller, password=NEW_PASSWORD).status_code == 200
    assert caller.delete(f"/v1/users/{user_id}").status_code == 200

    mails = [(mail["To"], mail["Subject"]) for mail in deliver_mails() if mail["Subject"].startswith("Your ")]
    assert mails == [(EMAIL, "Your e-mail address was changed")], "the new address is not verified"


def test_the_time_of_the_log_in_survives_a_refresh(app: Flask, user_id: int, run_sql: Sql) -> None:
    client = app.test_client()
    pair = client.post("/auth/session", json={"email": EMAIL, "password": PASSWORD}).get_json()
    run_sql("UPDATE sign_ins SET created_at = to_timestamp(1700000000)")

    refreshed = client.post("/v1/auth/token/refresh", json={"refresh_token": pair["refresh_token"]}).get_json()

    with app.app_context():
        assert tokens.read_access_token(refreshed["access_token"]).authenticated_at == 1_700_000_000
        assert abs(tokens.read_access_token(pair["access_token"]).authenticated_at - tokens.time.time()) < 60


def test_unchanged_patch_needs_no_password(user_id: int, sign_in: Callable[..., ApiClient]) -> None:
    caller = sign_in(user_id, STALE_AGE_SECONDS)
    read = get_data(caller.get(f"/v1/users/{user_id}"))

    assert caller.send("PATCH", f"/v1/users/{user_id}", {"data": read}).status_code == 200
    assert update_account(caller, details="new").status_code == 200


def test_an_admin_gives_their_own_password_for_another_account(
    user_id: int, make_user: Callable[..., int], sign_in: Callable[..., ApiClient]
) -> None:
    admin = sign_in(make_user("admin@example.com", "password of the admin", is_admin=True), STALE_AGE_SECONDS)
    path = f"/v1/users/{user_id}"

    alone = admin.update(path, "user", {"password": NEW_PASSWORD})
    with_hers = admin.update(path, "user", {"password": NEW_PASSWORD, "current-password": PASSWORD})
    deleted = admin.delete(path)
    with_own = admin.update(path, "user", {"password": NEW_PASSWORD, "current-password": "password of the admin"})

    assert [alone.status_code, with_hers.status_code, deleted.status_code, with_own.status_code] == [403, 403, 403, 200]


def test_an_operation_needs_a_recent_log_in(user_id: int, sign_in: Callable[..., ApiClient]) -> None:
    late, recent = sign_in(user_id, STALE_AGE_SECONDS), sign_in(user_id)

    def change(**attributes: str) -> dict[str, Any]:
        named = {name.replace("_", "-"): value for name, value in attributes.items()}
        return {"op": "update", "data": {"type": "user", "id": str(user_id), "attributes": named}}

    alone = operate(late, change(email=NEW_ADDRESS))
    wrong = operate(late, change(email=NEW_ADDRESS, current_password="not this one"))
    removal = operate(late, {"op": "remove", "ref": {"type": "user", "id": str(user_id)}})

    assert get_refusal(alone)[:2] == get_refusal(removal)[:2] == (403, "password-required")
    pointer = "/atomic:operations/0/data/attributes/current-password"
    assert get_refusal(wrong) == (403, "wrong-password", {"pointer": pointer})
    assert operate(late, change(email=NEW_ADDRESS, current_password=PASSWORD)).status_code == 200
    assert operate(recent, change(email=EMAIL)).status_code == 200


def test_a_sign_up_takes_no_current_password(app: Flask) -> None:
    attributes = {"email": EMAIL, "password": PASSWORD, "current-password": PASSWORD}

    answer = ApiClient(app.test_client()).create("/v1/users", "user", attributes)

    assert get_refusal(answer) == (403, "forbidden", {"pointer": "/data/attributes/current-password"})


@pytest.fixture
def log_in_long_ago(dataset: Dataset, sign_in: Callable[..., ApiClient]) -> Callable[[str], ApiClient]:
    """Return a function that returns a user of the dataset with a token of an old log-in."""
    return lambda role: sign_in(dataset.callers[role].id, STALE_AGE_SECONDS)


WITHOUT_PASSWORD = (403, "password-required", {"header": "Authorization"})


@pytest.mark.parametrize("name", ["is-admin", "is-super-admin", "is-blocked", "is-sales-admin", "is-marketer"])
def test_a_role_is_given_with_the_password_alone(
    dataset: Dataset, log_in_long_ago: Callable[[str], ApiClient], name: str
) -> None:
    path = f"/v1/users/{dataset.stranger.id}"
    role = "super_admin" if name == "is-super-admin" else "admin"

    refused = log_in_long_ago(role).update(path, "user", {name: True})

    assert get_refusal(refused) == (403, "password-required", {"pointer": f"/data/attributes/{name}"})
    assert log_in_long_ago(role).update(path, "user", {name: False, "details": "x"}).status_code == 200
    assert dataset.callers[role].update(path, "user", {name: True}).status_code == 200


def test_an_event_changes_hands_with_recent_log_ins_alone(
    dataset: Dataset, log_in_long_ago: Callable[[str], ApiClient]
) -> None:
    event = f"/v1/events/{dataset.events['draft']}"
    asked = {"type": "user", "id": str(dataset.stranger.id)}
    owner, admin = log_in_long_ago("owner"), log_in_long_ago("admin")

    offers = [
        owner.send("PATCH", f"{event}/relationships/pending-owner", {"data": asked}),
        owner.update(event, "event", {}, pending_owner=dataset.stranger.id),
        owner.create("/v1/events", "event", {"name": "x", "timezone": "UTC"}, pending_owner=dataset.stranger.id),
        admin.update(event, "event", {}, owner=dataset.admin.id),
        operate(
            owner,
            {
                "op": "update",
                "data": {
                    **asked,
                    "type": "event",
                    "id": event.rpartition("/")[2],
                    "attributes": {},
                    "relationships": {"pending-owner": {"data": asked}},
                },
            },
        ),
    ]

    assert [get_refusal(each)[:2] for each in offers] == [WITHOUT_PASSWORD[:2]] * len(offers)
    assert get_refusal(offers[0]) == WITHOUT_PASSWORD
    assert dataset.owner.send("PATCH", f"{event}/relationships/pending-owner", {"data": asked}).status_code == 200
    assert get_refusal(log_in_long_ago("stranger").send("POST", f"{event}/accept-ownership")) == WITHOUT_PASSWORD
    assert owner.send("PATCH", f"{event}/relationships/pending-owner", {"data": None}).status_code == 200
    dataset.owner.send("PATCH", f"{event}/relationships/pending-owner", {"data": asked})
    assert dataset.stranger.send("POST", f"{event}/accept-ownership").status_code == 200


def test_a_hook_starts_to_work_with_a_recent_log_in_alone(
    dataset: Dataset, log_in_long_ago: Callable[[str], ApiClient]
) -> None:
    late = log_in_long_ago("stranger")
    hook = make_hook(dataset.stranger)
    path = f"/v1/hooks/{hook['id']}"

    assert get_refusal(make_hook_with(late)) == WITHOUT_PASSWORD
    assert get_refusal(late.send("POST", f"{path}/rotate")) == WITHOUT_PASSWORD
    assert late.update(path, "hook", {"enabled": True, "name": "x"}).status_code == 200
    assert late.update(path, "hook", {"enabled": False}).status_code == 200
    assert get_refusal(late.update(path, "hook", {"enabled": True})) == WITHOUT_PASSWORD
    assert late.delete(path).status_code == 200
    restore = {"data": {"type": "hook", "id": hook["id"], "attributes": {"deleted-at": None}}}
    assert get_refusal(log_in_long_ago("admin").send("PATCH", f"{path}?get_trashed=true", restore)) == WITHOUT_PASSWORD
    assert dataset.admin.send("PATCH", f"{path}?get_trashed=true", restore).status_code == 200
    assert dataset.stranger.update(path, "hook", {"enabled": True}).status_code == 200


@pytest.mark.parametrize("way", ["change-password", "patch", "admin"])
def test_a_new_password_ends_all_hooks_and_the_mail_says_so(
    app: Flask,
    user_id: int,
    make_user: Callable[..., int],
    sign_in: Callable[..., ApiClient],
    run_sql: Sql,
    deliver_mails: Deliver,
    way: str,
) -> None:
    ada = sign_in(user_id)
    hook = make_hook(ada)
    others = make_hook(sign_in(make_user("other@example.com")))
    deliver_mails()
    run_sql("UPDATE users SET is_verified = true")

    if way == "change-password":
        form = {"old-password": PASSWORD, "new-password": NEW_PASSWORD}
        headers = {"Authorization": f"JWT {ada.token}"}
        assert ada.client.post("/v1/auth/change-password", json=form, headers=headers).status_code == 200
    else:
        caller = ada if way == "patch" else sign_in(make_user("admin@example.com", is_admin=True))
        assert caller.update(f"/v1/users/{user_id}", "user", {"password": NEW_PASSWORD}).status_code == 200

    assert run_sql("SELECT enabled, token_hash IS NULL FROM hooks ORDER BY id") == [(False, True), (True, False)]
    (mail,) = [each for each in deliver_mails() if each["To"] == EMAIL]
    assert "All hooks of the account were disabled" in mail.get_content()
    assert (call_hook(app, hook).status_code, call_hook(app, others).status_code) == (404, 202)
