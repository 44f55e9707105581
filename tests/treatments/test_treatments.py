"""Treatments from the request to the end, by real processes and a processor that does as it is told."""

import json
import threading
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app import quotas
from app.database import commit, transaction
from app.extensions import db
from app.jobs.models import Job
from tests.conftest import wait_until
from tests.treatments.doubles import FAILURE, HTML, INVALID, LONG, RESET, SLASHED, UNTRACKED, Answer, Processor
from tests.treatments.office import Desk, Office
from tests.world import World, data, errors, pointers

pytestmark = [pytest.mark.faults, pytest.mark.long]

REGION = {"x": 10, "y": 20, "width": 30, "height": 40}


def regions_of(uid: str, *places: dict[str, int]) -> bytes:
    """A result file of `regions`."""
    return json.dumps([{"source": uid, "crops": [{"source": uid, "absolute": each} for each in places]}]).encode()


def named(processor: Processor, uid: str, content: bytes | Answer, path: str = "/results/1.json") -> dict[str, Any]:
    """The output that names one result file."""
    return {"results_url": [{"doc_id": uid, "result_url": processor.host(path, content)}]}


def test_a_treatment_is_sent_and_its_results_are_stored(desk: Desk, processor: Processor, world: World) -> None:
    event_id = world.events["published"]
    treatment_id = desk.ask(**{"api-parameters": {"model": "mine"}})

    start = desk.started(treatment_id)
    uid = f"event-image-{world.images['published']}"
    assert [each["uid"] for each in start.body["documents"]] == [
        f"event-{event_id}",
        uid,
        f"faq-{world.faqs['published']}",
    ]
    assert [each["type"] for each in start.body["documents"]] == ["event", "image", "faq"]
    assert (start.task, start.body["model"], start.body["algorithm"]) == ("regions", "mine", "default")
    assert desk.look(treatment_id)["tracking-id"] == start.tracking_id

    answer = processor.call_back(start, "STARTED")
    assert (answer.status_code, answer.json()) == (200, {"success": True, "message": "Update received"})
    desk.until(treatment_id, "IN PROGRESS")
    processor.call_back(start, "PROGRESS", fraction=0.5, output=named(processor, uid, regions_of(uid, REGION)))
    desk.wait(lambda: desk.found(treatment_id, "regions"))
    assert desk.job(treatment_id)["progress"] == 0.5
    assert [each["partial"] for each in desk.files(treatment_id)] == [True]

    processor.call_back(start, "SUCCESS", output=named(processor, uid, regions_of(uid, REGION, REGION)))
    desk.until(treatment_id, "SUCCESS")

    found = desk.found(treatment_id, "regions")
    assert found == [{"document": uid, "source": uid, **REGION}] * 2
    assert [(each["name"], each["partial"]) for each in desk.files(treatment_id)] == [("result-1.json", False)]
    assert desk.job(treatment_id)["result"] == {"results": 1, "refused": 0}
    assert desk.said(treatment_id, "warning") == []


def test_documents_are_there_for_the_processor_until_the_end(desk: Desk, processor: Processor) -> None:
    treatment_id = desk.ask()
    start = desk.started(treatment_id)
    sources = {each["type"]: each["src"] for each in start.body["documents"]}

    event = httpx.get(sources["event"], trust_env=False)
    assert event.status_code == 200
    assert event.json()["data"]["type"] == "event"
    assert httpx.get(sources["faq"], trust_env=False).json()["data"]["attributes"]["answer"] == "yes"
    assert httpx.get(sources["event"][:-1], trust_env=False).status_code == 404
    assert httpx.get(sources["event"].replace("event-", "faq-"), trust_env=False).status_code == 404

    processor.call_back(start, "ERROR", message="It is too dark.")
    desk.until(treatment_id, "ERROR")
    assert httpx.get(sources["event"], trust_env=False).status_code == 404
    assert desk.job(treatment_id)["error"] == {"code": "processor-error", "detail": "It is too dark."}


