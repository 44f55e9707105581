"""Check that the tables in the database match the models of this version."""

from functools import cached_property

from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import Connection, column, select, table
from sqlalchemy.exc import ProgrammingError

from app.extensions import db
from app.health.probes import Unhealthy


class SchemaCheck:
    """Comparison of the database with the migrations and the models of this version."""

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
        """Return the revision of the database; raise Unhealthy if a migration or a mapped column is missing."""
        current = _read_revisions(connection)
        # An unknown revision comes from a newer version: allowed while that is being rolled out.
        if not current or (current <= self._all_revisions and current != self._heads):
            raise Unhealthy(
                f"the database is at {_format_revisions(current)}, the code needs {_format_revisions(self._heads)}"
            )
        if current != self._verified_revisions:  # once for each revision: too expensive for every probe
            self._select_all_tables(connection)
            self._verified_revisions = current
        return f"at {_format_revisions(current)}"

    def _select_all_tables(self, connection: Connection) -> None:
        for mapped in self.tables:
            try:
                connection.execute(select(mapped).limit(0))
            except ProgrammingError:
                raise Unhealthy(f"table {mapped.name} does not match its model: a migration is missing") from None


def _read_revisions(connection: Connection) -> frozenset[str]:
    """Return the revisions in the table of Alembic, without the log line that Alembic writes."""
    try:
        return frozenset(connection.scalars(select(column("version_num")).select_from(table("alembic_version"))))
    except ProgrammingError:
        raise Unhealthy("the database has no tables yet") from None


def _format_revisions(revisions: frozenset[str]) -> str:
    return ", ".join(sorted(revisions)) or "no revision"
