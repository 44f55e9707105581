"""Treatments from the request to the end, with real processes and a fake processor."""

import json
import threading
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import select

from app import quotas
from app.database import commit, get_connection, open_transaction
from app.extensions import db
from app.jobs.models import Job
from app.processors.models import ResultFile
from tests.conftest import wait_until
from tests.dataset import Dataset, get_data, get_errors, get_pointers
from tests.treatments.fake_processor import (
    FAILURE,
    HTML,
    INVALID,
    LONG_TRACKING_ID,
    NO_TRACKING_ID,
    RESET,
    SLASH_TRACKING_ID,
    Answer,
    FakeProcessor,
)
from tests.treatments.processor_stack import ProcessorStack, TreatmentClient

pytestmark = [pytest.mark.faults, pytest.mark.long]

REGION = {"x": 10, "y": 20, "width": 30, "height": 40}


def build_region_file(uid: str, *places: dict[str, int]) -> bytes:
    """Return a result file of `regions`."""
    return json.dumps([{"source": uid, "crops": [{"source": uid, "absolute": each} for each in places]}]).encode()


def host_output(
    processor: FakeProcessor, uid: str, content: bytes | Answer, path: str = "/results/1.json"
) -> dict[str, Any]:
    """Host a result file and return the output member with its URL."""
    return {"results_url": [{"doc_id": uid, "result_url": processor.host_file(path, content)}]}


def test_a_treatment_is_sent_and_its_results_are_stored(
    treatment_client: TreatmentClient, processor: FakeProcessor, dataset: Dataset
) -> None:
    event_id = dataset.events["published"]
    treatment_id = treatment_client.start_treatment(**{"api-parameters": {"model": "mine"}})

    start = treatment_client.wait_for_start(treatment_id)
    uid = f"event-image-{dataset.images['published']}"
    assert [each["uid"] for each in start.body["documents"]] == [
        f"event-{event_id}",
        uid,
        f"faq-{dataset.faqs['published']}",
    ]
    assert [each["type"] for each in start.body["documents"]] == ["event", "image", "faq"]
    assert (start.task, start.body["model"], start.body["algorithm"]) == ("regions", "mine", "default")
    assert treatment_client.get_attributes(treatment_id)["tracking-id"] == start.tracking_id

    answer = processor.call_back(start, "STARTED")
    assert (answer.status_code, answer.json()) == (200, {"success": True, "message": "Update received"})
    treatment_client.wait_for_status(treatment_id, "IN PROGRESS")
    processor.call_back(
        start, "PROGRESS", fraction=0.5, output=host_output(processor, uid, build_region_file(uid, REGION))
    )
    treatment_client.wait_for(lambda: treatment_client.list_results(treatment_id, "regions"))
    assert treatment_client.get_job(treatment_id)["progress"] == 0.5
    assert [each["partial"] for each in treatment_client.list_artifacts(treatment_id)] == [True]

    processor.call_back(start, "SUCCESS", output=host_output(processor, uid, build_region_file(uid, REGION, REGION)))
    treatment_client.wait_for_status(treatment_id, "SUCCESS")

    found = treatment_client.list_results(treatment_id, "regions")
    assert found == [{"document": uid, "source": uid, **REGION}] * 2
    assert [(each["name"], each["partial"]) for each in treatment_client.list_artifacts(treatment_id)] == [
        ("result-1.json", False)
    ]
    assert treatment_client.get_job(treatment_id)["result"] == {"results": 1, "refused": 0}
    assert treatment_client.list_log_messages(treatment_id, "warning") == []