def test_a_similarity_is_stored_for_each_pair(desk: Desk, processor: Processor) -> None:
    treatment_id = desk.ask("similarity")
    start = desk.started(treatment_id)
    pairs = [{"a": "b", "b": "a", "score": 0.5}, {"a": "a", "b": "b", "score": 0.75}, {"a": "a", "b": "c", "score": 1}]

    processor.call_back(start, "SUCCESS", output=named(processor, "all", json.dumps(pairs).encode()))

    desk.until(treatment_id, "SUCCESS")
    found = [(each["a"], each["b"], each["score"]) for each in desk.found(treatment_id, "similarities")]
    assert found == [("a", "b", 0.75), ("a", "c", 1)]


def test_callbacks_come_early_twice_and_in_any_order(desk: Desk, processor: Processor) -> None:
    output = named(processor, "all", b"[]")

    def early(start: Any) -> None:
        for id_ in ("a", "a"):
            assert processor.call_back(start, "STARTED", id=id_).status_code == 200
        assert processor.call_back(start, "SUCCESS", output=output).status_code == 200
        assert processor.call_back(start, "PROGRESS", fraction=0.2).status_code == 200

    processor.before_answer = early
    treatment_id = desk.ask("similarity")

    desk.until(treatment_id, "SUCCESS")
    start = desk.start_of(treatment_id)
    before = desk.said(treatment_id)
    assert before.count("The processor has begun.") == 1
    for event in ("ERROR", "PROGRESS", "STARTED", "CANCELLED"):
        assert processor.call_back(start, event).status_code == 200
    assert desk.said(treatment_id) == before
    assert desk.look(treatment_id)["status"] == "SUCCESS"


def test_an_error_after_the_success_changes_nothing(desk: Desk, processor: Processor) -> None:
    treatment_id = desk.ask("similarity")
    start = desk.started(treatment_id)

    processor.call_back(start, "SUCCESS", output=named(processor, "all", Answer(body=b"[]", delay=1.5)))
    processor.call_back(start, "ERROR", message="No, it did not work.")

    desk.until(treatment_id, "SUCCESS")
    (warning,) = desk.said(treatment_id, "warning")
    assert "No, it did not work." in warning


def test_an_error_that_is_not_the_end_is_a_warning(desk: Desk, processor: Processor) -> None:
    treatment_id = desk.ask("similarity")
    start = desk.started(treatment_id)

    processor.call_back(start, "ERROR", message="One of them is dark.", completed=False)
    processor.call_back(start, "PROGRESS", output={"error": ["Another is torn."]})
    processor.call_back(start, "SUCCESS", output={"error": ["Another is torn.", "One of them is dark."]})

    desk.until(treatment_id, "SUCCESS")
    assert desk.said(treatment_id, "warning") == ["One of them is dark.", "Another is torn."]


@pytest.mark.parametrize(
    "content",
    [
        b'{"not": "a list"}',
        b'[{"source": "a", "crops": [{"absolute": {"x": -1, "y": 0, "width": 1, "height": 1}}]}]',
        b"<!DOCTYPE html>",
        Answer(404, b"[]"),
        Answer(302, headers={"Location": "/"}),
        Answer(body=b"x" * 2**20, times=17),
    ],
    ids=["no list", "no place", "no JSON", "no file", "redirect", "17 MiB"],
)
def test_a_result_that_does_not_fit_is_a_warning_and_the_others_are_kept(
    desk: Desk, processor: Processor, content: bytes | Answer
) -> None:
    treatment_id = desk.ask()
    start = desk.started(treatment_id)
    output = named(processor, "bad", content)
    output["results_url"] += named(processor, "good", regions_of("good", REGION), "/results/2.json")["results_url"]

    processor.call_back(start, "SUCCESS", output=output)

    desk.until(treatment_id, "SUCCESS")
    assert [each["document"] for each in desk.found(treatment_id, "regions")] == ["good"]
    (warning,) = desk.said(treatment_id, "warning")
    assert "'bad'" in warning
    assert desk.job(treatment_id)["result"] == {"results": 1, "refused": 1}


