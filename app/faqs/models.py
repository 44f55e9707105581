"""FAQs of events and their types."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, Integer, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.change_signals import EmitsChangeSignals
from app.events.models import Event
from app.extensions import Model


class FaqType(EmitsChangeSignals, Model):
    """A category of FAQs of one event; its name is unique in the event, without regard to case."""

    __tablename__ = "faq_types"
    __table_args__ = (
        Index("ix_faq_types_name", func.text_sort_key(text("name")), "id"),
        Index("ix_faq_types_event_id_id", "event_id", "id"),
        Index("ix_faq_types_visibility", "event_id", postgresql_include=["deleted_at"]),
        Index(
            "uq_faq_types_name",
            "event_id",
            func.lower(text("name")),
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]

    event: Mapped[Event] = relationship(lazy="raise")
    faqs: Mapped[list["Faq"]] = relationship(viewonly=True, lazy="raise")


class Faq(EmitsChangeSignals, Model):
    """A question and its answer."""

    __tablename__ = "faqs"
    __table_args__ = (
        Index("ix_faqs_position_id", "position", "id"),
        Index("ix_faqs_visibility", "event_id", postgresql_include=["deleted_at"]),
        Index("ix_faqs_event_id_position_id", "event_id", "position", "id"),
        Index("ix_faqs_faq_type_id_position_id", "faq_type_id", "position", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    question: Mapped[str]
    answer: Mapped[str]
    position: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"))
    faq_type_id: Mapped[int | None] = mapped_column(ForeignKey("faq_types.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]

    event: Mapped[Event] = relationship(lazy="raise")
    faq_type: Mapped[FaqType | None] = relationship(lazy="raise")
