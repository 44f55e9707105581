"""/v1/events: events and their teams."""

from typing import Any

from flask import current_app
from flask_rest_jsonapi_next import Api
from sqlalchemy import ColumnElement, FromClause, Text, and_, case, cast, func

from app.errors import Forbidden, NotFound
from app.events.models import Event
from app.events.permissions import PERMISSIONS
from app.events.schemas import EventSchema
from app.events.team import change_members, make_owner
from app.jsonapi.filters import Build
from app.jsonapi.permissions import Access
from app.jsonapi.relations import route_relations
from app.jsonapi.resource_type import Relation, ResourceType, id_criterion
from app.jsonapi.resources import ResourceDetail, ResourceList
from app.jsonapi.writing import DataLayer, Mode, related_rows

IDENTIFIER_LENGTH = 8


def lookup(events: FromClause, name: str) -> ColumnElement[bool] | None:
    """An event by its id or by its identifier, which is never all digits."""
    if len(name) == IDENTIFIER_LENGTH and name.isascii() and not name.isdigit():
        return events.c.identifier == name
    return id_criterion(events, name)


def link_name(events: FromClause) -> ColumnElement[Any]:
    """What links name an event by: a private one only by its identifier, which is what opens it."""
    return case((events.c.privacy == "private", events.c.identifier), else_=cast(events.c.id, Text))


EVENT = ResourceType(
    schema=EventSchema,
    model=Event,
    plural="events",
    permissions=PERMISSIONS,
    link_name=link_name,
    lookup=lookup,
)


class EventData(DataLayer):
    """The creator owns the event; roles follow the relationships."""

    def before_create_object(self, data: dict[str, Any], access: Access) -> None:
        viewer = access.viewer
        if current_app.config["REQUIRE_VERIFIED_EMAIL"] and not (viewer.is_verified or viewer.is_admin):
            raise Forbidden("Verify your e-mail address first.", code="unverified-email")
        owner_id = data.setdefault("owner_id", viewer.id) or viewer.id
        if owner_id != viewer.id and not viewer.is_admin:
            raise Forbidden("The creator of an event becomes its owner.", pointer="/data/relationships/owner")
        data["owner_id"] = owner_id

    def after_create_object(self, row: Any, access: Access) -> None:
        make_owner(row, row.owner_id)

    def before_update_object(self, row: Any, data: dict[str, Any], access: Access) -> None:
        if "owner_id" in data and data["owner_id"] is None:
            raise Forbidden("An event has an owner.", pointer="/data/relationships/owner")

    def after_update_object(self, row: Any, data: dict[str, Any], access: Access) -> None:
        if "owner_id" in data:
            make_owner(row, data["owner_id"])

    def change_related(self, row: Any, relation: Relation, ids: list[int], mode: Mode, access: Access) -> None:
        """Only organizers and coorganizers get here: FAQs and their types are dump-only."""
        if mode != "remove" and len(related_rows(relation, ids, access)) != len(ids):
            raise NotFound("There is no such user here.", pointer="/data")
        change_members(row, relation.name.removesuffix("s"), ids, mode)


class EventList(ResourceList):
    """All events the viewer sees."""

    data_layer = {"class": EventData, "type": EVENT}


class UpcomingEvents(ResourceList):
    """Public, published events that are not over, the next one first."""

    data_layer = {"class": EventData, "type": EVENT}
    methods = {"GET"}
    order = ("starts_at",)

    def narrowing(self) -> Build:
        return lambda events: and_(
            events.c.privacy == "public", events.c.state == "published", events.c.ends_at > func.now()
        )


class EventDetail(ResourceDetail):
    """One event, by id or identifier."""

    data_layer = {"class": EventData, "type": EVENT}


def route(api: Api) -> None:
    """The URLs of events."""
    api.route(EventList, "event_list", "/events")
    api.route(UpcomingEvents, "event_upcoming", "/events/upcoming")
    api.route(EventDetail, "event_detail", "/events/<id>")
    route_relations(api, EVENT, EventData)
