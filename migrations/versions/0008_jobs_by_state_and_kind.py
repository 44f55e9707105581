"""Lists of jobs filtered by state or kind, and of artifacts."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


INDEXES = (
    ("ix_jobs_state_id", "jobs", ["state", "id"]),
    ("ix_jobs_kind_id", "jobs", ["kind", "id"]),
    ("ix_job_artifacts_job_id_id", "job_artifacts", ["job_id", "id"]),
)


def upgrade() -> None:
    for name, table, columns in INDEXES:
        op.create_index(name, table, columns, unique=False)


def downgrade() -> None:
    for name, table, _ in reversed(INDEXES):
        op.drop_index(name, table_name=table)
