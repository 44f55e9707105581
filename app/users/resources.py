"""/v1/users: sign-up, the own account, and the accounts for admins."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import marshmallow
from flask import g, request
from flask_rest_jsonapi_next import Api
from sqlalchemy import ColumnElement, FromClause, Table, delete, exists, false, func, literal, select, true

from app import throttle
from app.change_signals import emit_change
from app.database import get_connection
from app.errors import Forbidden, Unprocessable
from app.jsonapi.current_user import CurrentUser
from app.jsonapi.data_layer import DataLayer, SentResource
from app.jsonapi.document_parser import ResourceDocument
from app.jsonapi.permissions import AccessContext
from app.jsonapi.relationship_views import register_relationship_routes
from app.jsonapi.resource_type import TYPES, Attribute, ResourceType
from app.jsonapi.resources import ResourceDetail, ResourceList
from app.logs import log_success
from app.signals import SIGNALS_BY_TOPIC
from app.users import accounts
from app.users.emails import email_key
from app.users.login_sessions import remember_address, revoke_all_sessions
from app.users.models import User
from app.users.passwords import hash_password
from app.users.permissions import PERMISSIONS, alias_event_roles
from app.users.reauthentication import mark_password_confirmed, require_password
from app.users.schemas import UserSchema

ROLE_ATTRIBUTES = ("is_admin", "is_super_admin", "is_blocked", "is_sales_admin", "is_marketer")
"""Attributes that control the rights of an account; changes are logged."""

MAX_PASSWORDS = 1
"""Passwords that one request may set."""

ADMIN_SET_PASSWORD_LIMIT = "20/minute"  # noqa: S105  # a limit
"""Passwords that one admin may set, including those of others; other users have ACCOUNT_LIMIT."""

EMAIL_CHANGE_LIMIT = "20/day"
"""Changes of the address of one account, including its spelling: each new address gets mails."""

SIGN_UP_BYTES_LIMIT = f"{10 * 2**20}/day"
"""Bytes of the texts of accounts that are made from one address, short ones excepted: they are limited by number."""

MAX_SHORT_SIGN_UP_BYTES = 2048
"""Bytes of the texts of a short account, such as one made by the form of a web page."""

MAX_SIGN_UP_BYTES = 128 * 1024
"""Bytes of a sign-up: small, because it needs no authentication."""


def _build_role_expression(role: str) -> Callable[[FromClause], ColumnElement[Any]]:
    def expression(users: FromClause) -> ColumnElement[Any]:
        roles = alias_event_roles()
        # Not `exists`: for lists PostgreSQL would plan it as a hashed scan of all teams.
        has = select(true()).where(roles.c.user_id == users.c.id, roles.c.role == role).limit(1)
        return func.coalesce(has.scalar_subquery(), false())

    return expression


USER = ResourceType(
    schema=UserSchema,
    model=User,
    plural="users",
    noun="a user",
    description="Accounts and profiles.",
    permissions=PERMISSIONS,
    computed={
        "is_user_owner": _build_role_expression("owner"),
        "is_user_organizer": _build_role_expression("organizer"),
        "is_user_coorganizer": _build_role_expression("coorganizer"),
    },
    conflicts={"uq_users_email": ("email", "Email already exists")},
)
PASSWORD_ATTRIBUTE = USER.attributes["password"]
CURRENT_PASSWORD_ATTRIBUTE = USER.attributes["current_password"]


class UserData(DataLayer):
    """Data layer of users: hashes passwords, and revokes sessions when a password changes or the account is deleted."""

    has_slow_work = True

    def before_transaction(self, resources: Sequence[SentResource], viewer: CurrentUser) -> None:
        """Check the current password and hash the new one; refuse a request with several, because hashing is slow."""
        current = _find_attribute_value(CURRENT_PASSWORD_ATTRIBUTE, resources)
        new = _find_attribute_value(PASSWORD_ATTRIBUTE, resources)
        if current is not None and current[0] is not None and not viewer.is_anonymous:
            _confirm_password(viewer, *current)
        if new is not None:
            if not viewer.is_anonymous:
                limit = ADMIN_SET_PASSWORD_LIMIT if viewer.is_admin else throttle.ACCOUNT_LIMIT
                throttle.check_rate_limit("set-password", str(viewer.id), per_account=limit)
            g.hashed_password = _hash_if_valid(new[0])

    def before_create_object(self, data: dict[str, Any], access: AccessContext) -> None:
        if not access.viewer.is_admin:
            throttle.count_mail_order()
            size = sum(len(value.encode()) for value in data.values() if isinstance(value, str))
            if size > MAX_SHORT_SIGN_UP_BYTES:
                throttle.count_address("sign-up-bytes", SIGN_UP_BYTES_LIMIT, cost=size)
        data["password_hash"] = _pop_hash(data.pop("password"))

    def after_create_object(self, row: Any, access: AccessContext) -> None:
        if access.viewer.is_anonymous:
            # The device is known then: the daily mails that unknown devices can order do not use up its own.
            remember_address(row.id, throttle.client_bucket())

    def get_answer_access(self, row: Any, access: AccessContext) -> AccessContext:
        """Return the access of the new user after a sign-up, so that the response contains the whole account."""
        if access.viewer.is_admin:
            return access
        viewer = CurrentUser(id=row.id)
        return AccessContext(viewer, replace(access.scope, role=viewer.role))

    def update_object(self, row: Any, document: ResourceDocument, access: AccessContext) -> None:
        document.attributes.pop("current_password", None)  # checked in `before_transaction`
        if document.attributes.get("email") == row.email:
            del document.attributes["email"]  # unchanged
        super().update_object(row, document, access)

    def before_update_object(self, row: Any, data: dict[str, Any], access: AccessContext) -> None:
        for name in ("password", "email"):
            if name in data and data[name] != getattr(row, name, None):
                require_password(access.viewer, pointer=f"/data/attributes/{name}")
        changed = {
            name: data[name] for name in ROLE_ATTRIBUTES if data.get(name, getattr(row, name)) != getattr(row, name)
        }
        if changed:
            role = USER.attributes[next(iter(changed))]
            require_password(access.viewer, pointer=f"/data/attributes/{role.key}")
            log_success("account role changed", account_id=row.id, by_account_id=access.viewer.id, **changed)
        if "password" in data:
            data["password_hash"] = _pop_hash(data.pop("password"))
            keep = access.viewer.sign_in_id if access.viewer.id == row.id else None
            accounts.revoke_credentials(row.id, except_sign_in_id=keep)
            accounts.notify_password_changed(row.id, row.email, is_verified=row.is_verified)
        if data.get("email", row.email) != row.email:
            throttle.check_rate_limit("change-email", str(row.id), anywhere=EMAIL_CHANGE_LIMIT)
            if not access.viewer.is_admin:
                throttle.count_mail_order()
        if "email" in data and email_key(data["email"]) != email_key(row.email):
            data.setdefault("is_verified", False)
            data["email_changed_at"] = datetime.now(UTC)
            accounts.notify_email_changed(row.id, row.email, is_verified=row.is_verified)

    def before_delete_object(self, row: Any, access: AccessContext) -> None:
        require_password(access.viewer)
        event = TYPES["event"].table
        owned = select(literal(1)).where(event.c.owner_id == row.id, event.c.deleted_at.is_(None))
        if get_connection().scalar(select(exists(owned))):
            detail = "The owner of an event cannot be deleted: hand the event over (pending-owner), or delete it."
            raise Forbidden(detail, code="owns-events")
        _leave_teams(row.id)
        revoke_all_sessions(row.id)
        accounts.notify_account_deleted(row.id, row.email, is_verified=row.is_verified)


def _leave_teams(user_id: int) -> None:
    """Remove a user from the teams of events of other owners."""
    roles = TYPES["user"].relations["events"].secondary
    if not isinstance(roles, Table):
        raise TypeError("users and events are related through a table")
    removal = delete(roles).where(roles.c.user_id == user_id, roles.c.role != "owner")
    for event_id, role in get_connection().execute(removal.returning(roles.c.event_id, roles.c.role)).all():
        emit_change(SIGNALS_BY_TOPIC["event"], verb="updated", id=event_id, event_id=event_id, changed={f"{role}s"})


def _confirm_password(viewer: CurrentUser, sent: Any, pointer: str) -> None:
    """Check `current-password` and mark the password as confirmed; raise Forbidden when it is wrong."""
    if not isinstance(sent, str):
        raise Unprocessable("Must be a text.", pointer=pointer)
    if accounts.check_password(viewer, sent) is None:
        raise Forbidden("The current password is wrong.", pointer=pointer, code="wrong-password")
    mark_password_confirmed()


def _find_attribute_value(attribute: Attribute, resources: Sequence[SentResource]) -> tuple[Any, str] | None:
    """Return the value of an attribute in the resource objects and its pointer; raise Unprocessable for several."""
    sent = [
        (value, f"{each.pointer}/attributes/{spelled}")
        for each in resources
        if isinstance(attributes := each.data.get("attributes"), dict)
        for spelled, value in attributes.items()
        if USER.find_attribute(spelled) is attribute
    ]
    if len(sent) > MAX_PASSWORDS:
        detail = f"A request may contain {MAX_PASSWORDS} {attribute.key}: send others in separate requests."
        raise Unprocessable(detail, pointer=sent[MAX_PASSWORDS][1], code="too-many-passwords")
    return sent[0] if sent else None


def _hash_if_valid(sent: Any) -> tuple[str, str] | None:
    """Return a valid password and its hash; None for an invalid one, which the validation will report."""
    try:
        password = PASSWORD_ATTRIBUTE.field.deserialize(sent)
    except marshmallow.ValidationError:
        return None
    return password, hash_password(password)


def _pop_hash(password: str) -> str:
    """Return the hash of this password from `before_transaction`."""
    hashed, password_hash = g.pop("hashed_password")
    if hashed != password:
        raise RuntimeError("before_transaction has hashed another password")
    return str(password_hash)


class UserList(ResourceList):
    """All users, for admins; a POST of anyone signs up."""

    data_layer = {"class": UserData, "type": USER}

    @staticmethod
    def largest_body() -> int:
        """Count a sign-up before its body is read; return the largest body in bytes."""
        if request.method == "POST":
            throttle.count_address("sign-up")
        return MAX_SIGN_UP_BYTES


class UserDetail(ResourceDetail):
    """One user."""

    data_layer = {"class": UserData, "type": USER}


def route(api: Api) -> None:
    """Register the routes of users."""
    api.route(UserList, "user_list", "/users")
    api.route(UserDetail, "user_detail", "/users/<id>")
    register_relationship_routes(api, USER, UserData)
