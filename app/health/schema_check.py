"""Whether the tables are those that the code maps."""

from functools import cached_property

from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import Connection, column, select, table
from sqlalchemy.exc import ProgrammingError

from app.extensions import db
from app.health.probes import Unhealthy


class SchemaCheck:
    """Compares the database with the migrations and the models of this code."""

    def __init__(self, app: Flask) -> None:
        self.directory = app.extensions["migrate"].directory
        self.tables = tuple(db.metadata.sorted_tables)
        self._verified_revisions: frozenset[str] | None = None

    @cached_property
    def _scripts(self) -> ScriptDirectory:
        return ScriptDirectory(self.directory)

    @cached_property
    def _heads(self) -> frozenset[str]:
        return frozenset(self._scripts.get_heads())

    @cached_property
    def _all_revisions(self) -> frozenset[str]:
        return frozenset(script.revision for script in self._scripts.walk_revisions())

    def check_schema(self, connection: Connection) -> str:
        """Raises Unhealthy when a migration is missing, or a table lacks what a model maps."""
        found = _read_revisions(connection)
        # A revision that this code does not know is that of newer code: fine while it rolls out.
        if not found or (found <= self._all_revisions and found != self._heads):
            raise Unhealthy(
                f"the database is at {_format_revisions(found)}, the code wants {_format_revisions(self._heads)}"
            )
        if found != self._verified_revisions:  # once for each revision: too dear for every probe
            self._select_all_tables(connection)
            self._verified_revisions = found
        return f"at {_format_revisions(found)}"

    def _select_all_tables(self, connection: Connection) -> None:
        for mapped in self.tables:
            try:
                connection.execute(select(mapped).limit(0))
            except ProgrammingError:
                raise Unhealthy(f"table {mapped.name} lacks what the code maps: a migration is missing") from None


def _read_revisions(connection: Connection) -> frozenset[str]:
    """Where the database is; read as Alembic reads it, without a line in the log each time."""
    try:
        return frozenset(connection.scalars(select(column("version_num")).select_from(table("alembic_version"))))
    except ProgrammingError:
        raise Unhealthy("the database has no tables yet") from None


def _format_revisions(revisions: frozenset[str]) -> str:
    return ", ".join(sorted(revisions)) or "no revision"
