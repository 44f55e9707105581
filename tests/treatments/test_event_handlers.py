"""Callbacks that arrive all at once, too often, twice or too late."""

import json
import os
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from app import outbox
from app.database import commit, get_connection, open_transaction
from app.jobs.models import Job
from app.outbox import OutboxEntry
from app.processors import callbacks
from app.processors.models import Callback
from app.processors.runs import APPLY, CLEAR, FETCH
from tests.dataset import get_data
from tests.treatments.fake_processor import Answer, FakeProcessor
from tests.treatments.processor_stack import ProcessorStack, TreatmentClient

pytestmark = [pytest.mark.faults, pytest.mark.long]

PLACE = {"x": 1, "y": 2, "width": 3, "height": 4}
CallbackEvent = tuple[str, dict[str, Any]]


def store_callbacks(processor_stack: ProcessorStack, treatment_id: str, *callbacks: CallbackEvent) -> None:
    """Store callbacks for a consumer, as if no worker had been there when they arrived."""
    run = {"job_id": treatment_id, "attempt": 1}
    rows = [
        {**run, "message_id": f"left {number}", "event": event, "payload": {"event": event, **members}}
        for number, (event, members) in enumerate(callbacks)
    ]
    with processor_stack.app.app_context(), open_transaction(is_read=False):
        get_connection().execute(insert(Callback), rows)
        outbox.enqueue_entry(APPLY, "callback.received", run)
        commit()


def build_progress_events(number: int) -> list[CallbackEvent]:
    """Build this many PROGRESS events with numbered messages."""
    return [("PROGRESS", {"fraction": step / number, "message": str(step)}) for step in range(number)]


def list_step_events(treatment_client: TreatmentClient, treatment_id: str) -> list[tuple[int, datetime]]:
    """Return the number and time of the steps that became progress events."""
    listed = get_data(treatment_client.caller.get(f"/v1/jobs/{treatment_id}/events?page[size]=100"))
    events = [each["attributes"] for each in listed]
    return [
        (int(each["message"]), datetime.fromisoformat(each["created-at"]))
        for each in events
        if each["state"] == "waiting" and (each["message"] or "").isdigit()
    ]


def build_region_file(*sources: str) -> bytes:
    """Return a result file with a region in each of these images."""
    return json.dumps([{"source": each, "crops": [{"absolute": PLACE}]} for each in sources]).encode()


def build_output(url: str, doc_id: str = "one") -> dict[str, Any]:
    """Return the output member with one result."""
    return {"results_url": [{"doc_id": doc_id, "result_url": url}]}


def is_requested(processor: FakeProcessor, path: str) -> bool:
    """Return whether the server has requested this file."""
    return any(each.path == path for each in processor.fetched)


def fetch_values(processor_stack: ProcessorStack, statement: Any) -> list[Any]:
    """Return the first column of what a statement returns."""
    with processor_stack.app.app_context(), open_transaction(is_read=True):
        return list(get_connection().scalars(statement))


def count_rows(processor_stack: ProcessorStack, *where: Any) -> int:
    """Return the number of rows."""
    with processor_stack.app.app_context(), open_transaction(is_read=True):
        return int(get_connection().scalar(select(func.count()).where(*where)) or 0)


@pytest.mark.timeout(120)
def test_a_backlog_is_heard_in_its_order_and_holds_nobody_up(
    treatment_client: TreatmentClient, processor: FakeProcessor, processor_stack: ProcessorStack
) -> None:
    treatment_id = treatment_client.start_treatment("similarity")
    start = treatment_client.wait_for_start(treatment_id)

    store_callbacks(
        processor_stack, treatment_id, *build_progress_events(3000), ("SUCCESS", {"message": "That was it."})
    )

    treatment_client.wait_for(lambda: 0 < (treatment_client.get_job(treatment_id)["progress"] or 0) < 0.9)
    assert processor.call_back(start, "PROGRESS", message="late").status_code == 200
    treatment_client.wait_for_status(treatment_id, "SUCCESS")
    steps = [step for step, _ in list_step_events(treatment_client, treatment_id)]
    assert steps == sorted(steps)
    assert "late" not in treatment_client.list_log_messages(treatment_id)


def test_invalid_callback_does_not_block_later_ones(
    treatment_client: TreatmentClient, processor_stack: ProcessorStack
) -> None:
    treatment_id = treatment_client.start_treatment()
    treatment_client.wait_for_start(treatment_id)

    store_callbacks(
        processor_stack, treatment_id, ("PROGRESS", {"fraction": "of no kind that is taken"}), ("SUCCESS", {})
    )

    treatment_client.wait_for_status(treatment_id, "SUCCESS")
    assert "could not be applied" in treatment_client.list_log_messages(treatment_id, "warning")[0]


