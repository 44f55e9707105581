"""The parameter tables name the attributes and relationships of the schemas, in their order."""

import re

import pytest

from app.jsonapi.inflection import dasherize
from app.jsonapi.resource_type import TYPES, ResourceType
from tests.docs.blueprint_sources import read_blueprint

ROW = re.compile(r"^\| `([a-z0-9-]+)` \|.*\| (.+) \|$", re.MULTILINE)


ATTRIBUTES_WITHOUT_ROW = {"user": {"id", "events"}}
"""Attributes that are in no table, by type; of other types only the id."""


def find_attribute_table(type_: ResourceType) -> dict[str, str]:
    """Return the attributes, with the last column, of the table that lists most attributes of the type."""
    names = {dasherize(name) for name in type_.loader.declared_fields}
    parts = read_blueprint().split("\n| Parameter |")[1:]
    tables: list[dict[str, str]] = [dict(ROW.findall(part.partition("\n\n")[0])) for part in parts]
    return max(tables, key=lambda rows: len(names & rows.keys()) - len(rows.keys() - names))


@pytest.mark.parametrize("type_", TYPES.values(), ids=lambda type_: type_.name)
def test_attribute_table_lists_every_attribute(type_: ResourceType) -> None:
    unlisted = ATTRIBUTES_WITHOUT_ROW.get(type_.name, {"id"})
    expected = [dasherize(name) for name in type_.loader.declared_fields if name not in unlisted]

    assert list(find_attribute_table(type_)) == expected


@pytest.mark.parametrize("type_", TYPES.values(), ids=lambda type_: type_.name)
def test_attribute_table_marks_read_only_attributes(type_: ResourceType) -> None:
    rows = find_attribute_table(type_)
    read_only = {dasherize(name) for name, field in type_.loader.declared_fields.items() if field.dump_only}

    assert {name for name, required in rows.items() if required == "read-only"} == read_only & rows.keys()