def test_documents_are_there_for_the_processor_until_the_end(
    treatment_client: TreatmentClient, processor: FakeProcessor
) -> None:
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)
    sources = {each["type"]: each["src"] for each in start.body["documents"]}

    event = httpx.get(sources["event"], trust_env=False)
    assert event.status_code == 200
    assert event.json()["data"]["type"] == "event"
    assert httpx.get(sources["faq"], trust_env=False).json()["data"]["attributes"]["answer"] == "yes"
    assert httpx.get(sources["event"][:-1], trust_env=False).status_code == 404
    assert httpx.get(sources["event"].replace("event-", "faq-"), trust_env=False).status_code == 404

    processor.call_back(start, "ERROR", message="It is too dark.")
    treatment_client.wait_for_status(treatment_id, "ERROR")
    assert httpx.get(sources["event"], trust_env=False).status_code == 404
    assert treatment_client.get_job(treatment_id)["error"] == {"code": "processor-error", "detail": "It is too dark."}


def test_a_similarity_is_stored_for_each_pair(treatment_client: TreatmentClient, processor: FakeProcessor) -> None:
    treatment_id = treatment_client.start_treatment("similarity")
    start = treatment_client.wait_for_start(treatment_id)
    pairs = [{"a": "b", "b": "a", "score": 0.5}, {"a": "a", "b": "b", "score": 0.75}, {"a": "a", "b": "c", "score": 1}]

    processor.call_back(start, "SUCCESS", output=host_output(processor, "all", json.dumps(pairs).encode()))

    treatment_client.wait_for_status(treatment_id, "SUCCESS")
    found = [
        (each["a"], each["b"], each["score"]) for each in treatment_client.list_results(treatment_id, "similarities")
    ]
    assert found == [("a", "b", 0.75), ("a", "c", 1)]


def test_callbacks_come_early_twice_and_in_any_order(
    treatment_client: TreatmentClient, processor: FakeProcessor
) -> None:
    output = host_output(processor, "all", b"[]")

    def early(start: Any) -> None:
        for id_ in ("a", "a"):
            assert processor.call_back(start, "STARTED", id=id_).status_code == 200
        assert processor.call_back(start, "SUCCESS", output=output).status_code == 200
        assert processor.call_back(start, "PROGRESS", fraction=0.2).status_code == 200

    processor.before_answer = early
    treatment_id = treatment_client.start_treatment("similarity")

    treatment_client.wait_for_status(treatment_id, "SUCCESS")
    start = treatment_client.get_start(treatment_id)
    before = treatment_client.list_log_messages(treatment_id)
    assert before.count("The processor has started the run.") == 1
    for event in ("ERROR", "PROGRESS", "STARTED", "CANCELLED"):
        assert processor.call_back(start, event).status_code == 200
    assert treatment_client.list_log_messages(treatment_id) == before
    assert treatment_client.get_attributes(treatment_id)["status"] == "SUCCESS"


def test_an_error_after_the_success_changes_nothing(
    treatment_client: TreatmentClient, processor: FakeProcessor
) -> None:
    treatment_id = treatment_client.start_treatment("similarity")
    start = treatment_client.wait_for_start(treatment_id)

    processor.call_back(start, "SUCCESS", output=host_output(processor, "all", Answer(body=b"[]", delay=1.5)))
    processor.call_back(start, "ERROR", message="No, it did not work.")

    treatment_client.wait_for_status(treatment_id, "SUCCESS")
    (warning,) = treatment_client.list_log_messages(treatment_id, "warning")
    assert "No, it did not work." in warning


def test_an_error_that_is_not_the_end_is_a_warning(treatment_client: TreatmentClient, processor: FakeProcessor) -> None:
    treatment_id = treatment_client.start_treatment("similarity")
    start = treatment_client.wait_for_start(treatment_id)

    processor.call_back(start, "ERROR", message="One of them is dark.", completed=False)
    processor.call_back(start, "PROGRESS", output={"error": ["Another is torn."]})
    processor.call_back(start, "SUCCESS", output={"error": ["Another is torn.", "One of them is dark."]})

    treatment_client.wait_for_status(treatment_id, "SUCCESS")
    assert treatment_client.list_log_messages(treatment_id, "warning") == ["One of them is dark.", "Another is torn."]


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
    treatment_client: TreatmentClient, processor: FakeProcessor, content: bytes | Answer
) -> None:
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)
    output = host_output(processor, "bad", content)
    output["results_url"] += host_output(processor, "good", build_region_file("good", REGION), "/results/2.json")[
        "results_url"
    ]

    processor.call_back(start, "SUCCESS", output=output)

    treatment_client.wait_for_status(treatment_id, "SUCCESS")
    assert [each["document"] for each in treatment_client.list_results(treatment_id, "regions")] == ["good"]
    (warning,) = treatment_client.list_log_messages(treatment_id, "warning")
    assert "'bad'" in warning
    assert treatment_client.get_job(treatment_id)["result"] == {"results": 1, "refused": 1}


