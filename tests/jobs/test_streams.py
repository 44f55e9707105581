"""Streams of a real web process: cut, resumed, crowded, ended when the server stops; each test prints its figure."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import UUID

import httpx
import orjson
import psycopg
import pytest
from flask import Flask

from app.database import commit, open_transaction
from app.jobs import lifecycle, submission
from app.jobs.records import JobRow
from tests.conftest import Processes
from tests.dataset import Dataset

pytestmark = pytest.mark.faults

LEASE = timedelta(minutes=5)


@pytest.fixture
def web(dataset: Dataset, processes: Processes, wait_until: Callable[..., Any]) -> str:
    """Start a web process; return its URL."""
    processes.start("web")
    wait_until(lambda: _is_alive(processes.base_url), 30)
    return processes.base_url


def _is_alive(url: str) -> bool:
    try:
        return httpx.get(f"{url}/livez", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def create_running_job(dataset: Dataset, owner_id: int | None = None) -> JobRow:
    """Create a job of a user, by default the stranger, that a worker has claimed."""
    owner_id = owner_id or dataset.stranger.id
    with dataset.app.app_context(), open_transaction(is_read=False):
        job = submission.submit_job("sleep", {"seconds": 1}, trigger="api", owner_id=owner_id).job
        claimed = lifecycle.claim_job(job.id, "tests", LEASE)
        commit()
    assert claimed is not None
    return claimed


def commit_progress(app: Flask, job: JobRow, fraction: float) -> None:
    """Commit one progress event."""
    with app.app_context(), open_transaction(is_read=False):
        lifecycle.record_progress(job, fraction, f"at {fraction}")
        commit()


def finish_job(app: Flask, job: JobRow) -> None:
    """Commit the last event."""
    with app.app_context(), open_transaction(is_read=False):
        lifecycle.finish_succeeded(job, None)
        commit()


class StreamClient:
    """Client of a stream that behaves like an EventSource."""

    def __init__(self, url: str, job_id: UUID, token: str | None, source: str = "127.0.0.1") -> None:
        self.source = source
        self.url = f"{url}/v1/jobs/{job_id}/progress"
        self.headers = {"Accept": "text/event-stream", "Authorization": f"JWT {token}"}
        self.seen: list[dict[str, Any]] = []

    def read_elements(self, at_most: int = 10**9) -> None:
        """Read up to `at_most` events, then close the connection."""
        headers = {**self.headers, "Last-Event-ID": str(self.seen[-1]["seq"] if self.seen else 0)}
        transport = httpx.HTTPTransport(local_address=self.source)
        with (
            httpx.Client(transport=transport, timeout=30) as client,
            client.stream("GET", self.url, headers=headers) as response,
        ):
            if response.status_code == 204:
                return
            assert response.status_code == 200, response.read()
            for line in response.iter_lines():
                if line.startswith("data: "):
                    self.seen.append(orjson.loads(line.removeprefix("data: ")))
                    at_most -= 1
                if not at_most:
                    return

    @property
    def list_seqs(self) -> list[int]:
        """Return the numbers of the events received, in order."""
        return [each["seq"] for each in self.seen]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Yield the thread pool of the clients."""
    with ThreadPoolExecutor(256) as executor:
        yield executor


def test_a_stream_cut_50_times_has_no_gap_and_no_repeat(
    figure: Callable[[str], None], dataset: Dataset, web: str, threads: ThreadPoolExecutor
) -> None:
    job = create_running_job(dataset)
    watching = StreamClient(web, job.id, dataset.stranger.token)
    cuts = 0

    def write() -> None:
        for number in range(200):
            commit_progress(dataset.app, job, number / 200)
        finish_job(dataset.app, job)

    written = threads.submit(write)
    while not watching.seen or watching.seen[-1]["state"] != "succeeded":
        watching.read_elements(at_most=4)
        cuts += 1
    written.result()

    assert watching.list_seqs == list(range(1, 203))  # begun, 200 reports, ended
    assert cuts >= 50
    figure(f"P9: {cuts} connections, {len(watching.seen)} events, no gap, no repeat")


def count_listeners(servers: dict[str, str]) -> int:
    """Count database connections that listen for changes of jobs."""
    with psycopg.connect(servers["DATABASE_URL"]) as connection:
        ((count,),) = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'open-event-watch'"
        ).fetchall()
    return int(count)


