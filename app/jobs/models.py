"""Models of jobs, their shares, attempts, progress events and artifacts."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship
from uuid_utils.compat import uuid7

from app.events.models import Event
from app.extensions import Model, false_column
from app.users.models import User

QUEUED, RUNNING, WAITING, FINALIZING, CANCELING = "queued", "running", "waiting", "finalizing", "canceling"
SUCCEEDED, FAILED, CANCELED = "succeeded", "failed", "canceled"
ACTIVE_STATES = (QUEUED, RUNNING, WAITING, FINALIZING, CANCELING)
TERMINAL_STATES = (SUCCEEDED, FAILED, CANCELED)
ALL_STATES = (*ACTIVE_STATES, *TERMINAL_STATES)

OPERATOR_SHARE, ANONYMOUS_SHARE = 0, -1
"""Values of `Job.share` for jobs that the operator starts, and for other jobs without a user or client address."""

_is_active = text("state IN ('queued', 'running', 'waiting', 'finalizing', 'canceling')")


class Job(Model):
    """Long work, its state and its result; only `lifecycle` writes `state`."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(f"state IN ({', '.join(map(repr, ALL_STATES))})", name="state"),
        CheckConstraint("progress BETWEEN 0 AND 1", name="progress"),
        Index("ix_jobs_live", "queued_at", "id", postgresql_where=_is_active),
        Index("ix_jobs_share_queued_at_id", "share", "queued_at", "id", postgresql_where=text("state = 'queued'")),
        Index("ix_jobs_fingerprint", "fingerprint", "id"),
        Index("ix_jobs_owner_id_id", "owner_id", "id"),
        Index("ix_jobs_state_id", "state", "id"),
        Index("ix_jobs_kind_id", "kind", "id"),
        Index("ix_jobs_event_id_id", "event_id", "id"),
        Index("ix_jobs_finished_at", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    kind: Mapped[str]
    parameters: Mapped[dict[str, Any]] = mapped_column(JSONB)
    state: Mapped[str] = mapped_column(default=QUEUED, server_default=QUEUED)
    progress: Mapped[float | None]
    message: Mapped[str | None]
    attempt: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    max_attempts: Mapped[int] = mapped_column(default=3, server_default=text("3"))
    trigger: Mapped[str]
    fingerprint: Mapped[bytes | None]
    """Digest that is equal for equal submissions; None if the kind does not deduplicate."""
    rerun_requested: Mapped[bool] = false_column()
    """True if it was submitted again while it ran: after its end it is submitted once more."""
    error: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    last_seq: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    event_id: Mapped[int | None] = mapped_column(ForeignKey("events.id"))
    retry_of_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    queued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """Time of its submission or of its last requeue; for a postponed job the time at which it may start again."""
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    encrypted_secrets: Mapped[bytes | None]
    """Encrypted secret parameters, until it ends."""
    retained: Mapped[bool] = false_column()
    """True if it is not pruned, because it belongs to another resource."""

    share: Mapped[int] = mapped_column(default=OPERATOR_SHARE, server_default=text("0"))
    """Group of jobs that takes turns with other groups: the id of the owner, a client address
    (a negative number of `app.actors`), or one of the two constants above."""
    hook_id: Mapped[int | None]
    """Id of the hook whose call submitted it."""
    input_bytes: Mapped[int | None]
    """Bytes of its input file below `jobs/ID`, which is deleted at its end."""

    owner: Mapped[User | None] = relationship(lazy="raise")
    event: Mapped[Event | None] = relationship(lazy="raise")
    retry_of: Mapped["Job | None"] = relationship(remote_side=lambda: Job.id, lazy="raise")
    events: Mapped[list["JobEvent"]] = relationship(viewonly=True, lazy="raise")
    artifacts: Mapped[list["Artifact"]] = relationship(viewonly=True, lazy="raise")


class JobShare(Model):
    """Time of the last start of a job of a share; the row is locked while a job of the share is claimed."""

    __tablename__ = "job_shares"

    share: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    served_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Attempt(Model):
    """One attempt: its worker, start, end and outcome."""

    __tablename__ = "job_attempts"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    worker: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    """Final state of the job, or the code of the error."""


class JobEvent(Model):
    """One progress event; `seq` counts within the job, from 1, without gaps."""

    __tablename__ = "job_events"
    __table_args__ = (UniqueConstraint("job_id", "seq"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    seq: Mapped[int]
    level: Mapped[str] = mapped_column(default="info", server_default="info")
    state: Mapped[str]
    fraction: Mapped[float | None]
    message: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    job: Mapped[Job] = relationship(lazy="raise")


class Artifact(Model):
    """A file that a job published; a partial one may still be replaced."""

    __tablename__ = "job_artifacts"
    __table_args__ = (UniqueConstraint("job_id", "name"), Index("ix_job_artifacts_job_id_id", "job_id", "id"))

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    name: Mapped[str]
    media_type: Mapped[str]
    size: Mapped[int]
    sha256: Mapped[str]
    storage_key: Mapped[str]
    partial: Mapped[bool] = false_column()
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    job: Mapped[Job] = relationship(lazy="raise")
