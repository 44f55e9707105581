"""Hooks name the parameters that a call may set; NULL, as for all hooks of before, allows all that are not fixed."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("hooks", sa.Column("allowed_parameters", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("hooks", "allowed_parameters")
