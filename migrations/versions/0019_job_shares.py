"""Shares of owners in the workers: the share and the hook of a job, when each share was last served, and bytes that were sent.

On a live system: columns without a rewrite, live jobs updated (ended ones need no share).
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("share", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("jobs", sa.Column("hook_id", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("input_bytes", sa.BigInteger(), nullable=True))
    op.create_table(
        "job_shares",
        sa.Column("share", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("served_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("share", name=op.f("pk_job_shares")),
    )
    op.create_table(
        "daily_bytes",
        sa.Column("share", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("share", "day", name=op.f("pk_daily_bytes")),
    )
    op.execute("UPDATE jobs SET share = owner_id WHERE finished_at IS NULL AND owner_id IS NOT NULL")


def downgrade() -> None:
    op.drop_table("daily_bytes")
    op.drop_table("job_shares")
    op.drop_column("jobs", "input_bytes")
    op.drop_column("jobs", "hook_id")
    op.drop_column("jobs", "share")
