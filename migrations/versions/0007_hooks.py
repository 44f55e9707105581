"""Inbound hooks."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('hooks',
    sa.Column('id', sa.BigInteger(), nullable=False),
    sa.Column('name', sa.Text(), nullable=True),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('parameters', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('enabled', sa.Boolean(), server_default=sa.text('true'), nullable=False),
    sa.Column('signed', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('token_hash', sa.LargeBinary(), nullable=True),
    sa.Column('owner_id', sa.BigInteger(), nullable=False),
    sa.Column('event_id', sa.BigInteger(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('last_called_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('deleted_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['event_id'], ['events.id'], name=op.f('fk_hooks_event_id_events')),
    sa.ForeignKeyConstraint(['owner_id'], ['users.id'], name=op.f('fk_hooks_owner_id_users')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_hooks')),
    sa.UniqueConstraint('token_hash', name=op.f('uq_hooks_token_hash'))
    )
    op.create_index('ix_hooks_event_id_id', 'hooks', ['event_id', 'id'], unique=False)
    op.create_index('ix_hooks_owner_id_id', 'hooks', ['owner_id', 'id'], unique=False)


def downgrade() -> None:
    op.drop_index('ix_hooks_owner_id_id', table_name='hooks')
    op.drop_index('ix_hooks_event_id_id', table_name='hooks')
    op.drop_table('hooks')
