"""What a processor says all at once, too often, twice or too late, and what is kept of it."""

import json
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from app import outbox
from app.database import commit, connection, transaction
from app.outbox import OutboxEntry
from app.processors.models import Callback
from app.processors.remote import APPLY, CLEAR, FETCH
from tests.treatments.doubles import Answer, Processor
from tests.treatments.office import Desk, Office
from tests.world import data

pytestmark = [pytest.mark.faults, pytest.mark.long]

PLACE = {"x": 1, "y": 2, "width": 3, "height": 4}
Said = tuple[str, dict[str, Any]]


def leave(office: Office, treatment_id: str, *said: Said) -> None:
    """Have all of this called back, as if no worker had been there to hear it."""
    run = {"job_id": treatment_id, "attempt": 1}
    rows = [
        {**run, "message_id": f"left {number}", "event": event, "payload": {"event": event, **members}}
        for number, (event, members) in enumerate(said)
    ]
    with office.app.app_context(), transaction(is_read=False):
        connection().execute(insert(Callback), rows)
        outbox.order(APPLY, "callback.received", run)
        commit()


def progress(number: int) -> list[Said]:
    """So many steps, numbered."""
    return [("PROGRESS", {"fraction": step / number, "message": str(step)}) for step in range(number)]


def steps(desk: Desk, treatment_id: str) -> list[tuple[int, datetime]]:
    """The steps that became events, and when."""
    listed = data(desk.caller.get(f"/v1/jobs/{treatment_id}/events?page[size]=100"))
    events = [each["attributes"] for each in listed]
    return [
        (int(each["message"]), datetime.fromisoformat(each["created-at"]))
        for each in events
        if each["state"] == "waiting" and (each["message"] or "").isdigit()
    ]


def regions(*sources: str) -> bytes:
    """A result file with a region in each of these images."""
    return json.dumps([{"source": each, "crops": [{"absolute": PLACE}]} for each in sources]).encode()


def output(url: str, doc_id: str = "one") -> dict[str, Any]:
    """What names one result."""
    return {"results_url": [{"doc_id": doc_id, "result_url": url}]}


def is_asked_for(processor: Processor, path: str) -> bool:
    """Whether the server wants this file; the answer may still be on its way."""
    return any(each.path == path for each in processor.fetched)


def count(office: Office, *where: Any) -> int:
    """How many rows there are."""
    with office.app.app_context(), transaction(is_read=True):
        return int(connection().scalar(select(func.count()).where(*where)) or 0)


@pytest.mark.timeout(120)
def test_a_backlog_is_heard_in_its_order_and_holds_nobody_up(desk: Desk, processor: Processor, office: Office) -> None:
    treatment_id = desk.ask("similarity")
    start = desk.started(treatment_id)

    leave(office, treatment_id, *progress(3000), ("SUCCESS", {"message": "That was it."}))

    desk.wait(lambda: 0 < (desk.job(treatment_id)["progress"] or 0) < 0.9)
    assert processor.call_back(start, "PROGRESS", message="late").status_code == 200
    desk.until(treatment_id, "SUCCESS")
    heard = [step for step, _ in steps(desk, treatment_id)]
    assert heard == sorted(heard)
    assert "late" not in desk.said(treatment_id)


def test_a_word_that_cannot_be_applied_keeps_no_other_from_it(desk: Desk, office: Office) -> None:
    treatment_id = desk.ask()
    desk.started(treatment_id)

    leave(office, treatment_id, ("PROGRESS", {"fraction": "of no kind that is taken"}), ("SUCCESS", {}))

    desk.until(treatment_id, "SUCCESS")
    assert "passed over" in desk.said(treatment_id, "warning")[0]


def test_of_much_progress_few_events_are_kept_and_every_warning(desk: Desk, office: Office) -> None:
    treatment_id = desk.ask()
    desk.started(treatment_id)
    torn = [("ERROR", {"message": f"{number} is torn.", "completed": False}) for number in range(5)]

    leave(office, treatment_id, *progress(800), *torn)

    desk.wait(lambda: len(desk.said(treatment_id, "warning")) == 5)
    told = [at for _, at in steps(desk, treatment_id)]
    assert told
    assert all(later - earlier >= timedelta(seconds=0.5) for earlier, later in pairwise(told))
    assert desk.job(treatment_id)["progress"] == 799 / 800


def test_the_last_of_much_progress_is_told_a_moment_later(desk: Desk, office: Office) -> None:
    treatment_id = desk.ask()
    desk.started(treatment_id)

    leave(office, treatment_id, *progress(300))

    desk.wait(lambda: desk.job(treatment_id)["message"] == "299")
    desk.wait(lambda: steps(desk, treatment_id)[-1][0] == 299)  # the last one is told, a moment later
    assert len(steps(desk, treatment_id)) < 100