def test_a_result_beyond_the_files_of_a_day_is_refused(desk: Desk, processor: Processor) -> None:
    with desk.office.app.app_context(), transaction(is_read=False):
        limit = desk.office.app.config["MAX_JOB_OUTPUT_MB_PER_DAY"] * 2**20
        assert quotas.charge_output(desk.caller.id, limit, is_triggered=True)
        commit()
    treatment_id = desk.ask()
    start = desk.started(treatment_id)

    processor.call_back(start, "SUCCESS", output=named(processor, "one", regions_of("one", REGION)))

    desk.until(treatment_id, "SUCCESS")
    (warning,) = desk.said(treatment_id, "warning")
    assert warning.startswith("The result of 'one' was not stored. The jobs of one user make at most 1000 MiB a day")
    assert desk.job(treatment_id)["result"] == {"results": 0, "refused": 1}
    assert desk.files(treatment_id) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/results",
        "http://169.254.169.254/latest",
        "file:///etc/passwd",
        "http://[::1]/",
        "nonsense",
        "http://xn--/",
        f"http://127.0.0.1:9/{''.join(chr(0x4E00 + number) for number in range(1900))}",
    ],
    ids=["closed", "metadata", "file", "local", "no URL", "no name", "long"],
)
def test_a_result_at_a_private_address_is_refused(desk: Desk, processor: Processor, url: str) -> None:
    treatment_id = desk.ask()
    start = desk.started(treatment_id)

    processor.call_back(start, "SUCCESS", output={"results_url": [{"doc_id": "../../etc", "result_url": url}]})

    desk.until(treatment_id, "SUCCESS")
    (warning,) = desk.said(treatment_id, "warning")
    assert "was not fetched" in warning
    assert desk.files(treatment_id) == []


@pytest.mark.parametrize(
    "answer",
    [HTML, FAILURE, INVALID, LONG, RESET, UNTRACKED, Answer(body=b"[]"), Answer(body=b'{"tracking_id": ".."}')],
    ids=["HTML", "500", "no JSON", "too long", "reset", "no id", "list", "dots"],
)
def test_a_processor_that_does_not_take_it_is_asked_once(desk: Desk, processor: Processor, answer: Answer) -> None:
    processor.answer_start(answer)
    treatment_id = desk.ask()

    desk.until(treatment_id, "ERROR")

    job = desk.job(treatment_id)
    assert (job["state"], job["error"]["code"], job["attempt"]) == ("failed", "rejected-by-processor", 1)
    assert len(processor.starts) == 1
    assert "127.0.0.1" not in job["error"]["detail"]


def test_a_tracking_id_stays_where_it_belongs(desk: Desk, processor: Processor) -> None:
    processor.answer_start(SLASHED)
    processor.answer_status({"status": "SUCCESS"})
    treatment_id = desk.ask()

    desk.until(treatment_id, "SUCCESS")

    assert {each.tracking_id for each in processor.status_requests} == {"../../v1/users/1"}


def test_a_silent_processor_is_asked(desk: Desk, processor: Processor) -> None:
    running = {"status": "IN PROGRESS", "fraction": 0.25}
    processor.answer_status(running, {"status": "SUCCESS", "output": named(processor, "all", b"[]")})
    treatment_id = desk.ask("similarity")

    desk.until(treatment_id, "SUCCESS")

    assert len(processor.status_requests) == 2
    assert [each["name"] for each in desk.files(treatment_id)] == ["result-1.json"]


@pytest.mark.parametrize("answer", [HTML, FAILURE, Answer(404), RESET], ids=["HTML", "500", "404", "reset"])
def test_a_processor_that_answers_nothing_is_given_up(desk: Desk, processor: Processor, answer: Answer) -> None:
    processor.answer_status(answer)
    treatment_id = desk.ask()

    desk.until(treatment_id, "ERROR")

    assert desk.job(treatment_id)["error"]["code"] == "heartbeat-lost"


