"""Document sets, uploads and treatments, what processors say, and the secrets of jobs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('document_sets',
    sa.Column('id', sa.BigInteger(), nullable=False),
    sa.Column('title', sa.Text(), nullable=False),
    sa.Column('owner_id', sa.BigInteger(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('deleted_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['owner_id'], ['users.id'], name=op.f('fk_document_sets_owner_id_users')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_document_sets'))
    )
    op.create_index('ix_document_sets_owner_id_id', 'document_sets', ['owner_id', 'id'], unique=False)
    op.create_table('uploads',
    sa.Column('id', sa.BigInteger(), nullable=False),
    sa.Column('stored_as', sa.Text(), nullable=False),
    sa.Column('media_type', sa.Text(), nullable=False),
    sa.Column('width', sa.BigInteger(), nullable=False),
    sa.Column('height', sa.BigInteger(), nullable=False),
    sa.Column('size', sa.BigInteger(), nullable=False),
    sa.Column('owner_id', sa.BigInteger(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('deleted_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['owner_id'], ['users.id'], name=op.f('fk_uploads_owner_id_users')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_uploads')),
    sa.UniqueConstraint('owner_id', 'stored_as', name=op.f('uq_uploads_owner_id_stored_as'))
    )
    op.create_index('ix_uploads_owner_id_id', 'uploads', ['owner_id', 'id'], unique=False)
    op.create_table('document_set_events',
    sa.Column('document_set_id', sa.BigInteger(), nullable=False),
    sa.Column('event_id', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['document_set_id'], ['document_sets.id'], name=op.f('fk_document_set_events_document_set_id_document_sets'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['event_id'], ['events.id'], name=op.f('fk_document_set_events_event_id_events')),
    sa.PrimaryKeyConstraint('document_set_id', 'event_id', name=op.f('pk_document_set_events'))
    )
    op.create_index(op.f('ix_document_set_events_event_id'), 'document_set_events', ['event_id'], unique=False)
    op.create_table('document_set_uploads',
    sa.Column('document_set_id', sa.BigInteger(), nullable=False),
    sa.Column('upload_id', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['document_set_id'], ['document_sets.id'], name=op.f('fk_document_set_uploads_document_set_id_document_sets'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['upload_id'], ['uploads.id'], name=op.f('fk_document_set_uploads_upload_id_uploads')),
    sa.PrimaryKeyConstraint('document_set_id', 'upload_id', name=op.f('pk_document_set_uploads'))
    )
    op.create_index(op.f('ix_document_set_uploads_upload_id'), 'document_set_uploads', ['upload_id'], unique=False)
    op.create_table('job_callbacks',
    sa.Column('id', sa.BigInteger(), nullable=False),
    sa.Column('job_id', sa.Uuid(), nullable=False),
    sa.Column('attempt', sa.BigInteger(), nullable=False),
    sa.Column('message_id', sa.Text(), nullable=False),
    sa.Column('event', sa.Text(), nullable=False),
    sa.Column('payload', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('received_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('applied_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_job_callbacks_job_id_jobs'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_job_callbacks')),
    sa.UniqueConstraint('job_id', 'attempt', 'message_id', name=op.f('uq_job_callbacks_job_id_attempt_message_id'))
    )
    op.create_index('ix_job_callbacks_open', 'job_callbacks', ['job_id', 'id'], unique=False, postgresql_where=sa.text('applied_at IS NULL'))
    op.create_table('job_documents',
    sa.Column('job_id', sa.Uuid(), nullable=False),
    sa.Column('uid', sa.Text(), nullable=False),
    sa.Column('position', sa.BigInteger(), nullable=False),
    sa.Column('type', sa.Text(), nullable=False),
    sa.Column('resource_type', sa.Text(), nullable=False),
    sa.Column('resource_id', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_job_documents_job_id_jobs'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('job_id', 'uid', name=op.f('pk_job_documents'))
    )
    op.create_table('remote_runs',
    sa.Column('job_id', sa.Uuid(), nullable=False),
    sa.Column('attempt', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('task', sa.Text(), nullable=False),
    sa.Column('token_hash', sa.LargeBinary(), nullable=False),
    sa.Column('tracking_id', sa.Text(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('begun_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('heard_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('unanswered', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('completed_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('told_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('untold', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_remote_runs_job_id_jobs'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('job_id', 'attempt', name=op.f('pk_remote_runs'))
    )
    op.create_table('result_files',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('job_id', sa.Uuid(), nullable=False),
    sa.Column('attempt', sa.BigInteger(), nullable=False),
    sa.Column('number', sa.BigInteger(), nullable=False),
    sa.Column('doc_id', sa.Text(), nullable=False),
    sa.Column('url', sa.Text(), nullable=False),
    sa.Column('final', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('state', sa.Text(), server_default='pending', nullable=False),
    sa.Column('error', sa.Text(), nullable=True),
    sa.CheckConstraint("state IN ('pending', 'stored', 'refused', 'replaced')", name=op.f('ck_result_files_state')),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_result_files_job_id_jobs'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_result_files')),
    sa.UniqueConstraint('job_id', 'attempt', 'number', 'final', name=op.f('uq_result_files_job_id_attempt_number_final'))
    )
    op.create_index('ix_result_files_pending', 'result_files', ['job_id', 'attempt'], unique=False, postgresql_where=sa.text("state = 'pending'"))
    op.create_table('treatments',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('task_type', sa.Text(), nullable=False),
    sa.Column('api_parameters', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('notify_email', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('document_set_id', sa.BigInteger(), nullable=False),
    sa.Column('requested_by_id', sa.BigInteger(), nullable=False),
    sa.Column('retry_of_id', sa.Uuid(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('deleted_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['document_set_id'], ['document_sets.id'], name=op.f('fk_treatments_document_set_id_document_sets')),
    sa.ForeignKeyConstraint(['id'], ['jobs.id'], name=op.f('fk_treatments_id_jobs'), ondelete='CASCADE', initially='DEFERRED', deferrable=True),
    sa.ForeignKeyConstraint(['requested_by_id'], ['users.id'], name=op.f('fk_treatments_requested_by_id_users')),
    sa.ForeignKeyConstraint(['retry_of_id'], ['treatments.id'], name=op.f('fk_treatments_retry_of_id_treatments'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_treatments'))
    )
    op.create_index('ix_treatments_document_set_id_id', 'treatments', ['document_set_id', 'id'], unique=False)
    op.create_index('ix_treatments_requested_by_id_id', 'treatments', ['requested_by_id', 'id'], unique=False)
    op.create_index(op.f('ix_treatments_retry_of_id'), 'treatments', ['retry_of_id'], unique=False)
    op.create_table('document_set_faqs',
    sa.Column('document_set_id', sa.BigInteger(), nullable=False),
    sa.Column('faq_id', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['document_set_id'], ['document_sets.id'], name=op.f('fk_document_set_faqs_document_set_id_document_sets'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['faq_id'], ['faqs.id'], name=op.f('fk_document_set_faqs_faq_id_faqs')),
    sa.PrimaryKeyConstraint('document_set_id', 'faq_id', name=op.f('pk_document_set_faqs'))
    )
    op.create_index(op.f('ix_document_set_faqs_faq_id'), 'document_set_faqs', ['faq_id'], unique=False)
    op.create_table('regions',
    sa.Column('id', sa.BigInteger(), nullable=False),
    sa.Column('treatment_id', sa.Uuid(), nullable=False),
    sa.Column('document', sa.Text(), nullable=False),
    sa.Column('source', sa.Text(), nullable=False),
    sa.Column('x', sa.Double(), nullable=False),
    sa.Column('y', sa.Double(), nullable=False),
    sa.Column('width', sa.Double(), nullable=False),
    sa.Column('height', sa.Double(), nullable=False),
    sa.ForeignKeyConstraint(['treatment_id'], ['treatments.id'], name=op.f('fk_regions_treatment_id_treatments'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_regions'))
    )
    op.create_index('ix_regions_treatment_id_document_source', 'regions', ['treatment_id', 'document', 'source'], unique=False)
    op.create_index('ix_regions_treatment_id_id', 'regions', ['treatment_id', 'id'], unique=False)
    op.create_table('similarities',
    sa.Column('id', sa.BigInteger(), nullable=False),
    sa.Column('treatment_id', sa.Uuid(), nullable=False),
    sa.Column('document', sa.Text(), nullable=False),
    sa.Column('a', sa.Text(), nullable=False),
    sa.Column('b', sa.Text(), nullable=False),
    sa.Column('score', sa.Double(), nullable=False),
    sa.ForeignKeyConstraint(['treatment_id'], ['treatments.id'], name=op.f('fk_similarities_treatment_id_treatments'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_similarities')),
    sa.UniqueConstraint('treatment_id', 'a', 'b', name=op.f('uq_similarities_treatment_id_a_b'))
    )
    op.create_index('ix_similarities_treatment_id_id', 'similarities', ['treatment_id', 'id'], unique=False)
    op.add_column('jobs', sa.Column('sealed', sa.LargeBinary(), nullable=True))
    op.add_column('outbox_entries', sa.Column('due_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False))
    op.add_column('jobs', sa.Column('kept', sa.Boolean(), server_default=sa.text('false'), nullable=False))


def downgrade() -> None:
    # What goes on at a processor is nobody's from here on.
    op.execute(
        """
        UPDATE jobs SET state = 'failed', finished_at = now(), lease_until = NULL,
               error = '{"code": "downgraded", "detail": "This version of the server has no treatments."}'
        WHERE finished_at IS NULL AND id IN (SELECT id FROM treatments)
        """
    )
    op.drop_column('outbox_entries', 'due_at')
    op.drop_column('jobs', 'kept')
    op.drop_column('jobs', 'sealed')
    op.drop_index('ix_similarities_treatment_id_id', table_name='similarities')
    op.drop_table('similarities')
    op.drop_index('ix_regions_treatment_id_id', table_name='regions')
    op.drop_index('ix_regions_treatment_id_document_source', table_name='regions')
    op.drop_table('regions')
    op.drop_index(op.f('ix_document_set_faqs_faq_id'), table_name='document_set_faqs')
    op.drop_table('document_set_faqs')
    op.drop_index(op.f('ix_treatments_retry_of_id'), table_name='treatments')
    op.drop_index('ix_treatments_requested_by_id_id', table_name='treatments')
    op.drop_index('ix_treatments_document_set_id_id', table_name='treatments')
    op.drop_table('treatments')
    op.drop_index('ix_result_files_pending', table_name='result_files', postgresql_where=sa.text("state = 'pending'"))
    op.drop_table('result_files')
    op.drop_table('remote_runs')
    op.drop_table('job_documents')
    op.drop_index('ix_job_callbacks_open', table_name='job_callbacks', postgresql_where=sa.text('applied_at IS NULL'))
    op.drop_table('job_callbacks')
    op.drop_index(op.f('ix_document_set_uploads_upload_id'), table_name='document_set_uploads')
    op.drop_table('document_set_uploads')
    op.drop_index(op.f('ix_document_set_events_event_id'), table_name='document_set_events')
    op.drop_table('document_set_events')
    op.drop_index('ix_uploads_owner_id_id', table_name='uploads')
    op.drop_table('uploads')
    op.drop_index('ix_document_sets_owner_id_id', table_name='document_sets')
    op.drop_table('document_sets')
