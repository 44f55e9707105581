"""The operations of jobs that are not those of every resource: commands, streams, files and kinds."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from app import errors
from app.archive import ArchiveEvent
from app.jobs.progress import FORMATS, LAST_EVENT_ID_PARAMETER
from app.jobs.resources import ArtifactFile, CancelJob, JobCommand, JobList, RetryJob
from app.jsonapi.view import View
from app.openapi.answers import document
from app.openapi.json_schema import TEXT, Json, array_of, choice, constant, nullable, object_of, reference
from app.openapi.responses import ALWAYS, BYTES, UNCHANGED, answered, empty, headers_of, refusals

WORDS: Mapping[type, Mapping[str, tuple[str, str]]] = {
    CancelJob: {"POST": ("Cancel {a_type}", "cancel{Type}")},
    RetryJob: {"POST": ("Retry {a_type} that has ended", "retry{Type}")},
    ArtifactFile: {"GET": ("Download the file of {a_type}", "downloadJobArtifact")},
    ArchiveEvent: {"POST": ("Start a job that archives {a_type}", "archive{Type}")},
}

STARTED = ("ETag", "Vary", "Idempotent-Replayed", "Location", "Content-Location", "Retry-After")


def success(view: type[View], method: str) -> Json | None:
    """Return the answer of a view of jobs that succeeds; None for what every resource does."""
    if issubclass(view, JobCommand | ArchiveEvent) or (issubclass(view, JobList) and method == "POST"):
        return {
            **_job(HTTPStatus.ACCEPTED, "The job is queued or active."),
            **_job(HTTPStatus.OK, "A job with the same parameters has succeeded before."),
        }
    if issubclass(view, ArtifactFile):
        content = {"content": BYTES, "headers": headers_of("ETag")}
        whole = {"description": "The file.", **content}
        part = {"description": "The part of the file that `Range` asked for.", **content}
        return {"200": whole, "206": part, **empty(HTTPStatus.NOT_MODIFIED, UNCHANGED)}
    return None


def _job(status: HTTPStatus, words: str) -> Json:
    return answered(status, words, reference("JobDocument"), *STARTED)


def described_progress(_view: Any) -> Json:
    """Return the stream of progress reports of a job."""
    content: dict[str, Json] = {each.media_type: {"schema": TEXT} for each in FORMATS}
    content["application/json"] = {"schema": array_of(reference("ProgressReport"))}
    last = {"name": "Last-Event-ID", "in": "header", "schema": {**TEXT, "pattern": "^[0-9]{1,18}$"}}
    streamed = {"description": "Progress reports, sent as they come.", "content": content, "headers": headers_of()}
    return {
        "operationId": "watchJob",
        "summary": "Stream the progress of a job",
        "tags": ["jobs"],
        "parameters": [
            {**last, "description": "The `seq` of the last report that the client has; 0 for all reports."},
            {
                **last,
                "name": LAST_EVENT_ID_PARAMETER,
                "in": "query",
                "description": "The same for clients that cannot set headers; the header wins.",
            },
        ],
        "responses": {
            "200": streamed,
            **empty(HTTPStatus.NO_CONTENT, "The client has all reports of a job that has ended: an EventSource stops."),
            **refusals(ALWAYS),
        },
    }


def kind_answers() -> dict[str, Json]:
    """Return the schemas of kinds of jobs, and of progress reports."""
    report: dict[str, Json] = {
        "seq": {"type": "integer", "minimum": 0},
        "fraction": nullable({"type": "number", "minimum": 0, "maximum": 1}),
        "message": nullable(TEXT),
        "state": reference("JobState"),
        "level": TEXT,
        "queue_position": {"type": "integer", "minimum": 0, "description": "Present while the job is queued."},
    }
    attributes: dict[str, Json] = {
        "title": TEXT,
        "parameters": {"type": "object", "description": "The JSON Schema of the parameters."},
        "runner": choice(["function", "executable", "external"]),
        "dedupe": choice(["once", "single-flight", "none"]),
        "time-limit": {"type": "number", "description": "In seconds."},
        "max-attempts": {"type": "integer"},
        "concurrency": nullable({"type": "integer"}),
        "started-by": array_of(TEXT),
    }
    members: dict[str, Json] = {
        "type": constant("job-kind"),
        "id": TEXT,
        "attributes": reference("JobKindAttributes"),
        "links": reference("SelfLink"),
    }
    kind = reference("JobKind")
    links = reference("SelfLink")
    return {
        "ProgressReport": object_of(report, report.keys() - {"queue_position"}),
        "JobKindAttributes": object_of(attributes, attributes),
        "JobKind": object_of(members, members),
        "JobKindDocument": document(data=kind, links=links),
        "JobKindList": document(data=array_of(kind), links=links, meta=reference("ListMeta")),
    }


def described_kinds(view: Any) -> Json:
    """Return the list of kinds, or one kind."""
    is_list = view.view_class.__name__ == "KindList"
    schema = reference("JobKindList" if is_list else "JobKindDocument")
    refused = (
        errors.BadRequest,
        errors.Unauthenticated,
        errors.NotAcceptable,
        errors.PreconditionFailed,
        errors.NotFound,
    )
    return {
        "operationId": "listJobKinds" if is_list else "getJobKind",
        "summary": "List kinds of jobs" if is_list else "Get a kind of job",
        "tags": ["job-kinds"],
        "parameters": [reference("IfNoneMatch", "parameters")],
        "responses": {
            **answered(HTTPStatus.OK, "Success.", schema, "ETag", "Vary"),
            **empty(HTTPStatus.NOT_MODIFIED, UNCHANGED),
            **refusals(refused),
        },
    }
