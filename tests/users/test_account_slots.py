"""Account routes hold few connections of the pool, and wait shortly for rows that others have locked."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from email.message import EmailMessage
from time import monotonic
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from werkzeug.test import TestResponse

from app import database
from app.database import ACCOUNT_LOCK_TIMEOUT_MS, make_account_slots
from app.extensions import db
from app.slots import SlotPool
from tests.dataset import get_errors
from tests.users.conftest import EMAIL, PASSWORD, bearer_header, get_mailed_token

MAX_LOCK_SECONDS = ACCOUNT_LOCK_TIMEOUT_MS / 1000 + 0.8
"""Much less than the two seconds for which other transactions wait."""

REQUESTS = 12
NEW_PASSWORD = "a new password"  # of a test

Tokens = dict[str, str]


@pytest.fixture
def slots(app: Flask, monkeypatch: pytest.MonkeyPatch) -> SlotPool:
    """Return the slots of account routes; requests wait only briefly for them."""
    monkeypatch.setattr(database, "ACCOUNT_SLOT_TIMEOUT_SECONDS", 0.1)
    made = make_account_slots(10)
    monkeypatch.setitem(app.extensions, "account_slots", made)
    return made


@contextmanager
def lock_rows(app: Flask, table: str) -> Iterator[None]:
    """Hold all rows of a table, so that requests that change them wait."""
    with app.app_context():
        engine = db.engine
    with engine.connect() as held:
        held.execute(text(f"SELECT 1 FROM {table} FOR NO KEY UPDATE"))  # noqa: S608  # a name of this module
        yield
        held.rollback()


def post(app: Flask, path: str, address: str = "192.0.2.1", method: str = "POST", **more: Any) -> TestResponse:
    """Send a request from a client of its own."""
    return app.test_client().open(path, method=method, environ_base={"REMOTE_ADDR": address}, **more)


@pytest.fixture
def tokens(log_in: Callable[..., Tokens], user_id: int) -> Tokens:
    """Ada's tokens."""
    return log_in()


@pytest.fixture
def mail_tokens(
    app: Flask, client: FlaskClient, user_id: int, deliver_mails: Callable[[], list[EmailMessage]]
) -> Tokens:
    """Return the tokens of mails to Ada by the path of the route that accepts them."""
    found = {}
    for order, path in (
        ("/v1/auth/resend-verification-email", "/v1/auth/verify-email"),
        ("/v1/auth/reset-password", "/v1/auth/reset-password"),
    ):
        assert client.post(order, json={"email": EMAIL}).status_code == 200
        found[path] = get_mailed_token(deliver_mails()[0])
    return found


