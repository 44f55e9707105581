"""Requests of one address wait for their slots, and media type headers have a limit."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import request_slots
from app.health.listener import PATHS
from app.request_slots import MAX_MEDIA_TYPE_HEADER_LENGTH, MAX_REQUESTS_PER_ADDRESS, SLOT_EXEMPT_KEY
from app.slots import Slot, SlotPool
from tests.dataset import get_errors

OTHER = {"REMOTE_ADDR": "192.0.2.7"}


@pytest.fixture
def busy_address(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Slot]]:
    """Let the address of the test client hold all of its request slots, with a short waiting time."""
    monkeypatch.setattr(request_slots, "SLOT_TIMEOUT_SECONDS", 0.05)
    slots: SlotPool = app.extensions["request_slots"]
    taken = [slots.acquire("127.0.0.1") for _ in range(MAX_REQUESTS_PER_ADDRESS)]
    yield taken
    for slot in taken:
        slots.release(slot)


@pytest.mark.parametrize("header", ["Accept", "Content-Type"])
@pytest.mark.parametrize("path", ["/", "/v1/events", "/nothing", "/livez"])
def test_media_type_header_too_long_is_refused_by_name(client: FlaskClient, header: str, path: str) -> None:
    value = "a/b," * (MAX_MEDIA_TYPE_HEADER_LENGTH // 4) + "*"

    response = client.get(path, headers={header: value})

    (error,) = get_errors(response)
    assert (error["status"], error["source"]) == ("400", {"header": header})
    assert str(MAX_MEDIA_TYPE_HEADER_LENGTH) in error["detail"]


def test_accept_of_the_greatest_length_is_read(client: FlaskClient) -> None:
    accept = ("text/x," * 200)[: MAX_MEDIA_TYPE_HEADER_LENGTH - 4] + ",*/*"

    assert client.get("/v1/events", headers={"Accept": accept}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/v1/events", "/nothing", "/livez", "/openapi.json"])
def test_request_of_busy_address_is_refused_and_others_are_not(
    busy_address: list[Slot], client: FlaskClient, path: str
) -> None:
    refused = client.get(path)

    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert get_errors(refused)[0]["code"] == "too-many-requests"
    assert refused.headers["X-Content-Type-Options"] == "nosniff"
    assert client.get(path, environ_overrides=OTHER).status_code in (200, 302, 404)


def test_body_of_busy_address_is_read_before_it_is_refused(busy_address: list[Slot], client: FlaskClient) -> None:
    refused = client.post("/v1/auth/login", json={"email": "a@example.com", "password": "x" * 10})

    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")


def test_head_of_busy_address_has_no_body(busy_address: list[Slot], client: FlaskClient) -> None:
    refused = client.head("/v1/events")

    assert (refused.status_code, refused.data) == (429, b"")


@pytest.mark.parametrize("path", sorted(PATHS - {"/health-check"}))
def test_probe_of_health_address_needs_no_slot(busy_address: list[Slot], client: FlaskClient, path: str) -> None:
    assert client.get(path, environ_overrides={SLOT_EXEMPT_KEY: True}).status_code == 200


def test_slots_are_free_after_answers_errors_and_bodies(app: Flask, client: FlaskClient) -> None:
    slots: SlotPool = app.extensions["request_slots"]
    for send in (client.get, client.post, client.patch, client.delete, client.head):
        for path in ("/", "/v1/events", "/nothing", "/v1/auth/login"):
            send(path, json={} if send is client.post else None)

    assert len(slots) == 0


def test_waiting_request_is_served_when_a_slot_is_free(
    busy_address: list[Slot], app: Flask, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., Any]
) -> None:
    monkeypatch.setattr(request_slots, "SLOT_TIMEOUT_SECONDS", 30)
    slots: SlotPool = app.extensions["request_slots"]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: app.test_client().get("/v1/events").status_code)
        wait_until(lambda: slots._waiting_count)
        slots.release(busy_address[0])
        assert waiting.result(30) == 200
