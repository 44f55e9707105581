"""Races: of two concurrent requests one succeeds, and no partial state remains."""

import threading
from collections.abc import Callable

import pytest
from werkzeug.test import TestResponse

from app.events.models import Event
from app.extensions import db
from app.users import login_sessions
from app.users.models import User
from tests.dataset import ApiClient, Dataset, build_resource

ROUNDS = 8


def send_together(*requests: Callable[[], TestResponse]) -> list[int]:
    """Send requests that start at the same time, and return their statuses."""
    start = threading.Barrier(len(requests))
    statuses = [0] * len(requests)

    def send(at: int, request: Callable[[], TestResponse]) -> None:
        start.wait()
        statuses[at] = request().status_code

    threads = [threading.Thread(target=send, args=each) for each in enumerate(requests)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def copy_caller(dataset: Dataset, caller: ApiClient) -> ApiClient:
    """Return the same caller with a separate client."""
    return ApiClient(dataset.app.test_client(), caller.token, caller.id)


@pytest.mark.parametrize(("path", "type_"), [("/v1/faqs", "faq"), ("/v1/faq-types", "faq-type")])
def test_creating_below_an_event_that_is_being_deleted(dataset: Dataset, path: str, type_: str) -> None:
    attributes = {"question": "a", "answer": "b"} if type_ == "faq" else {"name": "x"}
    for _ in range(ROUNDS):
        made = dataset.owner.create("/v1/events", "event", {"name": "a", "timezone": "UTC"}).get_json()
        event = made["data"]["id"]
        one, other = copy_caller(dataset, dataset.owner), copy_caller(dataset, dataset.owner)

        statuses = send_together(
            lambda: one.delete(f"/v1/events/{event}"),  # noqa: B023  # joined before the loop goes on
            lambda: other.send("POST", path, {"data": build_resource(type_, None, attributes, {"event": event})}),  # noqa: B023
        )

        assert statuses[0] == 200
        assert statuses[1] in (201, 404)


def test_creating_while_one_is_thrown_out_of_the_team(dataset: Dataset) -> None:
    event = dataset.events["draft"]
    team = f"/v1/events/{event}/relationships/coorganizers"
    member = {"data": [{"type": "user", "id": str(dataset.coorganizer.id)}]}
    for _ in range(ROUNDS):
        dataset.owner.send("POST", team, member)
        one, other = copy_caller(dataset, dataset.owner), copy_caller(dataset, dataset.coorganizer)

        statuses = send_together(
            lambda: one.send("DELETE", team, member),  # noqa: B023
            lambda: other.create("/v1/faqs", "faq", {"question": "a", "answer": "b"}, event=event),  # noqa: B023
        )

        assert statuses[0] == 200
        assert statuses[1] in (201, 403, 404)


def test_no_event_ends_with_an_owner_who_is_gone(dataset: Dataset) -> None:
    for _ in range(ROUNDS):
        with dataset.app.app_context():
            user = User(email=f"{threading.get_ident()}{_}@example.com", password_hash="!")
            db.session.add(user)
            db.session.commit()
            heir = user.id
            token = login_sessions.create_session(heir).access_token
            db.session.commit()
        one, other = copy_caller(dataset, dataset.admin), ApiClient(dataset.app.test_client(), token, heir)
        new = {"name": "a", "timezone": "UTC"}
        event = dataset.owner.create("/v1/events", "event", new, pending_owner=heir).get_json()["data"]["id"]

        send_together(
            lambda: one.delete(f"/v1/users/{heir}"),  # noqa: B023
            lambda: other.send("POST", f"/v1/events/{event}/accept-ownership"),  # noqa: B023
        )

        with dataset.app.app_context():
            owner = db.session.get_one(User, db.session.get_one(Event, int(event)).owner_id)
            assert owner.deleted_at is None


def test_faqs_moved_between_types_from_all_sides(dataset: Dataset) -> None:
    event = dataset.events["published"]
    types = [
        dataset.owner.create("/v1/faq-types", "faq-type", {"name": name}, event=event).get_json()["data"]["id"]
        for name in ("a", "b")
    ]
    faqs = [
        {
            "type": "faq",
            "id": dataset.owner.create("/v1/faqs", "faq", {"question": "q", "answer": "a"}, event=event).get_json()[
                "data"
            ]["id"],
        }
        for _ in range(6)
    ]
    callers = [copy_caller(dataset, dataset.owner) for _ in range(3)]
    for _ in range(ROUNDS):
        statuses = send_together(
            lambda: callers[0].send("PATCH", f"/v1/faq-types/{types[0]}/relationships/faqs", {"data": faqs}),
            lambda: callers[1].send("PATCH", f"/v1/faq-types/{types[1]}/relationships/faqs", {"data": faqs[::-1]}),
            lambda: callers[2].update(f"/v1/faqs/{faqs[0]['id']}", "faq", {"position": 1}, faq_type=types[0]),
        )

        assert set(statuses) <= {200, 409}
