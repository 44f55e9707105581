"""The parameter tables name the attributes and relationships of the schemas, in their order."""

import re

import pytest

from app.documents.schemas import DocumentSetSchema
from app.events.schemas import EventSchema
from app.faqs.schemas import FaqSchema, FaqTypeSchema
from app.gallery.schemas import EventImageSchema
from app.hooks.schemas import HookSchema
from app.jobs.schemas import ArtifactSchema, JobEventSchema, JobSchema
from app.jsonapi.naming import dasherize
from app.jsonapi.schema import Schema
from app.treatments.schemas import RegionSchema, SimilaritySchema, TreatmentSchema
from app.uploads.schemas import UploadSchema
from app.users.schemas import UserSchema
from tests.docs.sources import DIRECTORY

ROW = re.compile(r"^\| `([a-z0-9-]+)` \|.*\| (.+) \|$", re.MULTILINE)


def table(file: str, schema: type[Schema]) -> dict[str, str]:
    """The names in the table of a chapter that names most of the schema's, each with its last column."""
    names = {dasherize(name) for name in schema().fields}
    parts = (DIRECTORY / file).read_text().split("\n| Parameter |")[1:]
    tables: list[dict[str, str]] = [dict(ROW.findall(part.partition("\n\n")[0])) for part in parts]
    return max(tables, key=lambda rows: len(names & rows.keys()) - len(rows.keys() - names))


@pytest.mark.parametrize(
    ("file", "schema", "unlisted"),
    [
        ("users.apib", UserSchema, {"id", "events"}),
        ("events.apib", EventSchema, {"id"}),
        ("faq-types.apib", FaqTypeSchema, {"id"}),
        ("faqs.apib", FaqSchema, {"id"}),
        ("event-images.apib", EventImageSchema, {"id"}),
        ("jobs.apib", JobSchema, {"id"}),
        ("jobs.apib", JobEventSchema, {"id"}),
        ("jobs.apib", ArtifactSchema, {"id"}),
        ("hooks.apib", HookSchema, {"id"}),
        ("uploads.apib", UploadSchema, {"id"}),
        ("document-sets.apib", DocumentSetSchema, {"id"}),
        ("treatments.apib", TreatmentSchema, {"id"}),
        ("treatments.apib", RegionSchema, {"id"}),
        ("treatments.apib", SimilaritySchema, {"id"}),
    ],
)
def test_a_table_is_complete(file: str, schema: type[Schema], unlisted: set[str]) -> None:
    expected = [dasherize(name) for name in schema().fields if name not in unlisted]

    assert list(table(file, schema)) == expected


@pytest.mark.parametrize(
    ("file", "schema"),
    [
        ("users.apib", UserSchema),
        ("events.apib", EventSchema),
        ("faq-types.apib", FaqTypeSchema),
        ("faqs.apib", FaqSchema),
        ("event-images.apib", EventImageSchema),
        ("jobs.apib", JobSchema),
        ("jobs.apib", JobEventSchema),
        ("jobs.apib", ArtifactSchema),
        ("hooks.apib", HookSchema),
        ("uploads.apib", UploadSchema),
        ("document-sets.apib", DocumentSetSchema),
        ("treatments.apib", TreatmentSchema),
        ("treatments.apib", RegionSchema),
        ("treatments.apib", SimilaritySchema),
    ],
)
def test_what_is_read_only_is_called_so(file: str, schema: type[Schema]) -> None:
    rows = table(file, schema)
    read_only = {dasherize(name) for name, field in schema().fields.items() if field.dump_only}

    assert {name for name, required in rows.items() if required == "read-only"} == read_only & rows.keys()
