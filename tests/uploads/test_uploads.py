"""/v1/uploads: written by /v1/upload/image, seen and deleted by whoever sent them, restored by admins."""

from typing import Any

import pytest
from flask import Flask, g
from werkzeug.test import TestResponse

from app.images import uploads
from app.storage import Storage
from app.uploads.models import Upload
from tests.background import follow
from tests.images.background import files
from tests.images.pictures import encode, flag
from tests.images.test_uploads import as_data_url, as_form
from tests.world import ROLES, Caller, World, data, errors, ids, linkage, pointers

SMALL, WIDE = encode(flag(), "png"), encode(flag(160, 20), "jpeg")


def sent(caller: Caller, content: bytes = SMALL) -> int:
    """The id of an upload."""
    answer = as_form(caller, content)
    assert answer.status_code == 200, answer.text
    return int(answer.get_json()["id"])


def restored(caller: Caller, upload: int) -> TestResponse:
    """The answer to whoever takes an upload out of the trash."""
    document = {"data": {"type": "upload", "id": str(upload), "attributes": {"deleted-at": None}}}
    return caller.send("PATCH", f"/v1/uploads/{upload}?get_trashed=true", document)


@pytest.mark.parametrize("send", [as_data_url, as_form])
def test_what_is_sent_becomes_an_upload(world: World, storage: Storage, send: Any) -> None:
    answer = send(world.stranger, SMALL).get_json()

    upload = data(world.stranger.get(f"/v1/uploads/{answer['id']}"))
    name = storage.name(answer["url"])
    assert answer == {"url": storage.url(name), "id": upload["id"]}
    assert upload["attributes"].pop("created-at")
    assert upload["attributes"] == {
        "url": answer["url"],
        "media-type": "image/png",
        "width": 80,
        "height": 40,
        "size": storage.stat(name).size,
        "deleted-at": None,
    }
    assert upload["relationships"]["owner"]["data"] == linkage("user", world.stranger.id)


def test_the_same_image_of_the_same_user_is_one_upload(world: World, storage: Storage) -> None:
    first, again, wide, others = (
        sent(world.stranger),
        sent(world.stranger),
        sent(world.stranger, WIDE),
        sent(world.owner),
    )

    assert first == again
    assert len({first, wide, others}) == 3
    assert world.rows(Upload) == 3


def test_an_image_that_was_deleted_and_is_sent_again_is_back(world: World, storage: Storage) -> None:
    upload, others = sent(world.stranger), sent(world.owner)
    world.stranger.delete(f"/v1/uploads/{upload}")
    world.owner.delete(f"/v1/uploads/{others}")

    again = sent(world.stranger)

    assert again == upload
    assert data(world.stranger.get(f"/v1/uploads/{upload}"))["attributes"]["deleted-at"] is None
    assert world.owner.get(f"/v1/uploads/{others}").status_code == 404


@pytest.mark.parametrize("content", [b"", SMALL[:-1], b"no image"])
def test_what_is_refused_is_no_upload(world: World, storage: Storage, content: bytes) -> None:
    assert as_form(world.stranger, content).status_code in (415, 422)
    assert as_form(world.anonymous, SMALL).status_code == 401

    assert world.rows(Upload) == 0


