"""Document sets: events, FAQs and uploads that are treated together."""

from datetime import datetime

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Table, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.events.models import Event
from app.extensions import Model
from app.faqs.models import Faq
from app.uploads.models import Upload
from app.users.models import User


def _create_link_table(name: str) -> Table:
    """Return the link table between document sets and the resources of one type."""
    return Table(
        f"document_set_{name}s",
        Model.metadata,
        Column("document_set_id", BigInteger, ForeignKey("document_sets.id", ondelete="CASCADE"), primary_key=True),
        Column(f"{name}_id", BigInteger, ForeignKey(f"{name}s.id"), primary_key=True, index=True),
    )


SET_EVENTS, SET_FAQS, SET_UPLOADS = _create_link_table("event"), _create_link_table("faq"), _create_link_table("upload")


class DocumentSet(Model):
    """A selection of events, FAQs and uploads under a title."""

    __tablename__ = "document_sets"
    __table_args__ = (Index("ix_document_sets_owner_id_id", "owner_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]

    owner: Mapped[User] = relationship(lazy="raise")
    events: Mapped[list[Event]] = relationship(secondary=SET_EVENTS, viewonly=True, lazy="raise")
    faqs: Mapped[list[Faq]] = relationship(secondary=SET_FAQS, viewonly=True, lazy="raise")
    uploads: Mapped[list[Upload]] = relationship(secondary=SET_UPLOADS, viewonly=True, lazy="raise")
