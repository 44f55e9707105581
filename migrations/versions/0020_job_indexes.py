"""Indexes by which workers find the next job of each share, and rows are found by the file that they name.

On a live system: built concurrently; an index that failed half-way is dropped and built again.
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_jobs_share_queued_at_id": "jobs (share, queued_at, id) WHERE state = 'queued'",
    "ix_uploads_stored_as": "uploads (stored_as)",
    "ix_event_images_stored_as": "event_images (stored_as)",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")  # it waits for older transactions without being in anybody's way
        for name, definition in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {definition}")
        op.execute("SET lock_timeout = '10s'")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX IF EXISTS {name}")
