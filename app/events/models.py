"""Events and their teams."""

import secrets
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, Subquery, UniqueConstraint, func, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.change_signals import EmitsChangeSignals
from app.extensions import Model, false_column
from app.users.models import User

if TYPE_CHECKING:
    from app.faqs.models import Faq, FaqType
    from app.gallery.models import EventImage


IDENTIFIER_BYTES = 10
"""Random bytes of an identifier: it gives access to a private event, so it must not be guessable."""


def new_identifier() -> str:
    """Return lower-case hex characters, never all digits: a name of digits only is an id."""
    while (identifier := secrets.token_hex(IDENTIFIER_BYTES)).isdigit():
        continue
    return identifier


class EventRole(Model):
    """The role of a user in the team of an event: owner, organizer or coorganizer."""

    __tablename__ = "event_roles"
    __table_args__ = (
        UniqueConstraint("event_id", "user_id"),
        CheckConstraint("role IN ('owner', 'organizer', 'coorganizer')", name="role"),
        Index("uq_event_roles_owner", "event_id", unique=True, postgresql_where=text("role = 'owner'")),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    role: Mapped[str]


def _select_members(role: str) -> Subquery:
    return select(EventRole.event_id, EventRole.user_id).where(EventRole.role == role).subquery(f"{role}s")


class Event(EmitsChangeSignals, Model):
    """An event; a draft until `state` is published."""

    __tablename__ = "events"
    __table_args__ = (
        CheckConstraint("state IN ('draft', 'published')", name="state"),
        CheckConstraint("privacy IN ('public', 'private')", name="privacy"),
        Index("ix_events_name", func.text_sort_key(text("name")), "id"),
        Index(
            "ix_events_visibility",
            "id",
            postgresql_include=["state", "privacy", "deleted_at", "identifier", "pending_owner_id"],
        ),
        Index(
            "ix_events_upcoming",
            "starts_at",
            "id",
            postgresql_where=text("deleted_at IS NULL AND state = 'published' AND privacy = 'public'"),
        ),
    )
    __event_key__ = "id"

    id: Mapped[int] = mapped_column(primary_key=True)
    identifier: Mapped[str] = mapped_column(unique=True, default=new_identifier)
    name: Mapped[str]
    starts_at: Mapped[datetime | None]
    ends_at: Mapped[datetime | None]
    timezone: Mapped[str]
    state: Mapped[str] = mapped_column(default="draft", server_default="draft")
    privacy: Mapped[str] = mapped_column(default="public", server_default="public")
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    pending_owner_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), index=True)
    """User who is offered the ownership and has not answered yet."""
    description: Mapped[str | None]
    owner_name: Mapped[str | None]
    owner_description: Mapped[str | None]
    location_name: Mapped[str | None]
    searchable_location_name: Mapped[str | None]
    public_stream_link: Mapped[str | None]
    after_order_message: Mapped[str | None]
    code_of_conduct: Mapped[str | None]
    payment_country: Mapped[str | None]
    payment_currency: Mapped[str | None]
    paypal_email: Mapped[str | None]
    cheque_details: Mapped[str | None]
    bank_details: Mapped[str | None]
    onsite_details: Mapped[str | None]
    invoice_details: Mapped[str | None]
    refund_policy: Mapped[str | None]
    chat_room_name: Mapped[str | None]
    latitude: Mapped[float | None]
    longitude: Mapped[float | None]
    logo_url: Mapped[str | None]
    original_image_url: Mapped[str | None]
    external_event_url: Mapped[str | None]
    ticket_url: Mapped[str | None]
    thumbnail_image_url: Mapped[str | None]
    large_image_url: Mapped[str | None]
    icon_image_url: Mapped[str | None]
    ical_url: Mapped[str | None]
    xcal_url: Mapped[str | None]
    pentabarf_url: Mapped[str | None]
    online: Mapped[bool] = false_column()
    is_map_shown: Mapped[bool] = false_column()
    is_featured: Mapped[bool] = false_column()
    is_promoted: Mapped[bool] = false_column()
    is_demoted: Mapped[bool] = false_column()
    is_announced: Mapped[bool] = false_column()
    has_owner_info: Mapped[bool] = false_column()
    is_sessions_speakers_enabled: Mapped[bool] = false_column()
    is_sponsors_enabled: Mapped[bool] = false_column()
    is_ticket_form_enabled: Mapped[bool] = mapped_column(default=True, server_default=text("true"))
    is_cfs_enabled: Mapped[bool] = false_column()
    is_tax_enabled: Mapped[bool] = false_column()
    is_billing_info_mandatory: Mapped[bool] = false_column()
    is_donation_enabled: Mapped[bool] = false_column()
    is_chat_enabled: Mapped[bool] = false_column()
    is_videoroom_enabled: Mapped[bool] = false_column()
    is_document_enabled: Mapped[bool] = false_column()
    show_remaining_tickets: Mapped[bool] = false_column()
    can_pay_by_paypal: Mapped[bool] = false_column()
    can_pay_by_stripe: Mapped[bool] = false_column()
    can_pay_by_cheque: Mapped[bool] = false_column()
    can_pay_by_bank: Mapped[bool] = false_column()
    can_pay_by_invoice: Mapped[bool] = false_column()
    can_pay_by_omise: Mapped[bool] = false_column()
    can_pay_by_alipay: Mapped[bool] = false_column()
    can_pay_by_paytm: Mapped[bool] = false_column()
    can_pay_onsite: Mapped[bool] = false_column()
    document_links: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB(none_as_null=True))
    schedule_published_on: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]

    owner: Mapped[User] = relationship(foreign_keys=owner_id, lazy="raise")
    pending_owner: Mapped[User | None] = relationship(foreign_keys=pending_owner_id, lazy="raise")
    organizers: Mapped[list[User]] = relationship(secondary=_select_members("organizer"), viewonly=True, lazy="raise")
    coorganizers: Mapped[list[User]] = relationship(
        secondary=_select_members("coorganizer"), viewonly=True, lazy="raise"
    )
    faqs: Mapped[list["Faq"]] = relationship(viewonly=True, lazy="raise")
    faq_types: Mapped[list["FaqType"]] = relationship(viewonly=True, lazy="raise")
    images: Mapped[list["EventImage"]] = relationship(viewonly=True, lazy="raise")
