"""Limits of runs at the processor, and a processor that has no room."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from flask import Flask
from sqlalchemy import update

from app.database import commit, get_connection, open_transaction
from app.jobs.executor import MAX_POSTPONED_ATTEMPTS
from app.jobs.models import Job
from app.processors import client
from tests.conftest import find_free_port
from tests.dataset import Dataset
from tests.treatments.fake_processor import Answer, FakeProcessor
from tests.treatments.processor_stack import ProcessorStack, TreatmentClient

pytestmark = [pytest.mark.faults, pytest.mark.long]


@pytest.fixture(scope="module")
def processor_stack(
    app: Flask, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProcessorStack]:
    """Start a stack whose processor has two runs, one of them for one owner."""
    with ExitStack() as stack:
        yield ProcessorStack(environment, tmp_path_factory.mktemp("limits"), stack, PROCESSOR_MAX_RUNS="2")


def list_states(treatment_client: TreatmentClient, ids: list[str]) -> list[str]:
    """Return the states of the jobs of treatments."""
    return [treatment_client.get_job(id_)["state"] for id_ in ids]


def test_owner_with_many_treatments_leaves_runs_to_others(
    treatment_client: TreatmentClient, processor: FakeProcessor, processor_stack: ProcessorStack, dataset: Dataset
) -> None:
    mine = [treatment_client.start_treatment() for _ in range(3)]
    treatment_client.wait_for_start(mine[0])

    other = TreatmentClient(processor_stack, dataset, "stranger")
    other.wait_for_start(other.start_treatment())

    assert list_states(treatment_client, mine) == ["waiting", "queued", "queued"]
    processor.call_back(treatment_client.get_start(mine[0]), "SUCCESS")
    treatment_client.wait_for_start(mine[1])
    assert list_states(treatment_client, mine[2:]) == ["queued"]


def test_run_that_ends_makes_room_for_another_owner(
    treatment_client: TreatmentClient, processor: FakeProcessor, processor_stack: ProcessorStack, dataset: Dataset
) -> None:
    first = treatment_client.start_treatment()
    treatment_client.wait_for_start(first)
    other, third = (TreatmentClient(processor_stack, dataset, role) for role in ("stranger", "other"))
    other.wait_for_start(other.start_treatment())
    waiting = third.start_treatment()
    third.wait_for(lambda: third.get_job(waiting)["state"] == "queued")

    processor.call_back(treatment_client.get_start(first), "SUCCESS")

    third.wait_for_start(waiting)


@pytest.mark.parametrize("status", [429, 503])
def test_start_is_sent_again_to_a_processor_without_room(
    treatment_client: TreatmentClient, processor: FakeProcessor, status: int
) -> None:
    processor.answer_start(Answer(status, b'{"error": "50 runs"}'), Answer(202, b'{"tracking_id": "it"}'))

    treatment_id = treatment_client.start_treatment()

    start = treatment_client.wait_for_start(treatment_id)
    assert len(processor.starts) == 2
    assert treatment_client.get_job(treatment_id)["attempt"] == 2
    (warning,) = treatment_client.list_log_messages(treatment_id, "warning")
    assert warning == f"The processor responded with {status}. Message: 50 runs It starts again in 2 s."
    processor.call_back(start, "SUCCESS")
    treatment_client.wait_for_status(treatment_id, "SUCCESS")


def test_start_is_not_sent_for_ever(
    treatment_client: TreatmentClient, processor: FakeProcessor, processor_stack: ProcessorStack
) -> None:
    processor.answer_start(Answer(503))
    treatment_id = treatment_client.start_treatment()
    treatment_client.wait_for(lambda: treatment_client.list_log_messages(treatment_id, "warning"))
    with processor_stack.app.app_context(), open_transaction(is_read=False):
        last = {"attempt": MAX_POSTPONED_ATTEMPTS - 1}
        get_connection().execute(update(Job).where(Job.id == treatment_id).values(last))
        commit()

    treatment_client.wait_for_status(treatment_id, "ERROR")

    job = treatment_client.get_job(treatment_id)
    assert job["error"] == {"code": "rejected-by-processor", "detail": "The processor responded with 503."}
    assert len(processor.starts) == 2


def test_processor_that_cannot_be_reached_is_busy(
    processor_stack: ProcessorStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(processor_stack.app.config, "PROCESSOR_URL", f"http://127.0.0.1:{find_free_port()}")
    with processor_stack.app.app_context(), pytest.raises(client.ProcessorBusy, match="cannot be reached"):
        client.start_run("regions", {})