def test_a_cancel_waits_for_the_word_of_the_processor(desk: Desk, processor: Processor) -> None:
    processor.answer_cancel({"status": "accepted"})
    treatment_id = desk.ask()
    start = desk.started(treatment_id)

    assert desk.caller.send("POST", f"/v1/jobs/{treatment_id}/cancel").status_code == 202
    desk.wait(lambda: processor.cancels)
    assert desk.job(treatment_id)["state"] == "canceling"
    processor.call_back(start, "CANCELLED")

    desk.until(treatment_id, "CANCELLED")
    assert desk.said(treatment_id, "warning") == []
    assert [each.tracking_id for each in processor.cancels] == [start.tracking_id]


def test_a_cancel_without_a_word_ends_with_a_warning(desk: Desk, processor: Processor) -> None:
    processor.answer_cancel(FAILURE)
    processor.answer_status({"status": "IN PROGRESS"})
    treatment_id = desk.ask()
    desk.started(treatment_id)

    desk.caller.send("POST", f"/v1/jobs/{treatment_id}/cancel")

    desk.until(treatment_id, "CANCELLED")
    (warning,) = desk.said(treatment_id, "warning")
    assert "may still be at work" in warning


def test_a_success_that_is_quicker_than_the_cancel_counts(desk: Desk, processor: Processor) -> None:
    processor.answer_cancel({"status": "too late"})
    treatment_id = desk.ask("similarity")
    start = desk.started(treatment_id)

    desk.caller.send("POST", f"/v1/jobs/{treatment_id}/cancel")
    processor.call_back(start, "SUCCESS", output=named(processor, "all", b"[]"))

    desk.until(treatment_id, "SUCCESS")


def test_a_cancel_while_the_processor_is_being_asked_to_start(desk: Desk, processor: Processor) -> None:
    processor.before_answer = lambda start: desk.caller.send("POST", f"/v1/jobs/{start.body['experiment_id']}/cancel")
    treatment_id = desk.ask()

    desk.until(treatment_id, "CANCELLED")

    assert [each.tracking_id for each in processor.cancels] == [processor.starts[0].tracking_id]


def test_a_cancel_while_results_are_fetched_ends_it_at_once(desk: Desk, processor: Processor) -> None:
    treatment_id = desk.ask("similarity")
    start = desk.started(treatment_id)
    processor.call_back(start, "SUCCESS", output=named(processor, "all", Answer(body=b"[]", delay=3)))
    desk.wait(lambda: desk.job(treatment_id)["state"] == "finalizing")

    assert desk.caller.send("POST", f"/v1/jobs/{treatment_id}/cancel").status_code == 202

    assert desk.look(treatment_id)["status"] == "CANCELLED"
    assert processor.cancels == []


def test_a_cancel_where_no_processor_is_set_is_told_to_the_processor(
    desk: Desk, processor: Processor, world: World
) -> None:
    treatment_id = desk.ask()
    start = desk.started(treatment_id)

    without = world.owner.send("POST", f"/v1/jobs/{treatment_id}/cancel")

    assert without.status_code == 202
    desk.until(treatment_id, "CANCELLED")
    assert [each.tracking_id for each in processor.cancels] == [start.tracking_id]


def test_a_run_that_is_given_up_is_told_to_stop(desk: Desk, processor: Processor) -> None:
    processor.answer_status(FAILURE)
    treatment_id = desk.ask()
    start = desk.started(treatment_id)

    desk.until(treatment_id, "ERROR")

    desk.wait(lambda: [each.tracking_id for each in processor.cancels] == [start.tracking_id])
    assert desk.look(treatment_id)["status"] == "ERROR"


def test_a_run_that_hangs_does_not_count_for_the_others(desk: Desk, processor: Processor) -> None:
    processor.answer_status({"status": "IN PROGRESS"})
    hanging, well = desk.started(desk.ask()), desk.started(desk.ask())
    processor.host(f"/regions/{hanging.tracking_id}/status", Answer(delay=30))

    desk.wait(lambda: len([each for each in processor.fetched if "status" in each.path]) >= 2)

    asked = [each for each in processor.status_requests if each.tracking_id == well.tracking_id]
    assert len(asked) > 2
    assert desk.look(well.body["experiment_id"])["status"] == "IN PROGRESS"


