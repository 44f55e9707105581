"""What a document set comes to: which documents, in which order, for whom, and what each is when it is fetched."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from flask import Response
from sqlalchemy import insert, update

from app.database import transaction
from app.documents import expansion
from app.documents.expansion import MOST_DOCUMENTS, Document, TooMany, content, expanded, stored_image
from app.documents.models import SET_EVENTS, SET_FAQS, SET_UPLOADS, DocumentSet
from app.errors import NotFound
from app.events.models import Event
from app.extensions import db
from app.faqs.models import Faq
from app.jsonapi.permissions import Access, Scope
from app.jsonapi.viewer import ANONYMOUS, Role, Viewer
from app.storage import Storage
from tests.images.pictures import encode, flag
from tests.images.test_uploads import as_form
from tests.world import JSONAPI, World, linkage

TABLES = {"events": SET_EVENTS, "faqs": SET_FAQS, "uploads": SET_UPLOADS}
PICTURE = encode(flag(), "png")


def access_of(world: World, role: str) -> Access:
    """Somebody's, as a worker makes it."""
    viewer = Viewer(world.callers[role].id, is_admin=role == "admin")
    return Access(viewer, Scope(viewer.role))


def set_of(world: World, role: str = "owner", **ids: list[int]) -> int:
    """The id of a document set that holds these, seen or not."""
    with world.app.app_context():
        made = DocumentSet(title="Selected", owner_id=world.callers[role].id)
        db.session.add(made)
        db.session.flush()
        for name, selected in ids.items():
            db.session.execute(insert(TABLES[name]).values([(made.id, id_) for id_ in selected]))
        db.session.commit()
        return made.id


def store(world: World, *rows: Any) -> list[int]:
    """Their ids."""
    with world.app.app_context():
        db.session.add_all(rows)
        db.session.commit()
        return [row.id for row in rows]


def write(world: World, model: type[Any], id_: int, **values: Any) -> None:
    """Another value, whoever may set it."""
    with world.app.app_context():
        db.session.execute(update(model).where(model.id == id_).values(values))
        db.session.commit()


@contextmanager
def reading(world: World) -> Iterator[None]:
    """What a view has around it."""
    with world.app.test_request_context(), transaction(is_read=True):
        yield


def documents(world: World, set_id: int, role: str = "owner") -> list[Document]:
    """The documents of a set."""
    with reading(world):
        return expanded(set_id, access_of(world, role))


def uids(world: World, set_id: int, role: str = "owner") -> list[str]:
    """Their names."""
    return [document.uid for document in documents(world, set_id, role)]


def fetched(world: World, document: Document, role: str = "owner") -> Response:
    """What a processor gets, read to its end."""
    with reading(world):
        response = content(document, access_of(world, role))
        response.get_data()
        return response


def sent(world: World, role: str) -> dict[str, str]:
    """The address and the id of a picture of somebody's."""
    answer: dict[str, str] = as_form(world.callers[role], PICTURE).get_json()
    return answer


def test_events_come_with_their_images_and_faqs_then_faqs_then_uploads(world: World, storage: Storage) -> None:
    first, second = sorted([world.events["draft"], world.events["published"]])
    by_event = {world.events[name]: (world.images[name], world.faqs[name]) for name in ("draft", "published")}
    (more,) = store(world, Faq(question="q", answer="a", event_id=first, position=-1))
    picture = sent(world, "owner")
    write(world, Event, first, original_image_url=picture["url"])
    other = world.upload("owner")
    selected = {"events": [second, first], "uploads": [other, int(picture["id"])]}

    set_id = set_of(world, faqs=[world.faqs["others"], by_event[first][1]], **selected)

    assert documents(world, set_id) == [
        Document(f"event-{first}", "event", "event", first),
        Document(f"event-{first}-image", "image", "event", first),
        Document(f"event-image-{by_event[first][0]}", "image", "event-image", by_event[first][0]),
        Document(f"faq-{by_event[first][1]}", "faq", "faq", by_event[first][1]),
        Document(f"faq-{more}", "faq", "faq", more),
        Document(f"event-{second}", "event", "event", second),
        Document(f"event-image-{by_event[second][0]}", "image", "event-image", by_event[second][0]),
        Document(f"faq-{by_event[second][1]}", "faq", "faq", by_event[second][1]),
        Document(f"faq-{world.faqs['others']}", "faq", "faq", world.faqs["others"]),
        *(Document(f"upload-{id_}", "image", "upload", id_) for id_ in sorted(selected["uploads"])),
    ]


