"""Web, relay and worker processes with a fake processor, and clients of their API."""

import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
from flask import Flask
from sqlalchemy import delete, func, update

import config
from app import embedded
from app.extensions import db
from app.factory import create_app
from app.jobs.models import ACTIVE_STATES, Job
from app.outbox import OutboxEntry
from tests.conftest import wait_until
from tests.dataset import ApiClient, Dataset, get_data
from tests.jsonapi.validator import CheckedClient
from tests.treatments.fake_processor import FakeProcessor, StartRequest
from tests.worker_process import are_all_closed, run_process

SETTINGS = {
    "PROCESSOR_POLL_SECONDS": "1",
    "PROCESSOR_CANCEL_GRACE_SECONDS": "2",
    "JOB_LEASE_SECONDS": "2",
    "WORKER_CONCURRENCY": "2",
}
TERMINAL_STATES = ("SUCCESS", "ERROR", "CANCELLED")


class ProcessorStack:
    """The processes, which tests may kill; requests go to an app in this process with the same settings."""

    def __init__(self, environment: dict[str, str], directory: Path, stack: ExitStack, **settings: str) -> None:
        redis = embedded.Redis(directory)
        stack.enter_context(embedded.run_server(redis))
        self.processor = stack.enter_context(FakeProcessor())
        more = {
            "REDIS_URL": redis.url,
            "PROCESSOR_URL": self.processor.url,
            "VAR_DIR": str(directory),
        }
        # The keys of the test suite, so that its access tokens are valid here.
        kept = {"SECRET_KEY": "s" * 40, "STORAGE_URL": (directory / "files").as_uri()}
        self.environment = {**environment, **more, **SETTINGS, **kept, **settings}
        for name in ("jwt-key", "secret-key"):
            (directory / name).write_bytes((Path(environment["VAR_DIR"]) / name).read_bytes())
        self.app: Flask = create_app(config.read_config(self.environment))
        self.app.test_client_class = CheckedClient
        self.log = directory / "output"
        self.stack = stack
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        stack.callback(self.disconnect)
        for name in ("web", "relay", "worker"):
            self.start(name)
        self.wait_for_web()

    def start(self, name: str) -> None:
        """Start a process of this name; an earlier one is not stopped."""
        arguments = ("relay", "2") if name == "relay" else (name,)
        self.children[name] = self.stack.enter_context(run_process(self.environment, self.log, *arguments))

    @property
    def worker(self) -> subprocess.Popen[bytes]:
        """Return the latest worker process."""
        return self.children["worker"]

    def wait_for_web(self) -> None:
        """Wait until the web process responds."""

        def answers() -> bool:
            try:
                return httpx.get(f"{self.app.config['PUBLIC_URL']}/livez", trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, 30)

    def disconnect(self) -> None:
        """Close the connections of the app in this process."""
        with self.app.app_context():
            db.engine.dispose()

    def end_all_jobs(self) -> None:
        """End all jobs and wait until no process works on them, before the tables are emptied."""
        with self.app.app_context():
            db.session.execute(
                update(Job).where(Job.state.in_(ACTIVE_STATES)).values(state="failed", finished_at=func.now())
            )
            db.session.execute(delete(OutboxEntry).where(OutboxEntry.next_at > func.now(), OutboxEntry.tries == 0))
            db.session.commit()
        wait_until(lambda: are_all_closed(self.app), 20)

    def build_processor_client(self, dataset: Dataset, role: str) -> ApiClient:
        """Return a client of a role for the app with the processor."""
        known = dataset.callers[role]
        return ApiClient(self.app.test_client(), known.token, known.id)


class TreatmentClient:
    """The owner of a document set, who starts treatments and reads their results."""

    def __init__(self, processor_stack: ProcessorStack, dataset: Dataset, role: str = "owner") -> None:
        self.stack = processor_stack
        self.caller = processor_stack.build_processor_client(dataset, role)
        self.set_id = get_data(
            self.caller.create(
                "/v1/document-sets", "document-set", {"title": "Both"}, events=[dataset.events["published"]]
            )
        )["id"]

    def start_treatment(self, task_type: str = "regions", **attributes: Any) -> str:
        """Start a treatment and return its id."""
        return str(get_data(self.post_treatment(task_type, **attributes))["id"])

    def post_treatment(self, task_type: str = "regions", **attributes: Any) -> Any:
        """Start a treatment and return the response."""
        return self.caller.create(
            "/v1/treatments",
            "treatment",
            {"task-type": task_type, **attributes},
            document_set=self.set_id,
        )

    def wait_for_start(self, treatment_id: str) -> StartRequest:
        """Wait until the treatment is STARTED and return its start request."""
        self.wait_for_status(treatment_id, "STARTED")
        return self.get_start(treatment_id)

    def get_start(self, treatment_id: str) -> StartRequest:
        """Return the last start request of a treatment."""
        mine = [each for each in self.stack.processor.starts if each.body["experiment_id"] == treatment_id]
        return mine[-1]

    def get_attributes(self, treatment_id: str) -> dict[str, Any]:
        """Return the attributes of a treatment."""
        attributes: dict[str, Any] = get_data(self.caller.get(f"/v1/treatments/{treatment_id}"))["attributes"]
        return attributes

    def wait_for_status(self, treatment_id: str, *status: str) -> dict[str, Any]:
        """Wait until a treatment has one of these statuses and return its attributes."""
        wait_until(
            lambda: self.get_attributes(treatment_id)["status"] in status,
            20,
            f"{status}, not {self.get_attributes(treatment_id)}",
        )
        return self.get_attributes(treatment_id)

    def get_job(self, treatment_id: str) -> dict[str, Any]:
        """Return the attributes of the job of a treatment."""
        attributes: dict[str, Any] = get_data(self.caller.get(f"/v1/jobs/{treatment_id}"))["attributes"]
        return attributes

    def list_log_messages(self, treatment_id: str, level: str | None = None) -> list[str]:
        """Return the messages of the job of a treatment, all or those of a level."""
        listed = get_data(self.caller.get(f"/v1/jobs/{treatment_id}/events?page[size]=100"))
        events = [item["attributes"] for item in listed]
        return [each["message"] for each in events if level in (None, each["level"])]

    def list_artifacts(self, treatment_id: str) -> list[dict[str, Any]]:
        """Return the artifacts of the job of a treatment."""
        return [item["attributes"] for item in get_data(self.caller.get(f"/v1/jobs/{treatment_id}/artifacts"))]

    def list_results(self, treatment_id: str, what: str) -> list[dict[str, Any]]:
        """Return the regions or similarities of a treatment."""
        listed = get_data(self.caller.get(f"/v1/treatments/{treatment_id}/{what}?page[size]=100"))
        return [item["attributes"] for item in listed]

    def wait_for(self, condition: Callable[[], Any]) -> Any:
        """Wait until a condition is true and return its value."""
        return wait_until(condition, 20)
