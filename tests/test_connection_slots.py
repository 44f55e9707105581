"""Reading requests use at most their share of the connection pool, and wait for a slot without a connection."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from werkzeug.test import TestResponse

from app import database
from app.database import commit, get_connection, make_connection_slots, open_transaction
from app.documents.resolver import Document
from app.extensions import db
from app.jobs import artifacts, lifecycle, progress_stream, submission
from app.processors import runs
from app.processors.document_view import build_source_url
from app.slots import SlotPool
from app.storage import Storage
from tests.dataset import Dataset, get_data, get_errors
from tests.images.conftest import storage  # noqa: F401  # a fixture
from tests.pages.browser import give_passwords, sign_in_as
from tests.test_writer_slots import EVENT

REQUESTS = 12
S3_SETTINGS = {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "REGION": "us-east-1"}
LEASE = timedelta(minutes=5)


@pytest.fixture
def slots(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> SlotPool:
    """Return the connection slots of the app."""
    made = make_connection_slots(10)
    monkeypatch.setitem(dataset.app.extensions, "connection_slots", made)
    return made


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce the waiting time of requests."""
    monkeypatch.setattr(database, "SLOT_TIMEOUT_SECONDS", 0.1)


@contextmanager
def lock_events_table(dataset: Dataset) -> Iterator[None]:
    """Lock the table of events, so that all requests that read it wait."""
    with dataset.app.app_context():
        engine = db.engine
    with engine.connect() as held:
        held.execute(text("LOCK TABLE events IN ACCESS EXCLUSIVE MODE"))
        yield
        held.rollback()


def read_path(
    dataset: Dataset, path: str, method: str = "GET", address: str = "127.0.0.1", token: str = ""
) -> TestResponse:
    """Read from a client of its own."""
    headers = {"Authorization": f"JWT {token}"} if token else {}
    if path == "/":
        headers = {"Accept": "text/html"}  # the page lists events
    return dataset.app.test_client().open(
        path, method=method, headers=headers, environ_base={"REMOTE_ADDR": address}, buffered=True
    )


@pytest.mark.usefixtures("short_wait")
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reads_of_one_address_take_half_of_the_pool(
    dataset: Dataset, slots: SlotPool, wait_until: Callable[..., Any], method: str
) -> None:
    with ThreadPoolExecutor(REQUESTS) as pool:
        with lock_events_table(dataset):
            sent = [pool.submit(read_path, dataset, "/v1/events", method, "192.0.2.1") for _ in range(REQUESTS)]
            wait_until(lambda: sum(each.done() for each in sent) == REQUESTS - slots.max_per_holder)
            other = read_path(dataset, f"/v1/users/{dataset.owner.id}", token=str(dataset.owner.token))
            log_in = dataset.app.test_client().post(
                "/v1/auth/login", json={"email": "unknown@example.com", "password": "correct horse"}
            )
        answers = [each.result(30) for each in sent]

    assert slots.max_per_holder == 5
    refused = [answer for answer in answers if answer.status_code == 429]
    assert [answer.status_code for answer in answers].count(200) == 5
    assert len(refused) == REQUESTS - 5
    assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
    if method == "GET":
        assert get_errors(refused[0])[0]["detail"].startswith("Too many requests of 192.0.2.1 are in progress:")
    assert (other.status_code, log_in.status_code) == (200, 401)
    assert len(slots) == 0


@pytest.mark.usefixtures("short_wait")
def test_reads_of_one_user_take_three_connections(
    dataset: Dataset, slots: SlotPool, wait_until: Callable[..., Any]
) -> None:
    token = str(dataset.owner.token)
    with ThreadPoolExecutor(REQUESTS) as pool:
        with lock_events_table(dataset):
            sent = [
                pool.submit(read_path, dataset, "/v1/events", "GET", f"192.0.2.{number}", token)
                for number in range(REQUESTS)
            ]
            wait_until(lambda: sum(each.done() for each in sent) == REQUESTS - slots.max_per_user)
        answers = [each.result(30) for each in sent]

    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * (REQUESTS - 3)


def test_thirty_people_behind_one_address_wait_and_are_answered(dataset: Dataset, slots: SlotPool) -> None:
    with ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(lambda _: read_path(dataset, "/v1/events", "GET", "192.0.2.1").status_code, range(180)))

    assert set(answers) == {200}
    assert len(slots) == 0


@pytest.mark.usefixtures("short_wait")
@pytest.mark.parametrize("path", ["/v1/events", "/v1/events/{event}", "/v1/events/upcoming", "/v1/jobs", "/"])
def test_read_that_finds_no_slot_in_the_process_is_503(dataset: Dataset, slots: SlotPool, path: str) -> None:
    path = path.format(event=dataset.events["published"])
    token = str(dataset.owner.token)
    held = [slots.acquire(f"192.0.2.{number}") for number in range(slots.size)]

    refused = read_path(dataset, path, token=token)

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    for slot in held:
        slots.release(slot)
    assert read_path(dataset, path, token=token).status_code == 200


@pytest.mark.usefixtures("short_wait")
def test_writes_and_reads_of_one_address_share_its_half(dataset: Dataset, slots: SlotPool) -> None:
    held = [slots.acquire("127.0.0.1") for _ in range(slots.max_per_holder)]

    assert dataset.owner.create("/v1/events", "event", EVENT).status_code == 429

    for slot in held:
        slots.release(slot)
    assert dataset.owner.create("/v1/events", "event", EVENT).status_code == 201
    assert (len(slots), len(dataset.app.extensions["writers"])) == (0, 0)


