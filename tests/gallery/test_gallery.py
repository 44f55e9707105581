"""Gallery images: visibility and deletion; clients cannot write them."""

import pytest
from flask import Flask

from app.storage import Storage, current_storage
from tests.dataset import ROLES, Dataset, build_linkage, get_data, get_errors, get_ids, get_pointers
from tests.images.job_helpers import list_files
from tests.worker_process import run_state_hooks

VISIBLE_EVENTS = {
    "published": {*ROLES},
    "draft": {*ROLES[2:]},
    "private": {*ROLES[2:]},
    "trashed": set[str](),
}
"""Roles that see the images of an event, by its state."""


def build_restore_document(image: int) -> dict[str, object]:
    """Return a document that restores an image from the trash."""
    return {"data": {"type": "event-image", "id": str(image), "attributes": {"deleted-at": None}}}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("state", VISIBLE_EVENTS)
def test_images_are_seen_with_their_event_on_every_way_in(dataset: Dataset, state: str, role: str) -> None:
    image, event, caller = dataset.images[state], dataset.events[state], dataset.callers[role]
    expected = role in VISIBLE_EVENTS[state]

    for path in (
        f"/v1/event-images/{image}",
        f"/v1/event-images/{image}/event",
        f"/v1/event-images/{image}/relationships/event",
        f"/v1/events/{event}/images",
        f"/v1/events/{event}/relationships/images",
    ):
        assert caller.get(path).status_code == (200 if expected else 404), path
    assert (image in get_ids(caller.get("/v1/event-images"))) is expected
    assert (image in get_ids(caller.get(f"/v1/event-images?filter[event]={event}"))) is expected


def test_the_images_of_a_private_event_open_by_its_identifier(dataset: Dataset) -> None:
    path, image = f"/v1/events/{dataset.identifiers['private']}", dataset.images["private"]

    assert get_ids(dataset.anonymous.get(f"{path}/images")) == [image]
    included = dataset.anonymous.get(f"{path}?include=images").get_json(force=True)["included"]
    assert [(item["type"], item["id"]) for item in included] == [("event-image", str(image))]
    assert dataset.anonymous.get(f"/v1/event-images/{image}").status_code == 404


def test_an_image_says_what_it_is_and_where_it_can_be_fetched(dataset: Dataset) -> None:
    image = get_data(dataset.anonymous.get(f"/v1/event-images/{dataset.images['published']}"))

    digest = image["attributes"]["sha256"]
    assert image["attributes"].pop("created-at")
    assert image["attributes"] == {
        "name": "published.jpg",
        "image-url": f"{dataset.app.config['PUBLIC_URL']}/files/images/{digest}.jpg",
        "media-type": "image/jpeg",
        "width": 80,
        "height": 40,
        "size": 1000,
        "sha256": digest,
        "deleted-at": None,
    }
    assert image["relationships"]["event"]["data"] == build_linkage("event", dataset.events["published"])


def test_only_the_address_is_asked_for(dataset: Dataset) -> None:
    path = f"/v1/event-images/{dataset.images['published']}?fields[event-image]=image-url"

    assert list(get_data(dataset.anonymous.get(path))["attributes"]) == ["image-url"]


@pytest.mark.parametrize("role", ROLES)
def test_the_team_deletes_an_image(dataset: Dataset, role: str) -> None:
    path, event = f"/v1/event-images/{dataset.images['published']}", dataset.events["published"]
    expected = {"anonymous": 401, "stranger": 403}.get(role, 200)

    assert dataset.callers[role].delete(path).status_code == expected

    left = 404 if expected == 200 else 200
    assert dataset.owner.get(path).status_code == left
    assert len(get_ids(dataset.anonymous.get(f"/v1/events/{event}/images"))) == (left == 200)


@pytest.mark.parametrize(("role", "status"), [("owner", 403), ("stranger", 403), ("anonymous", 401), ("admin", 200)])
def test_admins_take_an_image_out_of_the_trash(dataset: Dataset, storage: Storage, role: str, status: int) -> None:
    image = dataset.images["published"]
    path = f"/v1/event-images/{image}"
    storage.put(
        storage.get_name_from_url(get_data(dataset.owner.get(path))["attributes"]["image-url"]), b"image", "image/jpeg"
    )
    dataset.owner.delete(path)

    restored = dataset.callers[role].send("PATCH", f"{path}?get_trashed=true", build_restore_document(image))

    assert restored.status_code == status
    assert dataset.owner.get(path).status_code == (200 if status == 200 else 404)


def test_the_file_of_a_deleted_image_is_deleted_and_the_image_cannot_be_restored(
    app: Flask, dataset: Dataset, storage: Storage
) -> None:
    image = dataset.images["published"]
    path = f"/v1/event-images/{image}"
    storage.put(
        storage.get_name_from_url(get_data(dataset.owner.get(path))["attributes"]["image-url"]), b"image", "image/jpeg"
    )

    dataset.owner.delete(path)
    run_state_hooks(app)

    assert list_files(storage) == []
    refused = dataset.admin.send("PATCH", f"{path}?get_trashed=true", build_restore_document(image))
    assert (refused.status_code, get_errors(refused)[0]["code"]) == (409, "file-deleted")


