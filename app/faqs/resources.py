"""/v1/faqs and /v1/faq-types: FAQs of events and their types."""

from collections.abc import Mapping
from typing import Any

from flask_rest_jsonapi_next import Api

from app.errors import Unprocessable
from app.events.permissions import team_of_event
from app.faqs.models import Faq, FaqType
from app.faqs.permissions import PERMISSIONS
from app.faqs.schemas import FaqSchema, FaqTypeSchema
from app.jsonapi import repository
from app.jsonapi.data_layer import DataLayer, ToManyChange, get_linked_ids
from app.jsonapi.permissions import AccessContext
from app.jsonapi.relationship_views import register_relationship_routes
from app.jsonapi.resource_type import Relation, ResourceType
from app.jsonapi.resources import ResourceDetail, ResourceList

FAQ_TYPE = ResourceType(
    schema=FaqTypeSchema,
    model=FaqType,
    plural="faq-types",
    noun="a FAQ type",
    description="Categories of the frequently asked questions of an event.",
    permissions=PERMISSIONS,
    conflicts={"uq_faq_types_name": ("name", "Name already exists in this event")},
)

FAQ = ResourceType(
    schema=FaqSchema,
    model=Faq,
    plural="faqs",
    noun="a FAQ",
    description="Frequently asked questions of an event and their answers.",
    permissions=PERMISSIONS,
    order=("position", "id"),
)


class FaqTypeData(DataLayer):
    """Data layer of FAQ types: FAQs of the type must belong to its event."""

    def change_related(self, row: Any, change: ToManyChange, access: AccessContext) -> None:
        current, requested = set(get_linked_ids(row, change.relation, access)), set(change.ids)
        removed = {"add": set(), "remove": current & requested, "replace": current - requested}[change.mode]
        for id_, faq in change.lock_rows(access, also=removed, lock="update").items():
            access.require_permission(team_of_event, faq, pointer=change.pointer)
            _check_same_event(faq.event_id, row.event_id, change.pointer)
            if id_ in removed:
                repository.update_row(FAQ, faq, {"faq_type_id": None})
            elif change.mode != "remove":
                repository.update_row(FAQ, faq, {"faq_type_id": row.id})


class FaqData(DataLayer):
    """Data layer of FAQs: the type of a FAQ must belong to its event."""

    def check_related(self, values: Mapping[str, Any], relation: Relation, other: Any) -> None:
        if relation.name == "faq_type":
            _check_same_event(other.event_id, values["event_id"], "/data/relationships/faq-type/data")


def _check_same_event(one: int, other: int, pointer: str) -> None:
    if one != other:
        raise Unprocessable("A FAQ and its type must belong to the same event.", pointer=pointer)


class FaqTypeList(ResourceList):
    """All FAQ types that the current user can see."""

    data_layer = {"class": FaqTypeData, "type": FAQ_TYPE}


class FaqTypeDetail(ResourceDetail):
    """One FAQ type."""

    data_layer = {"class": FaqTypeData, "type": FAQ_TYPE}


class FaqList(ResourceList):
    """All FAQs that the current user can see."""

    data_layer = {"class": FaqData, "type": FAQ}


class FaqDetail(ResourceDetail):
    """One FAQ."""

    data_layer = {"class": FaqData, "type": FAQ}


def route(api: Api) -> None:
    """Register the routes of FAQs and their types."""
    api.route(FaqTypeList, "faq_type_list", "/faq-types")
    api.route(FaqTypeDetail, "faq_type_detail", "/faq-types/<id>")
    register_relationship_routes(api, FAQ_TYPE, FaqTypeData)
    api.route(FaqList, "faq_list", "/faqs")
    api.route(FaqDetail, "faq_detail", "/faqs/<id>")
    register_relationship_routes(api, FAQ, FaqData)
