"""Hooks: URLs that start jobs of one kind when they are called."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.events.models import Event
from app.extensions import Model, false_column
from app.users.models import User


class Hook(Model):
    """A URL of a user; each call starts a job of its owner."""

    __tablename__ = "hooks"
    __table_args__ = (
        Index("ix_hooks_owner_id_id", "owner_id", "id"),
        Index("ix_hooks_event_id_id", "event_id", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    kind: Mapped[str]
    parameters: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """Fixed parameters of every job of this hook; a call cannot change them."""
    allowed_parameters: Mapped[list[str] | None] = mapped_column(JSONB(none_as_null=True))
    """Names of the parameters that a call may set; None for all that are not fixed."""
    enabled: Mapped[bool] = mapped_column(default=True, server_default=text("true"))
    signed: Mapped[bool] = false_column()
    """True when calls must be signed (Standard Webhooks)."""
    token_hash: Mapped[bytes | None] = mapped_column(unique=True)
    """SHA-256 of the token in the URL; None without a token."""
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    event_id: Mapped[int | None] = mapped_column(ForeignKey("events.id"), info={"is_part": True})
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_called_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]

    owner: Mapped[User] = relationship(lazy="raise")
    event: Mapped[Event | None] = relationship(lazy="raise")
