"""/v1/uploads: created by /v1/upload/image, visible to and deleted by their owners, restored by admins."""

from typing import Any

import pytest
from flask import Flask, g
from werkzeug.test import TestResponse

from app.images import upload_view
from app.storage import Storage
from app.uploads.models import Upload
from tests.dataset import ROLES, ApiClient, Dataset, build_linkage, get_data, get_errors, get_ids, get_pointers
from tests.images.job_helpers import list_files
from tests.images.sample_images import encode_image, make_flag_image
from tests.images.test_uploads import send_as_data_url, send_as_form
from tests.worker_process import run_state_hooks

SMALL, WIDE = encode_image(make_flag_image(), "png"), encode_image(make_flag_image(160, 20), "jpeg")


def create_upload(caller: ApiClient, content: bytes = SMALL) -> int:
    """Upload an image; return the id of the upload."""
    answer = send_as_form(caller, content)
    assert answer.status_code == 200, answer.text
    return int(answer.get_json()["id"])


def restore_upload(caller: ApiClient, upload: int) -> TestResponse:
    """Restore an upload from the trash; return the response."""
    document = {"data": {"type": "upload", "id": str(upload), "attributes": {"deleted-at": None}}}
    return caller.send("PATCH", f"/v1/uploads/{upload}?get_trashed=true", document)


@pytest.mark.parametrize("send", [send_as_data_url, send_as_form])
def test_sent_image_creates_upload(dataset: Dataset, storage: Storage, send: Any) -> None:
    answer = send(dataset.stranger, SMALL).get_json()

    upload = get_data(dataset.stranger.get(f"/v1/uploads/{answer['id']}"))
    name = storage.get_name_from_url(answer["url"])
    assert answer == {"url": storage.get_url(name), "id": upload["id"]}
    assert upload["attributes"].pop("created-at")
    assert upload["attributes"] == {
        "url": answer["url"],
        "media-type": "image/png",
        "width": 80,
        "height": 40,
        "size": storage.stat(name).size,
        "deleted-at": None,
    }
    assert upload["relationships"]["owner"]["data"] == build_linkage("user", dataset.stranger.id)


def test_the_same_image_of_the_same_user_is_one_upload(dataset: Dataset, storage: Storage) -> None:
    first, again, wide, others = (
        create_upload(dataset.stranger),
        create_upload(dataset.stranger),
        create_upload(dataset.stranger, WIDE),
        create_upload(dataset.owner),
    )

    assert first == again
    assert len({first, wide, others}) == 3
    assert dataset.count_rows(Upload) == 3


def test_an_image_that_was_deleted_and_is_sent_again_is_back(dataset: Dataset, storage: Storage) -> None:
    upload, others = create_upload(dataset.stranger), create_upload(dataset.owner)
    dataset.stranger.delete(f"/v1/uploads/{upload}")
    dataset.owner.delete(f"/v1/uploads/{others}")

    again = create_upload(dataset.stranger)

    assert again == upload
    assert get_data(dataset.stranger.get(f"/v1/uploads/{upload}"))["attributes"]["deleted-at"] is None
    assert dataset.owner.get(f"/v1/uploads/{others}").status_code == 404


@pytest.mark.parametrize("content", [b"", SMALL[:-1], b"no image"])
def test_refused_image_creates_no_upload(dataset: Dataset, storage: Storage, content: bytes) -> None:
    assert send_as_form(dataset.stranger, content).status_code in (415, 422)
    assert send_as_form(dataset.anonymous, SMALL).status_code == 401

    assert dataset.count_rows(Upload) == 0


