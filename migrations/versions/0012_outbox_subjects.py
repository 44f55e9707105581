"""Entries of the outbox say what they are about, so that a consumer can merge those of one subject."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

INDEX = "ix_outbox_entries_subject"


def upgrade() -> None:
    # Entries that are there, and those that servers of the version before still write, have no subject: each is acted on.
    op.add_column("outbox_entries", sa.Column("subject", sa.Text(), nullable=True))
    with _autocommit():
        # One that failed half-way is there, and not valid.
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}")
        op.execute(
            f"CREATE INDEX CONCURRENTLY {INDEX} ON outbox_entries (consumer, subject)"
            " WHERE subject IS NOT NULL AND done_at IS NULL AND dead_at IS NULL"
        )


def downgrade() -> None:
    with _autocommit():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}")
    op.drop_column("outbox_entries", "subject")


@contextmanager
def _autocommit() -> Iterator[None]:
    """Run each statement as a transaction: an index waits for older transactions without blocking others."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        yield
        op.execute("SET lock_timeout = '10s'")