@pytest.mark.usefixtures("short_wait")
def test_probes_need_no_slot(dataset: Dataset, slots: SlotPool) -> None:
    held = [slots.acquire(f"192.0.2.{number}") for number in range(slots.size)]

    assert (read_path(dataset, "/livez").status_code, read_path(dataset, "/readyz").status_code) == (200, 200)

    for slot in held:
        slots.release(slot)


def test_read_outside_of_a_request_needs_no_slot(dataset: Dataset, slots: SlotPool) -> None:
    held = [slots.acquire(f"192.0.2.{number}") for number in range(slots.size)]

    with dataset.app.app_context(), open_transaction(is_read=True):
        assert get_connection().execute(text("SELECT 1")).scalar() == 1

    for slot in held:
        slots.release(slot)


def test_failed_read_returns_its_slot(dataset: Dataset, slots: SlotPool) -> None:
    assert read_path(dataset, "/v1/events/999999999").status_code == 404
    assert read_path(dataset, "/v1/events?filter=x").status_code == 400
    assert len(slots) == 0


@pytest.fixture
def file_paths(dataset: Dataset) -> dict[str, str]:
    """URLs of the stranger at which a file of the storage is sent, by what asks for it."""
    give_passwords(dataset)
    upload = dataset.create_upload("stranger")
    document = Document(f"upload-{upload}", "image", "upload", upload)
    with dataset.app.app_context(), open_transaction(is_read=False):
        queued = submission.submit_job("sleep", {"seconds": 1}, trigger="api", owner_id=dataset.stranger.id).job
        job = lifecycle.claim_job(queued.id, "tests", LEASE)
        assert job is not None
        artifacts.attach_file(job, artifacts.store_file(job, "made.json", b"[]", "application/json"))
        runs.create_run(job, "regions", "a token", [document])
        source = build_source_url(job, document.uid)
        commit()
    (artifact,) = get_data(dataset.stranger.get(f"/v1/jobs/{job.id}/artifacts"))
    public_url = dataset.app.config["PUBLIC_URL"]
    return {
        "api": artifact["attributes"]["url"].removeprefix(public_url),
        "page": f"/jobs/{job.id}/artifacts/{artifact['id']}",
        "processor": source.removeprefix(public_url),
    }


@pytest.mark.usefixtures("storage")
@pytest.mark.parametrize("what", ["api", "page", "processor"])
def test_request_holds_no_connection_while_a_storage_hangs(
    dataset: Dataset, slots: SlotPool, file_paths: dict[str, str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    browser = sign_in_as(dataset, "stranger")
    with ThreadPoolExecutor(1) as pool, socket.create_server(("127.0.0.1", 0)) as s3:
        s3.settimeout(20)
        for name, value in S3_SETTINGS.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3.getsockname()[1]}")
        monkeypatch.setitem(dataset.app.extensions, "storage", Storage("s3://hangs", dataset.app.config["PUBLIC_URL"]))
        fetch = browser.get if what == "page" else dataset.stranger.get
        answer = pool.submit(fetch, file_paths[what])
        connection, _ = s3.accept()
        with dataset.app.app_context():
            held = (len(slots), db.engine.pool.checkedout())
        s3.close()
        connection.close()

    assert held == (0, 0)
    assert answer.result().status_code == 503


@pytest.mark.usefixtures("short_wait")
def test_stream_that_finds_no_slot_stays_open_and_loses_nothing(
    dataset: Dataset, slots: SlotPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_stream, "RETRY_DELAY_SECONDS", 0.1)
    with dataset.app.app_context(), open_transaction(is_read=False):
        queued = submission.submit_job("sleep", {"seconds": 1}, trigger="api", owner_id=dataset.stranger.id).job
        job = lifecycle.claim_job(queued.id, "tests", LEASE)
        commit()
    assert job is not None
    headers = {"Authorization": f"JWT {dataset.stranger.token}", "Accept": "text/event-stream"}
    path = f"/v1/jobs/{job.id}/progress"
    answer = dataset.app.test_client().get(path, headers=headers, buffered=False)
    parts = iter(answer.response)
    first = next(parts)
    held = [slots.acquire("127.0.0.1") for _ in range(slots.max_per_holder)]
    with dataset.app.app_context(), open_transaction(is_read=False):
        lifecycle.record_progress(job, 0.5, "meanwhile")
        commit()

    silent = [next(parts), next(parts)]
    for slot in held:
        slots.release(slot)
    told = next(part for part in parts if part != silent[0])
    answer.close()

    assert b'"state":"running"' in first
    assert silent == [b":\n\n"] * 2
    assert b'"meanwhile"' in told
    assert len(slots) == 0


@pytest.mark.parametrize(
    ("pool_size", "expected"), [(1, (1, 1, 1)), (2, (1, 1, 1)), (10, (8, 5, 3)), (40, (32, 20, 12))]
)
def test_connection_slots_leave_connections_for_log_ins(pool_size: int, expected: tuple[int, int, int]) -> None:
    made = make_connection_slots(pool_size)

    assert (made.size, made.max_per_holder, made.max_per_user) == expected