def test_a_processor_gets_no_payment_details(world: World) -> None:
    event = world.events["published"]
    assert world.owner.update(f"/v1/events/{event}", "event", {"bank-details": "DE02"}).status_code == 200

    answer = fetched(world, Document(f"event-{event}", "event", "event", event))

    assert answer.get_json(force=True)["data"]["attributes"]["name"] == "published event"
    assert "bank-details" not in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    "url", [None, "https://example.com/files/uploads/a.png", "{ours}/files/jobs/a.png", "{ours}/somewhere.png"]
)
def test_a_picture_elsewhere_is_no_document(world: World, url: str | None) -> None:
    event = world.events["published"]
    write(world, Event, event, original_image_url=url and url.format(ours=world.app.config["PUBLIC_URL"]))

    assert f"event-{event}-image" not in uids(world, set_of(world, events=[event]))
    with reading(world):
        assert stored_image(Document("x", "image", "event", event), access_of(world, "owner")) is None


def test_an_empty_set_has_no_documents(world: World) -> None:
    assert documents(world, set_of(world)) == []
    assert documents(world, 999_999_999) == []


SEEN = {
    "stranger": ("published", "others"),
    "coorganizer": ("published", "draft", "private", "others"),
    "admin": ("published", "draft", "private", "others"),
}


@pytest.mark.parametrize("role", SEEN)
def test_only_what_the_owner_sees_is_a_document(world: World, role: str) -> None:
    own, foreign = world.upload(role), world.upload("other")
    set_id = world.document_set(role, [own, foreign])

    found = uids(world, set_id, role)

    expected = {f"upload-{own}"} | ({f"upload-{foreign}"} if role == "admin" else set())
    for name in SEEN[role]:
        of_event = (f"event-{world.events[name]}", f"event-image-{world.images[name]}", f"faq-{world.faqs[name]}")
        expected |= set(of_event)
    assert set(found) == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize("role", ["stranger", "anonymous"])
def test_nobody_else_gets_documents_of_a_set(world: World, role: str) -> None:
    set_id = world.document_set("owner")
    viewer = ANONYMOUS if role == "anonymous" else Viewer(world.stranger.id)

    with reading(world):
        assert expanded(set_id, Access(viewer, Scope(viewer.role))) == []


def test_who_has_left_a_team_gets_documents_of_its_draft_no_more(world: World) -> None:
    set_id = set_of(world, "coorganizer", events=[world.events["draft"]], faqs=[world.faqs["draft"]])
    before = documents(world, set_id, "coorganizer")
    team = f"/v1/events/{world.events['draft']}/relationships/coorganizers"

    world.owner.send("DELETE", team, {"data": linkage("user", [world.coorganizer.id])})

    assert len(before) == 3
    assert documents(world, set_id, "coorganizer") == []
    for document in before:
        with pytest.raises(NotFound):
            fetched(world, document, "coorganizer")


@pytest.mark.parametrize("asks_for_trash", [False, True])
def test_nothing_trashed_is_a_document(world: World, asks_for_trash: bool) -> None:
    upload, faq = world.upload("admin"), world.faqs["published"]
    set_id = set_of(
        world,
        "admin",
        events=[world.events["published"], world.events["trashed"]],
        faqs=[world.faqs["trashed"], world.faqs["others"]],
        uploads=[upload],
    )
    for path in (f"uploads/{upload}", f"faqs/{faq}", f"event-images/{world.images['published']}"):
        assert world.admin.delete(f"/v1/{path}").status_code == 200
    access = Access(Viewer(world.admin.id, is_admin=True), Scope(Role.ADMIN, trashed=asks_for_trash))

    with reading(world):
        found = [document.uid for document in expanded(set_id, access)]

    assert found == [f"event-{world.events['published']}", f"faq-{world.faqs['others']}"]


def test_a_trashed_set_has_no_documents(world: World) -> None:
    set_id = set_of(world, events=[world.events["published"]])

    write(world, DocumentSet, set_id, deleted_at=datetime.now(UTC))

    assert documents(world, set_id) == []


