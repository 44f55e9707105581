"""Users, their sessions and refresh tokens."""

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship
from uuid_utils.compat import uuid7

from app.change_signals import EmitsChangeSignals
from app.extensions import Model, false_column

if TYPE_CHECKING:
    from app.events.models import Event


class User(EmitsChangeSignals, Model):
    """An account; in the trash when `deleted_at` is set."""

    __tablename__ = "users"
    __table_args__ = (
        Index("ix_users_email", func.text_sort_key(text("email")), "id"),
        # Not citext, which needs an extension.
        Index("uq_users_email", func.lower(text("email")), unique=True, postgresql_where=text("deleted_at IS NULL")),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    password_hash: Mapped[str]
    first_name: Mapped[str | None]
    last_name: Mapped[str | None]
    public_name: Mapped[str | None]
    details: Mapped[str | None]
    contact: Mapped[str | None]
    company: Mapped[str | None]
    billing_contact_name: Mapped[str | None]
    billing_phone: Mapped[str | None]
    billing_state: Mapped[str | None]
    billing_country: Mapped[str | None]
    billing_tax_info: Mapped[str | None]
    billing_address: Mapped[str | None]
    billing_city: Mapped[str | None]
    billing_zip_code: Mapped[str | None]
    billing_additional_info: Mapped[str | None]
    language_prefrence: Mapped[str | None]
    avatar_url: Mapped[str | None]
    facebook_url: Mapped[str | None]
    twitter_url: Mapped[str | None]
    instagram_url: Mapped[str | None]
    google_plus_url: Mapped[str | None]
    original_image_url: Mapped[str | None]
    thumbnail_image_url: Mapped[str | None]
    small_image_url: Mapped[str | None]
    icon_image_url: Mapped[str | None]
    is_profile_public: Mapped[bool] = false_column()
    is_admin: Mapped[bool] = false_column()
    is_super_admin: Mapped[bool] = false_column()
    is_verified: Mapped[bool] = false_column()
    is_blocked: Mapped[bool] = false_column()
    is_sales_admin: Mapped[bool] = false_column()
    is_marketer: Mapped[bool] = false_column()
    email_verified_at: Mapped[datetime | None]
    """Time at which an address was last verified by mail; tokens issued before it are not valid."""
    email_changed_at: Mapped[datetime | None]
    """Time of the change to the current address; NULL since creation or once it is verified."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]
    last_accessed_at: Mapped[datetime | None]

    events: Mapped[list["Event"]] = relationship(secondary="event_roles", viewonly=True, lazy="raise")


class LoginSession(Model):
    """A log-in and its tokens; revoked by log-out, by a change of the password, or by reuse of a token."""

    __tablename__ = "sign_ins"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    address_key: Mapped[bytes | None]
    """HMAC of the client address of the log-in, which is known to the account until this row is pruned.

    NULL when the device was forgotten, for example after a reset of the password.
    """
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]


class RefreshToken(Model):
    """A refresh token of a session; only its SHA-256 is stored."""

    __tablename__ = "refresh_tokens"

    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    sign_in_id: Mapped[UUID] = mapped_column(ForeignKey("sign_ins.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)
    used_at: Mapped[datetime | None]
