"""Users: sign-up, the own account, and changes that only admins can make."""

from typing import Any

import pytest
from sqlalchemy import func, update

from app.extensions import db
from app.users.models import User
from tests.dataset import ApiClient, Dataset, get_data, get_errors, get_pointers

PASSWORD = "correct horse"


def sign_up(dataset: Dataset, email: str = "new@example.com", **attributes: Any) -> Any:
    """Sign up a new user."""
    return dataset.anonymous.create("/v1/users", "user", {"email": email, "password": PASSWORD, **attributes})


def log_in(dataset: Dataset, email: str, password: str = PASSWORD) -> ApiClient:
    """Log a user in and return a client with the tokens."""
    client = dataset.app.test_client()
    answer = client.post("/v1/auth/login", json={"email": email, "password": password})
    assert answer.status_code == 200, answer.text
    return ApiClient(client, answer.get_json()["access_token"])


def test_whoever_signs_up_sees_himself_whole_and_no_password(dataset: Dataset) -> None:
    answer = sign_up(dataset, " New@Example.com ", **{"first-name": "Ada", "avatar_url": "https://example.com/a.png"})

    made = get_data(answer)
    assert answer.status_code == 201
    assert made["attributes"]["email"] == "New@example.com"
    assert made["attributes"]["first-name"] == "Ada"
    assert made["attributes"]["avatar-url"] == "https://example.com/a.png"
    assert made["attributes"]["is-verified"] is False
    assert "password" not in answer.text
    assert "argon2" not in answer.text


def test_somebody_signed_in_can_sign_up_somebody_else(dataset: Dataset) -> None:
    document = {"data": {"type": "user", "attributes": {"email": "new@example.com", "password": PASSWORD}}}

    assert dataset.stranger.send("POST", "/v1/users", document).status_code == 201


def test_an_address_is_taken_without_regard_to_case(dataset: Dataset) -> None:
    sign_up(dataset, "new@example.com")

    again = sign_up(dataset, "NEW@example.com")

    assert (again.status_code, get_pointers(again)) == (409, {"/data/attributes/email"})
    assert get_errors(again)[0]["detail"] == "Email already exists"


def test_the_address_of_a_deleted_user_is_free_and_restoring_him_a_conflict(dataset: Dataset) -> None:
    first = get_data(sign_up(dataset))["id"]
    assert log_in(dataset, "new@example.com").delete(f"/v1/users/{first}").status_code == 200

    assert sign_up(dataset).status_code == 201
    restored = dataset.admin.update(f"/v1/users/{first}?get_trashed=true", "user", {"deleted-at": None})

    assert (restored.status_code, get_pointers(restored)) == (409, {"/data/attributes/email"})


@pytest.mark.parametrize(
    ("attributes", "pointer"),
    [
        ({"email": None}, "email"),
        ({"email": "nobody"}, "email"),
        ({"email": "a@b@c.example"}, "email"),
        ({"email": "x" * 300 + "@example.com"}, "email"),
        ({"email": "a\r\nBcc: b@example.com"}, "email"),
        ({"password": None}, "password"),
        ({"password": "short"}, "password"),
        ({"password": "x" * 129}, "password"),
        ({"password": 12345678}, "password"),
        ({"facebook-url": "javascript:1"}, "facebook-url"),
        ({"is-profile-public": "maybe"}, "is-profile-public"),
        ({"username": "x"}, "username"),
    ],
)
def test_signing_up_with_a_value_that_is_not_valid(dataset: Dataset, attributes: dict[str, Any], pointer: str) -> None:
    answer = sign_up(dataset, **{"email": "new@example.com", **attributes})

    assert (answer.status_code, get_pointers(answer)) == (422, {f"/data/attributes/{pointer}"})


ROLES = ["is-admin", "is-super-admin", "is-verified", "is-blocked", "is-sales-admin", "is-marketer"]


@pytest.mark.parametrize("flag", ROLES)
def test_nobody_signs_up_as_more_than_a_user(dataset: Dataset, flag: str) -> None:
    document = {"data": {"type": "user", "attributes": {"email": "a@example.com", "password": PASSWORD, flag: True}}}

    for caller in (dataset.anonymous, dataset.admin):
        answer = caller.send("POST", "/v1/users", document)
        assert (answer.status_code, get_pointers(answer)) == (403, {f"/data/attributes/{flag}"})
    assert sign_up(dataset, **{flag: False}).status_code == 201


@pytest.mark.parametrize("flag", ROLES)
def test_flags_are_set_by_admins_and_super_admins(dataset: Dataset, flag: str) -> None:
    path = f"/v1/users/{dataset.stranger.id}"
    value = flag != "is-verified"

    own = dataset.stranger.update(path, "user", {flag: value})
    by_admin = dataset.admin.update(path, "user", {flag: value})
    by_super_admin = dataset.super_admin.update(path, "user", {flag: value})

    assert (own.status_code, get_pointers(own)) == (403, {f"/data/attributes/{flag}"})
    assert by_admin.status_code == (403 if flag == "is-super-admin" else 200)
    assert (by_super_admin.status_code, get_data(by_super_admin)["attributes"][flag]) == (200, value)