def test_progress_is_coalesced_and_warnings_kept(
    treatment_client: TreatmentClient, processor_stack: ProcessorStack
) -> None:
    treatment_id = treatment_client.start_treatment()
    treatment_client.wait_for_start(treatment_id)
    torn = [("ERROR", {"message": f"{number} is torn.", "completed": False}) for number in range(5)]

    store_callbacks(processor_stack, treatment_id, *build_progress_events(800), *torn)

    treatment_client.wait_for(lambda: len(treatment_client.list_log_messages(treatment_id, "warning")) == 5)
    published_at = [at for _, at in list_step_events(treatment_client, treatment_id)]
    assert published_at
    assert all(later - earlier >= timedelta(seconds=0.5) for earlier, later in pairwise(published_at))
    assert treatment_client.get_job(treatment_id)["progress"] == 799 / 800


def test_the_last_of_much_progress_is_told_a_moment_later(
    treatment_client: TreatmentClient, processor_stack: ProcessorStack
) -> None:
    treatment_id = treatment_client.start_treatment()
    treatment_client.wait_for_start(treatment_id)

    store_callbacks(processor_stack, treatment_id, *build_progress_events(300))

    treatment_client.wait_for(lambda: treatment_client.get_job(treatment_id)["message"] == "299")
    treatment_client.wait_for(
        lambda: list_step_events(treatment_client, treatment_id)[-1][0] == 299
    )  # the last one is published later
    assert len(list_step_events(treatment_client, treatment_id)) < 100


@pytest.mark.parametrize("content", [Answer(503), Answer(body=build_region_file("a"), delay=6)], ids=["away", "slow"])
def test_what_is_named_at_the_end_counts_however_late_the_part_before_it_comes(
    treatment_client: TreatmentClient, processor: FakeProcessor, processor_stack: ProcessorStack, content: Answer
) -> None:
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)
    part = processor.host_file("/part.json", content)
    processor.call_back(start, "PROGRESS", output=build_output(part))
    treatment_client.wait_for(lambda: is_requested(processor, "/part.json"))

    processor.call_back(
        start, "SUCCESS", output=build_output(processor.host_file("/all.json", build_region_file("a", "a", "a")))
    )

    treatment_client.wait_for_status(treatment_id, "SUCCESS")
    processor.host_file("/part.json", build_region_file("a"))
    treatment_client.wait_for(
        lambda: count_rows(processor_stack, OutboxEntry.consumer == FETCH, OutboxEntry.done_at.is_(None)) == 0
    )
    assert len(treatment_client.list_results(treatment_id, "regions")) == 3
    assert treatment_client.get_job(treatment_id)["result"] == {"results": 1, "refused": 0}
    assert [each["name"] for each in treatment_client.list_artifacts(treatment_id)] == ["result-2.json"]


@pytest.mark.parametrize(
    ("named", "found", "result"),
    [
        (None, ["part"], {"results": 1, "refused": 0}),
        (("another", build_region_file("all")), ["all", "part"], {"results": 2, "refused": 0}),
        (("one", Answer(404)), ["part"], {"results": 1, "refused": 1}),
    ],
    ids=["nothing", "another document", "a file that is not there"],
)
def test_partial_result_counts_unless_replaced(
    treatment_client: TreatmentClient,
    processor: FakeProcessor,
    named: tuple[str, Any] | None,
    found: list[str],
    result: dict[str, int],
) -> None:
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)
    part = processor.host_file("/part.json", Answer(503))
    processor.call_back(start, "PROGRESS", output=build_output(part))
    treatment_client.wait_for(lambda: is_requested(processor, "/part.json"))

    at_the_end = build_output(processor.host_file("/all.json", named[1]), named[0]) if named else {}
    processor.call_back(start, "SUCCESS", output=at_the_end)
    processor.host_file("/part.json", build_region_file("part"))

    treatment_client.wait_for_status(treatment_id, "SUCCESS")
    assert sorted(each["source"] for each in treatment_client.list_results(treatment_id, "regions")) == found
    assert treatment_client.get_job(treatment_id)["result"] == result


def test_what_is_refused_at_the_end_is_not_counted_for_what_it_was_before(
    treatment_client: TreatmentClient, processor: FakeProcessor
) -> None:
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)
    url = processor.host_file("/one.json", build_region_file("a"))
    processor.call_back(start, "PROGRESS", output=build_output(url))
    treatment_client.wait_for(lambda: treatment_client.list_artifacts(treatment_id))
    processor.host_file("/one.json", b"no JSON")

    processor.call_back(start, "SUCCESS", output=build_output(url))

    treatment_client.wait_for_status(treatment_id, "SUCCESS")
    assert treatment_client.get_job(treatment_id)["result"] == {"results": 0, "refused": 1}


