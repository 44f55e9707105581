"""Resolution of a document set to documents: its events, their images and FAQs, its FAQs and uploads, each once."""

from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from flask import Response
from sqlalchemy import FromClause, Table, select

from app.database import PreparedStatement
from app.documents.models import SET_EVENTS, SET_FAQS, SET_UPLOADS, DocumentSet
from app.errors import NotFound, Unprocessable
from app.events.models import Event
from app.events.permissions import is_visible, is_visible_with_event
from app.faqs.models import Faq
from app.gallery.models import EventImage
from app.jsonapi.base_view import json_response
from app.jsonapi.pagination import Rows
from app.jsonapi.permissions import AccessContext, Criterion, VisibilityScope
from app.jsonapi.query_params import Query
from app.jsonapi.reader import ResourceReader
from app.jsonapi.resource_type import TYPES
from app.jsonapi.select_statements import column_is, parent_is
from app.storage import CACHE_PRIVATE, current_storage, send_stored_file
from app.uploads.models import Upload
from app.users.ownership import is_live_and_owned

MAX_DOCUMENTS = 2_000

FILE_COLUMNS = {"event": "original_image_url", "event-image": "storage_key", "upload": "storage_key"}
"""Column with the storage name or URL of the image of a resource, by type."""

_sets = DocumentSet.__table__
_events, _faqs, _images, _uploads = Event.__table__, Faq.__table__, EventImage.__table__, Upload.__table__


class TooManyDocuments(Unprocessable):
    """The set has too many documents."""

    default_code = "too-many-documents"

    def __init__(self) -> None:
        super().__init__(f"A document set may have at most {MAX_DOCUMENTS} documents.")


class Document(NamedTuple):
    """A document of a set; `uid` identifies it in requests to a processor and in its results."""

    uid: str
    type: str
    """`event`, `faq` or `image`."""
    resource_type: str
    resource_id: int


def resolve_documents(document_set_id: int, access: AccessContext) -> list[Document]:
    """Return the documents of a set that `access` may see, without trash; raise TooManyDocuments."""
    live = _without_trash(access)
    values = {**live.sql_parameters(), "parent_id": document_set_id}
    rows = [sorted(map(tuple, each.fetch_rows(values))) for each in _prepare_statements(live.scope)]
    documents = {each.uid: each for each in _build_documents(*rows)}
    # A statement that reaches its LIMIT alone returns more than MAX_DOCUMENTS different documents.
    if len(documents) > MAX_DOCUMENTS:
        raise TooManyDocuments
    return list(documents.values())


def serve_document(document: Document, access: AccessContext) -> Response:
    """Return a document as a response: JSON:API, or the bytes of an image; raise NotFound when it is gone.

    Call it during a request, in a transaction.
    """
    if document.type == "image":
        name = get_image_name(document, access)
        if name is None:
            raise NotFound(f"The document {document.uid} does not exist any more.")
        return send_stored_file(name)
    live = _without_trash(access)
    type_ = TYPES[document.resource_type]
    # Processors do not get the attributes that only the owner may read.
    query = Query(live.scope, fields={type_.name: type_.public_fields})
    content = ResourceReader(live, query).get_document(type_, document.resource_id)
    if content is None:
        raise NotFound(f"The document {document.uid} does not exist any more.")
    response = json_response({**content, "links": {"self": content["data"]["links"]["self"]}})
    response.headers["Cache-Control"] = CACHE_PRIVATE
    return response


def get_image_name(document: Document, access: AccessContext) -> str | None:
    """Return the storage name of an image; None for another type, or when it is gone or not visible."""
    live = _without_trash(access)
    if document.type != "image":
        return None
    values = {**live.sql_parameters(), "key": document.resource_id}
    for (stored,) in _prepare_file_select(document.resource_type, live.scope).fetch_rows(values):
        return _get_own_file_name(stored) if document.resource_type == "event" else str(stored)
    return None


def _without_trash(access: AccessContext) -> AccessContext:
    return AccessContext(access.viewer, VisibilityScope(access.viewer.role))


def _build_documents(events: Rows, images: Rows, faqs_of_events: Rows, faqs: Rows, uploads: Rows) -> Iterator[Document]:
    images_of, faqs_of = _group_by_event(images), _group_by_event(faqs_of_events)
    for event_id, picture in events:
        yield _build_document("event", "event", event_id)
        if _get_own_file_name(picture):
            yield Document(f"event-{event_id}-image", "image", "event", event_id)
        yield from (_build_document("image", "event-image", id_) for id_ in images_of[event_id])
        yield from (_build_document("faq", "faq", id_) for id_ in faqs_of[event_id])
    yield from (_build_document("faq", "faq", id_) for (id_,) in faqs)
    yield from (_build_document("image", "upload", id_) for (id_,) in uploads)


def _build_document(type_: str, resource_type: str, id_: int) -> Document:
    return Document(f"{resource_type}-{id_}", type_, resource_type, id_)


def _group_by_event(pairs: Rows) -> dict[int, list[int]]:
    ids: dict[int, list[int]] = defaultdict(list)
    for event_id, id_ in pairs:
        ids[event_id].append(id_)
    return ids


def _get_own_file_name(url: str | None) -> str | None:
    return current_storage().get_public_name(url) if url else None


@cache
def _prepare_statements(scope: VisibilityScope) -> tuple[PreparedStatement, ...]:
    """Return the statements in the order of the parameters of `_build_documents`."""
    return (
        _select_members(scope, SET_EVENTS, _events, "id", ("id", "original_image_url"), is_visible),
        _select_members(scope, SET_EVENTS, _images, "event_id", ("event_id", "id"), is_visible_with_event),
        _select_members(scope, SET_EVENTS, _faqs, "event_id", ("event_id", "id"), is_visible_with_event),
        _select_members(scope, SET_FAQS, _faqs, "id", ("id",), is_visible_with_event),
        _select_members(scope, SET_UPLOADS, _uploads, "id", ("id",), is_live_and_owned),
    )


def _select_members(
    scope: VisibilityScope, links: Table, table: FromClause, key: str, columns: tuple[str, ...], visible: Criterion
) -> PreparedStatement:
    """Select at most MAX_DOCUMENTS + 1 rows whose `key` is linked to the set `parent_id`.

    Without ORDER BY, which would read all rows before LIMIT: sets with more documents are refused anyway.
    """
    near, far = links.c
    joined = links.join(_sets, _sets.c.id == near).join(table, table.c[key] == far)
    statement = select(*(table.c[name] for name in columns)).select_from(joined)
    return PreparedStatement(
        statement.where(parent_is(near), is_live_and_owned(scope, _sets), visible(scope, table)).limit(
            MAX_DOCUMENTS + 1
        )
    )


@cache
def _prepare_file_select(resource_type: str, scope: VisibilityScope) -> PreparedStatement:
    type_ = TYPES[resource_type]
    criterion = type_.permissions.visibility_criterion(scope, type_.table, related=False)
    return PreparedStatement(
        select(type_.table.c[FILE_COLUMNS[resource_type]]).where(column_is(type_.table, "id"), criterion)
    )
