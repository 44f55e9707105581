"""The parameter tables name the attributes and relationships of the schemas, in their order."""

import re

import pytest

from app.events.schemas import EventSchema
from app.faqs.schemas import FaqSchema, FaqTypeSchema
from app.gallery.schemas import EventImageSchema
from app.jsonapi.naming import dasherize
from app.jsonapi.schema import Schema
from app.users.schemas import UserSchema
from tests.docs.sources import DIRECTORY


@pytest.mark.parametrize(
    ("file", "schema", "unlisted"),
    [
        ("users.apib", UserSchema, {"id", "events"}),
        ("events.apib", EventSchema, {"id"}),
        ("faq-types.apib", FaqTypeSchema, {"id"}),
        ("faqs.apib", FaqSchema, {"id"}),
        ("event-images.apib", EventImageSchema, {"id"}),
    ],
)
def test_a_table_is_complete(file: str, schema: type[Schema], unlisted: set[str]) -> None:
    named = re.findall(r"^\| `([a-z0-9-]+)` \|", (DIRECTORY / file).read_text(), re.MULTILINE)

    assert named == [dasherize(name) for name in schema().fields if name not in unlisted]


@pytest.mark.parametrize(
    ("file", "schema"),
    [
        ("users.apib", UserSchema),
        ("events.apib", EventSchema),
        ("faq-types.apib", FaqTypeSchema),
        ("faqs.apib", FaqSchema),
        ("event-images.apib", EventImageSchema),
    ],
)
def test_what_is_read_only_is_called_so(file: str, schema: type[Schema]) -> None:
    text = (DIRECTORY / file).read_text()
    named = set(re.findall(r"^\| `([a-z0-9-]+)` \|.*\| read-only \|$", text, re.MULTILINE))

    assert named == {
        dasherize(name) for name, field in schema().fields.items() if field.dump_only and name not in ("id", "events")
    }
