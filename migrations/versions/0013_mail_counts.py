"""Count the mails of each kind that a mailbox gets on a day."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mail_counts",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("mailbox", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("sent", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "mailbox", "kind", name=op.f("pk_mail_counts")),
    )


def downgrade() -> None:
    op.drop_table("mail_counts")