def test_result_file_with_millions_of_arrays_is_refused_without_parsing(
    treatment_client: TreatmentClient, processor: FakeProcessor, processor_stack: ProcessorStack
) -> None:
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)
    output = host_output(processor, "bad", b"[" + b"[]," * 5_000_000 + b"[]]")
    good = host_output(processor, "good", build_region_file("good", REGION), "/results/2.json")
    output["results_url"] += good["results_url"]

    processor.call_back(start, "SUCCESS", output=output)

    treatment_client.wait_for_status(treatment_id, "SUCCESS")
    (warning,) = treatment_client.list_log_messages(treatment_id, "warning")
    assert warning == "The result of 'bad' is not JSON of at most 200,000 objects and arrays."
    assert [each["name"] for each in treatment_client.list_artifacts(treatment_id)] == ["result-2.json"]
    node = psutil.Process(processor_stack.worker.pid)
    assert max(each.memory_info().rss for each in node.children(recursive=True)) < 500 * 2**20


def test_error_of_result_file_is_stored_cut(treatment_client: TreatmentClient, processor: FakeProcessor) -> None:
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)
    content = json.dumps([{"source": "bad", "crops": "x" * 2**20}]).encode()

    processor.call_back(start, "SUCCESS", output=host_output(processor, "bad", content))

    treatment_client.wait_for_status(treatment_id, "SUCCESS")
    with treatment_client.stack.app.app_context(), open_transaction(is_read=True):
        (error,) = get_connection().scalars(select(ResultFile.error).where(ResultFile.job_id == treatment_id)).all()
    assert len(error) == 500
    assert treatment_client.list_log_messages(treatment_id, "warning") == [error]


def test_a_result_beyond_the_files_of_a_day_is_refused(
    treatment_client: TreatmentClient, processor: FakeProcessor
) -> None:
    with treatment_client.stack.app.app_context(), open_transaction(is_read=False):
        limit = treatment_client.stack.app.config["MAX_JOB_OUTPUT_MB_PER_DAY"] * 2**20
        assert quotas.charge_output(treatment_client.caller.id, limit, is_triggered=True)
        commit()
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)

    processor.call_back(start, "SUCCESS", output=host_output(processor, "one", build_region_file("one", REGION)))

    treatment_client.wait_for_status(treatment_id, "SUCCESS")
    (warning,) = treatment_client.list_log_messages(treatment_id, "warning")
    assert warning.startswith(
        "The result of 'one' could not be stored. The jobs of one user may write at most 1000 MiB a day"
    )
    assert treatment_client.get_job(treatment_id)["result"] == {"results": 0, "refused": 1}
    assert treatment_client.list_artifacts(treatment_id) == []


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
def test_a_result_at_a_private_address_is_refused(
    treatment_client: TreatmentClient, processor: FakeProcessor, url: str
) -> None:
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)

    processor.call_back(start, "SUCCESS", output={"results_url": [{"doc_id": "../../etc", "result_url": url}]})

    treatment_client.wait_for_status(treatment_id, "SUCCESS")
    (warning,) = treatment_client.list_log_messages(treatment_id, "warning")
    assert "could not be downloaded" in warning
    assert treatment_client.list_artifacts(treatment_id) == []


