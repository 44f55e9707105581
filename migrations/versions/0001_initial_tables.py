"""Initial tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "outbox_entries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("tries", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("dead_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox_entries")),
    )
    op.create_index(
        "ix_outbox_entries_done_at",
        "outbox_entries",
        ["done_at"],
        unique=False,
        postgresql_where=sa.text("done_at IS NOT NULL"),
    )
    op.create_index(
        "ix_outbox_entries_open",
        "outbox_entries",
        ["next_at"],
        unique=False,
        postgresql_where=sa.text("done_at IS NULL AND dead_at IS NULL"),
    )
    op.create_table(
        "relay_beats",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("beat_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_relay_beats_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_relay_beats")),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("first_name", sa.Text(), nullable=True),
        sa.Column("last_name", sa.Text(), nullable=True),
        sa.Column("public_name", sa.Text(), nullable=True),
        sa.Column("details", sa.Text(), nullable=True),
        sa.Column("contact", sa.Text(), nullable=True),
        sa.Column("company", sa.Text(), nullable=True),
        sa.Column("billing_contact_name", sa.Text(), nullable=True),
        sa.Column("billing_phone", sa.Text(), nullable=True),
        sa.Column("billing_state", sa.Text(), nullable=True),
        sa.Column("billing_country", sa.Text(), nullable=True),
        sa.Column("billing_tax_info", sa.Text(), nullable=True),
        sa.Column("billing_address", sa.Text(), nullable=True),
        sa.Column("billing_city", sa.Text(), nullable=True),
        sa.Column("billing_zip_code", sa.Text(), nullable=True),
        sa.Column("billing_additional_info", sa.Text(), nullable=True),
        sa.Column("language_prefrence", sa.Text(), nullable=True),
        sa.Column("avatar_url", sa.Text(), nullable=True),
        sa.Column("facebook_url", sa.Text(), nullable=True),
        sa.Column("twitter_url", sa.Text(), nullable=True),
        sa.Column("instagram_url", sa.Text(), nullable=True),
        sa.Column("google_plus_url", sa.Text(), nullable=True),
        sa.Column("original_image_url", sa.Text(), nullable=True),
        sa.Column("thumbnail_image_url", sa.Text(), nullable=True),
        sa.Column("small_image_url", sa.Text(), nullable=True),
        sa.Column("icon_image_url", sa.Text(), nullable=True),
        sa.Column("is_profile_public", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_admin", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_super_admin", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_verified", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_blocked", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_sales_admin", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_marketer", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("email_verified_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_accessed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    op.create_index(
        "uq_users_email",
        "users",
        [sa.literal_column("lower(email)")],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("identifier", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="draft", nullable=False),
        sa.Column("privacy", sa.Text(), server_default="public", nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("owner_name", sa.Text(), nullable=True),
        sa.Column("owner_description", sa.Text(), nullable=True),
        sa.Column("location_name", sa.Text(), nullable=True),
        sa.Column("searchable_location_name", sa.Text(), nullable=True),
        sa.Column("public_stream_link", sa.Text(), nullable=True),
        sa.Column("after_order_message", sa.Text(), nullable=True),
        sa.Column("code_of_conduct", sa.Text(), nullable=True),
        sa.Column("payment_country", sa.Text(), nullable=True),
        sa.Column("payment_currency", sa.Text(), nullable=True),
        sa.Column("paypal_email", sa.Text(), nullable=True),
        sa.Column("cheque_details", sa.Text(), nullable=True),
        sa.Column("bank_details", sa.Text(), nullable=True),
        sa.Column("onsite_details", sa.Text(), nullable=True),
        sa.Column("invoice_details", sa.Text(), nullable=True),
        sa.Column("refund_policy", sa.Text(), nullable=True),
        sa.Column("chat_room_name", sa.Text(), nullable=True),
        sa.Column("latitude", sa.Float(), nullable=True),
        sa.Column("longitude", sa.Float(), nullable=True),
        sa.Column("logo_url", sa.Text(), nullable=True),
        sa.Column("original_image_url", sa.Text(), nullable=True),
        sa.Column("external_event_url", sa.Text(), nullable=True),
        sa.Column("ticket_url", sa.Text(), nullable=True),
        sa.Column("thumbnail_image_url", sa.Text(), nullable=True),
        sa.Column("large_image_url", sa.Text(), nullable=True),
        sa.Column("icon_image_url", sa.Text(), nullable=True),
        sa.Column("ical_url", sa.Text(), nullable=True),
        sa.Column("xcal_url", sa.Text(), nullable=True),
        sa.Column("pentabarf_url", sa.Text(), nullable=True),
        sa.Column("online", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_map_shown", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_featured", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_promoted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_demoted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_announced", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("has_owner_info", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_sessions_speakers_enabled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_sponsors_enabled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_ticket_form_enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("is_cfs_enabled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_tax_enabled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_billing_info_mandatory", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_donation_enabled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_chat_enabled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_videoroom_enabled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_document_enabled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("show_remaining_tickets", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("can_pay_by_paypal", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("can_pay_by_stripe", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("can_pay_by_cheque", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("can_pay_by_bank", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("can_pay_by_invoice", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("can_pay_by_omise", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("can_pay_by_alipay", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("can_pay_by_paytm", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("can_pay_onsite", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("document_links", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("schedule_published_on", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("privacy IN ('public', 'private')", name=op.f("ck_events_privacy")),
        sa.CheckConstraint("state IN ('draft', 'published')", name=op.f("ck_events_state")),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("fk_events_owner_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.UniqueConstraint("identifier", name=op.f("uq_events_identifier")),
    )
    op.create_index(op.f("ix_events_owner_id"), "events", ["owner_id"], unique=False)
    op.create_index(
        "ix_events_upcoming",
        "events",
        ["starts_at", "id"],
        unique=False,
        postgresql_where=sa.text("deleted_at IS NULL AND state = 'published' AND privacy = 'public'"),
    )
    op.create_table(
        "sign_ins",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_sign_ins_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_ins")),
    )
    op.create_index(op.f("ix_sign_ins_user_id"), "sign_ins", ["user_id"], unique=False)
    op.create_table(
        "event_roles",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.CheckConstraint("role IN ('owner', 'organizer', 'coorganizer')", name=op.f("ck_event_roles_role")),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name=op.f("fk_event_roles_event_id_events")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_event_roles_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_roles")),
        sa.UniqueConstraint("event_id", "user_id", name=op.f("uq_event_roles_event_id_user_id")),
    )
    op.create_index(op.f("ix_event_roles_user_id"), "event_roles", ["user_id"], unique=False)
    op.create_index(
        "uq_event_roles_owner", "event_roles", ["event_id"], unique=True, postgresql_where=sa.text("role = 'owner'")
    )
    op.create_table(
        "faq_types",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name=op.f("fk_faq_types_event_id_events")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_faq_types")),
    )
    op.create_index("ix_faq_types_event_id_id", "faq_types", ["event_id", "id"], unique=False)
    op.create_index(
        "uq_faq_types_name",
        "faq_types",
        ["event_id", sa.literal_column("lower(name)")],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "refresh_tokens",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("sign_in_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["sign_in_id"], ["sign_ins.id"], name=op.f("fk_refresh_tokens_sign_in_id_sign_ins"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_refresh_tokens")),
    )
    op.create_index(op.f("ix_refresh_tokens_expires_at"), "refresh_tokens", ["expires_at"], unique=False)
    op.create_index(op.f("ix_refresh_tokens_sign_in_id"), "refresh_tokens", ["sign_in_id"], unique=False)
    op.create_table(
        "faqs",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column("faq_type_id", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name=op.f("fk_faqs_event_id_events")),
        sa.ForeignKeyConstraint(["faq_type_id"], ["faq_types.id"], name=op.f("fk_faqs_faq_type_id_faq_types")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_faqs")),
    )
    op.create_index("ix_faqs_event_id_position_id", "faqs", ["event_id", "position", "id"], unique=False)
    op.create_index("ix_faqs_faq_type_id_position_id", "faqs", ["faq_type_id", "position", "id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_faqs_faq_type_id_position_id", table_name="faqs")
    op.drop_index("ix_faqs_event_id_position_id", table_name="faqs")
    op.drop_table("faqs")
    op.drop_index(op.f("ix_refresh_tokens_sign_in_id"), table_name="refresh_tokens")
    op.drop_index(op.f("ix_refresh_tokens_expires_at"), table_name="refresh_tokens")
    op.drop_table("refresh_tokens")
    op.drop_index("uq_faq_types_name", table_name="faq_types", postgresql_where=sa.text("deleted_at IS NULL"))
    op.drop_index("ix_faq_types_event_id_id", table_name="faq_types")
    op.drop_table("faq_types")
    op.drop_index("uq_event_roles_owner", table_name="event_roles", postgresql_where=sa.text("role = 'owner'"))
    op.drop_index(op.f("ix_event_roles_user_id"), table_name="event_roles")
    op.drop_table("event_roles")
    op.drop_index(op.f("ix_sign_ins_user_id"), table_name="sign_ins")
    op.drop_table("sign_ins")
    op.drop_index(
        "ix_events_upcoming",
        table_name="events",
        postgresql_where=sa.text("deleted_at IS NULL AND state = 'published' AND privacy = 'public'"),
    )
    op.drop_index(op.f("ix_events_owner_id"), table_name="events")
    op.drop_table("events")
    op.drop_index("uq_users_email", table_name="users", postgresql_where=sa.text("deleted_at IS NULL"))
    op.drop_table("users")
    op.drop_table("relay_beats")
    op.drop_index(
        "ix_outbox_entries_open",
        table_name="outbox_entries",
        postgresql_where=sa.text("done_at IS NULL AND dead_at IS NULL"),
    )
    op.drop_index(
        "ix_outbox_entries_done_at", table_name="outbox_entries", postgresql_where=sa.text("done_at IS NOT NULL")
    )
    op.drop_table("outbox_entries")
