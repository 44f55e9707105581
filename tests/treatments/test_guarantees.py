"""Guarantees of treatments while workers are killed; `TREATMENTS=100` sets their number.

A processor calls back out of order, twice, and faster than callbacks are applied; in the end every treatment has
succeeded and every result is stored once.
"""

import contextlib
import json
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from time import monotonic
from typing import Any

import httpx
import psutil
import pytest
from flask import Flask
from sqlalchemy import func, select

from app.extensions import db
from app.jobs.models import Artifact, Job
from app.processors.models import Callback, RemoteRun, ResultFile
from app.processors.results import ResultFileRow
from app.processors.runs import Run
from app.treatments.models import Region
from tests.conftest import wait_until
from tests.dataset import Dataset, get_data
from tests.treatments.fake_processor import FakeProcessor, StartRequest
from tests.treatments.processor_stack import ProcessorStack, TreatmentClient

pytestmark = [pytest.mark.faults, pytest.mark.long]

TREATMENT_COUNT = int(os.environ.get("TREATMENTS", "15"))
DOCUMENT_COUNT = 10
REGION_COUNT = 3
CALLER_COUNT = 8


def test_the_columns_of_rows_are_those_of_their_models() -> None:
    assert Run._fields == tuple(RemoteRun.__table__.c.keys())
    assert ResultFileRow._fields == tuple(ResultFile.__table__.c.keys())


@pytest.fixture
def slow_polling_stack(
    app: Flask, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProcessorStack]:
    """Run processes of their own that poll after 20 s, because kills may leave them without a worker."""
    with ExitStack() as stack:
        settings = {"PROCESSOR_POLL_SECONDS": "20", "PROCESSOR_MAX_RUNS": str(4 * TREATMENT_COUNT)}
        yield ProcessorStack(environment, tmp_path_factory.mktemp("office"), stack, **settings)


class ApiClient:
    """Sender of the callbacks of many runs, in random order and some of them twice."""

    def __init__(self, processor: FakeProcessor) -> None:
        self.processor = processor
        self.chance = random.Random(5)  # noqa: S311  # not for secrets
        self.answers: Counter[int] = Counter()
        self.refused = 0
        self._names = count(1)
        self._lock = threading.Lock()

    def build_shuffled_events(self, start: StartRequest) -> list[tuple[str, str, dict[str, Any]]]:
        """Return events with ids and members in random order; SUCCESS comes in the second half."""
        uids = [each["uid"] for each in start.body["documents"]]
        assert len(uids) == DOCUMENT_COUNT
        listed = [{"doc_id": uid, "result_url": self._host_result(uid)} for uid in uids]
        parts = [("PROGRESS", {"output": {"results_url": [each]}, "fraction": 0.5}) for each in listed]
        events = [("STARTED", {}), *parts]
        self.chance.shuffle(events)
        events.insert(
            self.chance.randrange(len(events) // 2, len(events)), ("SUCCESS", {"output": {"results_url": listed}})
        )
        made = [(f"msg_{next(self._names)}", event, members) for event, members in events]
        return made + self.chance.sample(made, 3)

    def _host_result(self, uid: str) -> str:
        places = [{"absolute": {"x": number, "y": 0, "width": 5, "height": 5}} for number in range(REGION_COUNT)]
        content = json.dumps([{"source": uid, "crops": places}]).encode()
        return self.processor.host_file(f"/results/{next(self._names)}.json", content)

    def send_callbacks(self, start: StartRequest) -> None:
        """Send all callbacks of a run, each until it is accepted."""
        for id_, event, members in self.build_shuffled_events(start):
            self._send_until_accepted(start, id_, event, members)

    def _send_until_accepted(self, start: StartRequest, id_: str, event: str, members: dict[str, Any]) -> None:
        for _ in range(200):
            try:
                answer = self.processor.call_back(start, event, id=id_, **members)
            except httpx.HTTPError:
                answer = None
            with self._lock:
                self.answers[answer.status_code if answer else 0] += 1
            if answer is not None and answer.status_code == 200:
                return
            threading.Event().wait(0.1)
        raise AssertionError(f"{event} was never accepted")


@pytest.mark.timeout(120 + 5 * TREATMENT_COUNT)
def test_every_result_is_stored_once_whatever_dies(
    slow_polling_stack: ProcessorStack, dataset: Dataset, figure: Callable[[str], None]
) -> None:
    processor_stack = slow_polling_stack
    client = TreatmentClient(processor_stack, dataset)
    uploads = [dataset.create_upload("owner", f"picture {number}") for number in range(DOCUMENT_COUNT)]
    linkage = {"uploads": {"data": [{"type": "upload", "id": str(each)} for each in uploads]}}
    document = {"data": {"type": "document-set", "attributes": {"title": "Ten"}, "relationships": linkage}}
    client.set_id = get_data(client.caller.send("POST", "/v1/document-sets", document))["id"]
    caller = ApiClient(processor_stack.processor)
    stop, kills = threading.Event(), []
    killer = threading.Thread(target=_kill_processes, args=(processor_stack, stop, kills), daemon=True)
    begun = monotonic()

    with ThreadPoolExecutor(CALLER_COUNT) as threads:
        processor_stack.processor.before_answer = lambda start: threads.submit(caller.send_callbacks, start)
        killer.start()
        ids = [
            client.start_treatment(**{"api-parameters": {"model": str(number)}}) for number in range(TREATMENT_COUNT)
        ]
        wait_until(
            lambda: _count_ended_jobs(processor_stack) == TREATMENT_COUNT, 60 + 4 * TREATMENT_COUNT, "all have ended"
        )
        stop.set()
        killer.join()

    took = monotonic() - begun
    with processor_stack.app.app_context():
        states = Counter(db.session.scalars(select(Job.state)))
        regions, artifacts = _count_by(Region.treatment_id), _count_by(Artifact.job_id)
        stored = db.session.scalar(select(func.count()).select_from(Callback))
    assert states == {"succeeded": TREATMENT_COUNT}
    assert regions == dict.fromkeys(ids, DOCUMENT_COUNT * REGION_COUNT)
    assert artifacts == dict.fromkeys(ids, DOCUMENT_COUNT)
    assert set(caller.answers) <= {0, 200, 401, 503}
    figure(
        f"treatments: {TREATMENT_COUNT} with {DOCUMENT_COUNT} documents each, "
        f"{sum(caller.answers.values())} callbacks, {stored} stored, {len(kills)} kills of a worker, "
        f"{len(processor_stack.processor.fetched)} files fetched, "
        f"every result once, {took:.0f} s"
    )


def _count_by(column: Any) -> dict[str, int]:
    return {str(key): number for key, number in db.session.execute(select(column, func.count()).group_by(column))}


def _count_ended_jobs(processor_stack: ProcessorStack) -> int:
    with processor_stack.app.app_context():
        ended = select(func.count()).select_from(Job).where(Job.finished_at.is_not(None))
        return int(db.session.scalar(ended) or 0)


def _kill_processes(processor_stack: ProcessorStack, stop: threading.Event, kills: list[int]) -> None:
    """Kill a child of the worker or the whole worker every two seconds; start a new worker when needed."""
    chance = random.Random(6)  # noqa: S311  # not for secrets
    while not stop.wait(2):
        if processor_stack.worker.poll() is not None:
            processor_stack.start("worker")
        elif children := psutil.Process(processor_stack.worker.pid).children():
            victim = chance.choice([processor_stack.worker.pid, *(each.pid for each in children)])
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                kills.append(victim)
