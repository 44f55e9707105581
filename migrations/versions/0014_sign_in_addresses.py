"""Remember, hashed, from which address an account logged in: it is not locked out there by tries from elsewhere."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sign_ins", sa.Column("address_key", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    op.drop_column("sign_ins", "address_key")
