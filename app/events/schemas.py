"""Events as the API shows them."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import marshmallow

from app.jsonapi.naming import dasherize
from app.jsonapi.schema import (
    LONG,
    SHORT,
    WRITTEN_BY_THE_SERVER,
    Choice,
    Flag,
    Html,
    Instant,
    Number,
    Relationship,
    Schema,
    Text,
    Url,
    Zone,
    is_web_url,
)
from app.texts import is_blank, to_nfc
from app.users.schemas import Email

SEALED = {"sealed": True}
"""Metadata of an attribute that is kept sealed."""

LONGEST_EVENT = timedelta(days=20)
MOST_DOCUMENT_LINKS = 50


class DocumentLinks(marshmallow.fields.Field[list[dict[str, str]]]):
    """A list of objects with a `name` and a `link`."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> list[dict[str, str]]:
        if not isinstance(value, list) or len(value) > MOST_DOCUMENT_LINKS:
            raise marshmallow.ValidationError(f"Must be a list of at most {MOST_DOCUMENT_LINKS} objects.")
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
        and len(item["name"]) <= SHORT
        and not is_blank(item["name"])
        and isinstance(item["link"], str)
        and is_web_url(item["link"])
    )


class EventSchema(Schema):
    """Attributes and relationships of an event."""

    class Meta:
        type_ = "event"
        inflect = dasherize

    identifier = Text(dump_only=True, sorted_as_text=False)
    name = Text(required=True)
    starts_at = Instant()
    ends_at = Instant()
    timezone = Zone(required=True)
    state = Choice("draft", "published")
    privacy = Choice("public", "private")
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
    paypal_email = Email(metadata=SEALED)
    cheque_details = Text(LONG, metadata=SEALED)
    bank_details = Text(LONG, metadata=SEALED)
    onsite_details = Text(LONG, metadata=SEALED)
    invoice_details = Text(LONG, metadata=SEALED)
    refund_policy = Text(LONG)
    chat_room_name = Text()
    latitude = Number(-90, 90)
    longitude = Number(-180, 180)
    logo_url = Url()
    original_image_url = Url()
    external_event_url = Url()
    ticket_url = Url()
    thumbnail_image_url = Url(**WRITTEN_BY_THE_SERVER)
    large_image_url = Url(**WRITTEN_BY_THE_SERVER)
    icon_image_url = Url(**WRITTEN_BY_THE_SERVER)
    ical_url = Url(**WRITTEN_BY_THE_SERVER)
    xcal_url = Url(**WRITTEN_BY_THE_SERVER)
    pentabarf_url = Url(**WRITTEN_BY_THE_SERVER)
    online = Flag()
    is_map_shown = Flag()
    is_featured = Flag()
    is_promoted = Flag()
    is_demoted = Flag()
    is_announced = Flag()
    has_owner_info = Flag()
    is_sessions_speakers_enabled = Flag()
    is_sponsors_enabled = Flag()
    is_ticket_form_enabled = Flag()
    is_cfs_enabled = Flag()
    is_tax_enabled = Flag()
    is_billing_info_mandatory = Flag()
    is_donation_enabled = Flag()
    is_chat_enabled = Flag()
    is_videoroom_enabled = Flag()
    is_document_enabled = Flag()
    show_remaining_tickets = Flag()
    can_pay_by_paypal = Flag()
    can_pay_by_stripe = Flag()
    can_pay_by_cheque = Flag()
    can_pay_by_bank = Flag()
    can_pay_by_invoice = Flag()
    can_pay_by_omise = Flag()
    can_pay_by_alipay = Flag()
    can_pay_by_paytm = Flag()
    can_pay_onsite = Flag()
    document_links = DocumentLinks(allow_none=True)
    schedule_published_on = Instant()
    created_at = Instant(dump_only=True)
    deleted_at = Instant(dump_only=True)

    owner = Relationship("user")
    pending_owner = Relationship("user", guarded=True)
    organizers = Relationship("user", many=True)
    coorganizers = Relationship("user", many=True)
    faqs = Relationship("faq", many=True, dump_only=True)
    faq_types = Relationship("faq-type", many=True, dump_only=True)
    images = Relationship("event-image", many=True, dump_only=True)

    def check_whole(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        starts_at, ends_at = values.get("starts_at"), values.get("ends_at")
        if values.get("state") == "published":
            for name, value in (("starts_at", starts_at), ("ends_at", ends_at)):
                if value is None:
                    yield name, "A published event needs this."
        if starts_at and ends_at:
            if ends_at <= starts_at:
                yield "ends_at", "Must be later than starts-at."
            elif ends_at - starts_at > LONGEST_EVENT:
                yield "ends_at", f"Must be at most {LONGEST_EVENT.days} days later than starts-at."
