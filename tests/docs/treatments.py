"""The uploads, document sets and treatments of the dataset that the blueprint's examples are about."""

import json
from base64 import b64decode
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import insert

from app.database import get_connection
from app.documents.models import SET_EVENTS, SET_FAQS, SET_UPLOADS, DocumentSet
from app.extensions import db
from app.processors.models import JobDocument, RemoteRun, ResultFile
from app.storage import current_storage
from app.treatments.models import Region, Similarity, Treatment
from app.uploads.models import Upload
from app.url_tokens import hash_token
from tests.docs.jobs import OWNER, USER, JobRecord

FAILED, FOUND = "019b7e29-1420-7a31-9d02-5b8c6e1f4a70", "019b7e29-fe80-7c0d-8b57-e2914d6f0a30"
COMPARED, GOES_ON = "019b7e2a-e8e0-7e95-a4c6-0d7b82f1c350", "019b7e2b-d340-7b42-9f18-c35a60e7d490"
"""The ids of treatments, and of their jobs."""

CALLBACK_TOKEN = "TheProcessorWasToldThisAndNobodyElse1234567"
PICTURE = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAECAIAAAA8r+mnAAAACXBIWXMAAAPoAAAD6AG1e1JrAAAAGElEQVQI12NgYPgPR/+ROAw4Jf7jQDglAEpu"
    "H+H4M7UbAAAAAElFTkSuQmCC"
)

REFUSED = "The processor responded with 503. Message: too busy"
SET = {"document-set": 1}
REGION_TREE = [
    {"source": "event-image-1", "crops": [{"source": "event-image-1", "absolute": place}]}
    for place in [{"x": 120, "y": 80, "width": 640, "height": 480}]
]

JOBS = (
    JobRecord(
        FAILED,
        33,
        "regions",
        {**SET, "model": "illustration_extraction"},
        ((0, "running", None, None), (0.4, "failed", None, REFUSED)),
        trigger="signal",
        error={"code": "rejected-by-processor", "detail": REFUSED},
        retained=True,
    ),
    JobRecord(
        FOUND,
        34,
        "regions",
        {**SET, "model": "illustration_extraction"},
        (
            (0, "running", None, None),
            (0.3, "waiting", None, None),
            (0.6, "waiting", 0.0, "3 images to look at"),
            (4.2, "finalizing", 1.0, "The processor has finished; downloading its results."),
            (4.5, "succeeded", 1.0, "All results are stored."),
        ),
        trigger="retry",
        retry_of=FAILED,
        result={"results": 1, "refused": 0},
        artifact="result-1.json",
        media_type="application/json",
        content=partial(bytes, json.dumps(REGION_TREE), "utf-8"),
        retained=True,
    ),
    JobRecord(
        COMPARED,
        35,
        "similarity",
        SET,
        ((0, "running", None, None), (0.3, "waiting", None, None), (2.9, "succeeded", 1.0, "All results are stored.")),
        trigger="signal",
        result={"results": 1, "refused": 0},
        retained=True,
    ),
    JobRecord(
        GOES_ON,
        36,
        "similarity",
        SET,
        ((0, "running", None, None), (0.3, "waiting", None, None), (0.5, "waiting", 0.0, "3 images to compare")),
        trigger="signal",
        retained=True,
    ),
)
DOCUMENTS = (
    ("event-1", "event", "event", 1),
    ("event-image-1", "image", "event-image", 1),
    ("event-image-2", "image", "event-image", 2),
    ("faq-1", "faq", "faq", 1),
    ("faq-2", "faq", "faq", 2),
    ("faq-3", "faq", "faq", 3),
    ("faq-4", "faq", "faq", 4),
    ("upload-1", "image", "upload", 1),
)
"""Return the documents of the first set."""


def add_document_sets(then: datetime) -> None:
    """Create four of each: the third belongs to another user, the last one is in the trash."""
    for name in ("poster", "draft"):  # the latter is taken out of the trash
        current_storage().put(_build_file_url(name), PICTURE, "image/png")
    db.session.execute(insert(Upload), [_build_upload(*each, then) for each in _UPLOADS])
    db.session.execute(insert(DocumentSet), [_build_document_set(*each, then) for each in _SETS])
    for table, pairs in ((SET_EVENTS, ((1, 1), (3, 1))), (SET_FAQS, ((1, 1), (1, 4))), (SET_UPLOADS, ((1, 1), (3, 3)))):
        near, far = table.c
        db.session.execute(insert(table), [{near.name: set_id, far.name: id_} for set_id, id_ in pairs])


