"""Write the calendar files of published events again: those of before this version have times in the wrong zone."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

CONSUMER = "events.rewrite_calendar"
"""The version before does not know it, so its workers do not write their own format once more."""


def upgrade() -> None:
    # Coming events first, 20 a second: mails and other entries of the same queue do not wait behind 100,000 files.
    op.execute(
        sa.text(
            """
            INSERT INTO outbox_entries (id, consumer, topic, payload, due_at, next_at)
            SELECT gen_random_uuid(), :consumer, 'event.updated',
                   jsonb_build_object('id', id, 'event_id', id, 'changed', jsonb_build_array('timezone')),
                   due_at, due_at
            FROM (
                SELECT id, now() + row_number() OVER (ORDER BY ends_at < now(), starts_at, id)
                                   * interval '50 milliseconds' AS due_at
                FROM events WHERE ical_url IS NOT NULL
            ) AS event
            """
        ).bindparams(consumer=CONSUMER)
    )


def downgrade() -> None:
    # Files that are rewritten already stay: their times are right.
    op.execute(
        sa.text("DELETE FROM outbox_entries WHERE consumer = :consumer AND done_at IS NULL").bindparams(consumer=CONSUMER)
    )