def test_what_is_said_again_is_a_sign_of_life(desk: Desk, processor: Processor) -> None:
    processor.answer_status(Answer(404))
    treatment_id = desk.ask()
    start = desk.started(treatment_id)

    for _ in range(20):
        assert processor.call_back(start, "PROGRESS", sign=False, message="still here").status_code == 200
        threading.Event().wait(0.4)

    assert desk.look(treatment_id)["status"] == "IN PROGRESS"
    assert desk.said(treatment_id).count("still here") == 1


def test_many_results_are_named_at_once(desk: Desk, processor: Processor, office: Office) -> None:
    treatment_id = desk.ask()
    start = desk.started(treatment_id)
    listed = [
        {"doc_id": str(number), "result_url": processor.host(f"/many/{number}", regions_of(str(number), REGION))}
        for number in range(300)
    ]

    for event in ("PROGRESS", "SUCCESS"):
        processor.call_back(start, event, output={"results_url": listed})

    wait_until(lambda: desk.look(treatment_id)["status"] == "SUCCESS", 90)
    assert desk.job(treatment_id)["result"] == {"results": 300, "refused": 0}
    regions = desk.caller.get(f"/v1/treatments/{treatment_id}/regions?page[size]=1").get_json(force=True)
    assert regions["meta"]["count"] == 300


def test_a_set_that_has_been_emptied_is_not_treated_again(desk: Desk, processor: Processor) -> None:
    processor.answer_start(FAILURE)
    treatment_id = desk.ask()
    desk.until(treatment_id, "ERROR")
    desk.caller.delete(f"/v1/document-sets/{desk.set_id}")

    again = desk.caller.send("POST", f"/v1/treatments/{treatment_id}/relaunch")

    assert (again.status_code, errors(again)[0]["code"]) == (422, "no-documents")


def test_a_relaunch_is_another_treatment(desk: Desk, processor: Processor) -> None:
    processor.answer_start(FAILURE)
    treatment_id = desk.ask("similarity", **{"api-parameters": {"model": "mine"}})
    assert desk.caller.send("POST", f"/v1/treatments/{treatment_id}/relaunch").status_code in (201, 409)
    desk.until(treatment_id, "ERROR")
    processor.answer_start()

    answer = desk.caller.send("POST", f"/v1/treatments/{treatment_id}/relaunch")

    assert answer.status_code == 201
    again = data(answer)
    assert again["relationships"]["retry-of"]["data"]["id"] == treatment_id
    assert again["relationships"]["job"]["data"]["id"] == again["id"] != treatment_id
    assert desk.started(again["id"]).body["model"] == "mine"
    assert data(desk.caller.get(f"/v1/jobs/{again['id']}"))["attributes"]["trigger"] == "retry"
    assert errors(desk.caller.send("POST", f"/v1/treatments/{again['id']}/relaunch"))[0]["code"] == "job-lives"
    assert desk.look(treatment_id)["status"] == "ERROR"


def test_a_retry_of_its_job_is_a_relaunch(desk: Desk, processor: Processor) -> None:
    processor.answer_start(FAILURE)
    treatment_id = desk.ask()
    desk.until(treatment_id, "ERROR")
    processor.answer_start()

    again = data(desk.caller.send("POST", f"/v1/jobs/{treatment_id}/retry"))

    assert again["relationships"]["retry-of"]["data"]["id"] == treatment_id
    assert desk.look(again["id"])["task-type"] == "regions"
    assert desk.started(again["id"]).body["experiment_id"] == again["id"]


@pytest.mark.parametrize("path", ["treatments/{}/relaunch", "jobs/{}/retry"])
def test_a_relaunch_of_what_is_not_taken_any_more_points_nowhere(
    desk: Desk, processor: Processor, world: World, path: str
) -> None:
    processor.answer_start(FAILURE)
    treatment_id = desk.ask()
    desk.until(treatment_id, "ERROR")

    refused = world.owner.send("POST", f"/v1/{path.format(treatment_id)}")  # where there is no processor

    (error,) = errors(refused)
    assert (refused.status_code, error["code"], error.get("source")) == (422, "unknown-kind", None)
    assert "There is no such kind of job." in error["detail"]


