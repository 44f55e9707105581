"""Jobs, their events and their artifacts as the API shows them."""

from typing import Any

from flask import current_app
from marshmallow_jsonapi import fields as jsonapi_fields

from app.jobs.models import STATES
from app.jsonapi.naming import dasherize
from app.jsonapi.schema import (
    WRITTEN_BY_THE_SERVER,
    Choice,
    Flag,
    Instant,
    MadeUrl,
    Number,
    Object,
    Relationship,
    Schema,
    Text,
    Whole,
)


class JobSchema(Schema):
    """Attributes and relationships of a job."""

    class Meta:
        type_ = "job"
        inflect = dasherize

    id = jsonapi_fields.Str(dump_only=True)
    kind = Text(required=True, sorted_as_text=False)
    parameters = Object(load_default=dict)
    state = Choice(*STATES, **WRITTEN_BY_THE_SERVER)
    progress = Number(0, 1, **WRITTEN_BY_THE_SERVER)
    message = Text(**WRITTEN_BY_THE_SERVER)
    attempt = Whole(**WRITTEN_BY_THE_SERVER)
    max_attempts = Whole(dump_only=True)
    trigger = Text(dump_only=True, sorted_as_text=False)
    queue_position = Whole(allow_none=True, **WRITTEN_BY_THE_SERVER)
    error = Object(**WRITTEN_BY_THE_SERVER)
    result = Object(**WRITTEN_BY_THE_SERVER)
    created_at = Instant(dump_only=True)
    started_at = Instant(**WRITTEN_BY_THE_SERVER)
    finished_at = Instant(**WRITTEN_BY_THE_SERVER)
    heartbeat_at = Instant(**WRITTEN_BY_THE_SERVER)

    owner = Relationship("user", dump_only=True)
    event = Relationship("event", dump_only=True)
    retry_of = Relationship("job", dump_only=True)
    events = Relationship("job-event", many=True, dump_only=True)
    artifacts = Relationship("job-artifact", many=True, dump_only=True)


class JobEventSchema(Schema):
    """Attributes and relationships of an event of a job."""

    class Meta:
        type_ = "job-event"
        inflect = dasherize

    id = jsonapi_fields.Str(dump_only=True)
    seq = Whole(dump_only=True)
    level = Text(dump_only=True, sorted_as_text=False)
    state = Choice(*STATES, dump_only=True)
    fraction = Number(0, 1, dump_only=True)
    message = Text(dump_only=True)
    created_at = Instant(dump_only=True)

    job = Relationship("job", dump_only=True)


def file_path(artifact_id: object) -> str:
    """Where the content of an artifact is, below PUBLIC_URL."""
    return f"/v1/job-artifacts/{artifact_id}/file"


def _file_url(artifact: Any) -> str:
    return f"{current_app.config['PUBLIC_URL']}{file_path(artifact.id)}"


class ArtifactSchema(Schema):
    """Attributes and relationships of a file that a job made."""

    class Meta:
        type_ = "job-artifact"
        inflect = dasherize

    id = jsonapi_fields.Str(dump_only=True)
    name = Text(dump_only=True)
    media_type = Text(dump_only=True, sorted_as_text=False)
    size = Whole(dump_only=True)
    sha256 = Text(dump_only=True, sorted_as_text=False)
    url = MadeUrl(_file_url)
    partial = Flag(dump_only=True)
    created_at = Instant(dump_only=True)

    job = Relationship("job", dump_only=True)