@pytest.mark.parametrize(
    "answer",
    [
        HTML,
        FAILURE,
        INVALID,
        LONG_TRACKING_ID,
        RESET,
        NO_TRACKING_ID,
        Answer(body=b"[]"),
        Answer(body=b'{"tracking_id": ".."}'),
    ],
    ids=["HTML", "500", "no JSON", "too long", "reset", "no id", "list", "dots"],
)
def test_a_processor_that_does_not_take_it_is_asked_once(
    treatment_client: TreatmentClient, processor: FakeProcessor, answer: Answer
) -> None:
    processor.answer_start(answer)
    treatment_id = treatment_client.start_treatment()

    treatment_client.wait_for_status(treatment_id, "ERROR")

    job = treatment_client.get_job(treatment_id)
    assert (job["state"], job["error"]["code"], job["attempt"]) == ("failed", "rejected-by-processor", 1)
    assert len(processor.starts) == 1
    assert "127.0.0.1" not in job["error"]["detail"]


def test_a_tracking_id_stays_where_it_belongs(treatment_client: TreatmentClient, processor: FakeProcessor) -> None:
    processor.answer_start(SLASH_TRACKING_ID)
    processor.answer_status({"status": "SUCCESS"})
    treatment_id = treatment_client.start_treatment()

    treatment_client.wait_for_status(treatment_id, "SUCCESS")

    assert {each.tracking_id for each in processor.status_requests} == {"../../v1/users/1"}


def test_a_silent_processor_is_asked(treatment_client: TreatmentClient, processor: FakeProcessor) -> None:
    running = {"status": "IN PROGRESS", "fraction": 0.25}
    processor.answer_status(running, {"status": "SUCCESS", "output": host_output(processor, "all", b"[]")})
    treatment_id = treatment_client.start_treatment("similarity")

    treatment_client.wait_for_status(treatment_id, "SUCCESS")

    assert len(processor.status_requests) == 2
    assert [each["name"] for each in treatment_client.list_artifacts(treatment_id)] == ["result-1.json"]


@pytest.mark.parametrize("answer", [HTML, FAILURE, Answer(404), RESET], ids=["HTML", "500", "404", "reset"])
def test_a_processor_that_answers_nothing_is_given_up(
    treatment_client: TreatmentClient, processor: FakeProcessor, answer: Answer
) -> None:
    processor.answer_status(answer)
    treatment_id = treatment_client.start_treatment()

    treatment_client.wait_for_status(treatment_id, "ERROR")

    assert treatment_client.get_job(treatment_id)["error"]["code"] == "heartbeat-lost"


def test_a_cancel_waits_for_the_word_of_the_processor(
    treatment_client: TreatmentClient, processor: FakeProcessor
) -> None:
    processor.answer_cancel({"status": "accepted"})
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)

    assert treatment_client.caller.send("POST", f"/v1/jobs/{treatment_id}/cancel").status_code == 202
    treatment_client.wait_for(lambda: processor.cancels)
    assert treatment_client.get_job(treatment_id)["state"] == "canceling"
    processor.call_back(start, "CANCELLED")

    treatment_client.wait_for_status(treatment_id, "CANCELLED")
    assert treatment_client.list_log_messages(treatment_id, "warning") == []
    assert [each.tracking_id for each in processor.cancels] == [start.tracking_id]


def test_a_cancel_without_a_word_ends_with_a_warning(
    treatment_client: TreatmentClient, processor: FakeProcessor
) -> None:
    processor.answer_cancel(FAILURE)
    processor.answer_status({"status": "IN PROGRESS"})
    treatment_id = treatment_client.start_treatment()
    treatment_client.wait_for_start(treatment_id)

    treatment_client.caller.send("POST", f"/v1/jobs/{treatment_id}/cancel")

    treatment_client.wait_for_status(treatment_id, "CANCELLED")
    (warning,) = treatment_client.list_log_messages(treatment_id, "warning")
    assert "may continue there" in warning


def test_a_success_that_is_quicker_than_the_cancel_counts(
    treatment_client: TreatmentClient, processor: FakeProcessor
) -> None:
    processor.answer_cancel({"status": "too late"})
    treatment_id = treatment_client.start_treatment("similarity")
    start = treatment_client.wait_for_start(treatment_id)

    treatment_client.caller.send("POST", f"/v1/jobs/{treatment_id}/cancel")
    processor.call_back(start, "SUCCESS", output=host_output(processor, "all", b"[]"))

    treatment_client.wait_for_status(treatment_id, "SUCCESS")


