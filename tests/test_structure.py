"""What holds for the house as a whole.

`tests/docs` holds routes and blueprint together, `test_config` the settings and `.env.example`.
"""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask

from app.extensions import db
from app.outbox import CONSUMERS
from app.processes.nodes import QUEUES
from app.routes import listed

ROOT = Path(__file__).resolve().parent.parent


def test_every_route_has_a_permission(app: Flask) -> None:
    without = [
        (route["path"], method)
        for route in listed(app)
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
def test_no_drawer_for_everything(name: str) -> None:
    assert not [path for path in (ROOT / "app").rglob("*") if path.stem == name]


def test_every_foreign_key_has_an_index(app: Flask) -> None:
    without = []
    for table in db.metadata.sorted_tables:
        indexed = {next(iter(index.columns)).name for index in table.indexes if len(index.columns)}
        indexed |= {next(iter(constraint.columns)).name for constraint in table.constraints if len(constraint.columns)}
        without += [f"{table.name}.{key.parent.name}" for key in table.foreign_keys if key.parent.name not in indexed]

    assert without == []
