"""JSON:API schemas of jobs, their events and their artifacts."""

from typing import Any

from flask import current_app
from marshmallow_jsonapi import fields as jsonapi_fields

from app.jobs.models import ALL_STATES
from app.jsonapi.fields import (
    SERVER_MANAGED,
    Boolean,
    ComputedUrl,
    DateTime,
    Enum,
    Integer,
    JsonObject,
    Number,
    Relationship,
    ResourceSchema,
    Text,
)
from app.jsonapi.inflection import dasherize


class JobSchema(ResourceSchema):
    """Attributes and relationships of a job."""

    class Meta:
        type_ = "job"
        inflect = dasherize

    id = jsonapi_fields.Str(dump_only=True)
    kind = Text(required=True, sorted_as_text=False)
    parameters = JsonObject(load_default=dict)
    state = Enum(*ALL_STATES, **SERVER_MANAGED)
    progress = Number(0, 1, **SERVER_MANAGED)
    message = Text(**SERVER_MANAGED)
    attempt = Integer(**SERVER_MANAGED)
    max_attempts = Integer(dump_only=True)
    trigger = Text(dump_only=True, sorted_as_text=False)
    queue_position = Integer(allow_none=True, **SERVER_MANAGED)
    error = JsonObject(**SERVER_MANAGED)
    result = JsonObject(**SERVER_MANAGED)
    created_at = DateTime(dump_only=True)
    started_at = DateTime(**SERVER_MANAGED)
    finished_at = DateTime(**SERVER_MANAGED)
    heartbeat_at = DateTime(**SERVER_MANAGED)

    owner = Relationship("user", dump_only=True)
    event = Relationship("event", dump_only=True)
    retry_of = Relationship("job", dump_only=True)
    events = Relationship("job-event", many=True, dump_only=True)
    artifacts = Relationship("job-artifact", many=True, dump_only=True)


class JobEventSchema(ResourceSchema):
    """Attributes and relationships of an event of a job."""

    class Meta:
        type_ = "job-event"
        inflect = dasherize

    id = jsonapi_fields.Str(dump_only=True)
    seq = Integer(dump_only=True)
    level = Text(dump_only=True, sorted_as_text=False)
    state = Enum(*ALL_STATES, dump_only=True)
    fraction = Number(0, 1, dump_only=True)
    message = Text(dump_only=True)
    created_at = DateTime(dump_only=True)

    job = Relationship("job", dump_only=True)


def file_path(artifact_id: object) -> str:
    """Return the URL path of the content of an artifact."""
    return f"/v1/job-artifacts/{artifact_id}/file"


def _build_file_url(artifact: Any) -> str:
    return f"{current_app.config['PUBLIC_URL']}{file_path(artifact.id)}"


class ArtifactSchema(ResourceSchema):
    """Attributes and relationships of a file that a job published."""

    class Meta:
        type_ = "job-artifact"
        inflect = dasherize

    id = jsonapi_fields.Str(dump_only=True)
    name = Text(dump_only=True)
    media_type = Text(dump_only=True, sorted_as_text=False)
    size = Integer(dump_only=True)
    sha256 = Text(dump_only=True, sorted_as_text=False)
    url = ComputedUrl(_build_file_url)
    partial = Boolean(dump_only=True)
    created_at = DateTime(dump_only=True)

    job = Relationship("job", dump_only=True)