def test_sending_everything_back_changes_nothing(dataset: Dataset) -> None:
    path = f"/v1/users/{dataset.stranger.id}"

    again = dataset.stranger.send("PATCH", path, {"data": get_data(dataset.stranger.get(path))})

    assert again.status_code == 200


def test_a_new_address_is_unverified(dataset: Dataset) -> None:
    path = f"/v1/users/{dataset.stranger.id}"

    changed = get_data(dataset.stranger.update(path, "user", {"email": "else@example.com"}))["attributes"]

    assert (changed["email"], changed["is-verified"]) == ("else@example.com", False)


def test_a_new_password_ends_all_other_sessions(dataset: Dataset) -> None:
    id_ = get_data(sign_up(dataset))["id"]
    phone, laptop = log_in(dataset, "new@example.com"), log_in(dataset, "new@example.com")

    changed = laptop.update(f"/v1/users/{id_}", "user", {"password": "another horse"})

    assert changed.status_code == 200
    assert laptop.get(f"/v1/users/{id_}").status_code == 200
    assert phone.get(f"/v1/users/{id_}").status_code == 401
    log_in(dataset, "new@example.com", "another horse")


def test_a_new_password_needs_a_fresh_token(dataset: Dataset) -> None:
    id_ = get_data(sign_up(dataset))["id"]
    client = dataset.app.test_client()
    tokens = client.post("/auth/session", json={"email": "new@example.com", "password": PASSWORD}).get_json()
    refreshed = client.post("/v1/auth/token/refresh", json={"refresh_token": tokens["refresh_token"]}).get_json()

    answer = ApiClient(client, refreshed["access_token"]).update(
        f"/v1/users/{id_}", "user", {"password": "another one"}
    )

    assert (answer.status_code, get_pointers(answer)) == (403, {"/data/attributes/password"})


def test_an_admin_sets_a_password_and_ends_every_session(dataset: Dataset) -> None:
    id_ = get_data(sign_up(dataset))["id"]
    phone = log_in(dataset, "new@example.com")

    assert dataset.admin.update(f"/v1/users/{id_}", "user", {"password": "from the admin"}).status_code == 200

    assert phone.get(f"/v1/users/{id_}").status_code == 401
    log_in(dataset, "new@example.com", "from the admin")


def test_the_owner_of_an_event_is_not_deleted(dataset: Dataset) -> None:
    assert dataset.owner.delete(f"/v1/users/{dataset.owner.id}").status_code == 403

    for event in dataset.events.values():
        dataset.admin.delete(f"/v1/events/{event}")

    assert dataset.owner.delete(f"/v1/users/{dataset.owner.id}").status_code == 200


def test_a_deleted_user_is_signed_out(dataset: Dataset) -> None:
    path = f"/v1/users/{dataset.stranger.id}"

    assert dataset.stranger.delete(path).status_code == 200

    assert dataset.stranger.get("/v1/events").status_code == 401


def test_a_blocked_user_is_signed_out(dataset: Dataset) -> None:
    dataset.admin.update(f"/v1/users/{dataset.stranger.id}", "user", {"is-blocked": True})

    assert dataset.stranger.get("/v1/events").status_code == 401


def test_a_super_admin_is_touched_by_his_like_alone(dataset: Dataset) -> None:
    path = f"/v1/users/{dataset.super_admin.id}"

    for change in ({"password": "hacked hacked"}, {"is-blocked": True}, {"email": "mine@example.com"}):
        assert dataset.admin.update(path, "user", change).status_code == 403
    assert dataset.admin.delete(path).status_code == 403
    assert dataset.super_admin.update(path, "user", {"details": "me"}).status_code == 200


def test_the_first_edit_after_a_log_in_may_send_everything_back(dataset: Dataset) -> None:
    id_ = get_data(sign_up(dataset, **{"is-admin": "false"}))["id"]
    caller = log_in(dataset, "new@example.com")
    read = get_data(caller.get(f"/v1/users/{id_}"))
    with dataset.app.app_context():
        db.session.execute(update(User).where(User.id == int(id_)).values(last_accessed_at=func.now()))
        db.session.commit()

    assert caller.send("PATCH", f"/v1/users/{id_}", {"data": read}).status_code == 200


def test_the_events_of_a_user_are_his_own_to_see(dataset: Dataset) -> None:
    path = f"/v1/users/{dataset.owner.id}/events"

    assert len(get_data(dataset.owner.get(path))) == 3
    assert dataset.stranger.get(path).status_code == 404
