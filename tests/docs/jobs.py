"""The jobs of the dataset that the blueprint's examples are about, in the states that people meet."""

import io
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, insert, select, update

from app.database import get_connection
from app.jobs import submission
from app.jobs.models import ACTIVE_STATES, RUNNING, TERMINAL_STATES, Artifact, Job, JobEvent
from app.storage import current_storage

OWNER, USER = 2, 5

CRASHED, ARCHIVED, IMPORTED = (
    "019b7e0a-ddc0-7b1f-9c4e-2f6a0d5b8e30",
    "019b7e0e-8740-7d02-8a7b-4c1f9e63d0b0",
    "019b7e14-0580-7e6a-b5d1-90c7a2f41e80",
)
ARCHIVES, WAITS, OTHERS = (
    "019b7e26-5500-7a94-8e20-6d3b17c5f940",
    "019b7e27-3f60-7c38-a14d-e85f02b96d10",
    "019b7e2f-7cc0-71d5-9b66-0ea4c8d372f0",
)
"""Their ids; the ids of their events and artifacts differ in the last digit."""

WORKER_LOST_MESSAGE = "The worker was lost; the job is queued again."
LAST_ATTEMPT_LOST_MESSAGE = "The worker was lost in the last of 3 attempts."
DISTANT_FUTURE = datetime(2099, 1, 1, tzinfo=UTC)
"""Let no lease of a running job expire: no worker runs it."""


