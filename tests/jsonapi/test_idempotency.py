"""Idempotency keys: the same key and the same request create one row and return one response."""

import logging
import re
import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.events.models import Event, EventRole
from app.events.permissions import list_types_of_events
from app.extensions import db
from app.faqs.models import Faq, FaqType
from app.jsonapi.atomic_operations import EXTENSION
from app.jsonapi.idempotency import REPLAYED_HEADER, IdempotencyKey, find_stored_response
from app.jsonapi.permissions import no_one
from app.outbox import OutboxEntry
from app.quotas import MIB, DailyBytes
from app.users import login_sessions, passwords, tokens
from app.users.models import User
from tests.dataset import JSONAPI, ApiClient, Dataset, build_resource, get_data, get_errors
from tests.users.conftest import PASSWORD
from tests.users.conftest import make_user as make_user  # a fixture of the tests of accounts

PATH = "/v1/faq-types"


def build_faq_type(dataset: Dataset, name: str = "Venue", event: str = "published") -> dict[str, object]:
    """Return the document of a new FAQ type."""
    return {"data": build_resource("faq-type", None, {"name": name}, {"event": dataset.events[event]})}


def test_the_same_request_again_gets_the_same_answer(dataset: Dataset) -> None:
    before = dataset.count_rows(FaqType)
    first = dataset.owner.send("POST", PATH, build_faq_type(dataset), Idempotency_Key="one")

    again = dataset.owner.send("POST", PATH, build_faq_type(dataset), Idempotency_Key="one")

    assert (first.status_code, again.status_code) == (201, 201)
    assert (again.data, again.headers["Location"]) == (first.data, first.headers["Location"])
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert dataset.count_rows(FaqType) == before + 1


def test_another_request_with_the_key_is_refused(dataset: Dataset) -> None:
    dataset.owner.send("POST", PATH, build_faq_type(dataset), Idempotency_Key="one")

    other_body = dataset.owner.send("POST", PATH, build_faq_type(dataset, "Food"), Idempotency_Key="one")
    other_url = dataset.owner.send("POST", f"{PATH}?include=event", build_faq_type(dataset), Idempotency_Key="one")

    assert (other_body.status_code, other_url.status_code) == (422, 422)


def test_a_key_belongs_to_its_user(dataset: Dataset) -> None:
    dataset.owner.send("POST", PATH, build_faq_type(dataset), Idempotency_Key="one")

    made = dataset.other.send("POST", PATH, build_faq_type(dataset, event="others"), Idempotency_Key="one")

    assert made.status_code == 201
    assert "Idempotent-Replayed" not in made.headers


def test_a_refused_request_does_not_use_up_its_key(dataset: Dataset) -> None:
    refused = dataset.owner.send("POST", PATH, build_faq_type(dataset, ""), Idempotency_Key="one")
    made = dataset.owner.send("POST", PATH, build_faq_type(dataset), Idempotency_Key="one")

    assert (refused.status_code, made.status_code) == (422, 201)


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "ü"])
def test_a_key_that_is_none(dataset: Dataset, key: str) -> None:
    assert dataset.owner.send("POST", PATH, build_faq_type(dataset), Idempotency_Key=key).status_code == 400


def test_concurrent_requests_with_one_key_create_one_resource(dataset: Dataset) -> None:
    before = dataset.count_rows(FaqType)
    answers: list[tuple[int, str]] = []

    def send(caller: ApiClient) -> None:
        answer = caller.send("POST", PATH, build_faq_type(dataset), Idempotency_Key="race")
        answers.append((answer.status_code, get_data(answer)["id"]))

    threads = [
        threading.Thread(target=send, args=(ApiClient(dataset.app.test_client(), dataset.owner.token),))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(answers)) == 1
    assert dataset.count_rows(FaqType) == before + 1


def test_a_key_of_yesterday_is_forgotten(dataset: Dataset) -> None:
    dataset.owner.send("POST", PATH, build_faq_type(dataset), Idempotency_Key="one")
    with dataset.app.app_context():
        db.session.query(IdempotencyKey).update({"created_at": db.text("now() - interval '25 hours'")})
        db.session.commit()

    again = dataset.owner.send("POST", PATH, build_faq_type(dataset, "Food"), Idempotency_Key="one")

    assert again.status_code == 201


