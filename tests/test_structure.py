"""What holds for the house as a whole."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask

import config
from app.extensions import db
from app.outbox import CONSUMERS
from app.routes import listed
from app.worker import QUEUES

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


def test_the_env_example_lists_every_setting() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    named = [line.lstrip("# ").partition("=")[0] for line in lines if "=" in line]

    assert [setting.name for setting in config.SETTINGS] == [
        name for name in named if name in {setting.name for setting in config.SETTINGS}
    ]
    for setting in config.SETTINGS:
        assert any(setting.meaning in line for line in lines), setting.name


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
