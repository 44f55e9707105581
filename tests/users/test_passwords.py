"""Hashes of passwords."""

from collections.abc import Callable, Iterator
from email.message import EmailMessage
from typing import Any

import pytest
from argon2 import PasswordHasher
from flask import Flask
from flask.testing import FlaskClient

from app.errors import Unavailable
from app.extensions import db
from app.slots import NoFreeSlotError, _QueueKey, _Waiter, address_holders
from app.users import passwords
from app.users.passwords import hash_password, make_hash_slots, needs_rehash, verify_password
from tests.dataset import JSONAPI, ApiClient, get_pointers
from tests.users.conftest import EMAIL, PASSWORD, Sql, get_mailed_token


def test_a_hash_is_argon2id_with_19_mib_and_verifies_its_password_only() -> None:
    password_hash = hash_password("pässword 1")

    assert password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert verify_password(password_hash, "pässword 1")
    assert not verify_password(password_hash, "password 1")


@pytest.mark.parametrize("length", [8, 128])
def test_the_shortest_and_the_longest_password_are_hashed(length: int) -> None:
    assert verify_password(hash_password("x" * length), "x" * length)


@pytest.mark.parametrize("length", [0, 7, 129, 10_000_000])
def test_other_lengths_are_refused_before_hashing(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PasswordHasher, "hash", None)

    with pytest.raises(ValueError, match="8 to 128"):
        hash_password("x" * length)


def test_a_password_that_is_too_long_is_never_hashed_to_verify_it(monkeypatch: pytest.MonkeyPatch) -> None:
    password_hash = hash_password("x" * 128)
    monkeypatch.setattr(PasswordHasher, "verify", None)

    assert not verify_password(password_hash, "x" * 129)


def test_verify_password_without_hash_is_false() -> None:
    assert not verify_password(None, "")
    assert not verify_password(None, "password")


@pytest.mark.parametrize("broken", ["!", "plain text", "$argon2id$v=19$m=8", "$2b$12$abc"])
def test_a_broken_hash_lets_nobody_in(broken: str) -> None:
    assert not verify_password(broken, broken)


def test_only_hashes_with_other_parameters_are_made_again() -> None:
    assert not needs_rehash(hash_password("password"))
    assert needs_rehash(PasswordHasher(1, 8, 1).hash("password"))


def test_hash_that_waits_too_long_for_a_slot_is_refused_with_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_slots", make_hash_slots(1))
    monkeypatch.setattr(passwords, "HASH_SLOT_TIMEOUT_SECONDS", 0.01)

    with passwords._hash_slot(), pytest.raises(Unavailable) as refused:
        hash_password("password")

    assert refused.value.headers["Retry-After"]
    assert hash_password("password")


def test_hash_beyond_those_that_may_wait_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = make_hash_slots(1)
    monkeypatch.setattr(passwords, "_slots", slots)
    monkeypatch.setattr(slots, "max_waiting", 0)
    queue = _QueueKey((), is_preferred=True)
    monkeypatch.setattr(slots, "_queues", {queue: [_Waiter(queue)]})

    with passwords._hash_slot(), pytest.raises(Unavailable) as refused:
        hash_password("password")

    assert refused.value.headers["Retry-After"]


@pytest.mark.parametrize(("cores", "of_one_address", "of_one_site"), [(1, 1, 1), (2, 1, 1), (4, 2, 3), (8, 4, 6)])
def test_hash_slots_of_one_client_leave_some_for_others(cores: int, of_one_address: int, of_one_site: int) -> None:
    def take_all(networks: int) -> int:
        slots = make_hash_slots(cores)
        for number in range(cores + 1):
            try:
                slots.acquire(*address_holders(f"2001:db8:0:{number % networks}::1"))
            except NoFreeSlotError:
                return number
        raise AssertionError("the pool refuses nothing")

    assert (take_all(1), take_all(100)) == (of_one_address, of_one_site)


