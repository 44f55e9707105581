"""Runs: what was asked, how far it is, what came of it; a few are worked on at once, the others wait."""

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
from images import Unreadable, fetch, opened
from tasks import TASKS

PENDING, IN_PROGRESS, SUCCESS, ERROR, CANCELLED = "PENDING", "IN PROGRESS", "SUCCESS", "ERROR", "CANCELLED"
ENDED = {SUCCESS, ERROR, CANCELLED}

WORKERS = 2
MOST_RUNS = 50
"""Kept, with their results; the oldest that has ended makes room."""
RUN_SECONDS = 1800.0

log = logging.getLogger(__name__)


class Ended(Exception):
    """The run has ended while it was worked on: it was cancelled, or took too long."""


class Full(Exception):
    """As many runs as can be kept are waiting or worked on."""


@dataclass
class Run:
    """One run; its state changes and is told of under its lock, so that nothing is told after its end."""

    task: str
    experiment_id: str
    documents: Sequence[dict[str, Any]]
    url: str
    """Of the task at this processor."""
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
        """It is worked on from now on; raises Ended."""
        with self.lock:
            self.check()
            self.status, self.until = IN_PROGRESS, monotonic() + RUN_SECONDS
            self._tell("STARTED", "The work has begun.")

    def check(self) -> None:
        """Raises Ended where there is no reason to go on."""
        if self.status == IN_PROGRESS and monotonic() > self.until:
            self.end(ERROR, f"It was not done within {RUN_SECONDS / 60:g} minutes.")
        if self.status in ENDED:
            raise Ended

    def publish(self, uid: str, content: Any) -> list[dict[str, str]]:
        """Keep a result file, under a name of ours; what is said of it."""
        with self.lock:
            self.check()
            name = f"{len(self.results)}.json"
            (self.directory / name).write_text(json.dumps(content))
            result = {"doc_id": uid, "result_url": f"{self.url}/{self.tracking_id}/results/{name}"}
            self.results.append(result)
            return [result]

    def advance(self, fraction: float, message: str, results: list[dict[str, str]]) -> None:
        """A part is done; raises Ended."""
        with self.lock:
            self.check()
            self.fraction = fraction
            self._tell("PROGRESS", message, fraction=fraction, output={"results_url": results, "error": []})

    def warn(self, message: str) -> None:
        """Something cannot be done, the rest goes on; raises Ended."""
        with self.lock:
            self.check()
            self.errors.append(message)
            self._tell("ERROR", message, completed=False, output={"results_url": [], "error": [message]})

    def end(self, status: str, message: str) -> None:
        """It is over; the first end counts."""
        with self.lock:
            if self.status in ENDED:
                return
            self.status = status
            if status == SUCCESS:
                self.fraction = 1.0
            if status == ERROR:
                self.errors.append(message)
            self._tell(status, message, fraction=self.fraction, completed=True, output=self.output())

    def output(self) -> dict[str, Any]:
        """All that came of it so far."""
        with self.lock:
            return {"results_url": list(self.results), "error": list(self.errors)}

    def _tell(self, event: str, message: str, **members: Any) -> None:
        about = {"experiment_id": self.experiment_id, "tracking_id": self.tracking_id, "event": event}
        self.callbacks.send({**about, "message": message, **members}, is_last=self.status in ENDED)


class Runs:
    """All runs that are kept, and the threads that work on them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._kept: dict[str, Run] = {}
        self._waiting: SimpleQueue[Run] = SimpleQueue()
        self._lock = RLock()
        for _ in range(WORKERS):
            Thread(target=self._work, daemon=True).start()

    def add(self, task: str, asked: dict[str, Any], url: str) -> Run:
        """A run of what was asked; raises Full."""
        with self._lock:
            self._make_room()
            tracking_id = uuid4().hex
            directory = self._directory / tracking_id
            directory.mkdir()
            callbacks = Callbacks(asked["notify_url"], asked.get("notify_secret"))
            run = Run(task, asked["experiment_id"], asked["documents"], url, directory, callbacks, tracking_id)
            self._kept[tracking_id] = run
        self._waiting.put(run)
        return run

    def find(self, task: str, tracking_id: str) -> Run | None:
        """The run of this task and id."""
        run = self._kept.get(tracking_id)
        return run if run and run.task == task else None

    def stop(self, seconds: float) -> None:
        """End all runs; whoever waits for them is told, as far as that takes no longer than this."""
        until = monotonic() + seconds
        with self._lock:
            live = [run for run in self._kept.values() if run.status not in ENDED]
        for run in live:
            run.end(ERROR, "The processor was stopped.")
        for run in live:
            run.callbacks.wait(until - monotonic())

    def _make_room(self) -> None:
        if len(self._kept) < MOST_RUNS:
            return
        oldest = next((run for run in self._kept.values() if run.status in ENDED), None)
        if oldest is None:
            raise Full
        del self._kept[oldest.tracking_id]
        shutil.rmtree(oldest.directory, ignore_errors=True)

    def _work(self) -> None:
        while True:
            run = self._waiting.get()
            try:
                with suppress(Ended):
                    perform(run)
            except Exception:
                log.exception("run %s failed", run.tracking_id)
                run.end(ERROR, "The processor failed.")


def perform(run: Run) -> None:
    """Look at each image of the run; one that cannot be read does not keep the others from it."""
    run.begin()
    task, seen = TASKS[run.task], []
    images = [document for document in run.documents if document["type"] == "image"]
    steps = len(images) + (task.together is not None)
    for number, document in enumerate(images, 1):
        run.check()
        uid = document["uid"]
        try:
            value = task.look(uid, opened(fetch(document["src"], run.check)))
        except (Unreadable, pyvips.Error) as error:
            run.warn(f"{uid}: {error if isinstance(error, Unreadable) else 'It cannot be decoded.'}")
            continue
        seen.append((uid, value))
        results = [] if task.together else run.publish(uid, value)
        run.advance(number / steps, f"{number} of {len(images)} images", results)
    if seen and task.together:
        run.publish("all", task.together(seen))
    if seen:
        run.end(SUCCESS, f"{len(seen)} of {len(images)} images are done.")
    else:
        run.end(ERROR, "No image could be read." if images else "There is no image among the documents.")
