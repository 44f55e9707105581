"""Ownership that is offered to a user and not accepted yet."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

INDEX = "ix_events_pending_owner_id"
FOREIGN_KEY = "fk_events_pending_owner_id_users"


def upgrade() -> None:
    # Running it again goes on where it stopped: what stands before the block is kept when the block fails.
    op.execute("ALTER TABLE events ADD COLUMN IF NOT EXISTS pending_owner_id BIGINT")
    op.execute(f"ALTER TABLE events DROP CONSTRAINT IF EXISTS {FOREIGN_KEY}")
    # Not checked at once, which would keep writers of both tables waiting; there is no value yet that could be wrong.
    op.create_foreign_key(FOREIGN_KEY, "events", "users", ["pending_owner_id"], ["id"], postgresql_not_valid=True)
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute(f"ALTER TABLE events VALIDATE CONSTRAINT {FOREIGN_KEY}")
        # One that failed half-way is there, and not valid.
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}")
        op.execute(f"CREATE INDEX CONCURRENTLY {INDEX} ON events (pending_owner_id)")
        op.execute("SET lock_timeout = '10s'")


def downgrade() -> None:
    op.drop_column("events", "pending_owner_id")
