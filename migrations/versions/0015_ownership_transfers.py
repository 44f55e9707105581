"""Ownership that is offered to a user and not accepted yet."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0011"
branch_labels = None
depends_on = None

FOREIGN_KEY = "fk_events_pending_owner_id_users"


def upgrade() -> None:
    op.add_column("events", sa.Column("pending_owner_id", sa.BigInteger(), nullable=True))
    # Not checked at once, which would keep writers of both tables waiting; there is no value yet that could be wrong.
    op.create_foreign_key(FOREIGN_KEY, "events", "users", ["pending_owner_id"], ["id"], postgresql_not_valid=True)
    with op.get_context().autocommit_block():
        op.execute(f"ALTER TABLE events VALIDATE CONSTRAINT {FOREIGN_KEY}")


def downgrade() -> None:
    op.drop_column("events", "pending_owner_id")
