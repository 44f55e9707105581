"""Images in the galleries of events."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.events.models import Event
from app.extensions import Model


class EventImage(Model):
    """An image of an event; its file has the digest of its content as a name."""

    __tablename__ = "event_images"
    __table_args__ = (
        # Rows in the trash count, so that the next import does not bring deleted images back.
        UniqueConstraint("event_id", "sha256"),
        UniqueConstraint("event_id", "source_sha256"),
        Index("ix_event_images_name", func.text_sort_key(text("name")), "id"),
        Index("ix_event_images_event_id_id", "event_id", "id"),
        Index("ix_event_images_visibility", "event_id", postgresql_include=["deleted_at"]),
        Index("ix_event_images_storage_key", "storage_key"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"))
    name: Mapped[str]
    """Name of the source file relative to the inbox of the event."""
    storage_key: Mapped[str]
    media_type: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    size: Mapped[int]
    sha256: Mapped[str]
    """SHA-256 of the stored file, in hex."""
    source_sha256: Mapped[str]
    """SHA-256 of the source file, in hex: the same source is not decoded again."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]

    event: Mapped[Event] = relationship(lazy="raise")