def test_a_cancel_while_the_processor_is_being_asked_to_start(
    treatment_client: TreatmentClient, processor: FakeProcessor
) -> None:
    processor.before_answer = lambda start: treatment_client.caller.send(
        "POST", f"/v1/jobs/{start.body['experiment_id']}/cancel"
    )
    treatment_id = treatment_client.start_treatment()

    treatment_client.wait_for_status(treatment_id, "CANCELLED")

    assert [each.tracking_id for each in processor.cancels] == [processor.starts[0].tracking_id]


def test_a_cancel_while_results_are_fetched_ends_it_at_once(
    treatment_client: TreatmentClient, processor: FakeProcessor
) -> None:
    treatment_id = treatment_client.start_treatment("similarity")
    start = treatment_client.wait_for_start(treatment_id)
    processor.call_back(start, "SUCCESS", output=host_output(processor, "all", Answer(body=b"[]", delay=3)))
    treatment_client.wait_for(lambda: treatment_client.get_job(treatment_id)["state"] == "finalizing")

    assert treatment_client.caller.send("POST", f"/v1/jobs/{treatment_id}/cancel").status_code == 202

    assert treatment_client.get_attributes(treatment_id)["status"] == "CANCELLED"
    assert processor.cancels == []


def test_a_cancel_where_no_processor_is_set_is_told_to_the_processor(
    treatment_client: TreatmentClient, processor: FakeProcessor, dataset: Dataset
) -> None:
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)

    without = dataset.owner.send("POST", f"/v1/jobs/{treatment_id}/cancel")

    assert without.status_code == 202
    treatment_client.wait_for_status(treatment_id, "CANCELLED")
    assert [each.tracking_id for each in processor.cancels] == [start.tracking_id]


def test_a_run_that_is_given_up_is_told_to_stop(treatment_client: TreatmentClient, processor: FakeProcessor) -> None:
    processor.answer_status(FAILURE)
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)

    treatment_client.wait_for_status(treatment_id, "ERROR")

    treatment_client.wait_for(lambda: [each.tracking_id for each in processor.cancels] == [start.tracking_id])
    assert treatment_client.get_attributes(treatment_id)["status"] == "ERROR"


def test_a_run_that_hangs_does_not_count_for_the_others(
    treatment_client: TreatmentClient, processor: FakeProcessor
) -> None:
    processor.answer_status({"status": "IN PROGRESS"})
    hanging, well = (
        treatment_client.wait_for_start(treatment_client.start_treatment()),
        treatment_client.wait_for_start(treatment_client.start_treatment()),
    )
    processor.host_file(f"/regions/{hanging.tracking_id}/status", Answer(delay=30))

    treatment_client.wait_for(lambda: len([each for each in processor.fetched if "status" in each.path]) >= 2)

    asked = [each for each in processor.status_requests if each.tracking_id == well.tracking_id]
    assert len(asked) > 2
    assert treatment_client.get_attributes(well.body["experiment_id"])["status"] == "IN PROGRESS"


def test_repeated_callback_counts_as_heartbeat(treatment_client: TreatmentClient, processor: FakeProcessor) -> None:
    processor.answer_status(Answer(404))
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)

    for _ in range(20):
        assert processor.call_back(start, "PROGRESS", sign=False, message="still here").status_code == 200
        threading.Event().wait(0.4)

    assert treatment_client.get_attributes(treatment_id)["status"] == "IN PROGRESS"
    assert treatment_client.list_log_messages(treatment_id).count("still here") == 1


