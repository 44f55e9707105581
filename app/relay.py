"""The relay: open outbox entries become Celery messages."""

from datetime import datetime

from sqlalchemy import CheckConstraint, SmallInteger, func
from sqlalchemy.orm import Mapped, mapped_column

from app.extensions import Model


class RelayBeat(Model):
    """The one row in which a running relay shows that it lives."""

    __tablename__ = "relay_beats"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    beat_at: Mapped[datetime] = mapped_column(server_default=func.now())
