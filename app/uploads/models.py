"""The table of uploads: images that users have sent, each with a URL."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.extensions import Model
from app.users.models import User


class Upload(Model):
    """An image of a user; the same image of the same user is one row."""

    __tablename__ = "uploads"
    __table_args__ = (
        UniqueConstraint("owner_id", "storage_key"),
        Index("ix_uploads_owner_id_id", "owner_id", "id"),
        Index("ix_uploads_storage_key", "storage_key"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    storage_key: Mapped[str]
    media_type: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    size: Mapped[int]
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]

    owner: Mapped[User] = relationship(lazy="raise")
