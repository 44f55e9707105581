"""/v1/events: events and their teams."""

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
"""Events made before identifiers had so many characters have one of 8."""

UNKNOWN_IDENTIFIER = "unknown-identifier"
MAX_UNKNOWN_IDENTIFIERS = 60
"""Identifiers without an event that one address may name in a minute; after that it can use none at all."""

UNKNOWN_IDENTIFIER_LIMIT = f"{MAX_UNKNOWN_IDENTIFIERS - 1}/minute"
"""One less: the next request is refused once this is exceeded."""

OWNER_POINTER = "/data/relationships/owner"


def lookup_event(name: str) -> tuple[str, Any] | None:
    """An event by its id or by its identifier, which is never all digits."""
    if IDENTIFIER_RE.fullmatch(name) and not name.isdigit():
        throttle.count_address(UNKNOWN_IDENTIFIER, UNKNOWN_IDENTIFIER_LIMIT, cost=0)
        if "named_by_identifier" not in g:
            g.named_by_identifier = True
            after_this_request(count_unknown_identifier)
        return "identifier", name
    return by_integer_id(name)


def count_unknown_identifier(response: Response) -> Response:
    """Count an answer of 404 to a request that names an event by an identifier: it may be a guess."""
    if response.status_code == HTTPStatus.NOT_FOUND:
        with suppress(TooManyRequests):  # the next request is refused
            throttle.count_address(UNKNOWN_IDENTIFIER, UNKNOWN_IDENTIFIER_LIMIT)
    return response


def url_id(events: FromClause) -> ColumnElement[Any]:
    """What links name an event by: a private one only by its identifier, which is what opens it."""
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
    """Public, published events whose end lies ahead."""
    # No event is longer than that, and the index is ordered by the start: what is over is not even looked at.
    may_last = events.c.starts_at > func.now() - MAX_EVENT_DURATION
    return and_(events.c.privacy == "public", events.c.state == "published", may_last, events.c.ends_at > func.now())


class EventData(DataLayer):
    """The creator owns the event; roles follow the relationships."""

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
            raise Forbidden("An event has an owner.", pointer=OWNER_POINTER)
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
        """Only organizers and coorganizers get here: FAQs and their types are dump-only."""
        change.lock_rows(access)
        change_members(row, change)
        _log_team_change(row, change.relation.name, change.ids, change.mode, access)

    def require_relationship_permission(
        self, row: Any, relation: Relation, change: ToManyChange | None, access: AccessContext
    ) -> None:
        """Whoever was taken into a team may leave it, and then nothing else."""
        leaves = change is not None and change.mode == "remove" and change.ids == [access.viewer.id]
        if not (leaves and team_or_admin(access.viewer, row)):
            super().require_relationship_permission(row, relation, change, access)


def _log_team_change(row: Any, role: str, user_ids: list[int], mode: str, access: AccessContext) -> None:
    about = {"event_id": row.id, "role": role, "mode": mode, "account_ids": user_ids}
    log_success("event team changed", by_account_id=access.viewer.id, **about)


def _require_verified(viewer: CurrentUser) -> None:
    """403 for an unverified address, where only verified ones may own events."""
    if current_app.config["REQUIRE_VERIFIED_EMAIL"] and not (viewer.is_verified or viewer.is_admin):
        raise Forbidden("Verify your e-mail address first.", code="unverified-email")


def _require_consent(owner_id: int, access: AccessContext) -> None:
    """403 unless the new owner is the caller: all others are asked first."""
    if owner_id != access.viewer.id:
        detail = "A new owner has to accept: name the user in the relationship pending-owner of the event."
        raise Forbidden(detail, pointer=OWNER_POINTER, code="acceptance-required")


def _clear_payment_details(data: dict[str, Any]) -> None:
    """Leave no payment details of the former owner to a new one, who may have sent others in the same request."""
    for name in PAYMENT_DETAILS:
        data.setdefault(name, None)


