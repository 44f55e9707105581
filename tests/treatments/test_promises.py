"""What is promised of treatments, kept while workers are killed; `TREATMENTS=100` makes it as many.

A test of the whole: a processor calls back out of order, twice, and more at once than we take in; in the end every
treatment has succeeded and every result is there once.
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
from app.processors.remote import Run
from app.processors.results import File
from app.treatments.models import Region
from tests.conftest import wait_until
from tests.treatments.doubles import Processor, Start
from tests.treatments.office import Desk, Office
from tests.world import World, data

pytestmark = [pytest.mark.faults, pytest.mark.long]

TREATMENTS = int(os.environ.get("TREATMENTS", "15"))
DOCUMENTS = 10
REGIONS = 3
CALLERS = 8


def test_the_columns_of_rows_are_those_of_their_models() -> None:
    assert Run._fields == tuple(RemoteRun.__table__.c.keys())
    assert File._fields == tuple(ResultFile.__table__.c.keys())


@pytest.fixture
def patient_office(
    app: Flask, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Office]:
    """One whose processor is asked only when it has been silent for long; the last kill may have left it no worker."""
    with ExitStack() as stack:
        yield Office(environment, tmp_path_factory.mktemp("office"), stack, PROCESSOR_POLL_SECONDS="20")


class Caller:
    """The processor's side of many runs: what it has to say of each, in any order, some of it twice."""

    def __init__(self, processor: Processor) -> None:
        self.processor = processor
        self.chance = random.Random(5)  # noqa: S311  # not for secrets
        self.answers: Counter[int] = Counter()
        self.refused = 0
        self._names = count(1)
        self._lock = threading.Lock()

    def said(self, start: Start) -> list[tuple[str, str, dict[str, Any]]]:
        """Events with their ids and members: shuffled, but the end comes after half of them at the earliest."""
        uids = [each["uid"] for each in start.body["documents"]]
        assert len(uids) == DOCUMENTS
        listed = [{"doc_id": uid, "result_url": self._host(uid)} for uid in uids]
        parts = [("PROGRESS", {"output": {"results_url": [each]}, "fraction": 0.5}) for each in listed]
        events = [("STARTED", {}), *parts]
        self.chance.shuffle(events)
        events.insert(
            self.chance.randrange(len(events) // 2, len(events)), ("SUCCESS", {"output": {"results_url": listed}})
        )
        made = [(f"msg_{next(self._names)}", event, members) for event, members in events]
        return made + self.chance.sample(made, 3)

    def _host(self, uid: str) -> str:
        places = [{"absolute": {"x": number, "y": 0, "width": 5, "height": 5}} for number in range(REGIONS)]
        content = json.dumps([{"source": uid, "crops": places}]).encode()
        return self.processor.host(f"/results/{next(self._names)}.json", content)

    def call(self, start: Start) -> None:
        """Say it all, each until it is heard."""
        for id_, event, members in self.said(start):
            self._until_heard(start, id_, event, members)

    def _until_heard(self, start: Start, id_: str, event: str, members: dict[str, Any]) -> None:
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
        raise AssertionError(f"{event} was never heard")


@pytest.mark.timeout(120 + 5 * TREATMENTS)
def test_every_result_is_stored_once_whatever_dies(
    patient_office: Office, world: World, figure: Callable[[str], None]
) -> None:
    office = patient_office
    desk = Desk(office, world)
    uploads = [world.upload("owner", f"picture {number}") for number in range(DOCUMENTS)]
    linkage = {"uploads": {"data": [{"type": "upload", "id": str(each)} for each in uploads]}}
    document = {"data": {"type": "document-set", "attributes": {"title": "Ten"}, "relationships": linkage}}
    desk.set_id = data(desk.caller.send("POST", "/v1/document-sets", document))["id"]
    caller = Caller(office.processor)
    stop, kills = threading.Event(), []
    killer = threading.Thread(target=_kill, args=(office, stop, kills), daemon=True)
    begun = monotonic()

    with ThreadPoolExecutor(CALLERS) as threads:
        office.processor.before_answer = lambda start: threads.submit(caller.call, start)
        killer.start()
        ids = [desk.ask(**{"api-parameters": {"model": str(number)}}) for number in range(TREATMENTS)]
        wait_until(lambda: _ended(office) == TREATMENTS, 60 + 4 * TREATMENTS, "all have ended")
        stop.set()
        killer.join()

    took = monotonic() - begun
    with office.app.app_context():
        states = Counter(db.session.scalars(select(Job.state)))
        regions, artifacts = _counts(Region.treatment_id), _counts(Artifact.job_id)
        stored = db.session.scalar(select(func.count()).select_from(Callback))
    assert states == {"succeeded": TREATMENTS}
    assert regions == dict.fromkeys(ids, DOCUMENTS * REGIONS)
    assert artifacts == dict.fromkeys(ids, DOCUMENTS)
    assert set(caller.answers) <= {0, 200, 401, 503}
    figure(
        f"treatments: {TREATMENTS} with {DOCUMENTS} documents each, {sum(caller.answers.values())} callbacks, "
        f"{stored} stored, {len(kills)} kills of a worker, {len(office.processor.fetched)} files fetched, "
        f"every result once, {took:.0f} s"
    )


def _counts(column: Any) -> dict[str, int]:
    return {str(key): number for key, number in db.session.execute(select(column, func.count()).group_by(column))}


def _ended(office: Office) -> int:
    with office.app.app_context():
        ended = select(func.count()).select_from(Job).where(Job.finished_at.is_not(None))
        return int(db.session.scalar(ended) or 0)


def _kill(office: Office, stop: threading.Event, kills: list[int]) -> None:
    """Every two seconds a child of the worker, or the whole worker, which is then started again."""
    chance = random.Random(6)  # noqa: S311  # not for secrets
    while not stop.wait(2):
        if office.worker.poll() is not None:
            office.start("worker")
        elif children := psutil.Process(office.worker.pid).children():
            victim = chance.choice([office.worker.pid, *(each.pid for each in children)])
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                kills.append(victim)