def test_a_mail_is_sent_at_the_end_where_one_is_wanted(desk: Desk, processor: Processor, office: Office) -> None:
    processor.answer_start(FAILURE)
    quiet, loud = desk.ask(), desk.ask(**{"notify-email": True})

    desk.until(loud, "ERROR")
    desk.until(quiet, "ERROR")

    mails = office.app.config["VAR_DIR"] / "mail"
    desk.wait(lambda: [path for path in mails.glob("*.eml") if loud in path.read_text()])
    assert not [path for path in mails.glob("*.eml") if quiet in path.read_text()]
    (mail,) = [path.read_text() for path in mails.glob("*.eml") if loud in path.read_text()]
    assert "To: owner@example.com" in mail
    assert "The processor answered 500" in mail


def test_callbacks_without_the_right_token_are_refused(desk: Desk, processor: Processor) -> None:
    treatment_id, other_id = desk.ask(), desk.ask()
    start, other = desk.started(treatment_id), desk.started(other_id)
    url = start.body["notify_url"]
    foreign = other.body["notify_url"].partition("token=")[2]

    for refused, status in {
        url.partition("?")[0]: 401,
        f"{url}x": 401,
        f"{url.partition('=')[0]}=": 401,
        f"{url.partition('=')[0]}={foreign}": 401,
        f"{url.partition('=')[0]}=%F0%9F%92%A5": 401,
        url.replace(treatment_id, "00000000-0000-7000-8000-000000000000"): 404,
        url.replace(treatment_id, "..%2F..%2Fetc"): 404,
    }.items():
        assert httpx.post(refused, json={"event": "SUCCESS"}, trust_env=False).status_code == status, refused
    assert desk.look(treatment_id)["status"] == "STARTED"


def test_a_signature_that_is_there_must_hold(desk: Desk, processor: Processor) -> None:
    treatment_id = desk.ask()
    start = desk.started(treatment_id)

    assert processor.call_back(start, "SUCCESS", secret="whsec_AAAA").status_code == 401
    assert processor.call_back(start, "SUCCESS", timestamp=1_600_000_000).status_code == 401
    assert processor.call_back(start, "STARTED", sign=False).status_code == 200
    assert desk.until(treatment_id, "IN PROGRESS")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"event": "SUCCESS", "fraction": NaN}', 400),
        (b'{"event": "PROGRESS", "anything": 1' + b"0" * 400 + b"}", 400),
        (b"[]", 422),
        (b'{"event": "DANCING"}', 422),
        (b'{"event": "PROGRESS", "fraction": "half"}', 422),
        (b'{"event": "SUCCESS", "output": {"results_url": [{"doc_id": "a"}]}}', 422),
        (b'{"event": "SUCCESS", "experiment_id": "another"}', 422),
        (b'{"event": "SUCCESS", "message": "\\u0000"}', 422),
        (b'{"event": "STARTED", "message": "' + b"x" * 10_000_000 + b'"}', 413),
    ],
    ids=["empty", "no JSON", "NaN", "endless", "list", "event", "fraction", "output", "other job", "NUL", "10 MB"],
)
def test_a_callback_that_cannot_be_is_refused_and_changes_nothing(
    desk: Desk, processor: Processor, raw: bytes, status: int
) -> None:
    treatment_id = desk.ask()
    start = desk.started(treatment_id)

    assert processor.call_back(start, "", raw=raw).status_code == status

    assert desk.look(treatment_id)["status"] == "STARTED"


@pytest.mark.parametrize("fraction", [1.5, -3, 1e300])
def test_a_fraction_beyond_its_ends_is_the_end(desk: Desk, processor: Processor, fraction: float) -> None:
    treatment_id = desk.ask()
    start = desk.started(treatment_id)

    processor.call_back(start, "PROGRESS", fraction=0.5)
    processor.call_back(start, "PROGRESS", fraction=fraction)

    desk.wait(lambda: desk.job(treatment_id)["progress"] == (1 if fraction > 1 else 0.5))