def test_no_connection_to_the_database_waits_for_a_decoder(
    world: World, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, real = [], uploads.make_variants

    def make(*arguments: Any) -> Any:
        held.append("transaction" in g)
        return real(*arguments)

    monkeypatch.setattr(uploads, "make_variants", make)

    sent(world.stranger)

    assert held == [False]


@pytest.mark.parametrize("role", ROLES)
def test_an_upload_is_its_owners_and_the_admins_on_every_way_in(world: World, role: str) -> None:
    upload, caller = world.upload("owner"), world.callers[role]
    expected = {"anonymous": 401, "owner": 200, "admin": 200, "super_admin": 200}.get(role, 404)

    for rest in ("", "?include=owner", "/owner", "/relationships/owner"):
        status = caller.get(f"/v1/uploads/{upload}{rest}").status_code
        assert status == (404 if role == "anonymous" and rest == "/owner" else expected), rest
    listed = caller.get("/v1/uploads")
    assert listed.status_code == (401 if role == "anonymous" else 200)
    if role != "anonymous":
        assert ids(listed) == ([upload] if expected == 200 else [])
        assert ids(caller.get(f"/v1/uploads?filter[owner]={world.owner.id}")) == ids(listed)
        assert listed.get_json(force=True)["meta"]["count"] == (expected == 200)


def test_uploads_are_listed_newest_first_and_filtered(world: World) -> None:
    first, second, others = world.upload("owner", "1"), world.upload("owner", "2"), world.upload("stranger")

    assert ids(world.owner.get("/v1/uploads")) == [second, first]
    assert ids(world.owner.get("/v1/uploads?sort=id")) == [first, second]
    assert ids(world.admin.get("/v1/uploads")) == [others, second, first]
    assert ids(world.admin.get("/v1/uploads?filter[width][gt]=80")) == []
    assert ids(world.owner.get("/v1/uploads?filter[media-type]=image/jpeg&page[size]=1")) == [second]


@pytest.mark.parametrize("role", ROLES)
def test_whoever_sent_it_deletes_it(world: World, role: str) -> None:
    upload = world.upload("owner")
    expected = {"anonymous": 401, "owner": 200, "admin": 200, "super_admin": 200}.get(role, 404)

    assert world.callers[role].delete(f"/v1/uploads/{upload}").status_code == expected

    assert ids(world.owner.get("/v1/uploads")) == ([] if expected == 200 else [upload])
    assert ids(world.admin.get("/v1/uploads?get_trashed=true")) == [upload]


def test_the_file_of_a_deleted_upload_is_deleted_with_the_last_row_that_names_it(
    app: Flask, world: World, storage: Storage
) -> None:
    upload, others = sent(world.stranger), sent(world.owner)
    url = data(world.owner.get(f"/v1/uploads/{others}"))["attributes"]["url"]
    path = url.removeprefix(app.config["PUBLIC_URL"])
    event = f"/v1/events/{world.events['draft']}"
    world.owner.update(event, "event", {"original-image-url": url})

    world.stranger.delete(f"/v1/uploads/{upload}")
    follow(app)
    assert app.test_client().get(path).status_code == 200, "another user has the same image"

    world.owner.delete(f"/v1/uploads/{others}")
    follow(app)
    assert app.test_client().get(path).status_code == 200, "an event shows it"

    world.owner.update(event, "event", {"original-image-url": None})
    again = sent(world.stranger)
    world.stranger.delete(f"/v1/uploads/{again}")
    follow(app)
    assert app.test_client().get(path).status_code == 404
    assert files(storage) == []


def test_an_image_that_is_sent_again_after_its_file_was_deleted_is_stored_again(
    app: Flask, world: World, storage: Storage
) -> None:
    world.stranger.delete(f"/v1/uploads/{sent(world.stranger)}")
    follow(app)
    assert files(storage) == []

    upload = sent(world.stranger)

    assert files(storage) == [storage.name(data(world.stranger.get(f"/v1/uploads/{upload}"))["attributes"]["url"])]


def test_an_image_that_is_sent_again_before_its_file_is_deleted_keeps_it(
    app: Flask, world: World, storage: Storage
) -> None:
    upload = sent(world.stranger)
    world.stranger.delete(f"/v1/uploads/{upload}")
    assert sent(world.stranger) == upload

    follow(app)

    assert len(files(storage)) == 1


@pytest.mark.parametrize(
    ("role", "status"), [("owner", 403), ("stranger", 403), ("anonymous", 401), ("admin", 200), ("super_admin", 200)]
)
def test_admins_take_an_upload_out_of_the_trash_until_its_file_is_deleted(
    app: Flask, world: World, storage: Storage, role: str, status: int
) -> None:
    upload = sent(world.owner)
    world.owner.delete(f"/v1/uploads/{upload}")

    answer = restored(world.callers[role], upload)

    assert answer.status_code == status
    assert world.owner.get(f"/v1/uploads/{upload}").status_code == (200 if status == 200 else 404)
    if status == 200:
        world.owner.delete(f"/v1/uploads/{upload}")
        follow(app)
        refused = restored(world.callers[role], upload)
        assert (refused.status_code, errors(refused)[0]["code"]) == (409, "file-deleted")


@pytest.mark.parametrize("role", ["owner", "admin"])
@pytest.mark.parametrize("name", ["url", "media-type", "width", "height", "size", "created-at", "deleted-at"])
def test_an_attribute_is_read_only(world: World, role: str, name: str) -> None:
    path = f"/v1/uploads/{world.upload('owner')}"
    before = data(world.owner.get(path))

    refused = world.callers[role].update(path, "upload", {name: "2030-01-01T00:00:00Z"})

    assert (refused.status_code, pointers(refused)) == (403, {f"/data/attributes/{name}"})
    assert data(world.owner.get(path)) == before


def test_an_upload_sent_back_unchanged_is_taken(world: World) -> None:
    path = f"/v1/uploads/{world.upload('owner')}"

    assert world.owner.send("PATCH", path, {"data": data(world.owner.get(path))}).status_code == 200


@pytest.mark.parametrize("role", ["owner", "admin"])
def test_an_upload_stays_with_its_owner(world: World, role: str) -> None:
    path, caller = f"/v1/uploads/{world.upload('owner')}", world.callers[role]

    related = caller.send("PATCH", f"{path}/relationships/owner", {"data": linkage("user", world.stranger.id)})
    patched = caller.update(path, "upload", None, owner=world.stranger.id)

    assert (related.status_code, patched.status_code) == (403, 403)
    assert pointers(patched) == {"/data/relationships/owner"}


@pytest.mark.parametrize("role", ["anonymous", "owner", "admin"])
def test_nobody_posts_an_upload(world: World, role: str) -> None:
    posted = world.callers[role].create("/v1/uploads", "upload", {})
    added = world.callers[role].send(
        "POST",
        "/v1/operations",
        {"atomic:operations": [{"op": "add", "data": {"type": "upload"}}]},
        Content_Type='application/vnd.api+json; ext="https://jsonapi.org/ext/atomic"',
    )

    assert posted.status_code == 405
    assert {*posted.headers["Allow"].split(", ")} == {"GET", "HEAD", "OPTIONS"}
    assert added.status_code == (401 if role == "anonymous" else 403)
    assert world.rows(Upload) == 0


@pytest.mark.parametrize("query", ["sort=url", "filter[url]=x", "filter[stored-as]=x", "sort=stored_as"])
def test_an_address_is_nothing_to_search_by(world: World, query: str) -> None:
    world.upload("owner")

    refused = world.owner.get(f"/v1/uploads?{query}")

    assert refused.status_code == 400
    assert errors(refused)[0]["source"]["parameter"] == query.partition("=")[0]
