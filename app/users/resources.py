"""/v1/users: sign-up, oneself, and what admins see."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from flask import Response, g, request
from flask_rest_jsonapi_next import Api
from sqlalchemy import ColumnElement, FromClause, Table, delete, exists, false, func, literal, select, true

from app import throttle
from app.changes import announce
from app.database import connection
from app.errors import Forbidden, Unprocessable
from app.jsonapi.body import read_json
from app.jsonapi.documents import ResourceDocument, read_changed_resource
from app.jsonapi.permissions import Access
from app.jsonapi.relations import route_relations
from app.jsonapi.resource_type import TYPES, ResourceType
from app.jsonapi.resources import ResourceDetail, ResourceList
from app.jsonapi.viewer import Viewer, signed_in_viewer
from app.jsonapi.writing import DataLayer
from app.signals import event_changed
from app.users import accounts
from app.users.emails import email_key
from app.users.models import User
from app.users.passwords import hash_password
from app.users.permissions import PERMISSIONS, event_roles
from app.users.schemas import UserSchema
from app.users.sign_ins import revoke_all
from app.users.tokens import MAX_AUTHENTICATION_AGE_SECONDS

CURRENT_PASSWORD = "/data/attributes/current-password"  # noqa: S105  # where it stands


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


class UserData(DataLayer):
    """Passwords become hashes; what ends trust in a session ends the session."""

    def before_create_object(self, data: dict[str, Any], access: Access) -> None:
        throttle.count("sign-up")
        data["password_hash"] = hash_password(data.pop("password"))

    def answer_access(self, row: Any, access: Access) -> Access:
        """Whoever signed up sees himself, though he is not signed in yet."""
        if access.viewer.is_admin:
            return access
        viewer = Viewer(id=row.id)
        return Access(viewer, replace(access.scope, role=viewer.role))

    def update_object(self, row: Any, document: ResourceDocument, access: Access) -> None:
        if "current_password" in document.attributes:
            # Checking it takes longer than a transaction may last.
            detail = "current-password is accepted by PATCH /v1/users/{id} only; here, log in again instead."
            raise Forbidden(detail, pointer=CURRENT_PASSWORD, code="password-required")
        if document.attributes.get("email") == row.email:
            del document.attributes["email"]  # sent back as it was read
        super().update_object(row, document, access)

    def before_update_object(self, row: Any, data: dict[str, Any], access: Access) -> None:
        for name in ("password", "email"):
            if name in data and data[name] != getattr(row, name, None):
                _require_password(access, pointer=f"/data/attributes/{name}")
        if "password" in data:
            data["password_hash"] = hash_password(data.pop("password"))
            keep = access.viewer.sign_in_id if access.viewer.id == row.id else None
            revoke_all(row.id, except_sign_in_id=keep)
            accounts.notify_password_changed(row.id, row.email)
        if "email" in data and email_key(data["email"]) != email_key(row.email):
            throttle.count("change-email", str(row.id))
            data.setdefault("is_verified", False)
            accounts.notify_email_changed(row.id, old=row.email, new=data["email"])

    def before_delete_object(self, row: Any, access: Access) -> None:
        _require_password(access)
        event = TYPES["event"].table
        owned = select(literal(1)).where(event.c.owner_id == row.id, event.c.deleted_at.is_(None))
        if connection().scalar(select(exists(owned))):
            detail = "The owner of an event cannot be deleted: hand the event over (pending-owner), or delete it."
            raise Forbidden(detail, code="owns-events")
        _leave_teams(row.id)
        revoke_all(row.id)
        accounts.notify_account_deleted(row.id, row.email)


def _leave_teams(user_id: int) -> None:
    """Take a user out of the teams of all events of other owners."""
    roles = TYPES["user"].relations["events"].secondary
    if not isinstance(roles, Table):
        raise TypeError("users and events are related through a table")
    left = delete(roles).where(roles.c.user_id == user_id, roles.c.role != "owner")
    for event_id, role in connection().execute(left.returning(roles.c.event_id, roles.c.role)).all():
        announce(event_changed, verb="updated", id=event_id, event_id=event_id, changed={f"{role}s"})


class ConfirmedUserData(UserData):
    """The same, once `current-password` was checked."""

    def update_object(self, row: Any, document: ResourceDocument, access: Access) -> None:
        document.attributes.pop("current_password", None)
        super().update_object(row, document, access)


def _require_password(access: Access, pointer: str | None = None) -> None:
    """403 unless the caller has given the own password in this request or a few minutes ago."""
    if not access.viewer.is_recently_authenticated:
        way = f"use the access token of a log-in in the last {MAX_AUTHENTICATION_AGE_SECONDS // 60} minutes"
        way = f"send current-password, or {way}" if pointer else way
        header = None if pointer else "Authorization"
        detail = f"This needs your password: {way}."
        raise Forbidden(detail, pointer=pointer, header=header, code="password-required")


def _confirm_password(viewer: Viewer, sent: Any) -> None:
    """Take the caller as recently authenticated for this request; 403 when `current-password` is wrong."""
    if not isinstance(sent, str):
        raise Unprocessable("Must be a text.", pointer=CURRENT_PASSWORD)
    if not accounts.confirm_password(viewer, sent):
        raise Forbidden("The current password is wrong.", pointer=CURRENT_PASSWORD, code="wrong-password")
    g.viewer = replace(viewer, is_recently_authenticated=True)


class UserList(ResourceList):
    """All users, for admins; signing up, for anyone."""

    data_layer = {"class": UserData, "type": USER}


class UserDetail(ResourceDetail):
    """One user."""

    data_layer = {"class": ConfirmedUserData, "type": USER}

    def patch(self, id: str) -> Response:
        viewer = signed_in_viewer()
        document = read_changed_resource(read_json(request.get_data()), self.type)
        if document.attributes.get("current_password") is not None:
            _confirm_password(viewer, document.attributes["current_password"])
        return super().patch(id)


def route(api: Api) -> None:
    """The URLs of users."""
    api.route(UserList, "user_list", "/users")
    api.route(UserDetail, "user_detail", "/users/<id>")
    route_relations(api, USER, UserData)
