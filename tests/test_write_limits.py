"""Limits of writes: bytes per day of a user and of an address, and a disk that is nearly full."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import write_limits
from app.write_limits import DAY_SECONDS, MIB, MIN_PRUNED_BUCKETS, ROW_BYTES, WriteMeter
from tests.dataset import ApiClient, Dataset, get_data, get_errors

LONG = "x" * 20_000
EVENT = {"type": "event", "attributes": {"name": "One", "timezone": "UTC"}}
ATOMIC = 'application/vnd.api+json; ext="https://jsonapi.org/ext/atomic"'


class Clock:
    """Clock of the meters."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return a clock that tests set."""
    clock = Clock()
    monkeypatch.setattr(write_limits, "time", clock)
    return clock


@pytest.fixture
def meter(dataset: Dataset, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> WriteMeter:
    """Return the meter of the app, with a limit of 1 MiB a day."""
    meter = WriteMeter(MIB)
    monkeypatch.setitem(dataset.app.config, "MAX_WRITE_MB_PER_DAY", 1)
    monkeypatch.setitem(dataset.app.extensions, "write_meter", meter)
    return meter


def create_draft(caller: ApiClient, address: str = "192.0.2.1", name: str = "One") -> TestResponse:
    """Create a draft of about 20 kB from this address."""
    caller.client.environ_base["REMOTE_ADDR"] = address
    return caller.create("/v1/events", "event", {"name": name, "timezone": "UTC", "description": LONG})


def send_operations(caller: ApiClient, *events: object) -> int:
    """Create these events with one request, and return the status."""
    document = {"atomic:operations": [{"op": "add", "data": event} for event in events]}
    return caller.send("POST", "/v1/operations", document, Content_Type=ATOMIC).status_code


def write_until_refused(caller: ApiClient, address: str = "192.0.2.1") -> tuple[int, TestResponse]:
    """Create drafts until one is refused; return the number of accepted ones, and the refusal."""
    for count in range(1000):
        answer = create_draft(caller, address)
        if answer.status_code != 201:
            return count, answer
    raise AssertionError("never refused")


def test_bytes_of_one_user_are_limited_and_count_less_with_time(
    dataset: Dataset, meter: WriteMeter, clock: Clock
) -> None:
    taken, refused = write_until_refused(dataset.owner)

    assert MIB / 26_000 < taken < MIB / 20_000 + 1
    (error,) = get_errors(refused)
    assert (refused.status_code, error["code"]) == (429, "too-many-bytes")
    assert "at most 1 MiB a day by one user and 10 MiB by one address" in error["detail"]
    assert create_draft(dataset.owner, "198.51.100.9").status_code == 429, "wherever the user is"
    assert create_draft(dataset.stranger).status_code == 201, "another user of the same address"
    assert dataset.owner.get("/v1/events").status_code == 200

    clock.now += int(refused.headers["Retry-After"])
    assert create_draft(dataset.owner).status_code == 201
    clock.now += 2 * DAY_SECONDS
    assert write_until_refused(dataset.owner)[0] == taken


def test_bytes_of_one_address_are_limited_whoever_is_signed_in(dataset: Dataset, meter: WriteMeter) -> None:
    meter.add_bytes(("192.0.2.1",), 9 * MIB)
    write_until_refused(dataset.owner)

    refused = write_until_refused(dataset.stranger)[1]
    assert refused.status_code == 429
    assert "Too much was written by 192.0.2.1:" in get_errors(refused)[0]["detail"]
    assert create_draft(dataset.stranger, "192.0.2.2").status_code == 201


def test_addresses_of_one_ipv6_network_share_a_limit(dataset: Dataset, meter: WriteMeter) -> None:
    meter.add_bytes(("2001:db8::/64",), 11 * MIB)
    assert create_draft(dataset.owner, "2001:db8::99").status_code == 429
    assert create_draft(dataset.owner, "2001:db8:0:1::99").status_code == 201
    meter.add_bytes(("2001:db8::/48",), 21 * MIB)
    assert create_draft(dataset.owner, "2001:db8:0:1::99").status_code == 429


def test_small_rows_count_more_than_their_bytes(dataset: Dataset, meter: WriteMeter) -> None:
    statuses = [send_operations(dataset.owner, *[EVENT] * 50) for _ in range(25)]
    assert statuses.count(200) <= MIB / (50 * ROW_BYTES) + 1
    assert statuses[-1] == 429


def test_body_counts_once_when_the_request_is_committed(
    dataset: Dataset, meter: WriteMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    added: list[int] = []
    monkeypatch.setattr(meter, "add_bytes", lambda _holders, size: added.append(size))

    assert create_draft(dataset.owner).status_code == 201
    (size,) = added
    assert len(LONG) + 2 * ROW_BYTES < size < len(LONG) + 2 * ROW_BYTES + 500, "the body, the request and the row"
    assert send_operations(dataset.owner, *[EVENT] * 50) == 200
    assert 51 * ROW_BYTES < added[1] < 51 * ROW_BYTES + 50 * 150
    assert len(added) == 2


def test_body_of_a_refused_request_does_not_count(dataset: Dataset, meter: WriteMeter) -> None:
    assert [create_draft(dataset.owner, name="").status_code for _ in range(60)] == [422] * 60
    assert len(meter) == 0
    assert create_draft(dataset.owner).status_code == 201


def test_operations_that_fail_do_not_count(dataset: Dataset, meter: WriteMeter) -> None:
    refused = {"type": "event", "attributes": {"name": "", "timezone": "UTC", "description": LONG}}
    assert [send_operations(dataset.owner, *[EVENT] * 30, refused) for _ in range(25)] == [422] * 25
    assert len(meter) == 0
    assert send_operations(dataset.owner, EVENT) == 200
    assert len(meter) > 0


def test_request_that_will_be_refused_is_checked_first(dataset: Dataset, meter: WriteMeter) -> None:
    write_until_refused(dataset.owner)
    assert create_draft(dataset.owner, name="").status_code == 429


def test_sign_ups_of_one_address_are_limited(dataset: Dataset, meter: WriteMeter) -> None:
    meter.add_bytes(("192.0.2.7",), 11 * MIB)
    dataset.anonymous.client.environ_base["REMOTE_ADDR"] = "192.0.2.7"
    attributes = {"email": "new@example.com", "password": "correct horse"}
    answer = dataset.anonymous.create("/v1/users", "user", attributes)
    assert (answer.status_code, get_errors(answer)[0]["code"]) == (429, "too-many-bytes")


def test_limit_of_0_is_none(make_app: Callable[..., Flask]) -> None:
    assert make_app(MAX_WRITE_MB_PER_DAY="0").extensions["write_meter"] is None
    assert make_app().extensions["write_meter"] is not None


def test_meter_forgets_buckets_that_are_empty(clock: Clock) -> None:
    meter = WriteMeter(MIB)
    for number in range(3 * MIN_PRUNED_BUCKETS):
        clock.now += 1
        meter.add_bytes((f"user {number}",), 1000)
    assert len(meter) < MIN_PRUNED_BUCKETS


@pytest.fixture
def full_disk(make_app: Callable[..., Flask], tmp_path: Path) -> Flask:
    """Return an app with an embedded PostgreSQL on a disk that is nearly full."""
    (tmp_path / "postgres").mkdir()
    free = shutil.disk_usage(tmp_path).free // MIB
    return make_app(VAR_DIR=str(tmp_path), MIN_FREE_DISK_MB=str(2 * free))


def copy_caller_to(app: Flask, caller: ApiClient) -> ApiClient:
    """Return a client of another app with the same user."""
    client: FlaskClient = app.test_client()
    return ApiClient(client, caller.token, caller.id)


def test_nothing_is_written_while_the_disk_of_the_database_is_nearly_full(dataset: Dataset, full_disk: Flask) -> None:
    owner = copy_caller_to(full_disk, dataset.owner)
    full_disk.config["JWT_KEYS"] = dataset.app.config["JWT_KEYS"]

    refused = create_draft(owner)
    assert (refused.status_code, get_errors(refused)[0]["code"]) == (507, "storage-full")
    assert get_errors(refused)[0]["detail"] == "The server has no space for further data. Try again later."
    assert int(refused.headers["Retry-After"]) > 0
    path = f"/v1/events/{dataset.events['draft']}"
    assert owner.update(path, "event", {"name": "Two"}).status_code == 507
    assert owner.get(path).status_code == 200
    assert owner.delete(path).status_code == 200, "deleting makes room"


def test_free_disk_is_looked_at_again_after_seconds(dataset: Dataset, full_disk: Flask, clock: Clock) -> None:
    owner = copy_caller_to(full_disk, dataset.owner)
    full_disk.config["JWT_KEYS"] = dataset.app.config["JWT_KEYS"]
    assert create_draft(owner).status_code == 507
    full_disk.config["MIN_FREE_DISK_MB"] = 0
    assert create_draft(owner).status_code == 507
    clock.now += write_limits.DISK_TTL_SECONDS + 1
    assert create_draft(owner).status_code == 201


def test_disk_of_another_machine_is_not_looked_at(dataset: Dataset, full_disk: Flask, monkeypatch: Any) -> None:
    full_disk.extensions["database_directory"] = None
    full_disk.config["JWT_KEYS"] = dataset.app.config["JWT_KEYS"]
    assert get_data(create_draft(copy_caller_to(full_disk, dataset.owner)))["type"] == "event"


def test_callbacks_of_a_processor_are_not_counted(dataset: Dataset, meter: WriteMeter) -> None:
    meter.add_bytes(("192.0.2.1",), 11 * MIB)
    dataset.anonymous.client.environ_base["REMOTE_ADDR"] = "192.0.2.1"
    job_id = dataset.get_background_ids()["job"]
    answer = dataset.anonymous.send("POST", f"/v1/jobs/{job_id}/callback?token=x", {}, Content_Type="application/json")
    assert answer.status_code == 404