def add_treatments(then: datetime) -> None:
    """Create a failed treatment, its relaunch, a comparison and one that runs at the processor."""
    write = get_connection().execute
    write(insert(Treatment), [_build_treatment(made, then) for made in JOBS])
    write(insert(RemoteRun), [_build_run(made, number, then) for number, made in enumerate(JOBS, start=40)])
    for made in JOBS:
        names = ("uid", "type", "resource_type", "resource_id")
        rows = [dict(zip(names, each, strict=True)) | {"position": at} for at, each in enumerate(DOCUMENTS)]
        write(insert(JobDocument), [{**row, "job_id": UUID(made.id)} for row in rows])
    write(insert(ResultFile), [_build_result(then)])
    place = REGION_TREE[0]["crops"][0]["absolute"]  # type: ignore[index]  # as it is written above
    about = {"treatment_id": UUID(FOUND), "document": "event-image-1", "source": "event-image-1"}
    write(insert(Region), [about | place, about | {"x": 1840, "y": 1210, "width": 95.5, "height": 60}])
    alike = (("event-image-1", "event-image-2", 0.71875), ("event-image-1", "upload-1", 0.4375))
    pair = {"treatment_id": UUID(COMPARED), "document": "all"}
    write(insert(Similarity), [{**pair, "a": a, "b": b, "score": score} for a, b, score in alike])


_UPLOADS = (("poster", OWNER, False), ("ticket", OWNER, False), ("badge", USER, False), ("draft", OWNER, True))
_SETS = (
    ("All of the summit", OWNER, False),
    ("To be filled", OWNER, False),
    ("What I have seen", USER, False),
    ("Old ones", OWNER, True),
)


def _build_upload(name: str, owner_id: int, is_trashed: bool, then: datetime) -> dict[str, Any]:
    about = {
        "storage_key": _build_file_url(name),
        "media_type": "image/png",
        "width": 8,
        "height": 4,
        "size": len(PICTURE),
    }
    return {**about, "owner_id": owner_id, "created_at": then, "deleted_at": then if is_trashed else None}


def _build_file_url(name: str) -> str:
    return f"uploads/{sha256(name.encode()).hexdigest()}.png"


def _build_document_set(title: str, owner_id: int, is_trashed: bool, then: datetime) -> dict[str, Any]:
    return {"title": title, "owner_id": owner_id, "created_at": then, "deleted_at": then if is_trashed else None}


def _build_treatment(made: JobRecord, then: datetime) -> dict[str, Any]:
    return {
        "id": UUID(made.id),
        "task_type": made.kind,
        "api_parameters": {name: value for name, value in made.parameters.items() if name not in SET},
        "notify_email": made.id == FOUND,
        "document_set_id": 1,
        "requested_by_id": OWNER,
        "retry_of_id": UUID(made.retry_of) if made.retry_of else None,
        "created_at": then + timedelta(minutes=made.minute),
    }


def _build_run(made: JobRecord, number: int, then: datetime) -> dict[str, Any]:
    began = then + timedelta(minutes=made.minute)
    was_taken = made.id != FAILED
    return {
        "job_id": UUID(made.id),
        "attempt": 1,
        "task": made.kind,
        "token_hash": hash_token(CALLBACK_TOKEN),
        "tracking_id": f"run-{number}" if was_taken else None,
        "created_at": began,
        "begun_at": began + timedelta(seconds=0.5) if was_taken else None,
        "last_seen_at": began + timedelta(seconds=0.5),
        "completed_at": began + timedelta(seconds=2) if made.result else None,
    }


def _build_result(then: datetime) -> dict[str, Any]:
    url = "https://processor.example.org/results/opening.json"
    about = {"job_id": UUID(FOUND), "attempt": 1, "number": 1, "doc_id": "event-image-1", "url": url}
    return {**about, "id": UUID(f"{FOUND[:-1]}f"), "final": True, "state": "stored", "error": None}