@pytest.fixture
def connections_per_hash(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Record the number of checked-out database connections at each hash."""
    numbers: list[int] = []

    def noting(method: Callable[..., Any]) -> Callable[..., Any]:
        def note(self: PasswordHasher, *arguments: Any) -> Any:
            numbers.append(db.engine.pool.checkedout())  # type: ignore[attr-defined]  # of QueuePool
            return method(self, *arguments)

        return note

    for name in ("hash", "verify"):
        monkeypatch.setattr(PasswordHasher, name, noting(getattr(PasswordHasher, name)))
    return numbers


def test_hash_holds_no_connection_wherever_it_is_made(
    client: FlaskClient,
    make_user: Callable[..., int],
    deliver_mails: Callable[[], list[EmailMessage]],
    connections_per_hash: list[int],
) -> None:
    admin_id = make_user("admin@example.com", is_admin=True)
    user_id = make_user()
    tokens = client.post("/v1/auth/login", json={"email": "admin@example.com", "password": PASSWORD}).get_json()
    admin = ApiClient(client, tokens["access_token"], admin_id)
    own = ApiClient(
        client, client.post("/v1/auth/login", json={"email": EMAIL, "password": PASSWORD}).json["access_token"]
    )
    client.post("/v1/auth/reset-password", json={"email": EMAIL})
    reset = next(get_mailed_token(mail) for mail in deliver_mails() if mail["Subject"] == "Reset your password")
    atomic = 'application/vnd.api+json; ext="https://jsonapi.org/ext/atomic"'
    update = {"type": "user", "id": str(user_id), "attributes": {"password": "of operations"}}
    operations = {"atomic:operations": [{"op": "update", "data": update}]}
    connections_per_hash.clear()

    requests = (
        lambda: client.post("/v1/auth/login", json={"email": EMAIL, "password": "wrong password"}),
        lambda: client.post("/v1/auth/login", json={"email": "nobody@example.com", "password": PASSWORD}),
        lambda: own.send(
            "POST",
            "/v1/auth/change-password",
            {"old-password": "wrong password", "new-password": "by its owner"},
            Content_Type="application/json",
        ),
        lambda: client.patch("/v1/auth/reset-password", json={"token": reset, "password": "by reset"}),
        lambda: admin.create("/v1/users", "user", {"email": "new@example.com", "password": PASSWORD}),
        lambda: ApiClient(client).create("/v1/users", "user", {"email": "newer@example.com", "password": PASSWORD}),
        lambda: admin.update(f"/v1/users/{user_id}", "user", {"password": "by an admin"}),
        lambda: admin.send("POST", "/v1/operations", operations, Content_Type=atomic, Accept=atomic),
    )
    answers = [send().status_code for send in requests]

    assert answers == [401, 401, 400, 200, 201, 201, 200, 200]
    assert connections_per_hash == [0] * len(requests)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("PATCH", "/v1/users/{id}", 401), ("POST", "/v1/operations", 401)],
)
def test_hash_is_not_made_for_a_caller_without_a_token(
    client: FlaskClient, user_id: int, connections_per_hash: list[int], method: str, path: str, status: int
) -> None:
    data = {"type": "user", "id": str(user_id), "attributes": {"password": "of operations"}}
    document = {"data": data, "atomic:operations": [{"op": "update", "data": data}]}
    media_type = JSONAPI if method == "PATCH" else 'application/vnd.api+json; ext="https://jsonapi.org/ext/atomic"'

    answer = ApiClient(client).send(method, path.format(id=user_id), document, Content_Type=media_type)

    assert answer.status_code == status
    assert connections_per_hash == []


@pytest.mark.parametrize("password", ["short", "x" * 129, "", None, 7, ["x"]])
def test_hash_is_not_made_of_a_password_that_is_refused(
    client: FlaskClient, connections_per_hash: list[int], password: object
) -> None:
    refused = ApiClient(client).create("/v1/users", "user", {"email": "new@example.com", "password": password})

    assert (refused.status_code, get_pointers(refused)) == (422, {"/data/attributes/password"})
    assert connections_per_hash == []


def test_hash_of_a_session_that_ends_meanwhile_is_not_stored(
    client: FlaskClient,
    user_id: int,
    log_in: Callable[..., dict[str, str]],
    run_sql: Sql,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = ApiClient(client, log_in()["access_token"], user_id)
    before = run_sql("SELECT password_hash FROM users")
    real_hash = PasswordHasher.hash

    def end_session(self: PasswordHasher, password: str) -> str:
        run_sql("UPDATE sign_ins SET revoked_at = now()")
        return real_hash(self, password)

    monkeypatch.setattr(PasswordHasher, "hash", end_session)

    assert own.update(f"/v1/users/{user_id}", "user", {"password": "another one"}).status_code == 401
    assert run_sql("SELECT password_hash FROM users") == before
