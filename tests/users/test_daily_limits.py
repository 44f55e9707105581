"""Limits of mails, texts and refreshes for one client address and day."""

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app import throttle
from app.extensions import limiter
from app.users import auth_routes, login_sessions, resources
from tests.dataset import JSONAPI, Dataset
from tests.jsonapi.test_operations import CONTENT_TYPE
from tests.users.conftest import EMAIL, PASSWORD, Sql, bearer_header

numbers = count(1)


@pytest.fixture
def app_with_limits(app: Flask, make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch) -> Flask:
    """Return an app with rate limits on; the app of the suite has them off."""
    monkeypatch.setattr(limiter, "_storage_dead", False)  # one object for all apps
    return make_app(RATELIMIT_ENABLED="1")


@pytest.fixture
def address() -> str:
    """Return an address that has sent no request yet."""
    return f"10.77.0.{next(numbers)}"


def post(app: Flask, path: str, address: str, document: Any, **headers: str) -> TestResponse:
    return app.test_client().post(path, json=document, headers=headers, environ_base={"REMOTE_ADDR": address})


def sign_up(app: Flask, address: str, token: str | None = None, **attributes: str) -> int:
    email = f"new{next(numbers)}@example.com"
    document = {"data": {"type": "user", "attributes": {"email": email, "password": PASSWORD, **attributes}}}
    headers = {"Content-Type": JSONAPI} | ({} if token is None else {"Authorization": f"JWT {token}"})
    return post(app, "/v1/users", address, document, **headers).status_code


@pytest.mark.parametrize("path", ["/v1/auth/reset-password", "/v1/auth/resend-verification-email"])
def test_mails_that_one_address_orders_are_limited_with_its_sign_ups(
    app_with_limits: Flask, address: str, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(throttle, "MAIL_ORDER_LIMIT", "3/day")
    app = app_with_limits

    orders = [post(app, path, address, {"email": f"nobody{number}@example.com"}) for number in range(2)]
    statuses = [sign_up(app, address) for _ in range(2)]
    refused = post(app, path, address, {"email": "nobody9@example.com"})

    assert [each.status_code for each in orders] == [200, 200]
    assert statuses == [201, 429]
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 60
    assert sign_up(app, f"{address}1") == 201


def test_known_devices_and_refused_sign_ups_do_not_use_up_the_mails_of_an_address(
    app_with_limits: Flask, address: str, user_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "MAIL_ORDER_LIMIT", "1/day")
    app = app_with_limits
    tokens = post(app, "/v1/auth/login", address, {"email": EMAIL, "password": PASSWORD}).get_json()
    headers = bearer_header(tokens)

    own = [post(app, "/v1/auth/reset-password", address, {"email": EMAIL}, **headers).status_code for _ in range(2)]

    assert own == [200, 200]
    assert sign_up(app, address, details="x" * 20_001) == 422
    assert [sign_up(app, address), sign_up(app, address)] == [201, 429]


def test_accounts_that_an_admin_makes_have_no_daily_limit(
    dataset: Dataset, app_with_limits: Flask, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "MAIL_ORDER_LIMIT", "1/day")

    made = [sign_up(app_with_limits, address, dataset.admin.token) for _ in range(2)]

    assert made == [201, 201]


def test_texts_of_accounts_made_from_one_address_have_a_daily_limit(
    app_with_limits: Flask, address: str, monkeypatch: pytest.MonkeyPatch, run_sql: Sql
) -> None:
    monkeypatch.setattr(resources, "SIGN_UP_BYTES_LIMIT", "100000/day")
    app = app_with_limits
    long = {"details": "\u4e00" * 20_000}

    statuses = [sign_up(app, address, **long), sign_up(app, address, **long), sign_up(app, address)]

    assert statuses == [201, 429, 201]
    assert sign_up(app, f"{address}1", **long) == 201
    assert run_sql("SELECT count(*) FROM users") == [(3,)]


def test_accounts_that_a_user_makes_by_operations_count_for_the_address(
    dataset: Dataset, app_with_limits: Flask, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "SIGN_UP_BYTES_LIMIT", "2500/day")
    account = {"email": f"new{next(numbers)}@example.com", "password": PASSWORD, "details": "x" * 3000}
    document = {"atomic:operations": [{"op": "add", "data": {"type": "user", "attributes": account}}]}
    headers = {"Content-Type": CONTENT_TYPE, "Authorization": f"JWT {dataset.stranger.token}"}

    assert post(app_with_limits, "/v1/operations", address, document, **headers).status_code == 429


def refresh(app: Flask, address: str, token: str) -> TestResponse:
    return post(app, "/v1/auth/token/refresh", address, {"refresh_token": token})


def test_one_sign_in_has_a_daily_limit_of_refreshes(
    app_with_limits: Flask, address: str, user_id: int, monkeypatch: pytest.MonkeyPatch, run_sql: Sql
) -> None:
    monkeypatch.setattr(login_sessions, "REFRESH_LIMIT", "2/day")
    app = app_with_limits
    first, other = (
        post(app, "/v1/auth/login", address, {"email": EMAIL, "password": PASSWORD}).get_json()["refresh_token"]
        for _ in range(2)
    )

    second = refresh(app, address, first).get_json()["refresh_token"]
    repeated = [refresh(app, address, first).status_code for _ in range(3)]
    third = refresh(app, address, second).get_json()["refresh_token"]
    refused = refresh(app, address, third)

    assert repeated == [200] * 3, "the same successor, nothing stored"
    assert refused.status_code == 429
    assert run_sql("SELECT count(*) FROM refresh_tokens") == [(4,)]
    assert refresh(app, address, other).status_code == 200
    monkeypatch.undo()
    assert refresh(app, address, third).status_code == 200, "it was not used up"


def test_one_address_has_a_daily_limit_of_refreshes(
    app_with_limits: Flask, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth_routes, "DAILY_REFRESH_LIMIT", "2/day")

    statuses = [refresh(app_with_limits, address, "unknown").status_code for _ in range(3)]

    assert statuses == [401, 401, 429]
    assert refresh(app_with_limits, f"{address}1", "unknown").status_code == 401
