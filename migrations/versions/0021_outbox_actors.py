"""Actors of outbox entries, by which the relay takes turns, and since when an account has an address that was changed.

On a live system: columns without a rewrite, indexes built concurrently. Entries that are there, and those that servers of
the version before still write, count for the system.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

OPEN = "done_at IS NULL AND dead_at IS NULL"
INDEXES = {
    "ix_outbox_entries_turns": f"(consumer, actor, next_at) WHERE {OPEN}",
    "ix_outbox_entries_published": f"(consumer, actor) WHERE published_at IS NOT NULL AND {OPEN}",
}


def upgrade() -> None:
    op.add_column("outbox_entries", sa.Column("actor", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("outbox_entries", sa.Column("published_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("users", sa.Column("email_changed_at", sa.DateTime(timezone=True), nullable=True))
    with _autocommit():
        for name, definition in INDEXES.items():
            # One that failed half-way is there, and not valid.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON outbox_entries {definition}")


def downgrade() -> None:
    with _autocommit():
        for name in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.drop_column("users", "email_changed_at")
    op.drop_column("outbox_entries", "published_at")
    op.drop_column("outbox_entries", "actor")


@contextmanager
def _autocommit() -> Iterator[None]:
    """Run each statement as a transaction: an index waits for older transactions without blocking others."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        yield
        op.execute("SET lock_timeout = '10s'")
