"""The default order of FAQs for admins too, who see the trash: an index over all of them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

NAME, OTHER = "ix_faqs_position_id", "ix_faqs_position_id_new"


def upgrade() -> None:
    _replace(where=None)


def downgrade() -> None:
    _replace(where=sa.text("deleted_at IS NULL"))


def _replace(where: sa.TextClause | None) -> None:
    """On a live system: writes wait while the new index is built, reads only for the moment in which names change."""
    op.create_index(OTHER, "faqs", ["position", "id"], postgresql_where=where)
    op.drop_index(NAME, table_name="faqs")
    op.execute(f"ALTER INDEX {OTHER} RENAME TO {NAME}")
