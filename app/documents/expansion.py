"""What a document set comes to: its events with their images and FAQs, its FAQs and uploads, each document once."""

from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from flask import Response
from sqlalchemy import FromClause, Table, select

from app.database import Prepared
from app.documents.models import SET_EVENTS, SET_FAQS, SET_UPLOADS, DocumentSet
from app.errors import NotFound, Unprocessable
from app.events.models import Event
from app.events.permissions import visible, visible_with_event
from app.faqs.models import Faq
from app.gallery.models import EventImage
from app.jsonapi.paging import Rows
from app.jsonapi.permissions import Access, Criterion, Scope
from app.jsonapi.query import Query
from app.jsonapi.reading import Reader
from app.jsonapi.resource_type import TYPES
from app.jsonapi.statements import keyed, of
from app.jsonapi.view import answer
from app.storage import PRIVATE, current_storage, send
from app.uploads.models import Upload
from app.users.owning import live_own

MOST_DOCUMENTS = 2_000

NAMES_ITS_FILE = {"event": "original_image_url", "event-image": "stored_as", "upload": "stored_as"}
"""The column that says where the image of a resource lies, by type."""

_sets = DocumentSet.__table__
_events, _faqs, _images, _uploads = Event.__table__, Faq.__table__, EventImage.__table__, Upload.__table__


class TooMany(Unprocessable):
    """The set has too many documents."""

    default_code = "too-many-documents"

    def __init__(self) -> None:
        super().__init__(f"A document set may come to at most {MOST_DOCUMENTS} documents.")


class Document(NamedTuple):
    """One thing to be treated; `uid` names it in what is sent to a processor and comes back."""

    uid: str
    type: str
    """`event`, `faq` or `image`."""
    resource_type: str
    resource_id: int


def expanded(document_set_id: int, access: Access) -> list[Document]:
    """The documents of a set that `access` may see now, none of them trashed; TooMany beyond MOST_DOCUMENTS."""
    live = _without_trash(access)
    values = {**live.parameters(), "parent_id": document_set_id}
    found = [sorted(map(tuple, each.rows(values))) for each in _statements(live.scope)]
    documents = {each.uid: each for each in _documents(*found)}
    # A step that is over the limit has been cut off, and all that it holds are different documents.
    if len(documents) > MOST_DOCUMENTS:
        raise TooMany
    return list(documents.values())


def content(document: Document, access: Access) -> Response:
    """What a document is when it is fetched: JSON:API, or the bytes of an image; NotFound where it is gone.

    In the transaction of the caller, and in answer to a request.
    """
    if document.type == "image":
        name = stored_image(document, access)
        if name is None:
            raise NotFound(f"There is no {document.uid} here any more.")
        return send(name)
    live = _without_trash(access)
    type_ = TYPES[document.resource_type]
    # What only the owner reads is no processor's business.
    query = Query(live.scope, fields={type_.name: type_.public_fields})
    found = Reader(live, query).resource(type_, document.resource_id)
    if found is None:
        raise NotFound(f"There is no {document.uid} here any more.")
    response = answer({**found, "links": {"self": found["data"]["links"]["self"]}})
    response.headers["Cache-Control"] = PRIVATE
    return response


def stored_image(document: Document, access: Access) -> str | None:
    """The name in storage of a document that is an image; None where it is gone, or may not be seen any more."""
    live = _without_trash(access)
    if document.type != "image":
        return None
    values = {**live.parameters(), "key": document.resource_id}
    for (named,) in _file_of(document.resource_type, live.scope).rows(values):
        return _file_of_ours(named) if document.resource_type == "event" else str(named)
    return None


def _without_trash(access: Access) -> Access:
    return Access(access.viewer, Scope(access.viewer.role))


def _documents(events: Rows, images: Rows, faqs_of_events: Rows, faqs: Rows, uploads: Rows) -> Iterator[Document]:
    images_of, faqs_of = _by_event(images), _by_event(faqs_of_events)
    for event_id, picture in events:
        yield _document("event", "event", event_id)
        if _file_of_ours(picture):
            yield Document(f"event-{event_id}-image", "image", "event", event_id)
        yield from (_document("image", "event-image", id_) for id_ in images_of[event_id])
        yield from (_document("faq", "faq", id_) for id_ in faqs_of[event_id])
    yield from (_document("faq", "faq", id_) for (id_,) in faqs)
    yield from (_document("image", "upload", id_) for (id_,) in uploads)


def _document(type_: str, resource_type: str, id_: int) -> Document:
    return Document(f"{resource_type}-{id_}", type_, resource_type, id_)


def _by_event(pairs: Rows) -> dict[int, list[int]]:
    ids: dict[int, list[int]] = defaultdict(list)
    for event_id, id_ in pairs:
        ids[event_id].append(id_)
    return ids


def _file_of_ours(url: str | None) -> str | None:
    return current_storage().public_name(url) if url else None


@cache
def _statements(scope: Scope) -> tuple[Prepared, ...]:
    """In the order of `_documents`."""
    return (
        _within(scope, SET_EVENTS, _events, "id", ("id", "original_image_url"), visible),
        _within(scope, SET_EVENTS, _images, "event_id", ("event_id", "id"), visible_with_event),
        _within(scope, SET_EVENTS, _faqs, "event_id", ("event_id", "id"), visible_with_event),
        _within(scope, SET_FAQS, _faqs, "id", ("id",), visible_with_event),
        _within(scope, SET_UPLOADS, _uploads, "id", ("id",), live_own),
    )


def _within(
    scope: Scope, between: Table, table: FromClause, key: str, columns: tuple[str, ...], shown: Criterion
) -> Prepared:
    """The rows whose `key` is in the selection of the set `parent_id`, one more than may be; in no order.

    Sorted here they would all be read, however many: a cut-off step is refused anyway.
    """
    near, far = between.c
    joined = between.join(_sets, _sets.c.id == near).join(table, table.c[key] == far)
    statement = select(*(table.c[name] for name in columns)).select_from(joined)
    return Prepared(statement.where(of(near), live_own(scope, _sets), shown(scope, table)).limit(MOST_DOCUMENTS + 1))


@cache
def _file_of(resource_type: str, scope: Scope) -> Prepared:
    type_ = TYPES[resource_type]
    criterion = type_.permissions.criterion(scope, type_.table, related=False)
    return Prepared(select(type_.table.c[NAMES_ITS_FILE[resource_type]]).where(keyed(type_.table, "id"), criterion))
