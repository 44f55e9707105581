"""Runs and their results; WORKER_THREADS runs are executed at once, the others wait."""

import json
import logging
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import RLock, Thread
from time import monotonic
from typing import Any
from uuid import uuid4

import pyvips  # type: ignore[import-untyped]  # pyvips carries no types

from callbacks import Callbacks
from images import UnreadableImage, download, open_image
from tasks import TASKS

PENDING, IN_PROGRESS, SUCCESS, ERROR, CANCELLED = "PENDING", "IN PROGRESS", "SUCCESS", "ERROR", "CANCELLED"
TERMINAL_STATES = {SUCCESS, ERROR, CANCELLED}

WORKER_THREADS = 2
MAX_RUNS = 50
"""Runs in memory, with their results; a new run replaces the oldest that has ended."""
RUN_TIMEOUT_SECONDS = 1800.0

log = logging.getLogger(__name__)


class RunEnded(Exception):
    """The run was cancelled or timed out while it was executed."""


class TooManyRuns(Exception):
    """MAX_RUNS runs are waiting or being executed."""


@dataclass
class Run:
    """A run; its lock is held while its state changes and the event is queued, so no event follows the last one."""

    task: str
    experiment_id: str
    documents: Sequence[dict[str, Any]]
    url: str
    """URL of the task at this processor."""
    directory: Path
    callbacks: Callbacks
    tracking_id: str
    status: str = PENDING
    fraction: float = 0.0
    results: list[dict[str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    lock: RLock = field(default_factory=RLock)
    until: float = 0.0

    def begin(self) -> None:
        """Start the run; raise RunEnded."""
        with self.lock:
            self.check()
            self.status, self.until = IN_PROGRESS, monotonic() + RUN_TIMEOUT_SECONDS
            self._send_event("STARTED", "The run has started.")

    def check(self) -> None:
        """Raise RunEnded when the run was cancelled; fail it at the timeout."""
        if self.status == IN_PROGRESS and monotonic() > self.until:
            self.end(ERROR, f"The run took more than {RUN_TIMEOUT_SECONDS / 60:g} minutes.")
        if self.status in TERMINAL_STATES:
            raise RunEnded

    def publish(self, uid: str, content: Any) -> list[dict[str, str]]:
        """Store a result file; return its entry for `results_url`. Raise RunEnded."""
        with self.lock:
            self.check()
            name = f"{len(self.results)}.json"
            (self.directory / name).write_text(json.dumps(content))
            result = {"doc_id": uid, "result_url": f"{self.url}/{self.tracking_id}/results/{name}"}
            self.results.append(result)
            return [result]

    def advance(self, fraction: float, message: str, results: list[dict[str, str]]) -> None:
        """Set the fraction and send PROGRESS; raise RunEnded."""
        with self.lock:
            self.check()
            self.fraction = fraction
            self._send_event("PROGRESS", message, fraction=fraction, output={"results_url": results, "error": []})

    def warn(self, message: str) -> None:
        """Record an error that does not end the run, and send it; raise RunEnded."""
        with self.lock:
            self.check()
            self.errors.append(message)
            self._send_event("ERROR", message, completed=False, output={"results_url": [], "error": [message]})

    def end(self, status: str, message: str) -> None:
        """End the run and send its last event; do nothing when it has ended already."""
        with self.lock:
            if self.status in TERMINAL_STATES:
                return
            self.status = status
            if status == SUCCESS:
                self.fraction = 1.0
            if status == ERROR:
                self.errors.append(message)
            self._send_event(status, message, fraction=self.fraction, completed=True, output=self.output())

    def output(self) -> dict[str, Any]:
        """Return all results and errors so far."""
        with self.lock:
            return {"results_url": list(self.results), "error": list(self.errors)}

    def _send_event(self, event: str, message: str, **members: Any) -> None:
        about = {"experiment_id": self.experiment_id, "tracking_id": self.tracking_id, "event": event}
        self.callbacks.send({**about, "message": message, **members}, is_last=self.status in TERMINAL_STATES)


class Runs:
    """All runs in memory, and the threads that execute them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._runs: dict[str, Run] = {}
        self._waiting: SimpleQueue[Run] = SimpleQueue()
        self._lock = RLock()
        for _ in range(WORKER_THREADS):
            Thread(target=self._work, daemon=True).start()

    def add(self, task: str, body: dict[str, Any], url: str) -> Run:
        """Create and queue a run for the body of a start request; raise TooManyRuns."""
        with self._lock:
            self._make_room()
            tracking_id = uuid4().hex
            directory = self._directory / tracking_id
            directory.mkdir()
            callbacks = Callbacks(body["notify_url"], body.get("notify_secret"))
            run = Run(task, body["experiment_id"], body["documents"], url, directory, callbacks, tracking_id)
            self._runs[tracking_id] = run
        self._waiting.put(run)
        return run

    def find(self, task: str, tracking_id: str) -> Run | None:
        """Return the run of a task with this tracking id, None when there is none."""
        run = self._runs.get(tracking_id)
        return run if run and run.task == task else None

    def stop(self, seconds: float) -> None:
        """End all runs and wait for their callbacks, at most this many seconds."""
        until = monotonic() + seconds
        with self._lock:
            active = [run for run in self._runs.values() if run.status not in TERMINAL_STATES]
        for run in active:
            run.end(ERROR, "The processor was stopped.")
        for run in active:
            run.callbacks.wait(until - monotonic())

    def _make_room(self) -> None:
        if len(self._runs) < MAX_RUNS:
            return
        oldest = next((run for run in self._runs.values() if run.status in TERMINAL_STATES), None)
        if oldest is None:
            raise TooManyRuns
        del self._runs[oldest.tracking_id]
        shutil.rmtree(oldest.directory, ignore_errors=True)

    def _work(self) -> None:
        while True:
            run = self._waiting.get()
            try:
                with suppress(RunEnded):
                    execute_run(run)
            except Exception:
                log.exception("run %s failed", run.tracking_id)
                run.end(ERROR, "The processor failed.")


def execute_run(run: Run) -> None:
    """Execute the task on each image; an image that cannot be read is a warning."""
    run.begin()
    task, values = TASKS[run.task], []
    images = [document for document in run.documents if document["type"] == "image"]
    steps = len(images) + (task.combine is not None)
    for number, document in enumerate(images, 1):
        run.check()
        uid = document["uid"]
        try:
            value = task.analyze(uid, open_image(download(document["src"], run.check)))
        except (UnreadableImage, pyvips.Error) as error:
            run.warn(f"{uid}: {error if isinstance(error, UnreadableImage) else 'It cannot be decoded.'}")
            continue
        values.append((uid, value))
        results = [] if task.combine else run.publish(uid, value)
        run.advance(number / steps, f"{number} of {len(images)} images", results)
    if values and task.combine:
        run.publish("all", task.combine(values))
    if values:
        run.end(SUCCESS, f"{len(values)} of {len(images)} images were processed.")
    else:
        run.end(ERROR, "No image could be read." if images else "There is no image among the documents.")
