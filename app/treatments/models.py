"""Treatments and their results."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Double, ForeignKey, Index, UniqueConstraint, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship
from uuid_utils.compat import uuid7

from app.change_signals import EmitsChangeSignals
from app.documents.models import DocumentSet
from app.extensions import Model, false_column
from app.jobs.models import Job
from app.users.models import User


class Treatment(EmitsChangeSignals, Model):
    """The execution of a task on a document set; it has the id of its job and is deleted with it."""

    __tablename__ = "treatments"
    __table_args__ = (
        Index("ix_treatments_requested_by_id_id", "requested_by_id", "id"),
        Index("ix_treatments_document_set_id_id", "document_set_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(
        # The job is inserted after the treatment, by the receiver of its change signal.
        ForeignKey("jobs.id", ondelete="CASCADE", deferrable=True, initially="DEFERRED"),
        primary_key=True,
        default=uuid7,
    )
    task_type: Mapped[str]
    api_parameters: Mapped[dict[str, Any]] = mapped_column(JSONB)
    notify_email: Mapped[bool] = false_column()
    document_set_id: Mapped[int] = mapped_column(ForeignKey("document_sets.id"))
    requested_by_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    retry_of_id: Mapped[UUID | None] = mapped_column(ForeignKey("treatments.id", ondelete="SET NULL"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]

    job: Mapped[Job] = relationship(lazy="raise")
    document_set: Mapped[DocumentSet] = relationship(lazy="raise")
    requested_by: Mapped[User] = relationship(lazy="raise")
    retry_of: Mapped["Treatment | None"] = relationship(remote_side=lambda: Treatment.id, lazy="raise")
    regions: Mapped[list["Region"]] = relationship(viewonly=True, lazy="raise")
    similarities: Mapped[list["Similarity"]] = relationship(viewonly=True, lazy="raise")


class Region(Model):
    """A region of an image that a processor found, in pixels from the upper left corner."""

    __tablename__ = "regions"
    __table_args__ = (
        Index("ix_regions_treatment_id_id", "treatment_id", "id"),
        Index("ix_regions_treatment_id_document_source", "treatment_id", "document", "source"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    treatment_id: Mapped[UUID] = mapped_column(ForeignKey("treatments.id", ondelete="CASCADE"))
    document: Mapped[str]
    """`uid` of the document that the result file is about."""
    source: Mapped[str]
    """Name of the image in the result file."""
    x: Mapped[float] = mapped_column(Double)
    y: Mapped[float] = mapped_column(Double)
    width: Mapped[float] = mapped_column(Double)
    height: Mapped[float] = mapped_column(Double)

    treatment: Mapped[Treatment] = relationship(lazy="raise")


class Similarity(Model):
    """The similarity of two documents, from 0 to 1."""

    __tablename__ = "similarities"
    __table_args__ = (
        UniqueConstraint("treatment_id", "a", "b"),
        Index("ix_similarities_treatment_id_id", "treatment_id", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    treatment_id: Mapped[UUID] = mapped_column(ForeignKey("treatments.id", ondelete="CASCADE"))
    document: Mapped[str]
    """`uid` of the document that the result file is about."""
    a: Mapped[str]
    b: Mapped[str]
    score: Mapped[float] = mapped_column(Double)

    treatment: Mapped[Treatment] = relationship(lazy="raise")