def test_many_results_are_named_at_once(
    treatment_client: TreatmentClient, processor: FakeProcessor, processor_stack: ProcessorStack
) -> None:
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)
    listed = [
        {
            "doc_id": str(number),
            "result_url": processor.host_file(f"/many/{number}", build_region_file(str(number), REGION)),
        }
        for number in range(300)
    ]

    for event in ("PROGRESS", "SUCCESS"):
        processor.call_back(start, event, output={"results_url": listed})

    wait_until(lambda: treatment_client.get_attributes(treatment_id)["status"] == "SUCCESS", 90)
    assert treatment_client.get_job(treatment_id)["result"] == {"results": 300, "refused": 0}
    regions = treatment_client.caller.get(f"/v1/treatments/{treatment_id}/regions?page[size]=1").get_json(force=True)
    assert regions["meta"]["count"] == 300


def test_a_set_that_has_been_emptied_is_not_treated_again(
    treatment_client: TreatmentClient, processor: FakeProcessor
) -> None:
    processor.answer_start(FAILURE)
    treatment_id = treatment_client.start_treatment()
    treatment_client.wait_for_status(treatment_id, "ERROR")
    treatment_client.caller.delete(f"/v1/document-sets/{treatment_client.set_id}")

    again = treatment_client.caller.send("POST", f"/v1/treatments/{treatment_id}/relaunch")

    assert (again.status_code, get_errors(again)[0]["code"]) == (422, "no-documents")


def test_a_relaunch_is_another_treatment(treatment_client: TreatmentClient, processor: FakeProcessor) -> None:
    processor.answer_start(FAILURE)
    treatment_id = treatment_client.start_treatment("similarity", **{"api-parameters": {"model": "mine"}})
    assert treatment_client.caller.send("POST", f"/v1/treatments/{treatment_id}/relaunch").status_code in (201, 409)
    treatment_client.wait_for_status(treatment_id, "ERROR")
    processor.answer_start()

    answer = treatment_client.caller.send("POST", f"/v1/treatments/{treatment_id}/relaunch")

    assert answer.status_code == 201
    again = get_data(answer)
    assert again["relationships"]["retry-of"]["data"]["id"] == treatment_id
    assert again["relationships"]["job"]["data"]["id"] == again["id"] != treatment_id
    assert treatment_client.wait_for_start(again["id"]).body["model"] == "mine"
    assert get_data(treatment_client.caller.get(f"/v1/jobs/{again['id']}"))["attributes"]["trigger"] == "retry"
    assert (
        get_errors(treatment_client.caller.send("POST", f"/v1/treatments/{again['id']}/relaunch"))[0]["code"]
        == "job-not-finished"
    )
    assert treatment_client.get_attributes(treatment_id)["status"] == "ERROR"


def test_a_retry_of_its_job_is_a_relaunch(treatment_client: TreatmentClient, processor: FakeProcessor) -> None:
    processor.answer_start(FAILURE)
    treatment_id = treatment_client.start_treatment()
    treatment_client.wait_for_status(treatment_id, "ERROR")
    processor.answer_start()

    again = get_data(treatment_client.caller.send("POST", f"/v1/jobs/{treatment_id}/retry"))

    assert again["relationships"]["retry-of"]["data"]["id"] == treatment_id
    assert treatment_client.get_attributes(again["id"])["task-type"] == "regions"
    assert treatment_client.wait_for_start(again["id"]).body["experiment_id"] == again["id"]


@pytest.mark.parametrize("path", ["treatments/{}/relaunch", "jobs/{}/retry"])
def test_a_relaunch_of_what_is_not_taken_any_more_points_nowhere(
    treatment_client: TreatmentClient, processor: FakeProcessor, dataset: Dataset, path: str
) -> None:
    processor.answer_start(FAILURE)
    treatment_id = treatment_client.start_treatment()
    treatment_client.wait_for_status(treatment_id, "ERROR")

    refused = dataset.owner.send("POST", f"/v1/{path.format(treatment_id)}")  # where there is no processor

    (error,) = get_errors(refused)
    assert (refused.status_code, error["code"], error.get("source")) == (422, "unknown-kind", None)
    assert "There is no such kind of job." in error["detail"]