def _check_pending_owner(data: Mapping[str, Any], owner_id: int, access: AccessContext) -> None:
    """409 when the event is offered to its owner; 403 without a recent log-in; 429 when a user is asked too often."""
    user_id = data.get("pending_owner_id")
    if user_id is not None and user_id == owner_id:
        raise Conflict("This user owns the event already.", pointer="/data/relationships/pending-owner")
    if user_id is not None:
        require_password(access.viewer)
        throttle.check_rate_limit("offer-ownership", account=str(user_id))


def _require_live_owner(owner_id: int, access: AccessContext) -> None:
    """409 when the owner is in the trash; he stays out of it until this transaction ends."""
    live = replace(access, scope=replace(access.scope, trashed=False))
    if not repository.lock_related(EVENT.relations["owner"], [owner_id], live):
        raise Conflict("The owner has been deleted: name another.", pointer=OWNER_POINTER)


class EventList(ResourceList):
    """All events the viewer sees."""

    data_layer = {"class": EventData, "type": EVENT}


class UpcomingEvents(ResourceList):
    """Public, published events that are not over, the next one first."""

    data_layer = {"class": EventData, "type": EVENT}
    methods = {"GET"}
    collection_scope = CollectionScope(is_upcoming, order=("starts_at",))


class EventDetail(ResourceDetail):
    """One event, by id or identifier."""

    data_layer = {"class": EventData, "type": EVENT}


class OwnershipAnswer(ActionView):
    """A POST without a body by which the user named in pending-owner answers."""

    data_layer = {"class": EventData, "type": EVENT}
    methods = {"POST"}

    @classmethod
    def predicates_by_method(cls) -> Mapping[str, Predicate]:
        return {"POST": pending_owner}

    def post(self, id: str) -> Response:
        """Answered once for an Idempotency-Key."""
        viewer = require_current_user()
        reader = self.make_reader(name=id)

        def give() -> Response:
            row = self.lock_row(id, reader.access)
            if not pending_owner(viewer, row):
                detail = "Only the user named in pending-owner may do this."
                raise Forbidden(detail, code="not-pending-owner")
            return self.answer_offer(row, reader)

        def check_rights(_document: Any) -> None:
            self.check_replay(id, reader.access.with_trash())

        return run_idempotent(viewer, give, check_rights=check_rights)

    def check_replay(self, id: str, access: AccessContext) -> None:
        """Refuse a replay to a caller who may not have it: an answer without a resource needs no right."""

    def answer_offer(self, row: Any, reader: ResourceReader) -> Response:
        """The answer, nothing committed yet."""
        raise NotImplementedError


class AcceptOwnership(OwnershipAnswer):
    """Makes the caller the owner, without the payment details of the former owner, who becomes an organizer."""

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
            raise NotFound("The event has just gone away.")
        return json_response({**document, "links": {"self": document["data"]["links"]["self"]}})

    def check_replay(self, id: str, access: AccessContext) -> None:
        access.require_permission(owner_or_admin, self.lock_row(id, access))


class DeclineOwnership(OwnershipAnswer):
    """Leaves the event with its owner."""

    methods = {"POST"}

    def answer_offer(self, row: Any, reader: ResourceReader) -> Response:
        repository.update_row(EVENT, row, {"pending_owner_id": None})
        return json_response({"meta": {"message": "Ownership declined"}, "jsonapi": JSONAPI})


def route(api: Api) -> None:
    """The URLs of events."""
    api.route(EventList, "event_list", "/events")
    api.route(UpcomingEvents, "event_upcoming", "/events/upcoming")
    api.route(EventDetail, "event_detail", "/events/<id>")
    api.route(AcceptOwnership, "event_accept_ownership", "/events/<id>/accept-ownership")
    api.route(DeclineOwnership, "event_decline_ownership", "/events/<id>/decline-ownership")
    register_relationship_routes(api, EVENT, EventData)
