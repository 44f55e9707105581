"""Alembic environment: the database and the models of the current app."""

import logging
from time import sleep
from typing import Any

from alembic import context
from alembic.operations.ops import CreateIndexOp, ModifyTableOps
from flask import current_app
from sqlalchemy import Connection, literal_column, text

MIGRATION_LOCK = 5_041_977
"""Key of the advisory lock: if several servers migrate at the same time, one does it while the others wait."""

LOCK_INTERVAL_SECONDS = 0.2

# report_revision prints the revisions instead.
logging.getLogger("alembic").setLevel(logging.WARNING)

db = current_app.extensions["migrate"].db
options: dict[str, Any] = {
    "target_metadata": db.metadata,
    "compare_type": True,
    "compare_server_default": True,
    "on_version_apply": lambda step, **_: report_revision(step),
}


def report_revision(step: Any) -> None:
    """Print a line for the revision, or append its id to the list of `manage.py prepare`."""
    if (applied := context.config.attributes.get("applied")) is not None:
        applied.append(step.up_revision_id)
        return
    verb = "upgraded to" if step.is_upgrade else "downgraded from"
    context.config.print_stdout(f"{verb} {step.up_revision_id}")


def run_offline() -> None:
    """Print the SQL of the migrations (`db upgrade --sql`)."""
    context.configure(dialect_name="postgresql", literal_binds=True, **options)
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    """Migrate; each revision is a transaction, except those that build indexes concurrently or change many rows."""
    with db.engine.connect() as connection:
        try:
            acquire_migration_lock(connection)
            # On a live system: changing a table in use must fail after some seconds, not block its readers.
            connection.execute(text("SET statement_timeout = 0; SET lock_timeout = '10s'"))
            connection.commit()
            context.configure(
                connection=connection,
                process_revision_directives=number_revision,
                transaction_per_migration=True,
                **options,
            )
            with context.begin_transaction():
                context.run_migrations()
        finally:
            connection.invalidate()  # releases the lock and the settings, also after an error


def acquire_migration_lock(connection: Connection) -> None:
    """Wait for the lock outside a transaction: CREATE INDEX CONCURRENTLY waits for all open transactions."""
    while not connection.scalar(text(f"SELECT pg_try_advisory_lock({MIGRATION_LOCK})")):
        connection.rollback()
        sleep(LOCK_INTERVAL_SECONDS)
    connection.commit()


def number_revision(_context: object, _revision: object, directives: list[Any]) -> None:
    """Number a new revision of `db migrate`; write none if the models have not changed."""
    script = directives[0]
    if getattr(context.config.cmd_opts, "autogenerate", False) and script.upgrade_ops.is_empty():
        directives.clear()
        context.config.print_stdout("The models have not changed.")
    else:
        collate_sort_keys(script.upgrade_ops.ops)
        script.rev_id = f"{max(int(each.revision) for each in context.script.walk_revisions()) + 1:04}"


def collate_sort_keys(operations: list[Any]) -> None:
    """Add the collation of the queries to new indexes over `text_sort_key`.

    It is not in the models: Alembic does not read it from the database and would always find a difference.
    """
    for each in operations:
        if isinstance(each, CreateIndexOp):
            each.columns = [
                literal_column(f'{column} COLLATE "C"') if str(column).startswith("text_sort_key(") else column
                for column in each.columns
            ]
        elif isinstance(each, ModifyTableOps):
            collate_sort_keys(each.ops)


if context.is_offline_mode():
    run_offline()
else:
    run_online()