def test_a_mail_is_sent_at_the_end_where_one_is_wanted(
    treatment_client: TreatmentClient, processor: FakeProcessor, processor_stack: ProcessorStack
) -> None:
    processor.answer_start(FAILURE)
    quiet, loud = treatment_client.start_treatment(), treatment_client.start_treatment(**{"notify-email": True})

    treatment_client.wait_for_status(loud, "ERROR")
    treatment_client.wait_for_status(quiet, "ERROR")

    mails = processor_stack.app.config["VAR_DIR"] / "mail"
    treatment_client.wait_for(lambda: [path for path in mails.glob("*.eml") if loud in path.read_text()])
    assert not [path for path in mails.glob("*.eml") if quiet in path.read_text()]
    (mail,) = [path.read_text() for path in mails.glob("*.eml") if loud in path.read_text()]
    assert "To: owner@example.com" in mail
    assert "The processor responded with 500" in mail


def test_callbacks_without_the_right_token_are_refused(
    treatment_client: TreatmentClient, processor: FakeProcessor
) -> None:
    treatment_id, other_id = treatment_client.start_treatment(), treatment_client.start_treatment()
    start, other = treatment_client.wait_for_start(treatment_id), treatment_client.wait_for_start(other_id)
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
    assert treatment_client.get_attributes(treatment_id)["status"] == "STARTED"


def test_a_signature_that_is_there_must_hold(treatment_client: TreatmentClient, processor: FakeProcessor) -> None:
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)

    assert processor.call_back(start, "SUCCESS", secret="whsec_AAAA").status_code == 401
    assert processor.call_back(start, "SUCCESS", timestamp=1_600_000_000).status_code == 401
    assert processor.call_back(start, "STARTED", sign=False).status_code == 200
    assert treatment_client.wait_for_status(treatment_id, "IN PROGRESS")


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
        (b'{"event": "PROGRESS", "more": [' + b"[]," * 60_000 + b"[]]}", 400),
    ],
    ids=[
        *("empty", "no JSON", "NaN", "endless", "list", "event", "fraction", "output", "other job", "NUL", "10 MB"),
        "arrays",
    ],
)
def test_a_callback_that_cannot_be_is_refused_and_changes_nothing(
    treatment_client: TreatmentClient, processor: FakeProcessor, raw: bytes, status: int
) -> None:
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)

    assert processor.call_back(start, "", raw=raw).status_code == status

    assert treatment_client.get_attributes(treatment_id)["status"] == "STARTED"


@pytest.mark.parametrize("fraction", [1.5, -3, 1e300])
def test_a_fraction_beyond_its_ends_is_the_end(
    treatment_client: TreatmentClient, processor: FakeProcessor, fraction: float
) -> None:
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)

    processor.call_back(start, "PROGRESS", fraction=0.5)
    processor.call_back(start, "PROGRESS", fraction=fraction)

    treatment_client.wait_for(
        lambda: treatment_client.get_job(treatment_id)["progress"] == (1 if fraction > 1 else 0.5)
    )


def test_invalid_treatment_is_refused_with_pointer(
    processor_stack: ProcessorStack, treatment_client: TreatmentClient, dataset: Dataset
) -> None:
    assert get_pointers(treatment_client.post_treatment("juggling")) == {"/data/attributes/task-type"}
    assert get_pointers(treatment_client.post_treatment(**{"api-parameters": {"model": 5}})) == {
        "/data/attributes/api-parameters/model"
    }
    assert get_pointers(treatment_client.post_treatment(**{"api-parameters": {"size": 5}})) == {
        "/data/attributes/api-parameters/size"
    }
    empty = get_data(treatment_client.caller.create("/v1/document-sets", "document-set", {"title": "Nothing"}))["id"]
    treatment_client.set_id, full = empty, treatment_client.set_id
    assert get_pointers(treatment_client.post_treatment()) == {"/data/relationships/document-set/data"}
    treatment_client.set_id = full
    stranger = processor_stack.build_processor_client(dataset, "stranger")
    theirs = stranger.create("/v1/treatments", "treatment", {"task-type": "regions"}, document_set=full)
    assert theirs.status_code == 404
    alone = treatment_client.caller.create(
        "/v1/jobs", "job", {"kind": "regions", "parameters": {"document-set": int(full)}}
    )
    assert get_errors(alone)[0]["code"] == "not-directly-submittable"

    assert processor_stack.processor.starts == []
    assert get_data(treatment_client.caller.get("/v1/treatments")) == []
    assert get_data(treatment_client.caller.get("/v1/jobs")) == []


