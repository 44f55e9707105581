"""Schemas of treatments and their results."""

from marshmallow_jsonapi import fields as jsonapi_fields

from app.jsonapi.fields import (
    SERVER_MANAGED,
    Boolean,
    DateTime,
    Enum,
    JsonObject,
    Number,
    Relationship,
    ResourceSchema,
    Text,
)
from app.jsonapi.inflection import dasherize
from app.treatments.status import STATUSES
from app.treatments.tasks.regions import MAX_COORDINATE


class TreatmentSchema(ResourceSchema):
    """Attributes and relationships of a treatment."""

    class Meta:
        type_ = "treatment"
        inflect = dasherize

    id = jsonapi_fields.Str(dump_only=True)
    task_type = Text(required=True, sorted_as_text=False)
    api_parameters = JsonObject(load_default=dict)
    notify_email = Boolean()
    status = Enum(*STATUSES, **SERVER_MANAGED)
    tracking_id = Text(sorted_as_text=False, **SERVER_MANAGED)
    created_at = DateTime(dump_only=True)
    deleted_at = DateTime(dump_only=True)

    document_set = Relationship("document-set", required=True, fixed=True)
    job = Relationship("job", dump_only=True)
    requested_by = Relationship("user", dump_only=True)
    retry_of = Relationship("treatment", dump_only=True)
    regions = Relationship("region", many=True, dump_only=True)
    similarities = Relationship("similarity", many=True, dump_only=True)


class RegionSchema(ResourceSchema):
    """Attributes and relationships of a region, in pixels of the image."""

    class Meta:
        type_ = "region"
        inflect = dasherize

    document = Text(dump_only=True, sorted_as_text=False)
    source = Text(dump_only=True)
    x = Number(0, MAX_COORDINATE, dump_only=True)
    y = Number(0, MAX_COORDINATE, dump_only=True)
    width = Number(0, MAX_COORDINATE, dump_only=True)
    height = Number(0, MAX_COORDINATE, dump_only=True)

    treatment = Relationship("treatment", dump_only=True)


class SimilaritySchema(ResourceSchema):
    """Attributes and relationships of a similarity of two documents."""

    class Meta:
        type_ = "similarity"
        inflect = dasherize

    document = Text(dump_only=True, sorted_as_text=False)
    a = Text(dump_only=True, sorted_as_text=False)
    b = Text(dump_only=True, sorted_as_text=False)
    score = Number(0, 1, dump_only=True)

    treatment = Relationship("treatment", dump_only=True)