def build_archive() -> bytes:
    """Return an archive with the same bytes each time."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in ("event", "faq-types", "faqs", "event-images"):
            file.writestr(zipfile.ZipInfo(f"{name}.json"), '{"jsonapi": {"version": "1.1"}, "data": []}')
    return content.getvalue()


@dataclass(frozen=True)
class JobRecord:
    """A job and its log: seconds after its beginning, state, fraction and message; the last entry is its present."""

    id: str
    minute: int
    kind: str
    parameters: dict[str, Any]
    log: tuple[tuple[float, str, float | None, str | None], ...] = ()
    owner_id: int | None = OWNER
    trigger: str = "api"
    attempt: int = 1
    retry_of: str | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    artifact: str | None = None
    media_type: str = "application/zip"
    content: Callable[[], bytes] = build_archive
    retained: bool = False


JOBS = (
    JobRecord(
        CRASHED,
        0,
        "event-archive",
        {"event": 1},
        (
            (0, "running", None, None),
            (1, "running", 0.0, "reading the event"),
            (71, "queued", 0.0, WORKER_LOST_MESSAGE),
            (72, "running", 0.0, None),
            (142, "queued", 0.0, WORKER_LOST_MESSAGE),
            (143, "running", 0.0, None),
            (213, "failed", 0.0, LAST_ATTEMPT_LOST_MESSAGE),
        ),
        attempt=3,
        error={"code": "crashed", "detail": LAST_ATTEMPT_LOST_MESSAGE},
    ),
    JobRecord(
        ARCHIVED,
        4,
        "event-archive",
        {"event": 1},
        (
            (0, "running", None, None),
            (0.1, "running", 0.0, "reading the event"),
            (0.7, "running", 0.5, "image 2 of 2"),
            (1.3, "running", 0.95, "storing the archive"),
            (1.4, "succeeded", 1.0, "storing the archive"),
        ),
        trigger="retry",
        retry_of=CRASHED,
        result={
            "artifact": "a1b2c3d4.zip",
            "resources": {"faq-types": 2, "faqs": 3, "event-images": 2},
            "images": 2,
        },
        artifact="a1b2c3d4.zip",
    ),
    JobRecord(
        IMPORTED,
        10,
        "import-images",
        {"event": 1},
        (
            (0, "running", None, None),
            (0.1, "running", 0.0, "1 of 3: blurred.jpg"),
            (2.2, "succeeded", 1.0, "3 of 3: opening.jpg"),
        ),
        result={"imported": 3, "known": 0, "refused-count": 0, "refused": [], "left": 0},
    ),
    JobRecord(
        ARCHIVES,
        30,
        "event-archive",
        {"event": 2},
        (
            (0, "running", None, None),
            (0.1, "running", 0.0, "reading the event"),
            (0.8, "running", 0.26, "image 2 of 5"),
        ),
    ),
    JobRecord(
        WAITS, 31, "resize-image", {"image": "https://example.org/logo.png", "width": 200, "height": 200}, attempt=0
    ),
    JobRecord(
        OTHERS,
        40,
        "resize-image",
        {"user": 5},
        ((0, "running", None, None), (0.2, "succeeded", 1.0, None)),
        owner_id=USER,
        trigger="signal",
        result={"urls": {"thumbnail": None, "small": None, "icon": None}},
    ),
)
LEVELS = {"failed": "error", "queued": "warning"}


def add_jobs(then: datetime, jobs: Iterable[JobRecord] = JOBS) -> None:
    """Submit them as everybody does, so that the same work finds them."""
    for made in jobs:
        _add_job(made, then + timedelta(minutes=made.minute))


def count_unfinished_jobs(known: Iterable[JobRecord]) -> Select[tuple[int]]:
    """Return the number of active jobs that examples have started."""
    ours = [UUID(made.id) for made in known]
    return select(func.count()).select_from(Job).where(Job.state.in_(ACTIVE_STATES), Job.id.not_in(ours))


def _add_job(made: JobRecord, at: datetime) -> None:
    retry_of_id = UUID(made.retry_of) if made.retry_of else None
    job = submission.submit_job(
        made.kind,
        made.parameters,
        trigger=made.trigger,
        owner_id=made.owner_id,
        retry_of_id=retry_of_id,
        job_id=UUID(made.id),
        retained=made.retained,
    ).job
    get_connection().execute(
        update(Job).where(Job.id == job.id).values(created_at=at, **_build_current_state(made, at))
    )
    for seq, entry in enumerate(made.log, start=1):
        get_connection().execute(insert(JobEvent).values(_build_event(made, seq, entry, at)))
    if made.artifact:
        get_connection().execute(insert(Artifact).values(_build_artifact(made, at)))


def _build_current_state(made: JobRecord, at: datetime) -> dict[str, Any]:
    """Return the final state of the log."""
    if not made.log:
        return {}
    last, state, progress, message = made.log[-1]
    now = at + timedelta(seconds=last)
    return {
        "state": state,
        "progress": progress,
        "message": message,
        "attempt": made.attempt,
        "started_at": at,
        "heartbeat_at": now,
        "finished_at": now if state in TERMINAL_STATES else None,
        "lease_until": DISTANT_FUTURE if state == RUNNING else None,
        "last_seq": len(made.log),
        "encrypted_secrets": None,
        "result": made.result,
        "error": made.error,
    }


def _build_event(
    made: JobRecord, seq: int, entry: tuple[float, str, float | None, str | None], at: datetime
) -> dict[str, Any]:
    seconds, state, fraction, message = entry
    told = {"state": state, "fraction": fraction, "message": message, "level": LEVELS.get(state, "info")}
    created_at = at + timedelta(seconds=seconds)
    return {"id": UUID(f"{made.id[:-1]}{seq}"), "job_id": UUID(made.id), "seq": seq, "created_at": created_at, **told}


def _build_artifact(made: JobRecord, at: datetime) -> dict[str, Any]:
    storage, suffix = current_storage(), PurePosixPath(made.artifact or "").suffix.removeprefix(".") or "bin"
    stored = storage.stat(storage.put_content_addressed(f"jobs/{made.id}", made.content(), suffix, made.media_type))
    return {
        "id": UUID(f"{made.id[:-1]}a"),
        "job_id": UUID(made.id),
        "name": made.artifact,
        "media_type": made.media_type,
        "size": stored.size,
        "sha256": PurePosixPath(stored.name).stem,
        "storage_key": stored.name,
        "created_at": at + timedelta(seconds=1.4),
    }
