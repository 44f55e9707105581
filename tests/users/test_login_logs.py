"""Log lines of sign-ins and of changed rights: account, address and route, and never a password."""

import logging
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from tests.dataset import Dataset
from tests.users.conftest import EMAIL, PASSWORD, bearer_header

WRONG_PASSWORD = "a secret guess"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[str]]:
    """Return a function that returns the logged lines with a text."""
    caplog.set_level(logging.INFO)
    return lambda words: [record.getMessage() for record in caplog.records if words in record.getMessage()]


@pytest.mark.parametrize("email", [EMAIL, "nobody@example.com"])
def test_log_in_failed_names_account_address_and_route(
    client: FlaskClient, user_id: int, lines: Callable[[str], list[str]], email: str
) -> None:
    client.post("/v1/auth/login", json={"email": email, "password": WRONG_PASSWORD})

    (line,) = lines("log-in failed")
    assert f"'account_id': {user_id if email == EMAIL else None}" in line
    assert "'address': '127.0.0.1'" in line
    assert "'route': 'POST /v1/auth/login'" in line
    assert lines(WRONG_PASSWORD) == lines("nobody@") == []


def test_log_in_that_succeeds_is_no_failure(
    client: FlaskClient, user_id: int, lines: Callable[[str], list[str]]
) -> None:
    client.post("/v1/auth/login", json={"email": EMAIL, "password": PASSWORD})

    assert lines("log-in failed") == []


def test_wrong_old_password_names_account_address_and_route(
    client: FlaskClient, user_id: int, log_in: Callable[..., dict[str, str]], lines: Callable[[str], list[str]]
) -> None:
    body = {"old-password": WRONG_PASSWORD, "new-password": "another good one"}

    client.post("/v1/auth/change-password", json=body, headers=bearer_header(log_in()))

    (line,) = lines("wrong password")
    assert f"'account_id': {user_id}" in line
    assert "'route': 'POST /v1/auth/change-password'" in line
    assert lines(WRONG_PASSWORD) == []


def test_account_role_changes_are_logged_once_they_are_stored(
    dataset: Dataset, lines: Callable[[str], list[str]]
) -> None:
    path = f"/v1/users/{dataset.stranger.id}"
    assert dataset.admin.update(path, "user", {"is-admin": True, "email": "owner@example.com"}).status_code == 409
    assert dataset.stranger.update(path, "user", {"is-blocked": True}).status_code == 403
    assert dataset.admin.update(path, "user", {"first-name": "Eve", "is-admin": False}).status_code == 200
    assert lines("account role changed") == []

    assert dataset.admin.update(path, "user", {"is-sales-admin": True}).status_code == 200

    (line,) = lines("account role changed")
    assert f"'account_id': {dataset.stranger.id}" in line
    assert f"'by_account_id': {dataset.admin.id}" in line
    assert "'is_sales_admin': True" in line
    assert "'route': 'PATCH /v1/users/<id>'" in line


def test_event_team_changes_are_logged(dataset: Dataset, lines: Callable[[str], list[str]]) -> None:
    path = f"/v1/events/{dataset.events['draft']}/relationships/organizers"
    linkage = {"data": [{"type": "user", "id": str(dataset.stranger.id)}]}

    assert dataset.owner.send("POST", path, linkage).status_code == 200

    (line,) = lines("event team changed")
    assert f"'event_id': {dataset.events['draft']}" in line
    assert f"'account_ids': [{dataset.stranger.id}]" in line
    assert f"'by_account_id': {dataset.owner.id}" in line
    assert "'role': 'organizers'" in line