SUPPORTED = {
    *("/v1/events", "/v1/faqs", "/v1/faq-types", "/v1/jobs", "/v1/hooks", "/v1/document-sets", "/v1/treatments"),
    *("/v1/users", "/v1/operations", "/v1/upload/image", "/api/v1/resize"),
    *("/v1/jobs/<id>/cancel", "/v1/jobs/<id>/retry", "/v1/events/<id>/archive", "/v1/hooks/<id>/rotate"),
    *("/v1/treatments/<id>/relaunch", "/v1/events/<id>/accept-ownership", "/v1/events/<id>/decline-ownership"),
    *("/v1/hooks/<id>", "/v1/events/<id>/relationships/organizers", "/v1/events/<id>/relationships/coorganizers"),
    *("/v1/events/<id>/relationships/faqs", "/v1/events/<id>/relationships/faq-types"),
    *("/v1/events/<id>/relationships/images", "/v1/faq-types/<id>/relationships/faqs"),
}


def test_key_is_supported_or_refused_by_every_route_that_writes(dataset: Dataset) -> None:
    supported = set()
    for rule in (each for each in dataset.app.url_map.iter_rules() if not each.rule.startswith("/jobs")):
        path = re.sub(r"<[^>]+>", "1", rule.rule)
        for method in (rule.methods or set()) - {"GET", "HEAD", "OPTIONS"}:
            answer = dataset.owner.send(method, path, b"{}", Idempotency_Key="a b", Accept=JSONAPI)
            if answer.status_code == 400 and "does not support" in answer.text:
                assert get_errors(answer)[0]["source"] == {"header": "Idempotency-Key"}
            else:
                supported.add((method, rule.rule))

    assert {method for method, _ in supported} == {"POST"}
    of_relationships = {rule for _, rule in supported if "/relationships/" in rule}
    of_lists = {type_.path for type_ in list_types_of_events() if type_.permissions.create is not no_one}
    assert {rule for _, rule in supported} - of_relationships == of_lists | {
        rule for rule in SUPPORTED if "/relationships/" not in rule
    }
    assert of_relationships >= {rule for rule in SUPPORTED if "/relationships/" in rule}


@pytest.mark.parametrize("path", ["/v1/auth/login", "/auth/session", "/v1/auth/token/refresh", "/v1/users/check_email"])
def test_key_is_refused_where_the_answer_must_not_be_stored(dataset: Dataset, path: str) -> None:
    answer = dataset.anonymous.send("POST", path, {"email": "a@example.com", "password": "x"}, Idempotency_Key="one")

    (error,) = get_errors(answer)
    assert (answer.status_code, error["source"]) == (400, {"header": "Idempotency-Key"})
    assert error["detail"] == "POST of this URL does not support Idempotency-Key: send none."
    assert dataset.count_rows(IdempotencyKey) == 0


def test_key_of_a_caller_without_account_is_refused(dataset: Dataset) -> None:
    new = {"data": build_resource("user", None, {"email": "new@example.com", "password": "correct horse"}, {})}
    before = dataset.count_rows(User)

    answer = dataset.anonymous.send("POST", "/v1/users", new, Idempotency_Key="one")

    assert (answer.status_code, get_errors(answer)[0]["source"]) == (400, {"header": "Idempotency-Key"})
    assert dataset.count_rows(User) == before
    assert dataset.anonymous.send("POST", "/v1/users", new).status_code == 201


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_key_is_refused_by_methods_that_do_not_support_it(dataset: Dataset, method: str) -> None:
    path = f"/v1/faqs/{dataset.faqs['published']}"

    answer = dataset.owner.send(method, path, Idempotency_Key="one")

    assert (answer.status_code, get_errors(answer)[0]["source"]) == (400, {"header": "Idempotency-Key"})
    assert dataset.owner.get(path, Idempotency_Key="one").status_code == 200


def take_from_team(dataset: Dataset, role: str) -> None:
    """Remove this member from the team."""
    with dataset.app.app_context():
        db.session.query(EventRole).filter_by(user_id=dataset.callers[role].id).delete()
        db.session.commit()