def test_the_number_of_statements_does_not_grow_with_the_documents(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    execute = psycopg.Cursor.execute

    def note(cursor: Any, query: Any, *more: Any, **options: Any) -> Any:
        asked.append(str(query))
        return execute(cursor, query, *more, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", note)
    counts = []
    for set_id in (set_of(world), set_of(world, events=[world.events["published"]]), world.document_set("owner")):
        asked.clear()
        documents(world, set_id)
        counts.append(len(asked))

    assert counts == [5, 5, 5]


@pytest.mark.parametrize("through", ["event", "set"])
def test_more_documents_than_may_be_are_refused_with_the_limit(world: World, through: str) -> None:
    event = world.events["published"]  # which has an image and a FAQ already
    faqs = store(world, *(Faq(question="q", answer="a", event_id=event) for _ in range(MOST_DOCUMENTS - 3)))
    uploads = [world.upload("owner", str(number)) for number in range(4)]
    selected = {"events": [event], "faqs": faqs} if through == "event" else {"faqs": faqs, "uploads": uploads[:3]}
    set_id = set_of(world, **selected)

    assert len(uids(world, set_id)) == MOST_DOCUMENTS

    with world.app.app_context():
        db.session.execute(insert(SET_UPLOADS).values([(set_id, uploads[3])]))
        db.session.commit()
    with pytest.raises(TooMany, match="2000") as refused:
        documents(world, set_id)
    assert refused.value.http_status == 422


@pytest.mark.parametrize("type_", ["event", "faq"])
@pytest.mark.parametrize("state", ["published", "draft", "private"])
def test_an_event_or_a_faq_is_its_json_api_document(world: World, type_: str, state: str) -> None:
    id_ = (world.events if type_ == "event" else world.faqs)[state]

    response = fetched(world, Document(f"{type_}-{id_}", type_, type_, id_))

    expected = world.organizer.get(f"/v1/{type_}s/{id_}").get_json(force=True)
    expected["data"]["relationships"].pop("pending-owner", None)  # the owner's and admins' to see
    shown = response.get_json(force=True)
    assert (response.status_code, response.content_type) == (200, JSONAPI)
    assert shown == {**expected, "links": {"self": expected["data"]["links"]["self"]}}


@pytest.mark.parametrize("resource_type", ["event", "event-image", "upload"])
def test_an_image_is_its_bytes(world: World, storage: Storage, resource_type: str) -> None:
    picture = sent(world, "owner")
    name = storage.name(picture["url"])
    write(world, Event, world.events["draft"], original_image_url=picture["url"])
    storage.put(f"images/{world.identifiers['draft']}.png", b"of the gallery", "image/png")
    with world.app.app_context():
        stored_as = f"images/{world.identifiers['draft']}.png"
        table = expansion._images
        db.session.execute(update(table).where(table.c.id == world.images["draft"]).values(stored_as=stored_as))
        db.session.commit()
    ids = {"event": world.events["draft"], "event-image": world.images["draft"], "upload": int(picture["id"])}
    document = Document("uid", "image", resource_type, ids[resource_type])

    response = fetched(world, document)

    expected = stored_as if resource_type == "event-image" else name
    assert response.get_data() == storage.read(expected)
    assert (response.status_code, response.content_type) == (200, "image/png")
    assert "Content-Disposition" not in response.headers
    assert response.headers["Cache-Control"] == "private, no-cache"
    with reading(world):
        assert stored_image(document, access_of(world, "owner")) == expected
        assert stored_image(document, access_of(world, "stranger")) is None


@pytest.mark.parametrize("resource_type", ["event", "event-image", "upload", "faq"])
def test_what_is_gone_is_not_found(world: World, storage: Storage, resource_type: str) -> None:
    picture = sent(world, "owner")
    write(world, Event, world.events["published"], original_image_url=picture["url"])
    name = "published"
    ids = {"event": world.events[name], "event-image": world.images[name], "faq": world.faqs[name]}
    id_ = ids.get(resource_type, int(picture["id"]))
    type_ = "faq" if resource_type == "faq" else "image"
    assert world.owner.delete(f"/v1/{resource_type}s/{id_}").status_code == 200

    for role in ("owner", "admin"):
        with pytest.raises(NotFound):
            fetched(world, Document("uid", type_, resource_type, id_), role)


def test_an_image_whose_file_is_gone_is_not_found(world: World, storage: Storage) -> None:
    document = Document("uid", "image", "upload", world.upload("owner"))

    with pytest.raises(NotFound):
        fetched(world, document)


@pytest.mark.parametrize("type_", ["event", "faq"])
def test_what_is_no_image_has_no_file(world: World, type_: str) -> None:
    with reading(world):
        assert stored_image(Document("uid", type_, type_, world.events["draft"]), access_of(world, "owner")) is None
