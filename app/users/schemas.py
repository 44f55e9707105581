"""Users as the API shows them."""

from typing import Any

import marshmallow

from app.jsonapi.naming import dasherize
from app.jsonapi.schema import LONG, WRITTEN_BY_THE_SERVER, Flag, Instant, Relationship, Schema, Text, Url
from app.users.emails import normalise_email
from app.users.passwords import LONGEST, SHORTEST


class Email(Text):
    """An e-mail address, trimmed."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> str:
        try:
            return normalise_email(super()._deserialize(value, attr, data, **more))
        except ValueError as error:
            raise marshmallow.ValidationError(f"{str(error).capitalize()}.") from None


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