def replay_after(dataset: Dataset, path: str, sent: object, lose: Callable[[], None], status: int) -> TestResponse:
    """Send a request of the coorganizer twice, with `lose` in between; check that the second writes nothing."""
    first = dataset.coorganizer.send("POST", path, sent, Idempotency_Key="one", Content_Type=content_type(path))
    assert first.status_code in (200, 201), first.text
    lose()
    before = [dataset.count_rows(model) for model in (FaqType, Faq, Event, EventRole, OutboxEntry)]

    again = dataset.coorganizer.send("POST", path, sent, Idempotency_Key="one", Content_Type=content_type(path))

    assert [dataset.count_rows(model) for model in (FaqType, Faq, Event, EventRole, OutboxEntry)] == before
    assert again.status_code == status, again.text
    assert (again.data == first.data) == (REPLAYED_HEADER in again.headers) == (status < 400)
    return again


def content_type(path: str) -> str:
    """Return the media type of a request to this URL."""
    return f'{JSONAPI}; ext="{EXTENSION}"' if path == OPERATIONS else JSONAPI


OPERATIONS = "/v1/operations"


def build_operations(dataset: Dataset) -> dict[str, object]:
    """Return operations that add a FAQ type and remove a FAQ."""
    removed = {"op": "remove", "ref": {"type": "faq", "id": str(dataset.faqs["published"])}}
    return {"atomic:operations": [{"op": "add", **build_faq_type(dataset)}, removed]}


@pytest.mark.parametrize("path", [PATH, OPERATIONS])
def test_replay_is_refused_once_the_caller_has_left_the_team(dataset: Dataset, path: str) -> None:
    sent = build_faq_type(dataset) if path == PATH else build_operations(dataset)

    again = replay_after(dataset, path, sent, lambda: take_from_team(dataset, "coorganizer"), 403)

    assert get_errors(again)[0]["code"] == "forbidden"


def test_replay_is_refused_once_the_event_is_not_shown(dataset: Dataset) -> None:
    def hide() -> None:
        take_from_team(dataset, "coorganizer")
        hidden = dataset.owner.update(f"/v1/events/{dataset.events['published']}", "event", {"state": "draft"})
        assert hidden.status_code == 200

    replay_after(dataset, PATH, build_faq_type(dataset), hide, 404)


@pytest.mark.parametrize(("column", "value"), [("is_blocked", True), ("deleted_at", db.func.now())])
def test_replay_is_refused_once_the_account_is_gone(dataset: Dataset, column: str, value: object) -> None:
    def end_account() -> None:
        with dataset.app.app_context():
            db.session.query(User).filter_by(id=dataset.coorganizer.id).update({column: value})
            db.session.commit()

    replay_after(dataset, PATH, build_faq_type(dataset), end_account, 401)


@pytest.mark.parametrize("path", [PATH, OPERATIONS])
def test_replay_is_answered_although_what_was_written_is_deleted(dataset: Dataset, path: str) -> None:
    def delete() -> None:
        with dataset.app.app_context():
            for model in (FaqType, Event):
                db.session.query(model).update({"deleted_at": db.func.now()})
            db.session.commit()

    sent = build_faq_type(dataset) if path == PATH else build_operations(dataset)
    replay_after(dataset, path, sent, delete, 201 if path == PATH else 200)


def test_replay_is_answered_although_the_name_is_taken_by_the_first(dataset: Dataset) -> None:
    user = {"data": build_resource("user", None, {"email": "new@example.com", "password": "correct horse"}, {})}

    first, again = (dataset.admin.send("POST", "/v1/users", user, Idempotency_Key="one") for _ in range(2))

    assert (first.status_code, again.status_code, again.data == first.data) == (201, 201, True)


def test_replay_of_a_relationship_is_refused_once_the_right_is_gone(dataset: Dataset) -> None:
    path = f"/v1/faq-types/{dataset.types['published']}/relationships/faqs"
    sent = {"data": [{"type": "faq", "id": str(dataset.faqs["published"])}]}

    replay_after(dataset, path, sent, lambda: take_from_team(dataset, "coorganizer"), 403)