def test_without_a_processor_there_are_no_tasks(dataset: Dataset) -> None:
    set_id = get_data(
        dataset.owner.create("/v1/document-sets", "document-set", {"title": "All"}, faqs=[dataset.faqs["draft"]])
    )
    refused = dataset.owner.create("/v1/treatments", "treatment", {"task-type": "regions"}, document_set=set_id["id"])

    assert (refused.status_code, get_errors(refused)[0]["code"]) == (422, "unknown-kind")


def test_a_treatment_is_seen_by_who_asked_and_by_admins(
    processor_stack: ProcessorStack, treatment_client: TreatmentClient, dataset: Dataset
) -> None:
    treatment_id = treatment_client.start_treatment()

    for role, status in {"owner": 200, "admin": 200, "stranger": 404, "organizer": 404, "anonymous": 401}.items():
        caller = processor_stack.build_processor_client(dataset, role)
        for path in ("", "/job", "/document-set", "/regions", "/relationships/similarities"):
            assert caller.get(f"/v1/treatments/{treatment_id}{path}").status_code == status, (role, path)
        relaunch = caller.send("POST", f"/v1/treatments/{treatment_id}/relaunch")
        assert relaunch.status_code == (409 if status == 200 else status)


def test_a_treatment_is_deleted_once_it_has_ended(
    processor_stack: ProcessorStack, treatment_client: TreatmentClient, processor: FakeProcessor
) -> None:
    treatment_id = treatment_client.start_treatment()
    treatment_client.wait_for_start(treatment_id)
    assert get_errors(treatment_client.caller.delete(f"/v1/treatments/{treatment_id}"))[0]["code"] == "job-not-finished"
    treatment_client.caller.send("POST", f"/v1/jobs/{treatment_id}/cancel")
    treatment_client.wait_for_status(treatment_id, "CANCELLED")

    assert treatment_client.caller.delete(f"/v1/treatments/{treatment_id}").status_code == 200

    assert treatment_client.caller.get(f"/v1/treatments/{treatment_id}").status_code == 404


@pytest.mark.parametrize(("method", "path"), [("DELETE", ""), ("POST", "/relaunch")])
def test_a_treatment_whose_results_are_being_stored_is_refused_without_a_wait(
    processor_stack: ProcessorStack, treatment_client: TreatmentClient, method: str, path: str
) -> None:
    treatment_id = treatment_client.start_treatment()
    treatment_client.wait_for_start(treatment_id)

    with processor_stack.app.app_context(), db.engine.begin() as storing:  # holds the job
        storing.execute(select(Job.id).where(Job.id == treatment_id).with_for_update(key_share=True))
        refused = treatment_client.caller.send(method, f"/v1/treatments/{treatment_id}{path}")

    assert (refused.status_code, get_errors(refused)[0]["code"]) == (409, "job-not-finished")


def test_no_part_of_a_token_is_in_a_log(
    processor_stack: ProcessorStack, treatment_client: TreatmentClient, processor: FakeProcessor
) -> None:
    treatment_id = treatment_client.start_treatment()
    start = treatment_client.wait_for_start(treatment_id)
    processor.call_back(start, "STARTED")
    treatment_client.wait_for_status(treatment_id, "IN PROGRESS")

    logged = processor_stack.log.read_text()

    assert start.body["notify_url"].partition("token=")[2][:12] not in logged
    assert start.body["notify_secret"][6:18] not in logged
    assert f"/v1/jobs/{treatment_id}/callback" in logged