def test_160_watchers_of_20_jobs_miss_nothing_with_one_listener(
    figure: Callable[[str], None],
    dataset: Dataset,
    web: str,
    servers: dict[str, str],
    threads: ThreadPoolExecutor,
    wait_until: Callable[..., Any],
) -> None:
    jobs = [create_running_job(dataset) for _ in range(20)]
    # One user and one address have a third of all streams.
    callers = [(dataset.stranger, "127.0.0.1"), (dataset.admin, "127.0.0.2"), (dataset.super_admin, "127.0.0.3")]
    watchers = [
        StreamClient(web, job.id, caller.token, source)
        for job in jobs
        for caller, source in (callers[number % len(callers)] for number in range(8))
    ]
    listeners = count_listeners(servers)  # this process may have one too
    begun = monotonic()
    followed = [threads.submit(watcher.read_elements) for watcher in watchers]
    wait_until(lambda: all(watcher.seen for watcher in watchers), 60)
    watched = monotonic()
    listeners = count_listeners(servers) - listeners

    for number in range(1, 21):
        for job in jobs:
            commit_progress(dataset.app, job, number / 20)
    for job in jobs:
        finish_job(dataset.app, job)
    for each in followed:
        each.result(60)

    assert {tuple(watcher.list_seqs) for watcher in watchers} == {tuple(range(1, 23))}
    assert listeners == 1
    figure(f"160 watchers: connected in {watched - begun:.1f} s, 3520 events received in {monotonic() - watched:.1f} s")


def test_streams_end_when_the_server_stops(
    figure: Callable[[str], None],
    dataset: Dataset,
    web: str,
    processes: Processes,
    threads: ThreadPoolExecutor,
    wait_until: Callable[..., Any],
) -> None:
    job = create_running_job(dataset)
    watchers = [StreamClient(web, job.id, dataset.stranger.token) for _ in range(5)]
    followed = [threads.submit(watcher.read_elements) for watcher in watchers]
    wait_until(lambda: all(watcher.seen for watcher in watchers))
    (process,) = processes.children

    begun = monotonic()
    status = processes.stop(process)
    took = monotonic() - begun

    for each in followed:
        each.result(5)  # an end, not a broken connection
    assert status == 0
    assert took < 5
    figure(f"5 streams, SIGTERM to exit: {took:.1f} s")


def test_disconnected_client_frees_stream_slot(
    figure: Callable[[str], None],
    dataset: Dataset,
    web: str,
    threads: ThreadPoolExecutor,
    wait_until: Callable[..., Any],
) -> None:
    """Open more streams than allowed at once, one after the other: each slot is released."""
    job = create_running_job(dataset)
    count = 300

    def hang_up(_number: int) -> None:
        watching = StreamClient(web, job.id, dataset.stranger.token)
        watching.read_elements(at_most=1)

    begun = monotonic()
    for number in range(count):
        wait_until(lambda number=number: _retry(hang_up, number), 60)

    figure(f"{count} watchers that hung up: {monotonic() - begun:.1f} s")


def _retry(act: Callable[[int], None], number: int) -> bool:
    try:
        act(number)
    except AssertionError:
        return False
    return True


def test_a_stream_ends_when_its_watcher_logs_out(
    dataset: Dataset, web: str, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., Any]
) -> None:
    job = create_running_job(dataset)
    sizes: list[int] = []
    monkeypatch.setattr("app.jobs.progress_stream.KEEP_ALIVE_INTERVAL_SECONDS", 0.2)
    client = dataset.app.test_client()
    headers = {"Accept": "text/event-stream", "Authorization": f"JWT {dataset.stranger.token}"}
    response = client.get(f"/v1/jobs/{job.id}/progress", headers=headers)
    reading = threading.Thread(target=lambda: sizes.extend(len(part) for part in response.iter_encoded()))
    reading.start()
    wait_until(lambda: sizes)

    httpx.post(f"{web}/v1/auth/logout", headers=headers)

    reading.join(10)
    assert not reading.is_alive()
    assert len(sizes) >= 1


