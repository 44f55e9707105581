"""The images of an event's gallery."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.events.models import Event
from app.extensions import Model


class EventImage(Model):
    """One image of an event, stored under the digest of its content."""

    __tablename__ = "event_images"
    __table_args__ = (
        # Among all rows, those in the trash too: what an organizer has deleted does not come back by the next import.
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
    """The name of the file it came from, below the event's inbox."""
    storage_key: Mapped[str]
    media_type: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    size: Mapped[int]
    sha256: Mapped[str]
    """Of the file as it is stored and served."""
    source_sha256: Mapped[str]
    """Of the file it was made from, which is never decoded again."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]

    event: Mapped[Event] = relationship(lazy="raise")
