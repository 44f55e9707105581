"""What an external processor was asked, what it says, and what it has made."""

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
    """A document as it was named to the processor; what it holds is read when it is fetched."""

    __tablename__ = "job_documents"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    uid: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    type: Mapped[str]
    """`event`, `faq` or `image`."""
    resource_type: Mapped[str]
    resource_id: Mapped[int]


class RemoteRun(Model):
    """An attempt that goes on at the processor."""

    __tablename__ = "remote_runs"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    task: Mapped[str]
    token_hash: Mapped[bytes]
    """SHA-256 of the token in its notify_url."""
    tracking_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    begun_at: Mapped[datetime | None]
    """When the processor said that it has begun."""
    last_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    unanswered_polls: Mapped[int] = mapped_column(server_default=text("0"))
    """Questions in a row that it did not answer."""
    completed_at: Mapped[datetime | None]
    """When it said that it is done: only its results are missing."""
    progress_published_at: Mapped[datetime | None]
    """When it last said something of its progress that became an event of the job."""
    has_pending_progress: Mapped[bool] = false_column()
    """Whether it has said more since, which becomes an event a moment later."""


class Callback(Model):
    """Something that a processor has said, stored once; applied in the order of arrival."""

    __tablename__ = "job_callbacks"
    __table_args__ = (
        UniqueConstraint("job_id", "attempt", "message_id"),
        Index("ix_job_callbacks_open", "job_id", "id", postgresql_where=text("applied_at IS NULL")),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    message_id: Mapped[str]
    """Its webhook-id, or the digest of its body."""
    event: Mapped[str]
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())
    applied_at: Mapped[datetime | None]


class ResultFile(Model):
    """A file that a processor names as a result, to be fetched."""

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
    """Counts the URLs of an attempt: the name of the artifact, which is never what the processor says."""
    doc_id: Mapped[str]
    url: Mapped[str]
    final: Mapped[bool] = false_column()
    """Whether it was named at the end; one that was named before may have been half done."""
    state: Mapped[str] = mapped_column(default=PENDING, server_default=PENDING)
    error: Mapped[str | None]