def test_idle_stream_sends_keep_alive_and_holds_no_connection(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = create_running_job(dataset)
    monkeypatch.setattr("app.jobs.progress_stream.KEEP_ALIVE_INTERVAL_SECONDS", 0.1)
    response = dataset.stranger.get(f"/v1/jobs/{job.id}/progress", Accept="text/event-stream")

    parts = response.iter_encoded()
    begun, *silences = [next(parts) for _ in range(3)]

    assert begun.startswith(b"id: 1\ndata: ")
    assert silences == [b":\n\n"] * 2
    with dataset.app.app_context():
        from app.extensions import db  # noqa: PLC0415

        assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # a QueuePool
    response.close()


def _read_until_silent(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, accept: str
) -> tuple[JobRow, Iterator[bytes]]:
    """Return a job and its stream; its first chunk is everything up to the third keep-alive."""
    monkeypatch.setattr("app.jobs.progress_stream.KEEP_ALIVE_INTERVAL_SECONDS", 0.1)
    job = create_running_job(dataset)
    parts = dataset.stranger.get(f"/v1/jobs/{job.id}/progress", Accept=accept).iter_encoded()

    def all_parts() -> Iterator[bytes]:
        begun, silent = b"", 0
        while silent < 3:
            part = next(parts)
            begun, silent = begun + part, silent + (part == b" ")
        yield begun
        yield from parts

    return job, all_parts()


def finish_after_silence(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, accept: str) -> str:
    """Return the stream of a job that is silent, reports, is silent and ends."""
    job, parts = _read_until_silent(dataset, monkeypatch, accept)
    begun = next(parts)
    commit_progress(dataset.app, job, 0.5)
    data = b""
    while b"at 0.5" not in data or not data.endswith(b"  "):
        data += next(parts)
    finish_job(dataset.app, job)
    return (begun + data + b"".join(parts)).decode()


def end_stream_by_logout(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, accept: str) -> str:
    """Return the stream of a silent job until the caller logs out."""
    _job, parts = _read_until_silent(dataset, monkeypatch, accept)
    begun = next(parts)
    assert dataset.stranger.send("POST", "/v1/auth/logout").status_code == 200
    return (begun + b"".join(parts)).decode()


@pytest.mark.parametrize("ending", [finish_after_silence, end_stream_by_logout])
def test_every_line_of_a_silent_stream_is_an_element(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, ending: Callable[..., str]
) -> None:
    text = ending(dataset, monkeypatch, "application/x-ndjson")

    assert "   {" in text, "a keep-alive was sent"
    assert text.endswith("}\n")
    elements = [json.loads(line) for line in text.split("\n")[:-1]]
    assert [sorted(each) for each in elements] == [["fraction", "level", "message", "seq", "state"]] * len(elements)
    assert [each["seq"] for each in elements] == ([1, 2, 3] if ending is finish_after_silence else [1, 1])
    assert elements[-1]["state"] == ("succeeded" if ending is finish_after_silence else "running")


@pytest.mark.parametrize("ending", [finish_after_silence, end_stream_by_logout])
def test_a_silent_array_is_one_document_without_empty_lines(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, ending: Callable[..., str]
) -> None:
    text = ending(dataset, monkeypatch, "application/json")

    assert [each["seq"] for each in json.loads(text)] == ([1, 2, 3] if ending is finish_after_silence else [1])
    assert all(line.strip() for line in text.splitlines())


def test_stream_without_new_events_ends_with_state_at_logout(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.jobs.progress_stream.KEEP_ALIVE_INTERVAL_SECONDS", 0.1)
    job = create_running_job(dataset)
    path = f"/v1/jobs/{job.id}/progress"
    parts = dataset.stranger.get(path, Accept="application/x-ndjson", Last_Event_ID="1").iter_encoded()
    assert next(parts) == b" "
    dataset.stranger.send("POST", "/v1/auth/logout")

    rest = b"".join(parts).decode()

    assert json.loads(rest) == {"seq": 1, "fraction": None, "message": None, "state": "running", "level": "info"}


def test_a_client_that_reads_nothing_does_not_stop_the_others(dataset: Dataset, web: str) -> None:
    job = create_running_job(dataset)
    host, port = web.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as deaf:
        deaf.sendall(
            f"GET /v1/jobs/{job.id}/progress HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
            f"Authorization: JWT {dataset.stranger.token}\r\n\r\n".encode()
        )
        watching = StreamClient(web, job.id, dataset.stranger.token)
        watching.read_elements(at_most=1)
        finish_job(dataset.app, job)
        watching.read_elements()

    assert watching.seen[-1]["state"] == "succeeded"