def test_the_number_of_a_document_may_be_zero(treatment_client: TreatmentClient, processor: FakeProcessor) -> None:
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)
    named = {"doc_id": 0, "result_url": processor.host_file("/zero.json", build_region_file("a"))}

    processor.call_back(start, "SUCCESS", output={"results_url": [named]})

    treatment_client.wait_for_status(treatment_id, "SUCCESS")
    assert [each["document"] for each in treatment_client.list_results(treatment_id, "regions")] == ["0"]


@pytest.mark.parametrize("status", [502, 429])
def test_a_cancel_that_could_not_be_taken_is_asked_again(
    treatment_client: TreatmentClient, processor: FakeProcessor, status: int
) -> None:
    processor.answer_cancel(Answer(status), {"status": "CANCELLED"})
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)

    treatment_client.caller.send("POST", f"/v1/jobs/{treatment_id}/cancel")

    treatment_client.wait_for(lambda: [each.tracking_id for each in processor.cancels] == [start.tracking_id] * 2)


def test_callbacks_are_deleted_after_job_ended(
    treatment_client: TreatmentClient, processor: FakeProcessor, processor_stack: ProcessorStack
) -> None:
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)
    assert processor.call_back(start, "STARTED", id="first").status_code == 200
    store_callbacks(
        processor_stack, treatment_id, *build_progress_events(250), ("ERROR", {"message": "It is too dark."})
    )
    treatment_client.wait_for_status(treatment_id, "ERROR")
    mine = Callback.job_id == treatment_id
    assert count_rows(processor_stack, mine) == 252

    with processor_stack.app.app_context(), open_transaction(is_read=False):
        get_connection().execute(update(OutboxEntry).where(OutboxEntry.consumer == CLEAR).values(next_at=func.now()))
        commit()

    treatment_client.wait_for(lambda: count_rows(processor_stack, mine) == 0)
    assert processor.call_back(start, "STARTED", id="first").status_code == 200
    assert count_rows(processor_stack, mine) == 0


def test_callbacks_and_downloads_count_for_the_owner_of_the_job(
    treatment_client: TreatmentClient, processor: FakeProcessor, processor_stack: ProcessorStack
) -> None:
    treatment_id = treatment_client.start_treatment("similarity")
    start = treatment_client.wait_for_start(treatment_id)
    (share,) = fetch_values(processor_stack, select(Job.share).where(Job.id == treatment_id))
    assert share == treatment_client.caller.id

    processor.call_back(start, "SUCCESS", output=build_output(processor.host_file("/one.json", b"[]")))

    treatment_client.wait_for_status(treatment_id, "SUCCESS")
    actors = select(OutboxEntry.actor).where(OutboxEntry.consumer.in_((APPLY, FETCH)))
    assert set(fetch_values(processor_stack, actors)) == {share}


def test_callbacks_of_one_run_are_limited_in_bytes(
    treatment_client: TreatmentClient, processor: FakeProcessor, processor_stack: ProcessorStack
) -> None:
    treatment_id = treatment_client.start_treatment("similarity")
    start = treatment_client.wait_for_start(treatment_id)
    run = {"job_id": treatment_id, "attempt": 1, "event": "PROGRESS", "applied_at": func.now()}
    with processor_stack.app.app_context(), open_transaction(is_read=False):
        for number in range(callbacks.MAX_CALLBACK_BYTES // 2**20):
            payload = {"event": "PROGRESS", "message": os.urandom(2**19).hex()}
            get_connection().execute(insert(Callback).values(message_id=f"left {number}", payload=payload, **run))
        commit()

    refused = processor.call_back(start, "PROGRESS", message="more")
    accepted = processor.call_back(start, "SUCCESS")

    assert (refused.status_code, accepted.status_code) == (429, 200)
    assert refused.json()["errors"][0]["detail"] == "A run may send at most 10000 callbacks, and 50 MiB of them."
    treatment_client.wait_for_status(treatment_id, "SUCCESS")


def test_unknown_members_of_callbacks_are_not_stored(
    treatment_client: TreatmentClient, processor: FakeProcessor, processor_stack: ProcessorStack
) -> None:
    treatment_id = treatment_client.start_treatment("similarity")
    start = treatment_client.wait_for_start(treatment_id)
    url = processor.host_file("/one.json", b"[]")
    output = {"results_url": [{"doc_id": "a", "result_url": url, "pixels": "x"}], "log": "x"}

    processor.call_back(start, "PROGRESS", message="half", output=output, more="x" * 500_000)

    (payload,) = fetch_values(processor_stack, select(Callback.payload).where(Callback.job_id == treatment_id))
    assert payload["output"] == {"results_url": [{"doc_id": "a", "result_url": url}]}
    assert sorted(payload) == ["event", "experiment_id", "message", "output", "tracking_id"]
