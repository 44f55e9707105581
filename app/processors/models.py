"""Runs at the processor: their documents, callbacks and result files."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from app.extensions import Model, false_column

PENDING, STORED, REFUSED, REPLACED = "pending", "stored", "refused", "replaced"


class JobDocument(Model):
    """A document that was sent to the processor by URL; its content is read when it is downloaded."""

    __tablename__ = "job_documents"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    uid: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    type: Mapped[str]
    """`event`, `faq` or `image`."""
    resource_type: Mapped[str]
    resource_id: Mapped[int]


class RemoteRun(Model):
    """The run of one attempt of a job at the processor."""

    __tablename__ = "remote_runs"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    task: Mapped[str]
    token_hash: Mapped[bytes]
    """SHA-256 of the token in `notify_url`."""
    tracking_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    begun_at: Mapped[datetime | None]
    """Time of the first event from the processor."""
    last_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """Time of the last callback or valid status response."""
    unanswered_polls: Mapped[int] = mapped_column(server_default=text("0"))
    """Consecutive status requests without a valid response."""
    completed_at: Mapped[datetime | None]
    """Time of SUCCESS: afterwards only results are downloaded."""
    progress_published_at: Mapped[datetime | None]
    """Time at which progress was last recorded as a progress event of the job."""
    has_pending_progress: Mapped[bool] = false_column()
    """True while progress received since then waits to be recorded as a progress event."""


class Callback(Model):
    """A callback of a run, stored once and applied in order of arrival."""

    __tablename__ = "job_callbacks"
    __table_args__ = (
        UniqueConstraint("job_id", "attempt", "message_id"),
        Index("ix_job_callbacks_open", "job_id", "id", postgresql_where=text("applied_at IS NULL")),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    message_id: Mapped[str]
    """webhook-id of a signed callback, else the digest of its body."""
    event: Mapped[str]
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())
    applied_at: Mapped[datetime | None]


class ResultFile(Model):
    """A result file of a run, to be downloaded from the processor."""

    __tablename__ = "result_files"
    __table_args__ = (
        UniqueConstraint("job_id", "attempt", "number", "final"),
        Index("ix_result_files_pending", "job_id", "attempt", postgresql_where=text("state = 'pending'")),
        CheckConstraint(f"state IN ('{PENDING}', '{STORED}', '{REFUSED}', '{REPLACED}')", name="state"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    number: Mapped[int]
    """Number of the URL in the attempt: it names the artifact, because names of the processor are not trusted."""
    doc_id: Mapped[str]
    url: Mapped[str]
    final: Mapped[bool] = false_column()
    """True for a file named by SUCCESS; one that was named before may be incomplete."""
    state: Mapped[str] = mapped_column(default=PENDING, server_default=PENDING)
    error: Mapped[str | None]
