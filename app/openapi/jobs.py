"""Operations of jobs besides those of every resource type: actions, streams, files and kinds."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from app import errors
from app.archive import ArchiveEvent
from app.jobs.progress_stream import FORMATS, LAST_EVENT_ID_PARAMETER
from app.jobs.resources import ArtifactFile, CancelJob, JobAction, JobList, RetryJob
from app.jsonapi.base_view import View
from app.openapi.json_schema import (
    TEXT,
    Json,
    array_schema,
    component_ref,
    const_schema,
    enum_schema,
    nullable_schema,
    object_schema,
)
from app.openapi.response_schemas import document_schema
from app.openapi.responses import (
    BINARY_CONTENT,
    NOT_MODIFIED_DESCRIPTION,
    READ_ERRORS,
    empty_response,
    error_responses,
    header_refs,
    success_response,
)

OPERATION_NAMES: Mapping[type, Mapping[str, tuple[str, str]]] = {
    CancelJob: {"POST": ("Cancel {a_type}", "cancel{Type}")},
    RetryJob: {"POST": ("Retry {a_type} that has ended", "retry{Type}")},
    ArtifactFile: {"GET": ("Download the file of {a_type}", "downloadJobArtifact")},
    ArchiveEvent: {"POST": ("Start a job that archives {a_type}", "archive{Type}")},
}

JOB_RESPONSE_HEADERS = ("ETag", "Vary", "Idempotent-Replayed", "Location", "Content-Location", "Retry-After")


def find_success_responses(view: type[View], method: str) -> Json | None:
    """Return the success responses of a view of jobs; None for a view of every resource type."""
    if issubclass(view, JobAction | ArchiveEvent) or (issubclass(view, JobList) and method == "POST"):
        return {
            **_job_response(HTTPStatus.ACCEPTED, "The job is queued or active."),
            **_job_response(HTTPStatus.OK, "A job with the same parameters has succeeded before."),
        }
    if issubclass(view, ArtifactFile):
        content = {"content": BINARY_CONTENT, "headers": header_refs("ETag")}
        whole = {"description": "The file.", **content}
        part = {"description": "The part of the file that `Range` requests.", **content}
        return {"200": whole, "206": part, **empty_response(HTTPStatus.NOT_MODIFIED, NOT_MODIFIED_DESCRIPTION)}
    return None


def _job_response(status: HTTPStatus, description: str) -> Json:
    return success_response(status, description, component_ref("JobDocument"), *JOB_RESPONSE_HEADERS)


def build_progress_operation(_view: Any) -> Json:
    """Return the operation that streams the progress events of a job."""
    content: dict[str, Json] = {each.media_type: {"schema": TEXT} for each in FORMATS}
    content["application/json"] = {"schema": array_schema(component_ref("ProgressReport"))}
    last = {"name": "Last-Event-ID", "in": "header", "schema": {**TEXT, "pattern": "^[0-9]{1,18}$"}}
    streamed = {"description": "Progress events, sent as they occur.", "content": content, "headers": header_refs()}
    return {
        "operationId": "watchJob",
        "summary": "Stream the progress of a job",
        "tags": ["jobs"],
        "parameters": [
            {**last, "description": "The `seq` of the last event that the client has; 0 for all events."},
            {
                **last,
                "name": LAST_EVENT_ID_PARAMETER,
                "in": "query",
                "description": "The same for clients that cannot set headers; the header takes precedence.",
            },
        ],
        "responses": {
            "200": streamed,
            **empty_response(
                HTTPStatus.NO_CONTENT, "The client has all events of a job that has ended: an EventSource stops."
            ),
            **error_responses(READ_ERRORS),
        },
    }


def build_kind_schemas() -> dict[str, Json]:
    """Return the schemas of kinds of jobs, and of progress events."""
    report: dict[str, Json] = {
        "seq": {"type": "integer", "minimum": 0},
        "fraction": nullable_schema({"type": "number", "minimum": 0, "maximum": 1}),
        "message": nullable_schema(TEXT),
        "state": component_ref("JobState"),
        "level": TEXT,
        "queue_position": {"type": "integer", "minimum": 0, "description": "Present while the job is queued."},
    }
    attributes: dict[str, Json] = {
        "title": TEXT,
        "parameters": {"type": "object", "description": "The JSON Schema of the parameters."},
        "runner": enum_schema(["function", "executable", "external"]),
        "dedupe": enum_schema(["once", "single-flight", "none"]),
        "time-limit": {"type": "number", "description": "In seconds."},
        "max-attempts": {"type": "integer"},
        "concurrency": nullable_schema({"type": "integer"}),
        "started-by": array_schema(TEXT),
    }
    members: dict[str, Json] = {
        "type": const_schema("job-kind"),
        "id": TEXT,
        "attributes": component_ref("JobKindAttributes"),
        "links": component_ref("SelfLink"),
    }
    kind = component_ref("JobKind")
    links = component_ref("SelfLink")
    return {
        "ProgressReport": object_schema(report, report.keys() - {"queue_position"}),
        "JobKindAttributes": object_schema(attributes, attributes),
        "JobKind": object_schema(members, members),
        "JobKindDocument": document_schema(data=kind, links=links),
        "JobKindList": document_schema(data=array_schema(kind), links=links, meta=component_ref("ListMeta")),
    }


def build_kind_operation(view: Any) -> Json:
    """Return the operation that lists kinds, or gets one kind."""
    is_list = view.view_class.__name__ == "KindList"
    schema = component_ref("JobKindList" if is_list else "JobKindDocument")
    error_classes = (
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
        "parameters": [component_ref("IfNoneMatch", "parameters")],
        "responses": {
            **success_response(HTTPStatus.OK, "Success.", schema, "ETag", "Vary"),
            **empty_response(HTTPStatus.NOT_MODIFIED, NOT_MODIFIED_DESCRIPTION),
            **error_responses(error_classes),
        },
    }
