"""Schema of users."""

from typing import Any

import marshmallow
from sqlalchemy import ColumnElement, func

from app.jsonapi.fields import (
    MAX_HTML_LENGTH,
    SERVER_MANAGED,
    Boolean,
    DateTime,
    Relationship,
    ResourceSchema,
    Text,
    Url,
)
from app.jsonapi.inflection import dasherize
from app.texts import NFC_SHRINK_FACTOR
from app.users.emails import email_key, normalize_email, normalize_pattern
from app.users.passwords import MAX_PASSWORD_LENGTH, MIN_PASSWORD_LENGTH


class Email(Text):
    """E-mail address, stored in its normalized form; filters match every spelling."""

    def to_storage_form(self, text: str) -> str:
        try:
            return normalize_email(text)
        except ValueError as error:
            raise ValueError(f"{str(error).capitalize()}.") from None

    def to_comparison_form(self, text: str, *, is_pattern: bool) -> str:
        return normalize_pattern(text) if is_pattern else email_key(text)

    def comparison_column(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.lower(column)


class UserSchema(ResourceSchema):
    """Attributes and relationships of a user."""

    class Meta:
        type_ = "user"
        inflect = dasherize

    email = Email(required=True)
    password = Text(
        MAX_PASSWORD_LENGTH,
        required=True,
        load_only=True,
        validate=marshmallow.validate.Length(
            min=MIN_PASSWORD_LENGTH, error=f"Shorter than {MIN_PASSWORD_LENGTH} characters."
        ),
    )
    current_password = Text(NFC_SHRINK_FACTOR * MAX_PASSWORD_LENGTH, load_only=True)
    first_name = Text()
    last_name = Text()
    public_name = Text()
    details = Text(MAX_HTML_LENGTH)
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
    billing_additional_info = Text(MAX_HTML_LENGTH)
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
    is_profile_public = Boolean()
    is_admin = Boolean()
    is_super_admin = Boolean()
    is_verified = Boolean()
    is_blocked = Boolean()
    is_sales_admin = Boolean()
    is_marketer = Boolean()
    is_user_owner = Boolean(**SERVER_MANAGED)
    is_user_organizer = Boolean(**SERVER_MANAGED)
    is_user_coorganizer = Boolean(**SERVER_MANAGED)
    created_at = DateTime(dump_only=True)
    deleted_at = DateTime(dump_only=True)
    last_accessed_at = DateTime(**SERVER_MANAGED)

    events = Relationship("event", many=True, dump_only=True)
