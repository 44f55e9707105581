"""/v1/users: sign-up, oneself, and what admins see."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import marshmallow
from flask import g, request
from flask_rest_jsonapi_next import Api
from sqlalchemy import ColumnElement, FromClause, exists, false, func, literal, select, true

from app import throttle
from app.database import connection
from app.errors import Forbidden, Unprocessable
from app.jsonapi.permissions import Access
from app.jsonapi.relations import route_relations
from app.jsonapi.resource_type import TYPES, ResourceType
from app.jsonapi.resources import ResourceDetail, ResourceList
from app.jsonapi.viewer import Viewer
from app.jsonapi.writing import DataLayer, SentResource
from app.logs import log_success
from app.users import accounts
from app.users.emails import email_key
from app.users.models import User
from app.users.passwords import hash_password
from app.users.permissions import PERMISSIONS, event_roles
from app.users.schemas import UserSchema
from app.users.sign_ins import revoke_all

ROLES = ("is_admin", "is_super_admin", "is_blocked", "is_sales_admin", "is_marketer")
"""Attributes that say what an account can do; changes are logged."""

MAX_PASSWORDS = 1
"""Passwords that one request can set."""

ADMIN_SET_PASSWORD_LIMIT = "20/minute"  # noqa: S105  # a limit
"""Passwords that one admin can set, those of others too; other accounts set as many as they can try."""

EMAIL_CHANGE_LIMIT = "20/day"
"""Changes of the address of one account, spelling included: each new address gets mails."""

MAX_SIGN_UP_BYTES = 128 * 1024
"""Bytes of a sign-up, which anyone can send."""


def _has_role(role: str) -> Callable[[FromClause], ColumnElement[Any]]:
    def expression(users: FromClause) -> ColumnElement[Any]:
        roles = event_roles()
        # Not `exists`, which PostgreSQL answers in a list by reading all teams first.
        has = select(true()).where(roles.c.user_id == users.c.id, roles.c.role == role).limit(1)
        return func.coalesce(has.scalar_subquery(), false())

    return expression


USER = ResourceType(
    schema=UserSchema,
    model=User,
    plural="users",
    permissions=PERMISSIONS,
    computed={
        "is_user_owner": _has_role("owner"),
        "is_user_organizer": _has_role("organizer"),
        "is_user_coorganizer": _has_role("coorganizer"),
    },
    conflicts={"uq_users_email": ("email", "Email already exists")},
)
PASSWORD = USER.attributes["password"]


class UserData(DataLayer):
    """Passwords become hashes; what ends trust in a session ends the session."""

    has_slow_work = True

    def before_transaction(self, resources: Sequence[SentResource], viewer: Viewer) -> None:
        """Hash the password that the request sets; refuse a request that sets several, for each takes its time."""
        sent = [(value, pointer) for each in resources for value, pointer in _sent_passwords(each)]
        if len(sent) > MAX_PASSWORDS:
            detail = f"A request can set {MAX_PASSWORDS} password: send the others in requests of their own."
            raise Unprocessable(detail, pointer=sent[MAX_PASSWORDS][1], code="too-many-passwords")
        for value, _ in sent:
            if not viewer.is_anonymous:
                limit = ADMIN_SET_PASSWORD_LIMIT if viewer.is_admin else throttle.PER_ACCOUNT
                throttle.count("set-password", str(viewer.id), per_account=limit)
            g.hashed_password = _hash_valid(value)

    def before_create_object(self, data: dict[str, Any], access: Access) -> None:
        data["password_hash"] = _take_hash(data.pop("password"))

    def answer_access(self, row: Any, access: Access) -> Access:
        """Whoever signed up sees himself, though he is not signed in yet."""
        if access.viewer.is_admin:
            return access
        viewer = Viewer(id=row.id)
        return Access(viewer, replace(access.scope, role=viewer.role))

    def before_update_object(self, row: Any, data: dict[str, Any], access: Access) -> None:
        changed = {name: data[name] for name in ROLES if data.get(name, getattr(row, name)) != getattr(row, name)}
        if changed:
            log_success("account role changed", account_id=row.id, by_account_id=access.viewer.id, **changed)
        if "password" in data:
            data["password_hash"] = _take_hash(data.pop("password"))
            keep = access.viewer.sign_in_id if access.viewer.id == row.id else None
            revoke_all(row.id, except_sign_in_id=keep)
            accounts.notify_password_changed(row.id, row.email)
        if data.get("email", row.email) != row.email:
            throttle.count("change-email", str(row.id), anywhere=EMAIL_CHANGE_LIMIT)
        if "email" in data and email_key(data["email"]) != email_key(row.email):
            data.setdefault("is_verified", False)
            accounts.notify_email_changed(row.id, old=row.email, new=data["email"])

    def before_delete_object(self, row: Any, access: Access) -> None:
        event, roles = TYPES["event"].table, event_roles()
        team = select(literal(1)).where(
            roles.c.user_id == row.id, event.c.id == roles.c.event_id, event.c.deleted_at.is_(None)
        )
        if connection().scalar(select(exists(team))):
            raise Forbidden("A member of the team of an event cannot be deleted.")
        revoke_all(row.id)


def _sent_passwords(resource: SentResource) -> Iterator[tuple[Any, str]]:
    """Yield each password that a resource object sets, and the JSON pointer to it."""
    attributes = resource.data.get("attributes")
    for spelled, value in attributes.items() if isinstance(attributes, dict) else ():
        if USER.attribute(spelled) is PASSWORD:
            yield value, f"{resource.pointer}/attributes/{spelled}"


def _hash_valid(sent: Any) -> tuple[str, str] | None:
    """Return a valid password, as the schema has it, with its hash; of others validation says what is wrong."""
    try:
        password = PASSWORD.field.deserialize(sent)
    except marshmallow.ValidationError:
        return None
    return password, hash_password(password)


def _take_hash(password: str) -> str:
    """Return the hash that was made of this password before the transaction."""
    hashed, password_hash = g.pop("hashed_password")
    if hashed != password:
        raise RuntimeError("before_transaction has hashed another password")
    return str(password_hash)


class UserList(ResourceList):
    """All users, for admins; signing up, for anyone."""

    data_layer = {"class": UserData, "type": USER}

    @staticmethod
    def largest_body() -> int:
        """Count a sign-up before its body is read, and return how many bytes it may have."""
        if request.method == "POST":
            throttle.count_address("sign-up")
        return MAX_SIGN_UP_BYTES


class UserDetail(ResourceDetail):
    """One user."""

    data_layer = {"class": UserData, "type": USER}


def route(api: Api) -> None:
    """The URLs of users."""
    api.route(UserList, "user_list", "/users")
    api.route(UserDetail, "user_detail", "/users/<id>")
    route_relations(api, USER, UserData)
