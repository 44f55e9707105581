"""What Alembic runs by: the database and the models of the current app."""

import logging
from time import sleep
from typing import Any

from alembic import context
from alembic.operations.ops import CreateIndexOp, ModifyTableOps
from flask import current_app
from sqlalchemy import Connection, literal_column, text

MIGRATION_LOCK = 5_041_977
"""Advisory lock: of several servers that migrate at once one does, the others wait and find nothing to do."""

LOCK_INTERVAL_SECONDS = 0.2

# What people want to know is printed below.
logging.getLogger("alembic").setLevel(logging.WARNING)

db = current_app.extensions["migrate"].db
options: dict[str, Any] = {
    "target_metadata": db.metadata,
    "compare_type": True,
    "compare_server_default": True,
    "on_version_apply": lambda step, **_: report_revision(step),
}


def report_revision(step: Any) -> None:
    """Print one line for each revision, or append it to the list that `manage.py prepare` gave."""
    if (applied := context.config.attributes.get("applied")) is not None:
        applied.append(step.up_revision_id)
        return
    verb = "upgraded to" if step.is_upgrade else "downgraded from"
    context.config.print_stdout(f"{verb} {step.up_revision_id}")


def run_offline() -> None:
    """Print the SQL (`db upgrade --sql`)."""
    context.configure(dialect_name="postgresql", literal_binds=True, **options)
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    """Migrate: each revision is a transaction, except where it says that it builds indexes or changes many rows."""
    with db.engine.connect() as connection:
        try:
            acquire_migration_lock(connection)
            # On a live system: a change of a table that is in use fails soon rather than holding up its readers.
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
            connection.invalidate()  # with its lock and its settings, whatever has happened


def acquire_migration_lock(connection: Connection) -> None:
    """Wait until no other server migrates, outside of a transaction: an index that is built there would wait for it."""
    while not connection.scalar(text(f"SELECT pg_try_advisory_lock({MIGRATION_LOCK})")):
        connection.rollback()
        sleep(LOCK_INTERVAL_SECONDS)
    connection.commit()


def number_revision(_context: object, _revision: object, directives: list[Any]) -> None:
    """`db migrate` numbers its revisions and writes none when the models have not changed."""
    script = directives[0]
    if getattr(context.config.cmd_opts, "autogenerate", False) and script.upgrade_ops.is_empty():
        directives.clear()
        context.config.print_stdout("The models have not changed.")
    else:
        collate_sort_keys(script.upgrade_ops.ops)
        script.rev_id = f"{max(int(each.revision) for each in context.script.walk_revisions()) + 1:04}"


def collate_sort_keys(operations: list[Any]) -> None:
    """Add the collation that queries sort by to new indexes over `text_sort_key`: models name none.

    Alembic does not see it in the database and would find a difference each time.
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
