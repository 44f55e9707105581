"""The images of an event's gallery."""

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('event_images',
    sa.Column('id', sa.BigInteger(), nullable=False),
    sa.Column('event_id', sa.BigInteger(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('stored_as', sa.Text(), nullable=False),
    sa.Column('media_type', sa.Text(), nullable=False),
    sa.Column('width', sa.BigInteger(), nullable=False),
    sa.Column('height', sa.BigInteger(), nullable=False),
    sa.Column('size', sa.BigInteger(), nullable=False),
    sa.Column('sha256', sa.Text(), nullable=False),
    sa.Column('source_sha256', sa.Text(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('deleted_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['event_id'], ['events.id'], name=op.f('fk_event_images_event_id_events')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_event_images')),
    sa.UniqueConstraint('event_id', 'sha256', name=op.f('uq_event_images_event_id_sha256')),
    sa.UniqueConstraint('event_id', 'source_sha256', name=op.f('uq_event_images_event_id_source_sha256'))
    )
    op.create_index('ix_event_images_event_id_id', 'event_images', ['event_id', 'id'], unique=False)


def downgrade() -> None:
    op.drop_index('ix_event_images_event_id_id', table_name='event_images')
    op.drop_table('event_images')
