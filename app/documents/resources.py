"""/v1/document-sets: events, FAQs and uploads that are treated together."""

from typing import Any

from flask_rest_jsonapi_next import Api
from sqlalchemy import Table, delete
from sqlalchemy.dialects.postgresql import insert

from app.database import get_connection
from app.documents.models import SET_EVENTS, SET_FAQS, SET_UPLOADS, DocumentSet
from app.documents.permissions import PERMISSIONS
from app.documents.schemas import DocumentSetSchema
from app.jsonapi.data_layer import DataLayer, ToManyChange, get_linked_ids
from app.jsonapi.permissions import AccessContext
from app.jsonapi.relationship_views import register_relationship_routes
from app.jsonapi.resource_type import ResourceType
from app.jsonapi.resources import ResourceDetail, ResourceList

LINK_TABLES: dict[str, Table] = {"events": SET_EVENTS, "faqs": SET_FAQS, "uploads": SET_UPLOADS}
"""Link tables, by relationship."""

DOCUMENT_SET = ResourceType(
    schema=DocumentSetSchema,
    model=DocumentSet,
    plural="document-sets",
    noun="a document set",
    description="Sets of events, FAQs and uploads, for treatments.",
    permissions=PERMISSIONS,
    order=("-id",),
)


class DocumentSetData(DataLayer):
    """Data layer of document sets: the creator is the owner; only visible resources can be added."""

    def before_create_object(self, data: dict[str, Any], access: AccessContext) -> None:
        data["owner_id"] = access.viewer.id

    def change_related(self, row: Any, change: ToManyChange, access: AccessContext) -> None:
        """Change the linkage; links to resources that the current user cannot see stay."""
        current, requested = set(get_linked_ids(row, change.relation, access)), set(change.ids)
        change.lock_rows(access)
        table = LINK_TABLES[change.relation.name]
        if removed := {"add": set(), "remove": requested, "replace": current - requested}[change.mode]:
            _remove_members(table, row.id, removed)
        if change.mode != "remove" and requested:
            _add_members(table, row.id, requested)


def _remove_members(table: Table, set_id: int, ids: set[int]) -> None:
    near, far = table.c
    get_connection().execute(delete(table).where(near == set_id, far.in_(ids)))


def _add_members(table: Table, set_id: int, ids: set[int]) -> None:
    near, far = table.c
    rows = [{near.name: set_id, far.name: id_} for id_ in sorted(ids)]
    get_connection().execute(insert(table).values(rows).on_conflict_do_nothing())


class DocumentSetList(ResourceList):
    """The document sets of the current user, newest first."""

    data_layer = {"class": DocumentSetData, "type": DOCUMENT_SET}


class DocumentSetDetail(ResourceDetail):
    """One document set."""

    data_layer = {"class": DocumentSetData, "type": DOCUMENT_SET}


def route(api: Api) -> None:
    """Register the routes of document sets."""
    api.route(DocumentSetList, "document_set_list", "/document-sets")
    api.route(DocumentSetDetail, "document_set_detail", "/document-sets/<id>")
    register_relationship_routes(api, DOCUMENT_SET, DocumentSetData)