def test_replay_of_a_new_hook_does_not_show_or_change_its_token(dataset: Dataset) -> None:
    sent = {"data": build_resource("hook", None, {"kind": "sleep", "parameters": {"seconds": 0}}, {})}

    first, again = (dataset.owner.send("POST", "/v1/hooks", sent, Idempotency_Key="one") for _ in range(2))
    used = dataset.anonymous.send("POST", urlsplit(get_data(first)["attributes"]["url"]).path)

    assert (first.status_code, again.status_code, get_data(again)["attributes"]["url"]) == (201, 201, None)
    assert used.status_code == 202


def send_twice(caller: ApiClient, path: str, sent: object = None) -> tuple[TestResponse, TestResponse]:
    """Send a request with one key two times."""
    headers = {"Idempotency_Key": "one"} | ({"Content_Type": content_type(path)} if sent is not None else {})
    first, again = (caller.send("POST", path, sent, **headers) for _ in range(2))
    return first, again


def assert_replayed(first: TestResponse, again: TestResponse) -> None:
    """Check that both succeeded with the same response, the second as a replay."""
    assert (first.status_code, again.status_code) == (first.status_code, first.status_code), again.text
    assert first.status_code in (200, 201), first.text
    assert (again.data, again.headers.get(REPLAYED_HEADER)) == (first.data, "true")


def build_update(type_: str, id_: int, **attributes: Any) -> dict[str, Any]:
    """Return an operation that updates."""
    named = {name.replace("_", "-"): value for name, value in attributes.items()}
    return {"op": "update", "data": {"type": type_, "id": str(id_), "attributes": named}}


def build_leave_team(event_id: int, user_id: int) -> dict[str, Any]:
    """Return an operation that removes a coorganizer from a team."""
    ref = {"type": "event", "id": str(event_id), "relationship": "coorganizers"}
    return {"op": "remove", "ref": ref, "data": [{"type": "user", "id": str(user_id)}]}


@pytest.mark.parametrize("answer", ["accept", "decline"])
@pytest.mark.parametrize("event", ["draft", "published"])
def test_replay_of_an_answer_to_an_offer_succeeds(dataset: Dataset, answer: str, event: str) -> None:
    path = f"/v1/events/{dataset.events[event]}"
    linkage = {"data": {"type": "user", "id": str(dataset.stranger.id)}}
    assert dataset.owner.send("PATCH", f"{path}/relationships/pending-owner", linkage).status_code == 200

    assert_replayed(*send_twice(dataset.stranger, f"{path}/{answer}-ownership"))


@pytest.mark.parametrize("event", ["draft", "published"])
def test_replay_of_an_acceptance_is_refused_once_another_owns_the_event(dataset: Dataset, event: str) -> None:
    path = f"/v1/events/{dataset.events[event]}"
    linkage = {"data": {"type": "user", "id": str(dataset.stranger.id)}}
    dataset.owner.send("PATCH", f"{path}/relationships/pending-owner", linkage)
    accept = f"{path}/accept-ownership"
    assert dataset.stranger.send("POST", accept, Idempotency_Key="one").status_code == 200
    assert dataset.admin.update(path, "event", {}, owner=dataset.admin.id).status_code == 200

    assert dataset.stranger.send("POST", accept, Idempotency_Key="one").status_code == 403


@pytest.mark.parametrize("event", ["draft", "published"])
def test_replay_of_operations_that_leave_a_team_succeeds(dataset: Dataset, event: str) -> None:
    sent = {"atomic:operations": [build_leave_team(dataset.events[event], dataset.coorganizer.id)]}

    assert_replayed(*send_twice(dataset.coorganizer, OPERATIONS, sent))