def list_requests(tokens: Tokens, mail_tokens: Tokens) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Return requests that change rows of an account: the table that they wait for, their method and the rest."""
    return {
        "/v1/auth/login": ("users", "POST", {"json": {"email": EMAIL, "password": PASSWORD}}),
        "/v1/auth/verify-email": ("users", "POST", {"json": {"token": mail_tokens["/v1/auth/verify-email"]}}),
        "/v1/auth/resend-verification-email": ("users", "POST", {"json": {"email": EMAIL}}),
        "/v1/auth/change-password": (
            "users",
            "POST",
            {"json": {"old-password": PASSWORD, "new-password": NEW_PASSWORD}, "headers": bearer_header(tokens)},
        ),
        "/v1/auth/reset-password": (
            "users",
            "PATCH",
            {"json": {"token": mail_tokens["/v1/auth/reset-password"], "password": NEW_PASSWORD}},
        ),
        "/v1/auth/token/refresh": ("refresh_tokens", "POST", {"json": {"refresh_token": tokens["refresh_token"]}}),
        "/v1/auth/logout": ("sign_ins", "POST", {"headers": bearer_header(tokens)}),
    }


PATHS = [
    "/v1/auth/login",
    "/v1/auth/verify-email",
    "/v1/auth/resend-verification-email",
    "/v1/auth/change-password",
    "/v1/auth/reset-password",
    "/v1/auth/token/refresh",
    "/v1/auth/logout",
]


@pytest.mark.parametrize("path", PATHS)
def test_account_route_waits_shortly_for_a_locked_row(
    app: Flask, tokens: Tokens, mail_tokens: Tokens, path: str
) -> None:
    table, method, more = list_requests(tokens, mail_tokens)[path]

    with lock_rows(app, table):
        began = monotonic()
        refused = post(app, path, method=method, **more)
        seconds = monotonic() - began

    assert refused.status_code == 409
    assert get_errors(refused)[0]["detail"] == "Another request is changing this resource at the moment. Try again."
    assert seconds < MAX_LOCK_SECONDS
    assert post(app, path, method=method, **more).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_account_route_takes_a_slot_of_its_address(
    app: Flask, slots: SlotPool, tokens: Tokens, mail_tokens: Tokens, path: str
) -> None:
    _table, method, more = list_requests(tokens, mail_tokens)[path]
    held = slots.acquire("192.0.2.1")

    refused = post(app, path, method=method, **more)

    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert get_errors(refused)[0]["detail"].startswith("Too many requests of 192.0.2.1 for accounts are in progress:")
    assert post(app, path, "192.0.2.2", method, **more).status_code == 200
    slots.release(held)
    assert len(slots) == 0


def test_account_route_without_a_free_slot_is_503(app: Flask, slots: SlotPool, user_id: int) -> None:
    held = [slots.acquire(f"192.0.2.{number}") for number in range(2, 2 + slots.size)]

    refused = post(app, "/v1/auth/login", json={"email": EMAIL, "password": PASSWORD})

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    for slot in held:
        slots.release(slot)
    assert post(app, "/v1/auth/login", json={"email": EMAIL, "password": PASSWORD}).status_code == 200


def test_account_routes_that_wait_leave_connections_for_reads(app: Flask, tokens: Tokens, mail_tokens: Tokens) -> None:
    """Hold the rows of an account, so that its other requests wait for them."""
    sent = [
        ("/v1/auth/verify-email", {"json": {"token": mail_tokens["/v1/auth/verify-email"]}}),
        ("/v1/auth/logout", {"headers": bearer_header(tokens)}),
    ] * REQUESTS

    with ThreadPoolExecutor(len(sent)) as pool, lock_rows(app, "users"), lock_rows(app, "sign_ins"):
        waiting = [
            pool.submit(post, app, path, f"192.0.2.{number // 6}", **more) for number, (path, more) in enumerate(sent)
        ]
        seconds = []
        while not all(each.done() for each in waiting):
            began = monotonic()
            assert post(app, "/v1/events", "198.51.100.1", "GET").status_code == 200
            seconds.append(monotonic() - began)

    assert {each.result().status_code for each in waiting} <= {409, 429, 503}
    assert len(seconds) > 3
    assert max(seconds) < 1


@pytest.mark.parametrize("path", ["/v1/auth/verify-email", "/v1/auth/reset-password"])
def test_token_of_an_earlier_address_waits_for_no_row(
    app: Flask, mail_tokens: Tokens, run_sql: Callable[..., Any], path: str
) -> None:
    run_sql("UPDATE users SET email = 'ada@other.example'")
    method = "PATCH" if path.endswith("reset-password") else "POST"

    with lock_rows(app, "users"):
        refused = post(app, path, method=method, json={"token": mail_tokens[path], "password": NEW_PASSWORD})

    assert (refused.status_code, get_errors(refused)[0]["code"]) == (400, "token-invalid")


@pytest.mark.parametrize(("pool_size", "expected"), [(1, (1, 1)), (2, (1, 1)), (10, (2, 1)), (40, (8, 4))])
def test_account_slots_are_what_other_requests_leave(pool_size: int, expected: tuple[int, int]) -> None:
    made = make_account_slots(pool_size)

    assert (made.size, made.max_per_holder) == expected