def test_what_cannot_be_done_is_not_begun(office: Office, desk: Desk, world: World) -> None:
    assert pointers(desk.create("juggling")) == {"/data/attributes/task-type"}
    assert pointers(desk.create(**{"api-parameters": {"model": 5}})) == {"/data/attributes/api-parameters/model"}
    assert pointers(desk.create(**{"api-parameters": {"size": 5}})) == {"/data/attributes/api-parameters/size"}
    empty = data(desk.caller.create("/v1/document-sets", "document-set", {"title": "Nothing"}))["id"]
    desk.set_id, full = empty, desk.set_id
    assert pointers(desk.create()) == {"/data/relationships/document-set/data"}
    desk.set_id = full
    stranger = office.caller(world, "stranger")
    theirs = stranger.create("/v1/treatments", "treatment", {"task-type": "regions"}, document_set=full)
    assert theirs.status_code == 404
    alone = desk.caller.create("/v1/jobs", "job", {"kind": "regions", "parameters": {"document-set": int(full)}})
    assert errors(alone)[0]["code"] == "not-alone"

    assert office.processor.starts == []
    assert data(desk.caller.get("/v1/treatments")) == []
    assert data(desk.caller.get("/v1/jobs")) == []


def test_without_a_processor_there_are_no_tasks(world: World) -> None:
    set_id = data(world.owner.create("/v1/document-sets", "document-set", {"title": "All"}, faqs=[world.faqs["draft"]]))
    refused = world.owner.create("/v1/treatments", "treatment", {"task-type": "regions"}, document_set=set_id["id"])

    assert (refused.status_code, errors(refused)[0]["code"]) == (422, "unknown-kind")


def test_a_treatment_is_seen_by_who_asked_and_by_admins(office: Office, desk: Desk, world: World) -> None:
    treatment_id = desk.ask()

    for role, status in {"owner": 200, "admin": 200, "stranger": 404, "organizer": 404, "anonymous": 401}.items():
        caller = office.caller(world, role)
        for path in ("", "/job", "/document-set", "/regions", "/relationships/similarities"):
            assert caller.get(f"/v1/treatments/{treatment_id}{path}").status_code == status, (role, path)
        relaunch = caller.send("POST", f"/v1/treatments/{treatment_id}/relaunch")
        assert relaunch.status_code == (409 if status == 200 else status)


def test_a_treatment_is_deleted_once_it_has_ended(office: Office, desk: Desk, processor: Processor) -> None:
    treatment_id = desk.ask()
    desk.started(treatment_id)
    assert errors(desk.caller.delete(f"/v1/treatments/{treatment_id}"))[0]["code"] == "job-lives"
    desk.caller.send("POST", f"/v1/jobs/{treatment_id}/cancel")
    desk.until(treatment_id, "CANCELLED")

    assert desk.caller.delete(f"/v1/treatments/{treatment_id}").status_code == 200

    assert desk.caller.get(f"/v1/treatments/{treatment_id}").status_code == 404


@pytest.mark.parametrize(("method", "path"), [("DELETE", ""), ("POST", "/relaunch")])
def test_a_treatment_whose_results_are_being_stored_is_refused_without_a_wait(
    office: Office, desk: Desk, method: str, path: str
) -> None:
    treatment_id = desk.ask()
    desk.started(treatment_id)

    with office.app.app_context(), db.engine.begin() as storing:  # holds the job
        storing.execute(select(Job.id).where(Job.id == treatment_id).with_for_update(key_share=True))
        refused = desk.caller.send(method, f"/v1/treatments/{treatment_id}{path}")

    assert (refused.status_code, errors(refused)[0]["code"]) == (409, "job-lives")


def test_no_part_of_a_token_is_in_a_log(office: Office, desk: Desk, processor: Processor) -> None:
    treatment_id = desk.ask()
    start = desk.started(treatment_id)
    processor.call_back(start, "STARTED")
    desk.until(treatment_id, "IN PROGRESS")

    logged = office.log.read_text()

    assert start.body["notify_url"].partition("token=")[2][:12] not in logged
    assert start.body["notify_secret"][6:18] not in logged
    assert f"/v1/jobs/{treatment_id}/callback" in logged