@pytest.mark.parametrize("role", ["owner", "admin"])
@pytest.mark.parametrize("name", ["name", "image-url", "media-type", "width", "height", "size", "sha256", "created-at"])
def test_an_attribute_is_read_only(dataset: Dataset, role: str, name: str) -> None:
    path = f"/v1/event-images/{dataset.images['published']}"
    before = get_data(dataset.owner.get(path))

    refused = dataset.callers[role].update(path, "event-image", {name: "2"})

    assert (refused.status_code, get_pointers(refused)) == (403, {f"/data/attributes/{name}"})
    assert get_data(dataset.owner.get(path)) == before


def test_an_image_sent_back_unchanged_is_taken(dataset: Dataset) -> None:
    path = f"/v1/event-images/{dataset.images['published']}"

    sent = dataset.coorganizer.send("PATCH", path, {"data": get_data(dataset.coorganizer.get(path))})

    assert sent.status_code == 200


def test_internal_columns_are_not_attributes(dataset: Dataset) -> None:
    path = f"/v1/event-images/{dataset.images['published']}"

    for name in ("stored-as", "source-sha256", "source_sha256"):
        assert name not in dataset.admin.get(path).text
        assert dataset.admin.update(path, "event-image", {name: "x"}).status_code == 422
        assert dataset.admin.get(f"/v1/event-images?filter[{name}]=x").status_code == 400


@pytest.mark.parametrize("role", ["anonymous", "owner", "admin"])
def test_nobody_posts_an_image(dataset: Dataset, role: str) -> None:
    caller, event = dataset.callers[role], dataset.events["published"]

    posted = caller.create("/v1/event-images", "event-image", {"name": "x.jpg"}, event=event)
    added = caller.send(
        "POST",
        "/v1/operations",
        {"atomic:operations": [{"op": "add", "data": {"type": "event-image"}}]},
        Content_Type='application/vnd.api+json; ext="https://jsonapi.org/ext/atomic"',
    )

    assert posted.status_code == 405
    assert {*posted.headers["Allow"].split(", ")} == {"GET", "HEAD", "OPTIONS"}
    assert added.status_code == (401 if role == "anonymous" else 403)
    assert len(get_ids(dataset.admin.get("/v1/event-images?get_trashed=true"))) == len(dataset.images)


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_the_images_of_an_event_are_not_changed_from_its_side(dataset: Dataset, method: str) -> None:
    event = dataset.events["published"]
    foreign = {"data": [build_linkage("event-image", dataset.images["draft"])]}

    related = dataset.owner.send(method, f"/v1/events/{event}/relationships/images", foreign)
    patched = dataset.owner.update(f"/v1/events/{event}", "event", None, images=[dataset.images["draft"]])

    assert (related.status_code, patched.status_code) == (403, 403)
    assert get_pointers(patched) == {"/data/relationships/images"}
    assert get_ids(dataset.owner.get(f"/v1/events/{event}/images")) == [dataset.images["published"]]


def test_an_image_stays_with_its_event(dataset: Dataset) -> None:
    path, event = f"/v1/event-images/{dataset.images['published']}", dataset.events["draft"]
    elsewhere = {"data": build_linkage("event", event)}

    related = dataset.owner.send("PATCH", f"{path}/relationships/event", elsewhere)
    patched = dataset.owner.update(path, "event-image", None, event=event)

    assert (related.status_code, patched.status_code) == (403, 403)
    assert get_pointers(patched) == {"/data/relationships/event"}


def test_an_event_is_read_with_its_images(dataset: Dataset) -> None:
    image = dataset.images["published"]

    document = dataset.anonymous.get(f"/v1/events/{dataset.events['published']}?include=images").get_json(force=True)

    assert document["data"]["relationships"]["images"]["data"] == [build_linkage("event-image", image)]
    assert [item["id"] for item in document["included"]] == [str(image)]
    dataset.owner.delete(f"/v1/event-images/{image}")
    document = dataset.anonymous.get(f"/v1/events/{dataset.events['published']}?include=images").get_json(force=True)
    assert document["included"] == []


def test_images_are_filtered_and_sorted_by_what_they_show(dataset: Dataset) -> None:
    everything = [dataset.images[name] for name in ("published", "draft", "private", "others")]
    path = "/v1/event-images"

    assert get_ids(dataset.admin.get(path)) == sorted(everything)
    assert get_ids(dataset.admin.get(f"{path}?filter[name]=draft.jpg")) == [dataset.images["draft"]]
    assert get_ids(dataset.admin.get(f"{path}?filter[width][gt]=80")) == []
    assert set(get_ids(dataset.admin.get(f"{path}?filter[media-type]=image/jpeg"))) == set(everything)
    by_name = [dataset.images[name] for name in ("published", "private", "others", "draft")]
    assert get_ids(dataset.admin.get(f"{path}?sort=-name")) == by_name
    assert get_ids(dataset.admin.get(f"{path}?sort=event.name")) == by_name[::-1]


@pytest.mark.parametrize("query", ["sort=image-url", "filter[image-url]=x", "filter[image_url][like]=x%25"])
def test_an_address_is_nothing_to_search_by(dataset: Dataset, query: str) -> None:
    refused = dataset.admin.get(f"/v1/event-images?{query}")

    assert refused.status_code == 400
    assert get_errors(refused)[0]["source"]["parameter"] == query.partition("=")[0]


def test_the_address_is_the_present_one(app: Flask, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    with app.app_context():
        monkeypatch.setattr(current_storage(), "public_url", "https://elsewhere.example.com")

    image = get_data(dataset.anonymous.get(f"/v1/event-images/{dataset.images['published']}"))

    assert image["attributes"]["image-url"].startswith("https://elsewhere.example.com/files/images/")