def test_no_connection_to_the_database_waits_for_a_decoder(
    dataset: Dataset, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, real = [], upload_view.make_variants

    def make(*arguments: Any) -> Any:
        held.append("transaction" in g)
        return real(*arguments)

    monkeypatch.setattr(upload_view, "make_variants", make)

    create_upload(dataset.stranger)

    assert held == [False]


@pytest.mark.parametrize("role", ROLES)
def test_an_upload_is_its_owners_and_the_admins_on_every_way_in(dataset: Dataset, role: str) -> None:
    upload, caller = dataset.create_upload("owner"), dataset.callers[role]
    expected = {"anonymous": 401, "owner": 200, "admin": 200, "super_admin": 200}.get(role, 404)

    for rest in ("", "?include=owner", "/owner", "/relationships/owner"):
        status = caller.get(f"/v1/uploads/{upload}{rest}").status_code
        assert status == (404 if role == "anonymous" and rest == "/owner" else expected), rest
    listed = caller.get("/v1/uploads")
    assert listed.status_code == (401 if role == "anonymous" else 200)
    if role != "anonymous":
        assert get_ids(listed) == ([upload] if expected == 200 else [])
        assert get_ids(caller.get(f"/v1/uploads?filter[owner]={dataset.owner.id}")) == get_ids(listed)
        assert listed.get_json(force=True)["meta"]["count"] == (expected == 200)


def test_uploads_are_listed_newest_first_and_filtered(dataset: Dataset) -> None:
    first, second, others = (
        dataset.create_upload("owner", "1"),
        dataset.create_upload("owner", "2"),
        dataset.create_upload("stranger"),
    )

    assert get_ids(dataset.owner.get("/v1/uploads")) == [second, first]
    assert get_ids(dataset.owner.get("/v1/uploads?sort=id")) == [first, second]
    assert get_ids(dataset.admin.get("/v1/uploads")) == [others, second, first]
    assert get_ids(dataset.admin.get("/v1/uploads?filter[width][gt]=80")) == []
    assert get_ids(dataset.owner.get("/v1/uploads?filter[media-type]=image/jpeg&page[size]=1")) == [second]


@pytest.mark.parametrize("role", ROLES)
def test_delete_is_limited_to_owner_and_admins(dataset: Dataset, role: str) -> None:
    upload = dataset.create_upload("owner")
    expected = {"anonymous": 401, "owner": 200, "admin": 200, "super_admin": 200}.get(role, 404)

    assert dataset.callers[role].delete(f"/v1/uploads/{upload}").status_code == expected

    assert get_ids(dataset.owner.get("/v1/uploads")) == ([] if expected == 200 else [upload])
    assert get_ids(dataset.admin.get("/v1/uploads?get_trashed=true")) == [upload]


def test_the_file_of_a_deleted_upload_is_deleted_with_the_last_row_that_names_it(
    app: Flask, dataset: Dataset, storage: Storage
) -> None:
    upload, others = create_upload(dataset.stranger), create_upload(dataset.owner)
    url = get_data(dataset.owner.get(f"/v1/uploads/{others}"))["attributes"]["url"]
    path = url.removeprefix(app.config["PUBLIC_URL"])
    event = f"/v1/events/{dataset.events['draft']}"
    dataset.owner.update(event, "event", {"original-image-url": url})

    dataset.stranger.delete(f"/v1/uploads/{upload}")
    run_state_hooks(app)
    assert app.test_client().get(path).status_code == 200, "another user has the same image"

    dataset.owner.delete(f"/v1/uploads/{others}")
    run_state_hooks(app)
    assert app.test_client().get(path).status_code == 200, "an event shows it"

    dataset.owner.update(event, "event", {"original-image-url": None})
    again = create_upload(dataset.stranger)
    dataset.stranger.delete(f"/v1/uploads/{again}")
    run_state_hooks(app)
    assert app.test_client().get(path).status_code == 404
    assert list_files(storage) == []


def test_an_image_that_is_sent_again_after_its_file_was_deleted_is_stored_again(
    app: Flask, dataset: Dataset, storage: Storage
) -> None:
    dataset.stranger.delete(f"/v1/uploads/{create_upload(dataset.stranger)}")
    run_state_hooks(app)
    assert list_files(storage) == []

    upload = create_upload(dataset.stranger)

    assert list_files(storage) == [
        storage.get_name_from_url(get_data(dataset.stranger.get(f"/v1/uploads/{upload}"))["attributes"]["url"])
    ]


def test_an_image_that_is_sent_again_before_its_file_is_deleted_keeps_it(
    app: Flask, dataset: Dataset, storage: Storage
) -> None:
    upload = create_upload(dataset.stranger)
    dataset.stranger.delete(f"/v1/uploads/{upload}")
    assert create_upload(dataset.stranger) == upload

    run_state_hooks(app)

    assert len(list_files(storage)) == 1


@pytest.mark.parametrize(
    ("role", "status"), [("owner", 403), ("stranger", 403), ("anonymous", 401), ("admin", 200), ("super_admin", 200)]
)
def test_admins_take_an_upload_out_of_the_trash_until_its_file_is_deleted(
    app: Flask, dataset: Dataset, storage: Storage, role: str, status: int
) -> None:
    upload = create_upload(dataset.owner)
    dataset.owner.delete(f"/v1/uploads/{upload}")

    answer = restore_upload(dataset.callers[role], upload)

    assert answer.status_code == status
    assert dataset.owner.get(f"/v1/uploads/{upload}").status_code == (200 if status == 200 else 404)
    if status == 200:
        dataset.owner.delete(f"/v1/uploads/{upload}")
        run_state_hooks(app)
        refused = restore_upload(dataset.callers[role], upload)
        assert (refused.status_code, get_errors(refused)[0]["code"]) == (409, "file-deleted")


@pytest.mark.parametrize("role", ["owner", "admin"])
@pytest.mark.parametrize("name", ["url", "media-type", "width", "height", "size", "created-at", "deleted-at"])
def test_an_attribute_is_read_only(dataset: Dataset, role: str, name: str) -> None:
    path = f"/v1/uploads/{dataset.create_upload('owner')}"
    before = get_data(dataset.owner.get(path))

    refused = dataset.callers[role].update(path, "upload", {name: "2030-01-01T00:00:00Z"})

    assert (refused.status_code, get_pointers(refused)) == (403, {f"/data/attributes/{name}"})
    assert get_data(dataset.owner.get(path)) == before


def test_an_upload_sent_back_unchanged_is_taken(dataset: Dataset) -> None:
    path = f"/v1/uploads/{dataset.create_upload('owner')}"

    assert dataset.owner.send("PATCH", path, {"data": get_data(dataset.owner.get(path))}).status_code == 200


@pytest.mark.parametrize("role", ["owner", "admin"])
def test_an_upload_stays_with_its_owner(dataset: Dataset, role: str) -> None:
    path, caller = f"/v1/uploads/{dataset.create_upload('owner')}", dataset.callers[role]

    related = caller.send("PATCH", f"{path}/relationships/owner", {"data": build_linkage("user", dataset.stranger.id)})
    patched = caller.update(path, "upload", None, owner=dataset.stranger.id)

    assert (related.status_code, patched.status_code) == (403, 403)
    assert get_pointers(patched) == {"/data/relationships/owner"}


@pytest.mark.parametrize("role", ["anonymous", "owner", "admin"])
def test_uploads_cannot_be_created_at_the_collection(dataset: Dataset, role: str) -> None:
    posted = dataset.callers[role].create("/v1/uploads", "upload", {})
    added = dataset.callers[role].send(
        "POST",
        "/v1/operations",
        {"atomic:operations": [{"op": "add", "data": {"type": "upload"}}]},
        Content_Type='application/vnd.api+json; ext="https://jsonapi.org/ext/atomic"',
    )

    assert posted.status_code == 405
    assert {*posted.headers["Allow"].split(", ")} == {"GET", "HEAD", "OPTIONS"}
    assert added.status_code == (401 if role == "anonymous" else 403)
    assert dataset.count_rows(Upload) == 0


@pytest.mark.parametrize("query", ["sort=url", "filter[url]=x", "filter[stored-as]=x", "sort=storage_key"])
def test_an_address_is_nothing_to_search_by(dataset: Dataset, query: str) -> None:
    dataset.create_upload("owner")

    refused = dataset.owner.get(f"/v1/uploads?{query}")

    assert refused.status_code == 400
    assert get_errors(refused)[0]["source"]["parameter"] == query.partition("=")[0]
