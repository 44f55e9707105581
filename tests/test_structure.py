"""Rules for the repository as a whole: permissions, migrations, indexes, layers and places of resources.

`tests/docs` compares the routes with the blueprint, `test_config` the settings with `.env.example`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import ForeignKey, MetaData, Table, text
from sqlalchemy.orm import Mapped, mapped_column, registry

from app.extensions import db
from app.jsonapi.fields import Relationship, ResourceSchema, Text
from app.jsonapi.permissions import Permissions
from app.jsonapi.resource_type import TYPES, ResourceType
from app.outbox import CONSUMERS
from app.processes.worker_nodes import QUEUES
from app.routes import list_routes
from tests.resource_places import (
    list_documented_layers,
    list_foreign_keys_without_index,
    list_indexes_without_collation,
    list_layers,
    list_missing_places,
)

ROOT = Path(__file__).resolve().parent.parent


def test_every_route_has_a_permission(app: Flask) -> None:
    without = [
        (route["path"], method)
        for route in list_routes(app)
        for method, permission in route["permissions"].items()
        if permission == "none"
    ]

    assert without == []


def test_every_queue_has_a_worker(app: Flask) -> None:
    assert {consumer.queue for consumer in CONSUMERS.values()} <= set(QUEUES)


def test_every_consumer_is_a_celery_task(app: Flask) -> None:
    assert CONSUMERS.keys() <= app.extensions["celery"].tasks.keys()


def test_there_is_one_migration_head() -> None:
    alembic = Config()
    alembic.set_main_option("script_location", str(ROOT / "migrations"))

    assert len(ScriptDirectory.from_config(alembic).get_heads()) == 1


def test_models_equal_migrations(app: Flask) -> None:
    with app.app_context(), db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        differences = compare_metadata(context, db.metadata)

    assert differences == []


@pytest.mark.parametrize("name", ["utils", "helpers", "common", "services", "service", "core", "misc"])
def test_no_catch_all_modules(name: str) -> None:
    assert not [path for path in (ROOT / "app").rglob("*") if path.stem == name]


def test_every_foreign_key_has_an_index(app: Flask) -> None:
    without = {table.name: list_foreign_keys_without_index(table) for table in db.metadata.sorted_tables}

    assert {name: keys for name, keys in without.items() if keys} == {}


def test_layers_in_the_architecture_page_are_those_of_the_import_contract() -> None:
    assert list_documented_layers() == list_layers()


@pytest.mark.parametrize("type_", TYPES.values(), ids=lambda type_: type_.name)
def test_new_resource_is_complete(app: Flask, type_: ResourceType) -> None:
    if missing := [*list_missing_places(type_, app)]:
        pytest.fail(f"{type_.noun} is missing in:\n" + "\n".join(missing), pytrace=False)


class SpeakerSchema(ResourceSchema):
    """Base of the incomplete resource type."""

    class Meta:
        type_ = "speaker"

    name = Text(required=True)
    event = Relationship("event", required=True, fixed=True)


@pytest.fixture
def incomplete_type() -> Iterator[ResourceType]:
    """Yield a type in a package of its own, without an index, a migration, routes and tests."""
    tables = registry(metadata=MetaData())

    @tables.mapped
    class Speaker:
        __module__ = "app.speakers.models"
        __tablename__ = "speakers"

        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        event_id: Mapped[int] = mapped_column(ForeignKey("events.id"))

    about = {"plural": "speakers", "noun": "a speaker", "description": "People who speak."}
    yield ResourceType(schema=SpeakerSchema, model=Speaker, permissions=Permissions(), **about)
    del TYPES["speaker"]


def test_index_over_sort_keys_without_collation_is_reported(app: Flask) -> None:
    table = Table("unsorted", MetaData())
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(text("CREATE TABLE unsorted (name text, title text)"))
        connection.execute(text('CREATE INDEX usable ON unsorted ((text_sort_key(name) COLLATE "C"))'))
        connection.execute(text("CREATE INDEX unusable ON unsorted (text_sort_key(title))"))
    try:
        assert list_indexes_without_collation(table, app) == ["unusable"]
    finally:
        with app.app_context(), db.engine.begin() as connection:
            connection.execute(text("DROP TABLE unsorted"))


def test_incomplete_resource_is_reported_with_every_missing_place(app: Flask, incomplete_type: ResourceType) -> None:
    assert [*list_missing_places(incomplete_type, app)] == [
        "pyproject.toml: add `speakers` to a layer of the first import contract",
        "docs/architecture.md: add `speakers` to the same line as in pyproject.toml",
        'app/speakers/models.py: add Index("ix_speakers_event_id_id", "event_id", "id")',
        "migrations/versions/: run `manage.py db migrate -m speakers`",
        "app/speakers/resources.py: add route(api) with the URLs below /v1/speakers",
        "tests/speakers/: add __init__.py and test_speakers.py",
        "tests/dataset.py: add a row of a speaker to World.background",
    ]
