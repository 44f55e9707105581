"""/v1/events: events, their teams, and offers of ownership."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from flask import Response, after_this_request, current_app, g
from flask_rest_jsonapi_next import Api
from sqlalchemy import ColumnElement, FromClause, Text, and_, case, cast, func

from app import throttle
from app.errors import Conflict, Forbidden, NotFound, TooManyRequests
from app.events.models import IDENTIFIER_BYTES, Event
from app.events.permissions import PAYMENT_DETAILS, PERMISSIONS, owner_or_admin, pending_owner, team_or_admin
from app.events.schemas import MAX_EVENT_DURATION, EventSchema
from app.events.team import change_members, make_owner, offer_ownership
from app.jsonapi import repository
from app.jsonapi.base_view import json_response
from app.jsonapi.current_user import CurrentUser, require_current_user
from app.jsonapi.data_layer import DataLayer, ToManyChange
from app.jsonapi.idempotency import run_idempotent
from app.jsonapi.permissions import AccessContext, Predicate
from app.jsonapi.reader import JSONAPI, CollectionScope, ResourceReader
from app.jsonapi.relationship_views import register_relationship_routes
from app.jsonapi.resource_type import Relation, ResourceType, by_integer_id
from app.jsonapi.resources import ActionView, ResourceDetail, ResourceList
from app.logs import log_success
from app.users.reauthentication import require_password

IDENTIFIER_RE = re.compile(f"[0-9a-f]{{8}}|[0-9a-f]{{{2 * IDENTIFIER_BYTES}}}")
"""Identifier of an event; old events have one of 8 characters."""

UNKNOWN_IDENTIFIER = "unknown-identifier"
MAX_UNKNOWN_IDENTIFIERS = 60
"""Unknown identifiers that one client address may request per minute; then requests with any identifier get 429."""

UNKNOWN_IDENTIFIER_LIMIT = f"{MAX_UNKNOWN_IDENTIFIERS - 1}/minute"
"""One less than the maximum: requests are refused once this limit is exceeded."""

OWNER_POINTER = "/data/relationships/owner"


def lookup_event(name: str) -> tuple[str, Any] | None:
    """Return the look-up of an event by id or by identifier; raise TooManyRequests after many unknown identifiers."""
    if IDENTIFIER_RE.fullmatch(name) and not name.isdigit():
        throttle.count_address(UNKNOWN_IDENTIFIER, UNKNOWN_IDENTIFIER_LIMIT, cost=0)
        if "named_by_identifier" not in g:
            g.named_by_identifier = True
            after_this_request(count_unknown_identifier)
        return "identifier", name
    return by_integer_id(name)


def count_unknown_identifier(response: Response) -> Response:
    """Count a 404 for an identifier: it may be a guess."""
    if response.status_code == HTTPStatus.NOT_FOUND:
        with suppress(TooManyRequests):  # the next request is refused
            throttle.count_address(UNKNOWN_IDENTIFIER, UNKNOWN_IDENTIFIER_LIMIT)
    return response


def url_id(events: FromClause) -> ColumnElement[Any]:
    """Return the segment for links to an event: the identifier of a private event, else the id."""
    return case((events.c.privacy == "private", events.c.identifier), else_=cast(events.c.id, Text))


EVENT = ResourceType(
    schema=EventSchema,
    model=Event,
    plural="events",
    noun="an event",
    description="Events, the people who organize them, and what belongs to them.",
    permissions=PERMISSIONS,
    link_name=url_id,
    lookup=lookup_event,
)


def is_upcoming(events: FromClause) -> ColumnElement[bool]:
    """Return the criterion for public, published events that have not ended."""
    # Implied by `ends_at`, for the index, which is ordered by `starts_at`: it excludes past events from the scan.
    is_recent = events.c.starts_at > func.now() - MAX_EVENT_DURATION
    return and_(events.c.privacy == "public", events.c.state == "published", is_recent, events.c.ends_at > func.now())


class EventData(DataLayer):
    """Data layer of events: the creator is the owner; roles follow the relationships."""

    def before_create_object(self, data: dict[str, Any], access: AccessContext) -> None:
        viewer = access.viewer
        _require_verified(viewer)
        data["owner_id"] = data.get("owner_id") or viewer.id
        _require_consent(data["owner_id"], access)
        _require_live_owner(data["owner_id"], access)
        _check_pending_owner(data, data["owner_id"], access)

    def after_create_object(self, row: Any, access: AccessContext) -> None:
        make_owner(row, row.owner_id)
        offer_ownership(row)

    def before_update_object(self, row: Any, data: dict[str, Any], access: AccessContext) -> None:
        owner_id = data.get("owner_id", row.owner_id)
        if owner_id is None:
            raise Forbidden("An event must have an owner.", pointer=OWNER_POINTER)
        if "owner_id" in data:
            _require_consent(owner_id, access)
            require_password(access.viewer)
            _clear_payment_details(data)
            data.setdefault("pending_owner_id", None)
        if "owner_id" in data or "deleted_at" in data:
            _require_live_owner(owner_id, access)
        _check_pending_owner(data, owner_id, access)

    def after_update_object(self, row: Any, data: dict[str, Any], access: AccessContext) -> None:
        if "owner_id" in data:
            make_owner(row, data["owner_id"])
            _log_team_change(row, "owner", [data["owner_id"]], "replace", access)
        if "pending_owner_id" in data:
            offer_ownership(row)

    def change_related(self, row: Any, change: ToManyChange, access: AccessContext) -> None:
        """Change organizers or coorganizers; all other to-many relationships are read-only."""
        change.lock_rows(access)
        change_members(row, change)
        _log_team_change(row, change.relation.name, change.ids, change.mode, access)

    def require_relationship_permission(
        self, row: Any, relation: Relation, change: ToManyChange | None, access: AccessContext
    ) -> None:
        """Require the permission for the relationship, unless a member of the team removes only themselves."""
        is_leaving = change is not None and change.mode == "remove" and change.ids == [access.viewer.id]
        if not (is_leaving and team_or_admin(access.viewer, row)):
            super().require_relationship_permission(row, relation, change, access)


def _log_team_change(row: Any, role: str, user_ids: list[int], mode: str, access: AccessContext) -> None:
    about = {"event_id": row.id, "role": role, "mode": mode, "account_ids": user_ids}
    log_success("event team changed", by_account_id=access.viewer.id, **about)


def _require_verified(viewer: CurrentUser) -> None:
    """Raise Forbidden for an unverified address when REQUIRE_VERIFIED_EMAIL is set."""
    if current_app.config["REQUIRE_VERIFIED_EMAIL"] and not (viewer.is_verified or viewer.is_admin):
        raise Forbidden("Verify your e-mail address first.", code="unverified-email")


def _require_consent(owner_id: int, access: AccessContext) -> None:
    """Raise Forbidden unless the new owner is the current user: other users must accept an offer."""
    if owner_id != access.viewer.id:
        detail = "A new owner has to accept: name the user in the relationship pending-owner of the event."
        raise Forbidden(detail, pointer=OWNER_POINTER, code="acceptance-required")


def _clear_payment_details(data: dict[str, Any]) -> None:
    """Clear payment details that the request does not set, so that a new owner gets none of the former owner."""
    for name in PAYMENT_DETAILS:
        data.setdefault(name, None)


def _check_pending_owner(data: Mapping[str, Any], owner_id: int, access: AccessContext) -> None:
    """Raise Conflict for an offer to the owner, Forbidden without a recent log-in, TooManyRequests for many offers."""
    user_id = data.get("pending_owner_id")
    if user_id is not None and user_id == owner_id:
        raise Conflict("This user owns the event already.", pointer="/data/relationships/pending-owner")
    if user_id is not None:
        require_password(access.viewer)
        throttle.check_rate_limit("offer-ownership", account=str(user_id))


def _require_live_owner(owner_id: int, access: AccessContext) -> None:
    """Lock the owner against deletion until commit; raise Conflict when the owner is in the trash."""
    live = replace(access, scope=replace(access.scope, trashed=False))
    if not repository.lock_related(EVENT.relations["owner"], [owner_id], live):
        raise Conflict("The owner has been deleted: name another user.", pointer=OWNER_POINTER)


class EventList(ResourceList):
    """All events that the current user can see."""

    data_layer = {"class": EventData, "type": EVENT}


class UpcomingEvents(ResourceList):
    """Public, published events that have not ended, by start."""

    data_layer = {"class": EventData, "type": EVENT}
    methods = {"GET"}
    collection_scope = CollectionScope(is_upcoming, order=("starts_at",))


class EventDetail(ResourceDetail):
    """One event, by id or identifier."""

    data_layer = {"class": EventData, "type": EVENT}


class OwnershipAnswer(ActionView):
    """Answer of the pending owner to an offer of ownership; the request has no body."""

    data_layer = {"class": EventData, "type": EVENT}
    methods = {"POST"}

    @classmethod
    def predicates_by_method(cls) -> Mapping[str, Predicate]:
        return {"POST": pending_owner}

    def post(self, id: str) -> Response:
        """Answer the offer, once for an Idempotency-Key; raise Forbidden for any user but the pending owner."""
        viewer = require_current_user()
        reader = self.make_reader(name=id)

        def answer() -> Response:
            row = self.lock_row(id, reader.access)
            if not pending_owner(viewer, row):
                detail = "Only the user named in pending-owner may do this."
                raise Forbidden(detail, code="not-pending-owner")
            return self.answer_offer(row, reader)

        def check_rights(_document: Any) -> None:
            self.check_replay(id, reader.access.with_trash())

        return run_idempotent(viewer, answer, check_rights=check_rights)

    def check_replay(self, id: str, access: AccessContext) -> None:
        """Raise an error when the current user may not get a replay; a response without a resource needs no check."""

    def answer_offer(self, row: Any, reader: ResourceReader) -> Response:
        """Change the locked event and return the response, before the commit."""
        raise NotImplementedError


class AcceptOwnership(OwnershipAnswer):
    """Make the current user the owner; clear the payment details, and make the former owner an organizer."""

    methods = {"POST"}

    def answer_offer(self, row: Any, reader: ResourceReader) -> Response:
        owner_id = reader.access.viewer.id
        require_password(reader.access.viewer)
        _require_verified(reader.access.viewer)
        _require_live_owner(owner_id, reader.access)
        data: dict[str, Any] = {"owner_id": owner_id, "pending_owner_id": None}
        _clear_payment_details(data)
        changed = repository.update_row(EVENT, row, data)
        make_owner(changed, owner_id)
        _log_team_change(changed, "owner", [owner_id], "replace", reader.access)
        document = self.read_back(changed, reader)
        if document is None:
            raise NotFound("The event has just been deleted.")
        return json_response({**document, "links": {"self": document["data"]["links"]["self"]}})

    def check_replay(self, id: str, access: AccessContext) -> None:
        access.require_permission(owner_or_admin, self.lock_row(id, access))


class DeclineOwnership(OwnershipAnswer):
    """Decline the offer: the owner stays."""

    methods = {"POST"}

    def answer_offer(self, row: Any, reader: ResourceReader) -> Response:
        repository.update_row(EVENT, row, {"pending_owner_id": None})
        return json_response({"meta": {"message": "Ownership declined"}, "jsonapi": JSONAPI})


def route(api: Api) -> None:
    """Register the routes of events."""
    api.route(EventList, "event_list", "/events")
    api.route(UpcomingEvents, "event_upcoming", "/events/upcoming")
    api.route(EventDetail, "event_detail", "/events/<id>")
    api.route(AcceptOwnership, "event_accept_ownership", "/events/<id>/accept-ownership")
    api.route(DeclineOwnership, "event_decline_ownership", "/events/<id>/decline-ownership")
    register_relationship_routes(api, EVENT, EventData)
