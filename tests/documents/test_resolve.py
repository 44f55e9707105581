"""Resolution of a document set: documents, order, visibility and content."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from flask import Response
from sqlalchemy import insert, update

from app.database import open_transaction
from app.documents import resolver
from app.documents.models import SET_EVENTS, SET_FAQS, SET_UPLOADS, DocumentSet
from app.documents.resolver import (
    MAX_DOCUMENTS,
    Document,
    TooManyDocuments,
    get_image_name,
    resolve_documents,
    serve_document,
)
from app.errors import NotFound
from app.events.models import Event
from app.extensions import db
from app.faqs.models import Faq
from app.jsonapi.current_user import ANONYMOUS_USER, CurrentUser, Role
from app.jsonapi.permissions import AccessContext, VisibilityScope
from app.storage import Storage
from tests.dataset import JSONAPI, Dataset, build_linkage
from tests.images.sample_images import encode_image, make_flag_image
from tests.images.test_uploads import send_as_form

TABLES = {"events": SET_EVENTS, "faqs": SET_FAQS, "uploads": SET_UPLOADS}
PICTURE = encode_image(make_flag_image(), "png")


def build_access(dataset: Dataset, role: str) -> AccessContext:
    """Return the access of a role, as a worker builds it."""
    viewer = CurrentUser(dataset.callers[role].id, is_admin=role == "admin")
    return AccessContext(viewer, VisibilityScope(viewer.role))


def create_document_set(dataset: Dataset, role: str = "owner", **ids: list[int]) -> int:
    """Create a document set with these members, without checks, and return its id."""
    with dataset.app.app_context():
        made = DocumentSet(title="Selected", owner_id=dataset.callers[role].id)
        db.session.add(made)
        db.session.flush()
        for name, selected in ids.items():
            db.session.execute(insert(TABLES[name]).values([(made.id, id_) for id_ in selected]))
        db.session.commit()
        return made.id


def store_rows(dataset: Dataset, *rows: Any) -> list[int]:
    """Store rows and return their ids."""
    with dataset.app.app_context():
        db.session.add_all(rows)
        db.session.commit()
        return [row.id for row in rows]


def set_value(dataset: Dataset, model: type[Any], id_: int, **values: Any) -> None:
    """Update columns of a row."""
    with dataset.app.app_context():
        db.session.execute(update(model).where(model.id == id_).values(values))
        db.session.commit()


@contextmanager
def request_context(dataset: Dataset) -> Iterator[None]:
    """Open the context of a request with a read transaction."""
    with dataset.app.test_request_context(), open_transaction(is_read=True):
        yield


def list_documents(dataset: Dataset, set_id: int, role: str = "owner") -> list[Document]:
    """Return the documents of a set."""
    with request_context(dataset):
        return resolve_documents(set_id, build_access(dataset, role))


def list_uids(dataset: Dataset, set_id: int, role: str = "owner") -> list[str]:
    """Return the uids of the documents of a set."""
    return [document.uid for document in list_documents(dataset, set_id, role)]


def fetch_document(dataset: Dataset, document: Document, role: str = "owner") -> Response:
    """Return the response with a document, with its body read."""
    with request_context(dataset):
        response = serve_document(document, build_access(dataset, role))
        response.get_data()
        return response


def send_image(dataset: Dataset, role: str) -> dict[str, str]:
    """Upload an image and return its URL and id."""
    answer: dict[str, str] = send_as_form(dataset.callers[role], PICTURE).get_json()
    return answer


def test_events_come_with_their_images_and_faqs_then_faqs_then_uploads(dataset: Dataset, storage: Storage) -> None:
    first, second = sorted([dataset.events["draft"], dataset.events["published"]])
    by_event = {dataset.events[name]: (dataset.images[name], dataset.faqs[name]) for name in ("draft", "published")}
    (more,) = store_rows(dataset, Faq(question="q", answer="a", event_id=first, position=-1))
    picture = send_image(dataset, "owner")
    set_value(dataset, Event, first, original_image_url=picture["url"])
    other = dataset.create_upload("owner")
    selected = {"events": [second, first], "uploads": [other, int(picture["id"])]}

    set_id = create_document_set(dataset, faqs=[dataset.faqs["others"], by_event[first][1]], **selected)

    assert list_documents(dataset, set_id) == [
        Document(f"event-{first}", "event", "event", first),
        Document(f"event-{first}-image", "image", "event", first),
        Document(f"event-image-{by_event[first][0]}", "image", "event-image", by_event[first][0]),
        Document(f"faq-{by_event[first][1]}", "faq", "faq", by_event[first][1]),
        Document(f"faq-{more}", "faq", "faq", more),
        Document(f"event-{second}", "event", "event", second),
        Document(f"event-image-{by_event[second][0]}", "image", "event-image", by_event[second][0]),
        Document(f"faq-{by_event[second][1]}", "faq", "faq", by_event[second][1]),
        Document(f"faq-{dataset.faqs['others']}", "faq", "faq", dataset.faqs["others"]),
        *(Document(f"upload-{id_}", "image", "upload", id_) for id_ in sorted(selected["uploads"])),
    ]


def test_a_processor_gets_no_payment_details(dataset: Dataset) -> None:
    event = dataset.events["published"]
    assert dataset.owner.update(f"/v1/events/{event}", "event", {"bank-details": "DE02"}).status_code == 200

    answer = fetch_document(dataset, Document(f"event-{event}", "event", "event", event))

    assert answer.get_json(force=True)["data"]["attributes"]["name"] == "published event"
    assert "bank-details" not in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    "url", [None, "https://example.com/files/uploads/a.png", "{ours}/files/jobs/a.png", "{ours}/somewhere.png"]
)
def test_a_picture_elsewhere_is_no_document(dataset: Dataset, url: str | None) -> None:
    event = dataset.events["published"]
    set_value(dataset, Event, event, original_image_url=url and url.format(ours=dataset.app.config["PUBLIC_URL"]))

    assert f"event-{event}-image" not in list_uids(dataset, create_document_set(dataset, events=[event]))
    with request_context(dataset):
        assert get_image_name(Document("x", "image", "event", event), build_access(dataset, "owner")) is None


def test_an_empty_set_has_no_documents(dataset: Dataset) -> None:
    assert list_documents(dataset, create_document_set(dataset)) == []
    assert list_documents(dataset, 999_999_999) == []


VISIBLE_EVENTS = {
    "stranger": ("published", "others"),
    "coorganizer": ("published", "draft", "private", "others"),
    "admin": ("published", "draft", "private", "others"),
}


@pytest.mark.parametrize("role", VISIBLE_EVENTS)
def test_only_what_the_owner_sees_is_a_document(dataset: Dataset, role: str) -> None:
    own, foreign = dataset.create_upload(role), dataset.create_upload("other")
    set_id = dataset.create_document_set(role, [own, foreign])

    found = list_uids(dataset, set_id, role)

    expected = {f"upload-{own}"} | ({f"upload-{foreign}"} if role == "admin" else set())
    for name in VISIBLE_EVENTS[role]:
        of_event = (f"event-{dataset.events[name]}", f"event-image-{dataset.images[name]}", f"faq-{dataset.faqs[name]}")
        expected |= set(of_event)
    assert set(found) == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize("role", ["stranger", "anonymous"])
def test_foreign_viewer_resolves_no_documents(dataset: Dataset, role: str) -> None:
    set_id = dataset.create_document_set("owner")
    viewer = ANONYMOUS_USER if role == "anonymous" else CurrentUser(dataset.stranger.id)

    with request_context(dataset):
        assert resolve_documents(set_id, AccessContext(viewer, VisibilityScope(viewer.role))) == []


def test_former_team_member_resolves_no_draft_documents(dataset: Dataset) -> None:
    set_id = create_document_set(dataset, "coorganizer", events=[dataset.events["draft"]], faqs=[dataset.faqs["draft"]])
    before = list_documents(dataset, set_id, "coorganizer")
    team = f"/v1/events/{dataset.events['draft']}/relationships/coorganizers"

    dataset.owner.send("DELETE", team, {"data": build_linkage("user", [dataset.coorganizer.id])})

    assert len(before) == 3
    assert list_documents(dataset, set_id, "coorganizer") == []
    for document in before:
        with pytest.raises(NotFound):
            fetch_document(dataset, document, "coorganizer")


@pytest.mark.parametrize("asks_for_trash", [False, True])
def test_nothing_trashed_is_a_document(dataset: Dataset, asks_for_trash: bool) -> None:
    upload, faq = dataset.create_upload("admin"), dataset.faqs["published"]
    set_id = create_document_set(
        dataset,
        "admin",
        events=[dataset.events["published"], dataset.events["trashed"]],
        faqs=[dataset.faqs["trashed"], dataset.faqs["others"]],
        uploads=[upload],
    )
    for path in (f"uploads/{upload}", f"faqs/{faq}", f"event-images/{dataset.images['published']}"):
        assert dataset.admin.delete(f"/v1/{path}").status_code == 200
    access = AccessContext(
        CurrentUser(dataset.admin.id, is_admin=True), VisibilityScope(Role.ADMIN, trashed=asks_for_trash)
    )

    with request_context(dataset):
        found = [document.uid for document in resolve_documents(set_id, access)]

    assert found == [f"event-{dataset.events['published']}", f"faq-{dataset.faqs['others']}"]


def test_a_trashed_set_has_no_documents(dataset: Dataset) -> None:
    set_id = create_document_set(dataset, events=[dataset.events["published"]])

    set_value(dataset, DocumentSet, set_id, deleted_at=datetime.now(UTC))

    assert list_documents(dataset, set_id) == []


def test_statement_count_is_independent_of_document_count(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    execute = psycopg.Cursor.execute

    def note(cursor: Any, query: Any, *more: Any, **options: Any) -> Any:
        asked.append(str(query))
        return execute(cursor, query, *more, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", note)
    counts = []
    for set_id in (
        create_document_set(dataset),
        create_document_set(dataset, events=[dataset.events["published"]]),
        dataset.create_document_set("owner"),
    ):
        asked.clear()
        list_documents(dataset, set_id)
        counts.append(len(asked))

    assert counts == [5, 5, 5]


@pytest.mark.parametrize("through", ["event", "set"])
def test_more_documents_than_may_be_are_refused_with_the_limit(dataset: Dataset, through: str) -> None:
    event = dataset.events["published"]  # which has an image and a FAQ already
    faqs = store_rows(dataset, *(Faq(question="q", answer="a", event_id=event) for _ in range(MAX_DOCUMENTS - 3)))
    uploads = [dataset.create_upload("owner", str(number)) for number in range(4)]
    selected = {"events": [event], "faqs": faqs} if through == "event" else {"faqs": faqs, "uploads": uploads[:3]}
    set_id = create_document_set(dataset, **selected)

    assert len(list_uids(dataset, set_id)) == MAX_DOCUMENTS

    with dataset.app.app_context():
        db.session.execute(insert(SET_UPLOADS).values([(set_id, uploads[3])]))
        db.session.commit()
    with pytest.raises(TooManyDocuments, match="2000") as refused:
        list_documents(dataset, set_id)
    assert refused.value.http_status == 422


@pytest.mark.parametrize("type_", ["event", "faq"])
@pytest.mark.parametrize("state", ["published", "draft", "private"])
def test_an_event_or_a_faq_is_its_json_api_document(dataset: Dataset, type_: str, state: str) -> None:
    id_ = (dataset.events if type_ == "event" else dataset.faqs)[state]

    response = fetch_document(dataset, Document(f"{type_}-{id_}", type_, type_, id_))

    expected = dataset.organizer.get(f"/v1/{type_}s/{id_}").get_json(force=True)
    expected["data"]["relationships"].pop("pending-owner", None)  # the owner's and admins' to see
    shown = response.get_json(force=True)
    assert (response.status_code, response.content_type) == (200, JSONAPI)
    assert shown == {**expected, "links": {"self": expected["data"]["links"]["self"]}}


@pytest.mark.parametrize("resource_type", ["event", "event-image", "upload"])
def test_an_image_is_its_bytes(dataset: Dataset, storage: Storage, resource_type: str) -> None:
    picture = send_image(dataset, "owner")
    name = storage.get_name_from_url(picture["url"])
    set_value(dataset, Event, dataset.events["draft"], original_image_url=picture["url"])
    storage.put(f"images/{dataset.identifiers['draft']}.png", b"of the gallery", "image/png")
    with dataset.app.app_context():
        storage_key = f"images/{dataset.identifiers['draft']}.png"
        table = resolver._images
        db.session.execute(update(table).where(table.c.id == dataset.images["draft"]).values(storage_key=storage_key))
        db.session.commit()
    ids = {"event": dataset.events["draft"], "event-image": dataset.images["draft"], "upload": int(picture["id"])}
    document = Document("uid", "image", resource_type, ids[resource_type])

    response = fetch_document(dataset, document)

    expected = storage_key if resource_type == "event-image" else name
    assert response.get_data() == storage.read_file(expected)
    assert (response.status_code, response.content_type) == (200, "image/png")
    assert "Content-Disposition" not in response.headers
    assert response.headers["Cache-Control"] == "private, no-cache"
    with request_context(dataset):
        assert get_image_name(document, build_access(dataset, "owner")) == expected
        assert get_image_name(document, build_access(dataset, "stranger")) is None


@pytest.mark.parametrize("resource_type", ["event", "event-image", "upload", "faq"])
def test_deleted_document_is_not_found(dataset: Dataset, storage: Storage, resource_type: str) -> None:
    picture = send_image(dataset, "owner")
    set_value(dataset, Event, dataset.events["published"], original_image_url=picture["url"])
    name = "published"
    ids = {"event": dataset.events[name], "event-image": dataset.images[name], "faq": dataset.faqs[name]}
    id_ = ids.get(resource_type, int(picture["id"]))
    type_ = "faq" if resource_type == "faq" else "image"
    assert dataset.owner.delete(f"/v1/{resource_type}s/{id_}").status_code == 200

    for role in ("owner", "admin"):
        with pytest.raises(NotFound):
            fetch_document(dataset, Document("uid", type_, resource_type, id_), role)


def test_an_image_whose_file_is_gone_is_not_found(dataset: Dataset, storage: Storage) -> None:
    document = Document("uid", "image", "upload", dataset.create_upload("owner"))

    with pytest.raises(NotFound):
        fetch_document(dataset, document)


@pytest.mark.parametrize("type_", ["event", "faq"])
def test_stored_image_of_non_image_is_none(dataset: Dataset, type_: str) -> None:
    with request_context(dataset):
        assert (
            get_image_name(Document("uid", type_, type_, dataset.events["draft"]), build_access(dataset, "owner"))
            is None
        )
