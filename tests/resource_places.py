"""Places outside its package that a new resource needs."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

from flask import Flask
from sqlalchemy import PrimaryKeyConstraint, Table, UniqueConstraint, inspect, text

from app.events.permissions import list_types_of_events
from app.extensions import db
from app.jsonapi.resource_type import ResourceType
from app.routes import list_routes
from tests.docs.blueprint_sources import list_actions, strip_parameter_names

ROOT = Path(__file__).resolve().parent.parent


def list_missing_places(type_: ResourceType, app: Flask) -> Iterator[str]:
    """Yield a line for each place where this type is missing, with what to write there."""
    package = type_.model.__module__.split(".")[1]
    if not any(package in line.split(" | ") for line in list_layers()):
        yield f"pyproject.toml: add `{package}` to a layer of the first import contract"
    if not any(package in line.split(" | ") for line in list_documented_layers()):
        yield f"docs/architecture.md: add `{package}` to the same line as in pyproject.toml"
    for name in list_foreign_keys_without_index(type_.table):
        yield f'app/{package}/models.py: add Index("ix_{type_.table.name}_{name}_id", "{name}", "id")'
    if not is_migrated(type_.table, app):
        yield f"migrations/versions/: run `manage.py db migrate -m {type_.table.name}`"
    elif names := list_indexes_without_collation(type_.table, app):
        yield f'migrations/versions/: write `text_sort_key(...) COLLATE "C"` in {", ".join(names)}'
    yield from _list_missing_routes(type_, package, app)
    if not list((ROOT / "tests" / package).glob("test_*.py")):
        yield f"tests/{package}/: add __init__.py and test_{package}.py"
    if type_ not in list_types_of_events() and f'"{type_.name}"' not in (ROOT / "tests/dataset.py").read_text():
        yield f"tests/dataset.py: add a row of {type_.noun} to World.background"


def list_layers() -> list[str]:
    """Return the layers of the contract for all packages."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers: list[str] = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    return layers


def list_documented_layers() -> list[str]:
    """Return the layers as the architecture page shows them."""
    section = (ROOT / "docs/architecture.md").read_text().partition("\n## Who may import whom\n")[2]
    return section.split("\n```\n")[1].splitlines()


def is_migrated(table: Table, app: Flask) -> bool:
    """Return whether the migrations have made this table."""
    with app.app_context():
        return inspect(db.engine).has_table(table.name)


def list_indexes_without_collation(table: Table, app: Flask) -> list[str]:
    """Return the indexes over sort keys of texts that no query can use for its order."""
    statement = text(
        "SELECT indexname FROM pg_indexes WHERE tablename = :table AND indexdef ~ :key AND indexdef !~ :order"
    )
    values = {"table": table.name, "key": r"text_sort_key\(", "order": r'text_sort_key\(\w+\)\)? COLLATE "C"'}
    with app.app_context(), db.engine.connect() as connection:
        return list(connection.scalars(statement, values))


def list_foreign_keys_without_index(table: Table) -> list[str]:
    """Return the foreign keys that no index, unique constraint or primary key begins with."""
    constraints = [each for each in table.constraints if isinstance(each, PrimaryKeyConstraint | UniqueConstraint)]
    leading = {next(iter(each.columns)).name for each in (*table.indexes, *constraints) if len(each.columns)}
    return sorted(key.parent.name for key in table.foreign_keys if key.parent.name not in leading)


def _list_missing_routes(type_: ResourceType, package: str, app: Flask) -> Iterator[str]:
    served = [route for route in list_routes(app) if f"{route['path']}/".startswith(f"{type_.path}/")]
    if not served:
        yield f"app/{package}/resources.py: add route(api) with the URLs below {type_.path}"
    described = {(action.method, action.path) for action in list_actions()}
    for route in served:
        for method in route["methods"]:
            if (method, strip_parameter_names(route["path"])) not in described:
                yield (
                    f"docs/api-blueprint/: describe {method} {route['path']}; "
                    f"`python -m tests.docs.chapter {type_.plural}` drafts a chapter"
                )
