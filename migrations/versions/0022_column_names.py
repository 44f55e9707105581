"""Columns named by the vocabulary (docs/glossary.md).

On a live system: names in the catalog alone change, no row is rewritten. Processes of the version before fail on these
columns until they are restarted, and try their work again.
"""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

COLUMNS = (
    ("jobs", "sealed", "encrypted_secrets"),
    ("jobs", "kept", "retained"),
    ("jobs", "runs_again", "rerun_requested"),
    ("job_artifacts", "stored_as", "storage_key"),
    ("event_images", "stored_as", "storage_key"),
    ("uploads", "stored_as", "storage_key"),
    ("remote_runs", "heard_at", "last_seen_at"),
    ("remote_runs", "unanswered", "unanswered_polls"),
    ("remote_runs", "told_at", "progress_published_at"),
    ("remote_runs", "untold", "has_pending_progress"),
)
INDEXES = (
    ("ix_event_images_stored_as", "ix_event_images_storage_key"),
    ("ix_uploads_stored_as", "ix_uploads_storage_key"),
)
CONSTRAINT = ("uploads", "uq_uploads_owner_id_stored_as", "uq_uploads_owner_id_storage_key")


def upgrade() -> None:
    for table, old, new in COLUMNS:
        op.alter_column(table, old, new_column_name=new)
    for old, new in INDEXES:
        op.execute(f"ALTER INDEX {old} RENAME TO {new}")
    table, old, new = CONSTRAINT
    op.execute(f"ALTER TABLE {table} RENAME CONSTRAINT {old} TO {new}")


def downgrade() -> None:
    table, old, new = CONSTRAINT
    op.execute(f"ALTER TABLE {table} RENAME CONSTRAINT {new} TO {old}")
    for old, new in INDEXES:
        op.execute(f"ALTER INDEX {new} RENAME TO {old}")
    for table, old, new in COLUMNS:
        op.alter_column(table, new, new_column_name=old)
