"""Whether the tables are those that the code maps."""

from functools import cached_property

from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import Connection, column, select, table
from sqlalchemy.exc import ProgrammingError

from app.extensions import db
from app.health.probes import Unhealthy


class Schema:
    """Compares the database with the migrations and the models of this code."""

    def __init__(self, app: Flask) -> None:
        self.directory = app.extensions["migrate"].directory
        self.tables = tuple(db.metadata.sorted_tables)
        self._found_whole: frozenset[str] | None = None

    @cached_property
    def _scripts(self) -> ScriptDirectory:
        return ScriptDirectory(self.directory)

    @cached_property
    def _heads(self) -> frozenset[str]:
        return frozenset(self._scripts.get_heads())

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(script.revision for script in self._scripts.walk_revisions())

    def check(self, connection: Connection) -> str:
        """Raises Unhealthy when a migration is missing, or a table lacks what a model maps."""
        found = _revisions(connection)
        # A revision that this code does not know is that of newer code: fine while it rolls out.
        if not found or (found <= self._known and found != self._heads):
            raise Unhealthy(f"the database is at {_listed(found)}, the code wants {_listed(self._heads)}")
        if found != self._found_whole:  # once for each revision: too dear for every probe
            self._select_everything(connection)
            self._found_whole = found
        return f"at {_listed(found)}"

    def _select_everything(self, connection: Connection) -> None:
        for mapped in self.tables:
            try:
                connection.execute(select(mapped).limit(0))
            except ProgrammingError:
                raise Unhealthy(f"table {mapped.name} lacks what the code maps: a migration is missing") from None


def _revisions(connection: Connection) -> frozenset[str]:
    """Where the database is; read as Alembic reads it, without a line in the log each time."""
    try:
        return frozenset(connection.scalars(select(column("version_num")).select_from(table("alembic_version"))))
    except ProgrammingError:
        raise Unhealthy("the database has no tables yet") from None


def _listed(revisions: frozenset[str]) -> str:
    return ", ".join(sorted(revisions)) or "no revision"