def test_replay_of_operations_with_a_password_does_not_check_or_count_it_again(
    app: Flask, make_user: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    id_ = make_user("eve@example.com", PASSWORD)
    long_ago = tokens.time.time() - tokens.MAX_AUTHENTICATION_AGE_SECONDS - 1
    with app.app_context(), patch("time.time", lambda: long_ago):
        token = login_sessions.create_session(id_).access_token
        db.session.commit()
    eve = ApiClient(app.test_client(), token, id_)
    sent = {"atomic:operations": [build_update("user", id_, password="another good one", current_password=PASSWORD)]}
    first = eve.send("POST", OPERATIONS, sent, Idempotency_Key="one", Content_Type=content_type(OPERATIONS))
    caplog.clear()

    with patch.object(passwords, "hash_password") as hashing, patch("app.throttle._count_hit") as counting:
        for _ in range(7):  # more than an account may try
            again = eve.send("POST", OPERATIONS, sent, Idempotency_Key="one", Content_Type=content_type(OPERATIONS))
            assert_replayed(first, again)

    assert (hashing.call_count, counting.call_count) == (0, 0)
    assert "wrong password" not in caplog.text


def test_request_whose_password_the_first_has_just_changed_gets_its_answer(
    app: Flask, make_user: Callable[..., int]
) -> None:
    id_ = make_user("eve@example.com", PASSWORD)
    with app.app_context():
        token = login_sessions.create_session(id_).access_token
        db.session.commit()
    eve = ApiClient(app.test_client(), token, id_)
    sent = {"atomic:operations": [build_update("user", id_, password="another good one", current_password=PASSWORD)]}
    headers = {"Idempotency_Key": "one", "Content_Type": content_type(OPERATIONS)}
    first = eve.send("POST", OPERATIONS, sent, **headers)

    # The first request commits after the second has searched for a stored response, before it checks the password.
    looked = [None]
    with patch(
        "app.jsonapi.atomic_operations.find_stored_response",
        lambda viewer: looked.pop() if looked else find_stored_response(viewer),
    ):
        again = eve.send("POST", OPERATIONS, sent, **headers)

    assert_replayed(first, again)
    assert looked == []


def test_replay_of_a_new_user_does_not_count_or_hash_the_password_again(dataset: Dataset) -> None:
    user = {"data": build_resource("user", None, {"email": "new@example.com", "password": "correct horse"}, {})}
    first = dataset.admin.send("POST", "/v1/users", user, Idempotency_Key="one")

    with patch("app.users.resources.hash_password") as hashing:
        again = dataset.admin.send("POST", "/v1/users", user, Idempotency_Key="one")

    assert_replayed(first, again)
    assert hashing.call_count == 0


def test_replay_changes_and_logs_nothing(dataset: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    block = {"atomic:operations": [build_update("user", dataset.stranger.id, is_blocked=True)]}
    first = dataset.admin.send("POST", OPERATIONS, block, Idempotency_Key="one", Content_Type=content_type(OPERATIONS))
    assert "account role changed" in caplog.text
    assert dataset.admin.update(f"/v1/users/{dataset.stranger.id}", "user", {"is-blocked": False}).status_code == 200
    caplog.clear()

    again = dataset.admin.send("POST", OPERATIONS, block, Idempotency_Key="one", Content_Type=content_type(OPERATIONS))

    assert_replayed(first, again)
    assert "account role changed" not in caplog.text
    shown = get_data(dataset.admin.get(f"/v1/users/{dataset.stranger.id}"))["attributes"]
    assert shown["is-blocked"] is False


def test_replay_for_another_request_is_refused_before_slow_work(dataset: Dataset) -> None:
    first = {"atomic:operations": [build_update("user", dataset.owner.id, details="one")]}
    other = {"atomic:operations": [build_update("user", dataset.owner.id, password="x" * 20, current_password="wrong")]}
    headers = {"Idempotency_Key": "one", "Content_Type": content_type(OPERATIONS)}
    assert dataset.owner.send("POST", OPERATIONS, first, **headers).status_code == 200

    assert dataset.owner.send("POST", OPERATIONS, other, **headers).status_code == 422


def test_stored_answer_is_sealed(dataset: Dataset) -> None:
    attributes = {"name": "Paid", "timezone": "UTC", "bank-details": "IBAN of the owner"}
    event = {"data": build_resource("event", None, attributes, {})}

    first, again = send_twice(dataset.owner, "/v1/events", event)

    assert_replayed(first, again)
    assert b"IBAN of the owner" in again.data
    with dataset.app.app_context():
        (row,) = db.session.query(IdempotencyKey).all()
        assert b"IBAN" not in bytes(row.body)
        assert b"Paid" not in bytes(row.body)


def test_answer_that_was_stored_unsealed_is_replayed(dataset: Dataset) -> None:
    first = dataset.owner.send("POST", PATH, build_faq_type(dataset), Idempotency_Key="one")
    with dataset.app.app_context():
        db.session.query(IdempotencyKey).update({"body": first.data})
        db.session.commit()

    assert_replayed(first, dataset.owner.send("POST", PATH, build_faq_type(dataset), Idempotency_Key="one"))


def test_answer_that_does_not_open_is_a_conflict_and_nothing_is_written_again(dataset: Dataset) -> None:
    dataset.owner.send("POST", PATH, build_faq_type(dataset), Idempotency_Key="one")
    with dataset.app.app_context():
        db.session.query(IdempotencyKey).update({"body": b"\x02" + bytes(60)})
        db.session.commit()
    before = dataset.count_rows(FaqType)

    answer = dataset.owner.send("POST", PATH, build_faq_type(dataset), Idempotency_Key="one")

    (error,) = get_errors(answer)
    assert (answer.status_code, error["code"], error["source"]) == (409, "answer-lost", {"header": "Idempotency-Key"})
    assert dataset.count_rows(FaqType) == before


def test_bytes_stored_for_keys_are_limited_for_a_user_and_day(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.quotas.MAX_ANSWER_MIB_PER_DAY", 4000 / MIB)

    def create(number: int, caller: ApiClient = dataset.owner) -> TestResponse:
        return caller.send("POST", PATH, build_faq_type(dataset, f"type {number}"), Idempotency_Key=f"key-{number}")

    answers = [create(number) for number in range(12)]
    made = sum(each.status_code == 201 for each in answers)
    before = dataset.count_rows(FaqType), dataset.count_rows(IdempotencyKey)
    refused = create(11)

    assert 1 < made < 12
    (error,) = get_errors(refused)
    assert (refused.status_code, error["code"], error["source"]) == (
        *(429, "too-many-bytes"),
        {"header": "Idempotency-Key"},
    )
    assert "a day for one user" in error["detail"]
    assert 0 < int(refused.headers["Retry-After"]) <= 86_401
    assert (dataset.count_rows(FaqType), dataset.count_rows(IdempotencyKey)) == before
    assert dataset.count_rows(IdempotencyKey) == made
    assert create(0).headers[REPLAYED_HEADER] == "true"  # a replay stores nothing
    assert create(20, dataset.organizer).status_code == 201  # another user
    assert dataset.owner.send("POST", PATH, build_faq_type(dataset, "without")).status_code == 201
    with dataset.app.app_context():
        db.session.query(DailyBytes).update({"day": DailyBytes.day - 1})
        db.session.commit()
    assert create(11).status_code == 201  # the key was not used up, and it is another day


def test_bytes_of_keys_and_of_uploads_are_counted_apart(dataset: Dataset) -> None:
    dataset.owner.send("POST", PATH, build_faq_type(dataset), Idempotency_Key="one")

    with dataset.app.app_context():
        (row,) = db.session.query(DailyBytes).all()
        assert row.share == -dataset.owner.id
        assert row.bytes > 256


def test_replay_of_an_archive_is_answered_although_the_event_is_deleted(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}"
    first = dataset.owner.send("POST", f"{path}/archive", Idempotency_Key="one")
    assert dataset.owner.delete(path).status_code == 200

    again = dataset.owner.send("POST", f"{path}/archive", Idempotency_Key="one")

    assert (first.status_code, again.status_code, again.data == first.data) == (202, 202, True)
    assert dataset.owner.send("POST", f"{path}/archive", Idempotency_Key="two").status_code == 404


@pytest.mark.parametrize("type_", ["event", "user"])
def test_replay_to_a_former_admin_shows_what_they_may_still_update(dataset: Dataset, type_: str) -> None:
    created: dict[str, Any] = {
        "event": {"name": "Featured", "timezone": "UTC", "is-featured": True},
        "user": {"email": "new@example.com", "password": "correct horse"},
    }
    sent = {"data": build_resource(type_, None, created[type_], {})}
    first = dataset.admin.send("POST", f"/v1/{type_}s", sent, Idempotency_Key="one")
    assert first.status_code == 201
    with dataset.app.app_context():
        db.session.query(User).filter_by(id=dataset.admin.id).update({"is_admin": False})
        db.session.commit()

    again = dataset.admin.send("POST", f"/v1/{type_}s", sent, Idempotency_Key="one")

    if type_ == "event":
        assert_replayed(first, again)
    else:
        assert again.status_code == 404
