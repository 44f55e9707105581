"""Users as the API shows them."""

from typing import Any

import marshmallow
from sqlalchemy import ColumnElement, func

from app.jsonapi.naming import dasherize
from app.jsonapi.schema import LONG, WRITTEN_BY_THE_SERVER, Flag, Instant, Relationship, Schema, Text, Url
from app.texts import NFC_SHRINK_FACTOR
from app.users.emails import email_key, normalize_email, normalize_pattern
from app.users.passwords import LONGEST, SHORTEST


class Email(Text):
    """An e-mail address in its one spelling; filters find it by any other."""

    def to_stored(self, text: str) -> str:
        try:
            return normalize_email(text)
        except ValueError as error:
            raise ValueError(f"{str(error).capitalize()}.") from None

    def to_compared(self, text: str, *, is_pattern: bool) -> str:
        return normalize_pattern(text) if is_pattern else email_key(text)

    def compared_column(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.lower(column)


class UserSchema(Schema):
    """Attributes and relationships of a user."""

    class Meta:
        type_ = "user"
        inflect = dasherize

    email = Email(required=True)
    password = Text(
        LONGEST,
        required=True,
        load_only=True,
        validate=marshmallow.validate.Length(min=SHORTEST, error=f"Shorter than {SHORTEST} characters."),
    )
    current_password = Text(NFC_SHRINK_FACTOR * LONGEST, load_only=True)
    first_name = Text()
    last_name = Text()
    public_name = Text()
    details = Text(LONG)
    contact = Text()
    company = Text()
    billing_contact_name = Text()
    billing_phone = Text()
    billing_state = Text()
    billing_country = Text()
    billing_tax_info = Text()
    billing_address = Text()
    billing_city = Text()
    billing_zip_code = Text()
    billing_additional_info = Text(LONG)
    language_prefrence = Text()
    avatar_url = Url()
    facebook_url = Url()
    twitter_url = Url()
    instagram_url = Url()
    google_plus_url = Url()
    original_image_url = Url()
    thumbnail_image_url = Url()
    small_image_url = Url()
    icon_image_url = Url()
    is_profile_public = Flag()
    is_admin = Flag()
    is_super_admin = Flag()
    is_verified = Flag()
    is_blocked = Flag()
    is_sales_admin = Flag()
    is_marketer = Flag()
    is_user_owner = Flag(**WRITTEN_BY_THE_SERVER)
    is_user_organizer = Flag(**WRITTEN_BY_THE_SERVER)
    is_user_coorganizer = Flag(**WRITTEN_BY_THE_SERVER)
    created_at = Instant(dump_only=True)
    deleted_at = Instant(dump_only=True)
    last_accessed_at = Instant(**WRITTEN_BY_THE_SERVER)

    events = Relationship("event", many=True, dump_only=True)
