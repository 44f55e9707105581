"""Schema of events."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import marshmallow

from app.jsonapi.fields import (
    MAX_HTML_LENGTH,
    MAX_SHORT_TEXT_LENGTH,
    SERVER_MANAGED,
    Boolean,
    DateTime,
    Enum,
    Html,
    Number,
    Relationship,
    ResourceSchema,
    Text,
    TimeZone,
    Url,
    is_web_url,
)
from app.jsonapi.inflection import dasherize
from app.texts import is_blank, to_nfc
from app.users.schemas import Email

ENCRYPTED = {"sealed": True}
"""Metadata of an attribute whose column is encrypted."""

MAX_EVENT_DURATION = timedelta(days=20)
MAX_DOCUMENT_LINKS = 50


class DocumentLinks(marshmallow.fields.Field[list[dict[str, str]]]):
    """List of objects with a `name` and a `link`."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> list[dict[str, str]]:
        if not isinstance(value, list) or len(value) > MAX_DOCUMENT_LINKS:
            raise marshmallow.ValidationError(f"Must be a list of at most {MAX_DOCUMENT_LINKS} objects.")
        if not all(_is_document_link(item) for item in value):
            raise marshmallow.ValidationError(
                "Every item must be an object with a name and a link: an http or https URL, without a user name or "
                "password and without invisible characters."
            )
        try:
            return [{**item, "name": to_nfc(item["name"])} for item in value]
        except ValueError as error:
            raise marshmallow.ValidationError(str(error)) from None


def _is_document_link(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and item.keys() == {"name", "link"}
        and isinstance(item["name"], str)
        and len(item["name"]) <= MAX_SHORT_TEXT_LENGTH
        and not is_blank(item["name"])
        and isinstance(item["link"], str)
        and is_web_url(item["link"])
    )


class EventSchema(ResourceSchema):
    """Attributes and relationships of an event."""

    class Meta:
        type_ = "event"
        inflect = dasherize

    identifier = Text(dump_only=True, sorted_as_text=False)
    name = Text(required=True)
    starts_at = DateTime()
    ends_at = DateTime()
    timezone = TimeZone(required=True)
    state = Enum("draft", "published")
    privacy = Enum("public", "private")
    description = Html()
    owner_name = Text()
    owner_description = Html()
    location_name = Text()
    searchable_location_name = Text()
    public_stream_link = Url()
    after_order_message = Html()
    code_of_conduct = Html()
    payment_country = Text()
    payment_currency = Text()
    paypal_email = Email(metadata=ENCRYPTED)
    cheque_details = Text(MAX_HTML_LENGTH, metadata=ENCRYPTED)
    bank_details = Text(MAX_HTML_LENGTH, metadata=ENCRYPTED)
    onsite_details = Text(MAX_HTML_LENGTH, metadata=ENCRYPTED)
    invoice_details = Text(MAX_HTML_LENGTH, metadata=ENCRYPTED)
    refund_policy = Text(MAX_HTML_LENGTH)
    chat_room_name = Text()
    latitude = Number(-90, 90)
    longitude = Number(-180, 180)
    logo_url = Url()
    original_image_url = Url()
    external_event_url = Url()
    ticket_url = Url()
    thumbnail_image_url = Url(**SERVER_MANAGED)
    large_image_url = Url(**SERVER_MANAGED)
    icon_image_url = Url(**SERVER_MANAGED)
    ical_url = Url(**SERVER_MANAGED)
    xcal_url = Url(**SERVER_MANAGED)
    pentabarf_url = Url(**SERVER_MANAGED)
    online = Boolean()
    is_map_shown = Boolean()
    is_featured = Boolean()
    is_promoted = Boolean()
    is_demoted = Boolean()
    is_announced = Boolean()
    has_owner_info = Boolean()
    is_sessions_speakers_enabled = Boolean()
    is_sponsors_enabled = Boolean()
    is_ticket_form_enabled = Boolean()
    is_cfs_enabled = Boolean()
    is_tax_enabled = Boolean()
    is_billing_info_mandatory = Boolean()
    is_donation_enabled = Boolean()
    is_chat_enabled = Boolean()
    is_videoroom_enabled = Boolean()
    is_document_enabled = Boolean()
    show_remaining_tickets = Boolean()
    can_pay_by_paypal = Boolean()
    can_pay_by_stripe = Boolean()
    can_pay_by_cheque = Boolean()
    can_pay_by_bank = Boolean()
    can_pay_by_invoice = Boolean()
    can_pay_by_omise = Boolean()
    can_pay_by_alipay = Boolean()
    can_pay_by_paytm = Boolean()
    can_pay_onsite = Boolean()
    document_links = DocumentLinks(allow_none=True)
    schedule_published_on = DateTime()
    created_at = DateTime(dump_only=True)
    deleted_at = DateTime(dump_only=True)

    owner = Relationship("user")
    pending_owner = Relationship("user", guarded=True)
    organizers = Relationship("user", many=True)
    coorganizers = Relationship("user", many=True)
    faqs = Relationship("faq", many=True, dump_only=True)
    faq_types = Relationship("faq-type", many=True, dump_only=True)
    images = Relationship("event-image", many=True, dump_only=True)

    def validate_object(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        starts_at, ends_at = values.get("starts_at"), values.get("ends_at")
        if values.get("state") == "published":
            for name, value in (("starts_at", starts_at), ("ends_at", ends_at)):
                if value is None:
                    yield name, "A published event must have this attribute."
        if starts_at and ends_at:
            if ends_at <= starts_at:
                yield "ends_at", "Must be later than starts-at."
            elif ends_at - starts_at > MAX_EVENT_DURATION:
                yield "ends_at", f"Must be at most {MAX_EVENT_DURATION.days} days later than starts-at."
