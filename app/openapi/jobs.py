"""The operations of jobs that are not those of every resource: commands, streams, files and kinds."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from app import errors
from app.archive import ArchiveEvent
from app.jobs.models import STATES
from app.jobs.progress import FORMATS, LAST_EVENT_ID_PARAMETER
from app.jobs.resources import ArtifactFile, CancelJob, JobCommand, JobList, RetryJob
from app.jsonapi.view import View
from app.openapi.answers import document
from app.openapi.json_schema import TEXT, Json, nullable, object_of, reference
from app.openapi.responses import ALWAYS, answered, empty, headers_of, refusals

SUMMARIES: Mapping[type, Mapping[str, str]] = {
    CancelJob: {"POST": "Ask one {type} to end"},
    RetryJob: {"POST": "Submit the same {type} once more"},
    ArtifactFile: {"GET": "Fetch the content of one {type}"},
    ArchiveEvent: {"POST": "Start a job that archives one {type}"},
}

STARTED = ("ETag", "Vary", "Idempotent-Replayed", "Location", "Content-Location", "Retry-After")


def success(view: type[View], method: str) -> Json | None:
    """The answer of a view of jobs that succeeds; None for what every resource does."""
    if issubclass(view, JobCommand | ArchiveEvent) or (issubclass(view, JobList) and method == "POST"):
        return {**_job(HTTPStatus.ACCEPTED, "It waits, or is at work."), **_job(HTTPStatus.OK, "It was done before.")}
    if issubclass(view, ArtifactFile):
        content = {"content": {"*/*": {}}, "headers": headers_of("ETag")}
        whole = {"description": "The file.", **content}
        part = {"description": "The part of it that Range asked for.", **content}
        return {"200": whole, "206": part, **empty(HTTPStatus.NOT_MODIFIED, "It is as it was.")}
    return None


def _job(status: HTTPStatus, words: str) -> Json:
    return answered(status, words, reference("JobDocument"), *STARTED)


def described_progress(_view: Any) -> Json:
    """The stream of a job."""
    element = object_of(
        {
            "seq": {"type": "integer", "minimum": 0},
            "fraction": nullable({"type": "number", "minimum": 0, "maximum": 1}),
            "message": nullable(TEXT),
            "state": {"enum": list(STATES)},
            "level": TEXT,
            "queue_position": {"type": "integer", "minimum": 0, "description": "While it waits."},
        },
        ["seq", "fraction", "message", "state", "level"],
    )
    content: dict[str, Json] = {each.media_type: {"schema": TEXT} for each in FORMATS}
    content["application/json"] = {"schema": {"type": "array", "items": element}}
    last = {"name": "Last-Event-ID", "in": "header", "schema": {**TEXT, "pattern": "^[0-9]{1,18}$"}}
    streamed = {"description": "Its events, as they come.", "content": content, "headers": headers_of()}
    return {
        "summary": "Watch one job",
        "tags": ["jobs"],
        "parameters": [
            {**last, "description": "The last event that is known; 0 for all of them."},
            {
                **last,
                "name": LAST_EVENT_ID_PARAMETER,
                "in": "query",
                "description": "The same; the header counts first.",
            },
        ],
        "responses": {
            "200": streamed,
            **empty(HTTPStatus.NO_CONTENT, "All of it is known; for an EventSource, which then stops."),
            **refusals(ALWAYS),
        },
    }


def kind_answers() -> dict[str, Json]:
    """What is said of kinds."""
    attributes: dict[str, Json] = {
        "title": TEXT,
        "parameters": {"type": "object", "description": "A JSON Schema."},
        "runner": {"enum": ["function", "executable", "external"]},
        "dedupe": {"enum": ["once", "single-flight", "none"]},
        "time-limit": {"type": "number", "description": "In seconds."},
        "max-attempts": {"type": "integer"},
        "concurrency": nullable({"type": "integer"}),
        "started-by": {"type": "array", "items": TEXT},
    }
    members: dict[str, Json] = {
        "type": {"const": "job-kind"},
        "id": TEXT,
        "attributes": object_of(attributes, attributes),
        "links": reference("SelfLink"),
    }
    kind = reference("JobKind")
    links = reference("SelfLink")
    listed = {"type": "array", "items": kind}
    return {
        "JobKind": object_of(members, members),
        "JobKindDocument": document(data=kind, links=links),
        "JobKindList": document(data=listed, links=links, meta=reference("ListMeta")),
    }


def described_kinds(view: Any) -> Json:
    """All kinds, or one."""
    is_list = view.view_class.__name__ == "KindList"
    schema = reference("JobKindList" if is_list else "JobKindDocument")
    refused = (errors.BadRequest, errors.NotAcceptable, errors.PreconditionFailed, errors.NotFound)
    return {
        "summary": "List what can run" if is_list else "Read one kind of job",
        "tags": ["job-kinds"],
        "parameters": [reference("IfNoneMatch", "parameters")],
        "responses": {
            **answered(HTTPStatus.OK, "The answer.", schema, "ETag", "Vary"),
            **empty(HTTPStatus.NOT_MODIFIED, "It is as it was."),
            **refusals(refused),
        },
    }