@pytest.mark.parametrize("content", [Answer(503), Answer(body=regions("a"), delay=6)], ids=["away", "slow"])
def test_what_is_named_at_the_end_counts_however_late_the_part_before_it_comes(
    desk: Desk, processor: Processor, office: Office, content: Answer
) -> None:
    treatment_id = desk.ask()
    start = desk.started(treatment_id)
    part = processor.host("/part.json", content)
    processor.call_back(start, "PROGRESS", output=output(part))
    desk.wait(lambda: is_asked_for(processor, "/part.json"))

    processor.call_back(start, "SUCCESS", output=output(processor.host("/all.json", regions("a", "a", "a"))))

    desk.until(treatment_id, "SUCCESS")
    processor.host("/part.json", regions("a"))
    desk.wait(lambda: count(office, OutboxEntry.consumer == FETCH, OutboxEntry.done_at.is_(None)) == 0)
    assert len(desk.found(treatment_id, "regions")) == 3
    assert desk.job(treatment_id)["result"] == {"results": 1, "refused": 0}
    assert [each["name"] for each in desk.files(treatment_id)] == ["result-2.json"]


@pytest.mark.parametrize(
    ("named", "found", "result"),
    [
        (None, ["part"], {"results": 1, "refused": 0}),
        (("another", regions("all")), ["all", "part"], {"results": 2, "refused": 0}),
        (("one", Answer(404)), ["part"], {"results": 1, "refused": 1}),
    ],
    ids=["nothing", "another document", "a file that is not there"],
)
def test_a_part_counts_where_nothing_takes_its_place(
    desk: Desk, processor: Processor, named: tuple[str, Any] | None, found: list[str], result: dict[str, int]
) -> None:
    treatment_id = desk.ask()
    start = desk.started(treatment_id)
    part = processor.host("/part.json", Answer(503))
    processor.call_back(start, "PROGRESS", output=output(part))
    desk.wait(lambda: is_asked_for(processor, "/part.json"))

    at_the_end = output(processor.host("/all.json", named[1]), named[0]) if named else {}
    processor.call_back(start, "SUCCESS", output=at_the_end)
    processor.host("/part.json", regions("part"))

    desk.until(treatment_id, "SUCCESS")
    assert sorted(each["source"] for each in desk.found(treatment_id, "regions")) == found
    assert desk.job(treatment_id)["result"] == result


def test_what_is_refused_at_the_end_is_not_counted_for_what_it_was_before(desk: Desk, processor: Processor) -> None:
    treatment_id = desk.ask()
    start = desk.started(treatment_id)
    url = processor.host("/one.json", regions("a"))
    processor.call_back(start, "PROGRESS", output=output(url))
    desk.wait(lambda: desk.files(treatment_id))
    processor.host("/one.json", b"no JSON")

    processor.call_back(start, "SUCCESS", output=output(url))

    desk.until(treatment_id, "SUCCESS")
    assert desk.job(treatment_id)["result"] == {"results": 0, "refused": 1}


def test_the_number_of_a_document_may_be_zero(desk: Desk, processor: Processor) -> None:
    treatment_id = desk.ask()
    start = desk.started(treatment_id)
    named = {"doc_id": 0, "result_url": processor.host("/zero.json", regions("a"))}

    processor.call_back(start, "SUCCESS", output={"results_url": [named]})

    desk.until(treatment_id, "SUCCESS")
    assert [each["document"] for each in desk.found(treatment_id, "regions")] == ["0"]


@pytest.mark.parametrize("status", [502, 429])
def test_a_cancel_that_could_not_be_taken_is_asked_again(desk: Desk, processor: Processor, status: int) -> None:
    processor.answer_cancel(Answer(status), {"status": "CANCELLED"})
    treatment_id = desk.ask()
    start = desk.started(treatment_id)

    desk.caller.send("POST", f"/v1/jobs/{treatment_id}/cancel")

    desk.wait(lambda: [each.tracking_id for each in processor.cancels] == [start.tracking_id] * 2)


def test_what_was_called_back_is_deleted_after_the_end(desk: Desk, processor: Processor, office: Office) -> None:
    treatment_id = desk.ask()
    start = desk.started(treatment_id)
    assert processor.call_back(start, "STARTED", id="first").status_code == 200
    leave(office, treatment_id, *progress(250), ("ERROR", {"message": "It is too dark."}))
    desk.until(treatment_id, "ERROR")
    mine = Callback.job_id == treatment_id
    assert count(office, mine) == 252

    with office.app.app_context(), transaction(is_read=False):
        connection().execute(update(OutboxEntry).where(OutboxEntry.consumer == CLEAR).values(next_at=func.now()))
        commit()

    desk.wait(lambda: count(office, mine) == 0)
    assert processor.call_back(start, "STARTED", id="first").status_code == 200
    assert count(office, mine) == 0
